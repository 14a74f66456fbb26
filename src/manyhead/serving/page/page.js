// The page: what is typed becomes requests, and answers become cards.

import { answersTable, brief, card, clipped, make, ms, taskRow, vectorCard, visible } from "./drawing.js";
import { Refusal, ask, curl, token } from "./server.js";

const get = (id) => document.getElementById(id);
const show = (id, shown) => { get(id).hidden = !shown; };
const SHOWN_EXAMPLES = 6; // without unfolding the rest
const PREDICT = "v1/predict", EMBED = "v1/embed";

let model = null; // what /v1/tasks says
let hasExperts = false; // whether each task has vectors of its own, which the server says when asked for others
let asked = null; // that whose answers are shown: {rows, reader, isList, isPair, expected}
let retry = start; // what "Try again", or a new token, repeats
const onTheirWay = { answers: null, examples: null }; // AbortControllers: a new request takes the place of the one before
let waiting = 0; // the timer of a Retry-After

const field = () => get(mode() === "many" ? "lines" : "first");
const mode = () => document.querySelector("[name=mode]:checked")?.value ?? "one";
const tasksOf = (width) => model.tasks.filter((task) => task.texts.length === width);
const information = (name) => model.tasks.find((task) => task.name === name);

// Requests, and what becomes of them

/** Runs `work`, whose result goes to `place`; what stands in its way is said, and can be tried again. */
async function attempt(place, work, again) {
  onTheirWay[place]?.abort();
  const mine = onTheirWay[place] = new AbortController();
  clearTimeout(waiting);
  show("trouble", false);
  get(place).setAttribute("aria-busy", "true");
  try {
    await work(mine.signal);
  } catch (error) {
    if (mine.signal.aborted) return;
    if (!(error instanceof Refusal)) throw error;
    if (error.code === "no_task" && !hasExperts) {
      hasExperts = true;
      arrange();
      await again();
      return;
    }
    retry = again;
    show(place, false);
    refuse(error);
  } finally {
    if (onTheirWay[place] === mine) get(place).removeAttribute("aria-busy");
  }
}

function refuse(refusal) {
  state({ 0: "out of reach", 401: "locked", 503: "not ready" }[refusal.status] ?? (model ? "ready" : "no answer"));
  if (refusal.status === 401) {
    askForToken();
    return;
  }
  trouble(refusal.words);
  if (refusal.wait !== null) waiting = setTimeout(waited, refusal.wait * 1000);
}

/** The time that the server named is over. Nothing is lost by asking once more for what the page begins with. */
function waited() {
  if (model) get("trouble-words").textContent = "The server should have room again now.";
  else retry();
}

function trouble(words, canRetry = true) {
  show("trouble", true);
  get("trouble-words").textContent = visible(words);
  show("again", canRetry);
  get("trouble").scrollIntoView({ block: "nearest" });
}

function askForToken() {
  get("token-why").textContent = token.get() ? "The server refused this token." : "This server answers only with a token.";
  token.drop();
  show("token", true);
  get("token-value").value = "";
  get("token-value").focus();
}

async function takeToken(event) {
  event.preventDefault();
  const value = get("token-value").value.trim();
  if (!/^[\x21-\x7e]+$/.test(value)) {
    get("token-why").textContent = "A token has no spaces and no letters beyond plain ASCII.";
    return;
  }
  token.set(value);
  get("token-value").value = "";
  show("token", false);
  await retry();
  if (get("token").hidden) field().focus();
}

const state = (words) => { get("state").textContent = words; };

// The start

async function start() {
  await attempt("answers", inform, start);
  if (model) await listExamples();
}

/** Asks what the model is; also when the server has taken up another one. */
async function inform(signal) {
  model = await ask("v1/tasks", { signal });
  state("ready");
  describe();
}

function describe() {
  const { tasks, name } = model, count = tasks.length;
  document.title = `${visible(name)} · manyhead`;
  get("name").textContent = visible(name);
  get("summary").textContent = `${count === 1 ? "One task" : `${count} tasks`} from one encoder: ${tasks.map((task) => visible(task.name)).join(", ")}.`;
  get("model-tasks").replaceChildren(...tasks.map(taskRow));
  get("model-facts").textContent = `Reads ${model.max_tokens} tokens of a text at most, and ${model.limits.max_texts.toLocaleString("en")} texts a request. Model ${visible(model.model_id.slice(0, 12))}.`;
  for (const select of [get("examples-task"), get("reader-task")]) {
    const was = select.value;
    select.replaceChildren(...tasks.map((task) => new Option(visible(task.name), task.name)));
    if (information(was)) select.value = was;
  }
  show("mode-one", tasksOf(1).length > 0);
  show("examples-of", count > 1);
  get("lines-name").textContent = tasksOf(2).length === 0 ? "One text a line" : "One text a line; a pair is two texts with a tab between";
  if (!document.querySelector("[name=mode]:checked")) choose(tasksOf(1).length > 0 ? "one" : "two");
  show("ask-part", true);
  show("model", true);
}

