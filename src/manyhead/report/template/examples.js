"use strict";
(() => {
  const tasks = JSON.parse(document.getElementById("examples-data").textContent);
  const get = (name) => document.getElementById("examples-" + name);
  const form = get("filters"), body = get("rows"), found = get("found"), pager = get("pager");
  const controls = { task: get("task"), shown: get("shown"), target: get("target"), predicted: get("predicted"), slice: get("slice"), query: get("query") };
  const PAGE = 25;
  let matching = [], page = 0;

  const element = (tag, text, className) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };
  const fold = (text) => text.normalize("NFKC").toLowerCase();
  const options = (select, all, names) => {
    select.replaceChildren(new Option(all, ""), ...names.map((name, index) => new Option(name, String(index))));
    select.disabled = names.length === 0;
  };
  const task = () => tasks[Number(controls.task.value)];
  const isWrong = (row) => row[4].some((said) => !said[3]);
  const differs = (row) => row[4].some((said) => said[0] !== row[4][0][0]);
  const KINDS = { "": () => true, wrong: isWrong, right: (row) => !isWrong(row), differ: differs };

  for (const each of tasks) for (const row of each.rows) row.push(fold([row[0], ...row[1]].join("\n")));

  function prepare() {
    const each = task(), score = each.regression;
    options(controls.target, score ? "any target" : "any class", each.classes);
    options(controls.predicted, score ? "any score" : "any class", each.classes);
    options(controls.slice, "all examples", each.slices);
    const kinds = [["all", ""], ["mistakes", "wrong"], ["right ones", "right"]];
    if (each.runs.length > 1) kinds.push(["where runs differ", "differ"]);
    controls.shown.replaceChildren(...kinds.map(([name, value]) => new Option(name, value)));
    const head = get("head");
    head.replaceChildren();
    const names = ["example", "target", ...(each.runs.length > 1 ? each.runs : ["predicted"])];
    names.forEach((name) => { const cell = element("th", name); cell.scope = "col"; head.append(cell); });
  }

  function filter() {
    const each = task(), words = fold(controls.query.value).split(/\s+/).filter(Boolean);
    const [target, predicted, slice] = [controls.target, controls.predicted, controls.slice].map((select) => select.value === "" ? -1 : Number(select.value));
    const kind = KINDS[controls.shown.value];
    matching = each.rows.filter((row) => kind(row) && (target < 0 || row[2] === target)
      && (predicted < 0 || row[4].some((said) => said[0] === predicted))
      && (slice < 0 || row[5].includes(slice)) && words.every((word) => row[6].includes(word)));
    page = 0;
    show();
  }

  function show() {
    const each = task(), count = matching.length, start = page * PAGE, rows = matching.slice(start, start + PAGE);
    const names = ["target", ...(each.runs.length > 1 ? each.runs : ["predicted"])];
    body.replaceChildren(...rows.map((row) => line(row, names)));
    const total = each.rows.length.toLocaleString("en");
    found.textContent = count === 0 ? `No example of ${total} matches.`
      : `${count.toLocaleString("en")} of ${total} examples; ${(start + 1).toLocaleString("en")} to ${(start + rows.length).toLocaleString("en")} are shown.`;
    pager.hidden = count <= PAGE;
    get("previous").disabled = page === 0;
    get("next").disabled = start + PAGE >= count;
  }

  function line(row, names) {
    const made = element("tr"), first = element("th", undefined, "text");
    first.scope = "row";
    row[1].forEach((text) => { const shown = element("p", text); shown.dir = "auto"; first.append(shown); });
    first.append(element("small", row[0]));
    made.append(first, value(names[0], row[3]));
    row[4].forEach((said, index) => {
      const cell = value(names[index + 1], said[1], said[3] ? "right" : "wrong");
      if (said[2] !== "") cell.append(element("small", said[2]));
      made.append(cell);
    });
    return made;
  }

  function value(name, text, mark) {
    const cell = element("td", undefined, mark);
    cell.dataset.name = name;
    cell.append(element("bdi", text));
    if (mark) cell.append(element("span", mark === "right" ? " (right)" : " (wrong)", "unseen"));
    return cell;
  }

  function clear() {
    controls.query.value = "";
    prepare();
    filter();
  }

  function turn(by) {
    page += by;
    show();
    get("table").scrollIntoView({ block: "nearest" });
  }

  controls.task.addEventListener("change", () => { prepare(); filter(); });
  for (const name of ["shown", "target", "predicted", "slice"]) controls[name].addEventListener("change", filter);
  controls.query.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  get("clear").addEventListener("click", clear);
  get("previous").addEventListener("click", () => turn(-1));
  get("next").addEventListener("click", () => turn(1));
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-task]");
    if (!link || !tasks[Number(link.dataset.task)]) return;
    controls.task.value = link.dataset.task;
    clear();
    for (const name of ["shown", "target", "predicted", "slice"]) if (name in link.dataset) controls[name].value = link.dataset[name];
    filter();
  });
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => { each.open = true; }));

  controls.task.replaceChildren(...tasks.map((each, index) => new Option(each.name, String(index))));
  form.hidden = false;
  get("table").hidden = false;
  prepare();
  filter();
})();
