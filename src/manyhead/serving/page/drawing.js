// From answers to elements. Text reaches the page as text nodes only, and what could not be seen in it is spelled out.

const SHOWN_LABELS = 8;

// As in reports: characters that reorder or hide text.
const UNSEEN = new RegExp(
  "[\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f\\u00ad\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180e\\u200b\\u200e\\u200f"
  + "\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ud800-\\udfff\\ufeff\\uffa0\\ufff0-\\ufffb\\u{1bca0}-\\u{1bca3}\\u{1d173}-\\u{1d17a}\\u{e0000}-\\u{e0fff}]", "gu");

export const visible = (text) => String(text).replace(UNSEEN, (found) => {
  const code = found.codePointAt(0).toString(16);
  return code.length > 4 ? `\\U${code.padStart(8, "0")}` : `\\u${code.padStart(4, "0")}`;
});

export const clipped = (text, most = 400) => {
  const letters = text.length > most ? Array.from(text.slice(0, 2 * most)) : [];
  return letters.length > most ? `${letters.slice(0, most).join("")} …` : text;
};

/** An element with attributes, and children that are elements or become text. */
export function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null && value !== false) made.setAttribute(name, value);
  made.append(...children.filter((child) => child !== null).map((child) => child instanceof Node ? child : visible(child)));
  return made;
}

const bdi = (text) => make("bdi", {}, text);
const minus = (text) => text.replace("-", "\u2212");
export const decimal = (value, digits = 3) => minus(value.toFixed(digits));
export const percent = (share) => {
  if (share > 0 && share < 0.005) return "<1 %";
  return share < 1 && share >= 0.995 ? ">99 %" : `${Math.round(share * 100)} %`;
};
export const ms = (value) => value === undefined || value === null ? "" : `${value < 10 ? value.toFixed(1) : Math.round(value).toLocaleString("en")} ms`;
/** A number of an end of a range, or of a target, without zeros that say nothing. */
const plain = (value) => minus(String(Number(Number(value).toFixed(3))));

/** What was said, in few words: "positive, 83 %" or "3.812". */
export function brief(said) {
  const best = said.probabilities?.[said.label];
  if (said.score !== null && said.score !== undefined) return decimal(said.score);
  return best === undefined ? visible(said.label ?? said.value) : `${visible(said.label)}, ${percent(best)}`;
}

/** Whether a target, a label or a cell of the data, names what was said. */
const isTrue = (said, target) => [said.label, said.value].some((name) => String(name) === String(target));

/** The card of one answer; `target` is the true one, or undefined. */
export function card(name, said, task, target) {
  const made = make("article", { class: "card", "data-task": name }, make("h3", {}, bdi(name)));
  const isScore = said.score !== null && said.score !== undefined;
  const [low, high] = task?.range ?? [null, null];
  const figure = make("p", { class: "figure" }, bdi(isScore ? decimal(said.score) : said.label ?? String(said.value)));
  if (isScore && low !== null) figure.append(make("span", {}, ` on ${plain(low)} to ${plain(high)}`));
  made.append(figure);
  if (target !== undefined) {
    const right = isTrue(said, target);
    const verdict = isScore ? `${decimal(Math.abs(said.score - target))} apart` : right ? "right" : "wrong";
    if (!isScore) made.classList.add(right ? "right" : "wrong");
    made.append(make("p", { class: "truth" }, "True answer: ", bdi(isScore ? plain(target) : String(target)), ", ", make("strong", {}, verdict)));
  }
  if (isScore && low !== null) made.append(...scale(said.score, low, high, `Score of ${name}`, target));
  if (said.probabilities) made.append(...bars(name, said, task?.labels, target));
  return made;
}

/** A score on its range. */
function scale(value, low, high, name, target) {
  const at = (place) => String(Math.min(1, Math.max(0, (place - low) / (high - low))));
  const made = make("div", {
    class: "scale", role: "meter", "aria-label": name, "aria-valuemin": low, "aria-valuemax": high,
    "aria-valuenow": Math.min(high, Math.max(low, value)), "aria-valuetext": `${decimal(value)} on ${plain(low)} to ${plain(high)}`,
  });
  made.style.setProperty("--at", at(value));
  if (target !== undefined) {
    const mark = make("span", { "aria-hidden": "true" });
    mark.style.setProperty("--truth", at(target));
    made.append(mark);
  }
  return [made, make("div", { class: "ends", "aria-hidden": "true" }, make("span", {}, plain(low)), make("span", {}, plain(high)))];
}