// Asking

function choose(value) {
  document.querySelector(`[name=mode][value=${value}]`).checked = true;
  arrange();
}

function arrange() {
  const now = mode();
  for (const part of document.querySelectorAll("[data-mode]")) part.hidden = part.dataset.mode !== now;
  for (const id of ["first", "first-name"]) show(id, now !== "many");
  show("reader", now === "two" && hasExperts);
  get("first-name").textContent = now === "two" ? "First text" : "Text";
  get("keys").textContent = now === "many" ? "Ctrl + Enter predicts" : "Enter predicts, Shift + Enter starts a line";
}

/** The rows of texts that the fields hold, or a sentence that says why there are none. */
function rowsAsked() {
  const now = mode();
  if (now !== "many") {
    const rows = [now === "one" ? [get("first").value] : [get("first").value, get("second").value]];
    return rows[0].every((text) => text.trim() === "") ? "Write a text first." : rows;
  }
  const rows = get("lines").value.split(/\r?\n/).filter((line) => line.trim() !== "").map((line) => line.split("\t"));
  if (rows.length === 0) return "Write a text first.";
  const odd = rows.findIndex((row) => row.length !== rows[0].length);
  if (odd > 0) return `Line ${odd + 1} has ${rows[odd].length} texts and the first has ${rows[0].length}; all need as many.`;
  if (tasksOf(rows[0].length).length === 0) return `No task of this model reads ${rows[0].length === 1 ? "one text" : `${rows[0].length} texts`} a line.`;
  if (rows.length > model.limits.max_texts) return `${rows.length} lines; the server takes ${model.limits.max_texts} texts at once.`;
  return rows;
}

const bodyOf = (rows, extra = {}) => JSON.stringify({ texts: rows.map((row) => row.length === 1 ? row[0] : row), ...extra });

function run() {
  const rows = rowsAsked(), isPair = mode() === "two";
  if (typeof rows === "string") {
    onTheirWay.answers?.abort();
    show("answers", false);
    trouble(rows, false);
    field().focus();
    return undefined;
  }
  const reader = hasExperts ? get("reader-task").value : null, requests = [];
  if (tasksOf(rows[0].length).length > 0) requests.push([PREDICT, bodyOf(rows)]);
  if (isPair) requests.push([EMBED, bodyOf(rows[0].map((text) => [text]), reader === null ? {} : { task: reader })]);
  const what = { rows, reader, isList: mode() === "many", isPair, expected: expected(rows) };
  return attempt("answers", async (signal) => {
    for (const [, body] of requests) checkSize(body);
    const began = performance.now();
    const answers = await Promise.all(requests.map(([path, body]) => ask(path, { body, signal })));
    const took = performance.now() - began, found = Object.fromEntries(requests.map(([path], place) => [path, answers[place]]));
    if (Object.keys(found[PREDICT]?.predictions ?? {}).some((name) => !information(name))) await inform(signal);
    asked = what;
    answer(found[PREDICT], found[EMBED], took);
    get("curl").textContent = requests.map(([path, body]) => curl(path, body)).join("\n\n");
    get("copied").textContent = "";
    state("ready");
  }, run);
}

function checkSize(body) {
  const bytes = new Blob([body]).size, most = model.limits.max_bytes;
  if (bytes > most) throw new Refusal(413, `These texts are ${bytes.toLocaleString("en")} bytes; the server takes ${most.toLocaleString("en")} at once. Send less.`);
}

// Answers

