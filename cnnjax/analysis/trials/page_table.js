// The table of trials or of runs, what it is filtered and sorted by, and the start of the page.
const words = t => [t.name, ...Object.entries(t.tags).flat()].join(" ").toLowerCase();
const visible = t => $("filter").value.toLowerCase().split(/\s+/)
  .every(word => words(t).includes(word));

// key, heading, whether it is a number, what it sorts by and what it shows. r is a run or null.
function columns() {
  const tags = sweep.tags.map(key => ({key: `tag ${key}`, head: key,
    number: typeof sweep.trials.find(t => t.tags[key] !== undefined)?.tags[key] === "number",
    sort: t => t.tags[key] ?? null, show: t => String(t.tags[key] ?? "")}));
  const each = $("each").checked;
  const of = (key, head, sort, show) => ({key, head, number: true, sort, show});
  const mean = key => (t, r) => each ? r[key] : t[key]?.mean ?? null;
  return [
    {key: "name", head: "trial", sort: t => t.name, show: t => t.name},
    ...each ? [of("seed", "seed", (t, r) => r.seed, (t, r) => String(r.seed))] : [],
    ...tags.filter(c => !c.head.startsWith("published")),
    of("top1", "top-1 (%)", mean("top1"), (t, r) => each ? percent(r.top1) : spread(t.top1)),
    ...each ? [] : [of("interval", "95 % interval", mean("top1"), t => interval(t.top1))],
    of("top5", "top-5 (%)", mean("top5"), (t, r) => each ? percent(r.top5) : spread(t.top5)),
    of("train", "training top-1 (%)", mean("train_top1"),
      (t, r) => each ? percent(r.train_top1) : spread(t.train_top1)),
    of("train_loss", "training loss", mean("train_loss"),
      (t, r) => short(each ? r.train_loss : t.train_loss.mean)),
    of("params", "parameters", t => t.params, t => t.params?.toLocaleString("en") ?? ""),
    of("multiply_adds", "multiply-adds", t => t.multiply_adds, t => short(t.multiply_adds)),
    of("seconds", "seconds", (t, r) => each ? r.seconds : t.seconds,
      (t, r) => short(each ? r.seconds : t.seconds)),
    of("images_per_second", "images/s", (t, r) => each ? r.images_per_second : t.images_per_second,
      (t, r) => short(each ? r.images_per_second : t.images_per_second)),
    ...each ? [] : [of("n", "seeds", t => t.top1.n, t => String(t.top1.n))],
    ...tags.filter(c => c.head.startsWith("published")),
    ...each ? [] : [{key: "front", head: "Pareto front", sort: t => t.front.length,
      show: t => t.front.join(", ")}],
    {key: "state", head: each ? "state" : "runs", sort: (t, r) => each ? r.state : states(t),
      show: (t, r) => each ? r.state : states(t)}];
}
function compare(a, b) {
  if (a === null || a === undefined) return b === null || b === undefined ? 0 : NaN;
  if (b === null || b === undefined) return NaN;
  return typeof a === "number" && typeof b === "number" ? a - b
    : String(a).localeCompare(String(b), "en", {numeric: true});
}
function sorted(rows, column) {
  return rows.sort((p, q) => {
    const a = column.sort(p.t, p.r), b = column.sort(q.t, q.r), c = compare(a, b);
    // What has no value comes last, whichever way.
    if (Number.isNaN(c)) return a === null || a === undefined ? 1 : -1;
    return (state.down ? -c : c) || p.i - q.i;
  });
}
function drawTable() {
  const each = $("each").checked, all = columns();
  const column = all.find(c => c.key === state.sort) ?? all[0];
  let rows = sweep.trials.map((t, i) => ({t, i, r: null})).filter(p => visible(p.t));
  if (each) rows = rows.flatMap(p => p.t.runs.map(r => ({...p, r})));
  $("shown").textContent = `${rows.length} ${each ? "runs" : "trials"}`;
  const head = element("tr", {}, ...all.map(heading));
  const body = element("tbody");
  const opened = new Set();
  for (const p of sorted(rows, column)) {
    body.append(line(p, all));
    if (p.i === state.chosen && !opened.has(p.i)) {
      opened.add(p.i);
      body.append(more(p.t, all.length));
    }
  }
  $("table").replaceChildren(element("thead", {}, head), body);
  highlight();
}
function heading(c) {
  const mine = c.key === state.sort;
  const button = element("button", {type: "button"}, c.head
    + (mine ? (state.down ? " ▾" : " ▴") : ""));
  button.addEventListener("click", () => {
    state.down = mine ? !state.down : Boolean(c.number);
    state.sort = c.key;
    drawTable();
  });
  return element("th", {scope: "col", class: c.number ? "number" : null,
    "aria-sort": mine ? (state.down ? "descending" : "ascending") : null}, button);
}
function line(p, all) {
  const bad = p.r ? !p.r.finished : p.t.runs.every(r => !r.finished);
  const row = element("tr", {class: `trial mark${bad ? " bad" : ""}`, "data-i": p.i, tabindex: 0},
    ...all.map(c => element("td", {class: c.number ? "number" : null}, c.show(p.t, p.r))));
  row.addEventListener("pointerenter", () => { state.hover = p.i; highlight(); });
  row.addEventListener("pointerleave", () => { state.hover = null; highlight(); });
  row.addEventListener("click", () => choose(p.i));
  row.addEventListener("keydown", event => { if (event.key === "Enter") choose(p.i); });
  return row;
}
function more(t, span) {
  const overrides = t.overrides.join("\n") || "no overrides";
  const runs = t.runs.map(r => `seed ${r.seed}: ${r.state}`
    + (r.top1 === null ? "" : `, top-1 ${percent(r.top1)} %`)
    + (r.steps === null ? "" : `, ${r.steps.toLocaleString("en")} steps`)
    + (r.message ? `\n  ${r.message}` : "")).join("\n");
  return element("tr", {class: "more"}, element("td", {colspan: span},
    element("pre", {}, overrides), element("pre", {}, runs)));
}

