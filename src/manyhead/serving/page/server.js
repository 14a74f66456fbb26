// Talking to the server: requests, the token, and what its refusals mean in words.

const TOKEN = "manyhead-token"; // the key in sessionStorage, which lives as long as the tab
const PATIENCE_MS = 120_000;

export const token = {
  get: () => sessionStorage.getItem(TOKEN) ?? "",
  set: (value) => sessionStorage.setItem(TOKEN, value),
  drop: () => sessionStorage.removeItem(TOKEN),
};

/** An answer that is none. `status` is 0 where the server could not be reached, `code` the server's name of the matter,
    `wait` seconds or null. */
export class Refusal extends Error {
  constructor(status, message = "", { code = "", wait = null } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.wait = wait;
  }

  get words() {
    const later = this.wait === null ? "in a moment" : `in ${seconds(this.wait)}`;
    switch (this.status) {
      case 0: return "The server cannot be reached: it has stopped, or the network is down. What you wrote is still here.";
      case 429: return `The server has more to do than it can take at once. Try again ${later}.`;
      case 502: case 503: return `The server is not ready: it is starting or stopping. Try again ${later}.`;
      case 504: return "The server found no time for this within its limit. Try again, or send less at once.";
      default: return this.message || `The server answered with an error (${this.status}) and no reason.`;
    }
  }
}

/** The JSON that the server answers to a GET, or to a POST of `body`. Throws `Refusal`, or an `AbortError`. */
export async function ask(path, { body, signal } = {}) {
  const headers = { accept: "application/json" };
  if (body !== undefined) headers["content-type"] = "application/json";
  if (token.get()) headers.authorization = `Bearer ${token.get()}`;
  const limits = [AbortSignal.timeout(PATIENCE_MS), ...(signal ? [signal] : [])];
  let answer, content;
  try {
    answer = await fetch(path, {
      method: body === undefined ? "GET" : "POST", headers, body, signal: AbortSignal.any(limits),
      cache: "no-store", credentials: "same-origin", redirect: "error", referrerPolicy: "no-referrer",
    });
    content = await answer.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refusal(error.name === "TimeoutError" ? 504 : 0);
  }
  const said = parsed(content);
  if (!answer.ok) {
    const wait = waiting(answer.headers.get("retry-after"));
    throw new Refusal(answer.status, said?.error?.message, { code: said?.error?.code, wait });
  }
  if (said === undefined) throw new Refusal(answer.status, "The server's answer cannot be read; is this address manyhead's?");
  return said;
}

function parsed(content) {
  try {
    return JSON.parse(content);
  } catch {
    return undefined;
  }
}

/** Seconds to wait, from a Retry-After header: a number of them, or a date. */
function waiting(header) {
  if (!header) return null;
  const said = /^\d+$/.test(header.trim()) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Number.isFinite(said) ? Math.max(0, Math.ceil(said)) : null;
}

function seconds(count) {
  return count < 120 ? `${count} second${count === 1 ? "" : "s"}` : `${Math.round(count / 60)} minutes`;
}

/** JSON in which any character that is not plain ASCII is spelled out, so that a terminal shows and passes all of it. */
const spelled = (body) => body.replace(/[^\x20-\x7e]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** The command that makes the same request; a token is named, never shown. */
export function curl(path, body) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  return [
    `curl ${quoted(new URL(path, document.baseURI).href)}`,
    ...(token.get() ? ['-H "Authorization: Bearer $MANYHEAD_TOKEN"'] : []),
    "-H 'Content-Type: application/json'",
    `-d ${quoted(spelled(body))}`,
  ].join(" \\\n  ");
}