/** Probabilities in the order of the labels; of many labels the most probable ones first, the others below. */
function bars(name, said, labels, target) {
  // An object has an order of its own where labels are numbers; and a reloaded model can have other labels.
  const isOrder = labels?.every((label) => Object.hasOwn(said.probabilities, label));
  let shares = isOrder ? labels.map((label) => [label, said.probabilities[label]]) : Object.entries(said.probabilities);
  const rows = (some, caption) => make("table", { class: "bars" }, make("caption", { class: "unseen" }, caption),
    make("tbody", {}, ...some.map(([label, share]) => bar(label, share, label === said.label, target !== undefined && String(target) === label))));
  if (shares.length <= SHOWN_LABELS) return [rows(shares, `Probabilities of ${name}`)];
  shares = shares.toSorted((one, other) => other[1] - one[1]);
  const rest = shares.slice(SHOWN_LABELS);
  return [
    rows(shares.slice(0, SHOWN_LABELS), `Highest probabilities of ${name}`),
    make("details", {}, make("summary", {}, `${rest.length} more`), rows(rest, `Lower probabilities of ${name}`)),
  ];
}

function bar(label, share, isBest, isTarget) {
  const head = make("th", { scope: "row" }, bdi(label), isTarget ? make("span", { class: "tag" }, "true") : null);
  const made = make("tr", { class: isBest ? "best" : null }, head, make("td", {}, percent(share)));
  made.style.setProperty("--share", String(share));
  return made;
}

/** How near the vectors of two texts are. */
export function vectorCard([one, other], reader) {
  const value = cosine(one, other);
  const made = make("article", { class: "card", "data-vectors": "" }, make("h3", {}, "Vectors of the two texts"),
    make("p", { class: "figure" }, value === null ? "undefined" : decimal(value), make("span", {}, " cosine")));
  if (value !== null) made.append(...scale(value, -1, 1, "Cosine of the two vectors"));
  made.append(make("p", { class: "soft" }, `Each text was read alone${reader ? `, for ${visible(reader)}` : ""}; ${one.length.toLocaleString("en")} numbers each. `
    + "1 is the same direction. Unless a task trains them to, texts that differ can lie close as well."));
  return made;
}

/** The cosine of two vectors, null where one has no direction. */
export function cosine(one, other) {
  const dot = (a, b) => a.reduce((sum, value, place) => sum + value * b[place], 0);
  const lengths = Math.sqrt(dot(one, one)) * Math.sqrt(dot(other, other));
  return lengths > 0 ? Math.min(1, Math.max(-1, dot(one, other) / lengths)) : null;
}

/** One row a text, one column a task. */
export function answersTable(rows, names, predictions) {
  const head = make("tr", {}, make("th", { scope: "col" }, "text"), ...names.map((name) => make("th", { scope: "col" }, bdi(name))));
  const body = rows.map((texts, place) => make("tr", {},
    make("th", { scope: "row", class: "text" }, ...texts.map((text) => make("p", { dir: "auto" }, clipped(text)))),
    ...names.map((name) => {
      const said = predictions[name][place], best = said.probabilities?.[said.label];
      const cell = make("td", {}, bdi(said.label ?? (said.score === null ? String(said.value) : decimal(said.score))));
      cell.dataset.name = visible(name);
      if (best !== undefined) cell.append(make("small", {}, percent(best)));
      if (said.truncated) cell.append(make("small", {}, "cut"));
      return cell;
    })));
  return make("table", { class: "wide list" }, make("caption", { class: "unseen" }, "Answers for each text"),
    make("thead", {}, head), make("tbody", {}, ...body));
}

/** One line of the table of tasks. */
export function taskRow(task) {
  const says = task.labels ? task.labels.slice(0, 12).join(", ") + (task.labels.length > 12 ? ` and ${task.labels.length - 12} more` : "")
    : task.range ? `a score on ${plain(task.range[0])} to ${plain(task.range[1])}` : "a score";
  const score = make("td", {}, typeof task.score === "number" ? decimal(task.score) : "–");
  const [low, high] = task.interval ?? [];
  score.append(make("small", {}, String(task.metric ?? "").replaceAll("_", " ") + (typeof low === "number" ? `, ${decimal(low)} to ${decimal(high)}` : "")));
  const made = make("tr", {}, make("th", { scope: "row" }, bdi(task.name)), make("td", { class: "text" }, task.texts.join(" and ")), make("td", { class: "text" }, says), score);
  ["", "reads", "says", "dev score"].forEach((name, place) => { made.cells[place].dataset.name = name; });
  return made;
}