function drawLegend() {
  const key = $("colour").value, found = key ? values(key) : [];
  const few = found.length <= COLOURS.length;
  $("legend").replaceChildren(...(key && few ? found : []).map(value => {
    const t = sweep.trials.find(t => String(t.tags[key] ?? "") === value);
    return element("span", {}, element("svg", {width: 14, height: 14},
      element("path", {d: shapePath(shapeOf(t), 7, 7, 5), fill: colourOf(t)})),
    `${key} ${value || "–"}`);
  }), key && !few ? `${key}: blue is the least, yellow the most` : "");
}
function drawFailures() {
  const bad = sweep.trials.flatMap(t => t.runs.filter(r => !r.finished).map(r => ({t, r})));
  if (!bad.length) return;
  $("failures").hidden = false;
  const total = sweep.trials.reduce((n, t) => n + t.runs.length, 0);
  const text = bad.map(({t, r}) => `${t.name}, seed ${r.seed}: ${r.state}`
    + (r.message ? `: ${r.message.trim().split("\n").pop()}` : "")).join("\n");
  $("failures").replaceChildren(
    element("h2", {}, `${bad.length} of ${total} runs did not finish`),
    bad.length > 5 ? element("details", {}, element("summary", {}, "which"),
      element("pre", {}, text)) : element("pre", {}, text));
}
function draw() {
  drawLegend();
  drawChart();
  drawGrid();
  drawCurves();
  drawTable();
}
function start() {
  const options = (id, pairs) => $(id).replaceChildren(...pairs.map(([value, text]) =>
    element("option", {value}, text)));
  const differs = a => new Set(sweep.trials.map(a.of).filter(v => v !== null)).size > 1;
  const across = ACROSS.filter(differs);
  options("x", (across.length ? across : ACROSS.slice(0, 1)).map(a => [a.key, a.label]));
  options("y", UP.map(u => [u.key, u.label]));
  const telling = sweep.tags.filter(key => {
    const n = values(key).length;
    return n > 1 && (n <= COLOURS.length || sweep.numbers.includes(key));
  });
  options("colour", [...telling.map(key => [key, key]), ["", "nothing"]]);
  if (sweep.series) $("colour").value = sweep.series;
  $("about").textContent = sweep.about;
  for (const id of ["x", "y", "colour"]) $(id).addEventListener("change", draw);
  $("filter").addEventListener("input", draw);
  $("each").addEventListener("change", drawTable);
  let width = 0;
  new ResizeObserver(() => {
    if (width === document.body.clientWidth) return;
    width = document.body.clientWidth;
    draw();
  }).observe(document.body);
  drawFailures();
  draw();
}
start();