function answer(predicted, embedded, took) {
  const { rows, isList } = asked, predictions = predicted?.predictions ?? {};
  const names = model.tasks.map((task) => task.name).filter((name) => Object.hasOwn(predictions, name)), cards = [];
  if (!isList) {
    for (const name of names) {
      const target = asked.expected?.task === name ? asked.expected.target : undefined;
      cards.push(card(name, predictions[name][0], information(name), target));
    }
    if (embedded) cards.push(vectorCard(embedded.embeddings, asked.reader));
  }
  get("cards").replaceChildren(...cards);
  get("table").replaceChildren(...(isList ? [answersTable(rows, names, predictions)] : []));
  const cut = names.filter((name) => predictions[name].some((said) => said.truncated));
  if (embedded?.truncated.some(Boolean)) cut.push("the vectors");
  show("cut", cut.length > 0);
  get("cut").textContent = `Longer than the model reads: cut to ${model.max_tokens} tokens for ${cut.map(visible).join(", ")}.`;
  get("timing").textContent = timing(predicted ?? embedded, took);
  show("answers", true);
  get("said").textContent = isList ? `${rows.length} texts answered.`
    : [...names.map((name) => `${visible(name)}: ${brief(predictions[name][0])}`), ...(embedded ? ["vectors compared"] : [])].join("; ");
}

function timing({ timing: parts }, took) {
  const inside = parts ? `, ${ms(parts.total_ms)} in the server: ${ms(parts.queue_ms)} waiting, ${ms(parts.model_ms)} model` : "";
  return `${ms(took)} in all${inside}`;
}

async function copy() {
  try {
    await navigator.clipboard.writeText(get("curl").textContent);
    get("copied").textContent = "Copied.";
  } catch { // the clipboard is closed to pages that come without TLS from another machine
    getSelection().selectAllChildren(get("curl"));
    get("copied").textContent = "Selected; Ctrl + C copies it.";
  }
}

// Examples

let chosen = null; // {task, target, texts} of the example in the fields

/** The example that these rows still are, or null. */
function expected([row]) {
  const isIt = chosen?.texts.length === row.length && chosen.texts.every((text, place) => sameText(text, row[place]));
  return isIt && mode() !== "many" ? chosen : null;
}

/** A field turns each end of a line into one character. */
const sameText = (one, other) => one.replace(/\r\n?/g, "\n") === other;

function listExamples() {
  const task = get("examples-task").value;
  return attempt("examples", (signal) => examplesOf(task, signal), listExamples);
}

async function examplesOf(task, signal) {
  const { examples } = await ask(`v1/examples?task=${encodeURIComponent(task)}`, { signal });
  show("examples", examples.length > 0 || model.tasks.length > 1);
  get("examples-what").textContent = examples.length > 0 ? "From the model's own dev set, with the true answer." : "The model brought no examples of this task.";
  const items = examples.map((example) => item({ task, ...example })), rest = items.splice(SHOWN_EXAMPLES);
  get("examples-list").replaceChildren(make("ul", { class: "plain" }, ...items));
  if (rest.length > 0) get("examples-list").append(make("details", {}, make("summary", {}, `${rest.length} more`), make("ul", { class: "plain" }, ...rest)));
}

function item(example) {
  const button = make("button", { type: "button", class: "example" },
    ...example.texts.map((text) => make("span", { dir: "auto" }, clipped(text, 240))), make("small", {}, "true answer: ", make("bdi", {}, example.target)));
  button.addEventListener("click", () => take(button, example));
  return make("li", {}, button);
}

async function take(button, example) {
  choose(example.texts.length === 2 ? "two" : "one");
  get("first").value = example.texts[0];
  get("second").value = example.texts[1] ?? "";
  chosen = example;
  unmark();
  button.setAttribute("aria-current", "true");
  await run();
  if (!get("answers").hidden && getComputedStyle(get("examples")).position !== "sticky") get("answers").scrollIntoView();
}

function unmark() {
  for (const example of document.querySelectorAll(".example[aria-current]")) example.removeAttribute("aria-current");
}

// Wiring

get("ask").addEventListener("submit", (event) => { event.preventDefault(); run(); });
get("ask").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.isComposing || event.target.tagName !== "TEXTAREA") return;
  const plain = !event.shiftKey && mode() !== "many";
  if (!plain && !event.ctrlKey && !event.metaKey) return;
  event.preventDefault();
  run();
});
get("ask").addEventListener("input", unmark);
for (const radio of document.querySelectorAll("[name=mode]")) radio.addEventListener("change", () => { arrange(); unmark(); });
get("reader-task").addEventListener("change", () => { if (asked?.isPair && !get("answers").hidden) run(); });
get("examples-task").addEventListener("change", listExamples);
get("token").addEventListener("submit", takeToken);
get("again").addEventListener("click", () => { retry(); get("run").focus(); }); // the button itself goes
get("copy").addEventListener("click", copy);
start();
