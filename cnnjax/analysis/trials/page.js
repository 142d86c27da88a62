"use strict";
// The sweep as the page holds it, the trial pointed at and the one chosen, by index, or null.
const sweep = JSON.parse(document.getElementById("data").textContent);
const state = {hover: null, chosen: null, sort: "top1", down: true};
const COLOURS = sweep.colours;
const SHAPES = ["circle", "square", "triangle", "diamond", "down", "cross", "star", "bar"];
const $ = id => document.getElementById(id);

function element(tag, attributes = {}, ...children) {
  const svg = ["svg", "g", "path", "line", "text", "rect", "circle"].includes(tag);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes))
    if (value !== null && value !== undefined) node.setAttribute(name, value);
  node.append(...children.filter(child => child !== null && child !== undefined));
  return node;
}

// Numbers as people read them, and the values of a tag, which are not rounded to one another.
function short(value) {
  if (value === null || value === undefined) return "";
  for (const unit of ["", " k", " M", " G", " T"]) {
    if (Math.abs(value) < 999.5 || unit === " T") return `${+value.toPrecision(3)}${unit}`;
    value /= 1000;
  }
}
const exact = value => String(+value.toPrecision(6));
const percent = (value, digits = 2) => value === null ? "" : (100 * value).toFixed(digits);
const spread = s => !s || s.mean === null ? "" : percent(s.mean)
  + (s.std === null ? "" : ` ± ${percent(s.std)}`);
const interval = s => !s || s.half === null ? ""
  : `${percent(s.mean - s.half)} to ${percent(s.mean + s.half)}`;
const states = trial => Object.entries(trial.states).map(([k, n]) => `${n} ${k}`).join(", ");

// What can stand on an axis: its name, and the value of a trial.
const ACROSS = [...Object.entries(sweep.costs).map(([key, label]) => ({key, label,
  of: t => t[key]})), ...sweep.numbers.map(key => ({key: `tag ${key}`, label: key,
  of: t => t.tags[key] ?? null}))];
const UP = [
  {key: "top1", label: "top-1 accuracy (%)", of: t => t.top1, scale: m => 100 * m, sign: 1},
  {key: "error", label: "top-1 error (%)", of: t => t.top1, scale: m => 100 * (1 - m), sign: -1},
  {key: "train", label: "training error (%)", of: t => t.train_top1,
   scale: m => 100 * (1 - m), sign: -1}];
const values = key => [...new Set(sweep.trials.map(t => String(t.tags[key] ?? "")))];
// A number of many values is a shade, from blue to yellow as cividis goes.
function colourOf(trial) {
  const key = $("colour").value;
  if (!key) return COLOURS[0];
  const found = values(key);
  const i = found.indexOf(String(trial.tags[key] ?? ""));
  if (found.length <= COLOURS.length) return COLOURS[i];
  const numbers = sweep.trials.map(t => t.tags[key]).filter(v => typeof v === "number");
  return shade(rank(trial.tags[key], [...new Set(numbers)].sort((a, b) => a - b)));
}
const rank = (value, sorted) => sorted.indexOf(value) / Math.max(1, sorted.length - 1);
function shade(part) {
  const ends = [[0, 34, 78], [87, 92, 109], [165, 156, 116], [254, 232, 56]];
  const at = Math.min(2.999, Math.max(0, part) * 3), i = Math.floor(at), f = at - i;
  return `rgb(${ends[i].map((v, k) => Math.round(v + f * (ends[i + 1][k] - v))).join(" ")})`;
}
function shapeOf(trial) {
  const key = $("colour").value, found = key ? values(key) : [];
  return found.length > 1 && found.length <= SHAPES.length
    ? SHAPES[found.indexOf(String(trial.tags[key] ?? ""))] : "circle";
}

function shapePath(shape, x, y, r) {
  const ring = points => `M${points.map(([a, b]) =>
    `${(x + r * a).toFixed(1)} ${(y + r * b).toFixed(1)}`).join("L")}Z`;
  const third = 1 / 3;
  return {
    circle: `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`,
    square: ring([[-.9, -.9], [.9, -.9], [.9, .9], [-.9, .9]]),
    triangle: ring([[0, -1.15], [1.05, .8], [-1.05, .8]]),
    diamond: ring([[0, -1.25], [1.1, 0], [0, 1.25], [-1.1, 0]]),
    down: ring([[0, 1.15], [1.05, -.8], [-1.05, -.8]]),
    cross: ring([[-third, -1.1], [third, -1.1], [third, -third], [1.1, -third], [1.1, third],
      [third, third], [third, 1.1], [-third, 1.1], [-third, third], [-1.1, third],
      [-1.1, -third], [-third, -third]]),
    star: ring([...Array(10).keys()].map(i => {
      const s = i % 2 ? .5 : 1.25, a = Math.PI * i / 5;
      return [s * Math.sin(a), -s * Math.cos(a)];
    })),
    bar: ring([[-1.2, -.5], [1.2, -.5], [1.2, .5], [-1.2, .5]])}[shape];
}

// Axes: a scale from values to pixels, its ticks, and both drawn.
function scaleOf(found, low, high, log = false) {
  let from = Math.min(...found), to = Math.max(...found);
  if (from === to) [from, to] = log ? [from / 2, to * 2] : [from - 1, to + 1];
  const f = log ? Math.log10 : v => v, pad = 0.06 * (f(to) - f(from));
  const [a, b] = [f(from) - pad, f(to) + pad];
  const at = v => low + (f(v) - a) / (b - a) * (high - low);
  return Object.assign(at, {ticks: log ? logTicks(a, b) : ticks(a, b,
    Math.abs(high - low) / (high < low ? 42 : 75))});
}
function ticks(a, b, count) {
  const rough = (b - a) / Math.max(2, count), power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find(m => power * m >= rough);
  const first = Math.ceil(a / step), found = [];
  for (let i = first; i * step <= b; i++) found.push(+(i * step).toPrecision(12));
  return found;
}
function logTicks(a, b) {
  const found = [], parts = b - a < 2.5 ? [1, 2, 5] : [1];
  for (let power = Math.floor(a); power <= b; power++)
    for (const part of parts) {
      const at = Math.log10(part) + power;
      if (at >= a && at <= b) found.push(+(part * 10 ** power).toPrecision(6));
    }
  return found;
}
function frame(host, height, least = 0) {
  const width = Math.max(280, host.clientWidth, least);
  const box = {left: 52, right: width - 12, top: 10, bottom: height - 44, width, height};
  const svg = element("svg", {viewBox: `0 0 ${width} ${height}`, height, role: "group",
    style: `min-width:${least}px`});
  host.replaceChildren(svg);
  return [svg, box];
}
function axes(svg, box, x, y, across, up) {
  let last = -Infinity;
  for (const v of x.ticks) {
    svg.append(element("line", {class: "rule", x1: x(v), x2: x(v), y1: box.top, y2: box.bottom}));
    if (x(v) - last < 44) continue;
    last = x(v);
    svg.append(element("text", {x: x(v), y: box.bottom + 17, "text-anchor": "middle"}, short(v)));
  }
  for (const v of y.ticks) {
    svg.append(element("line", {class: "rule", x1: box.left, x2: box.right, y1: y(v), y2: y(v)}));
    svg.append(element("text", {x: box.left - 7, y: y(v) + 4, "text-anchor": "end"}, short(v)));
  }
  svg.append(element("text", {class: "soft", x: (box.left + box.right) / 2, y: box.height - 6,
    "text-anchor": "middle"}, across));
  svg.append(element("text", {class: "soft", "text-anchor": "middle", transform:
    `translate(13 ${(box.top + box.bottom) / 2}) rotate(-90)`}, up));
}

function front(points, sign) {
  const sorted = [...points].sort((p, q) => p.x - q.x || sign * (q.y - p.y)), kept = [];
  for (const p of sorted)
    if (!kept.length || sign * (p.y - kept[kept.length - 1].y) > 0) kept.push(p);
  return kept;
}
function drawChart() {
  const across = ACROSS.find(a => a.key === $("x").value), up = UP.find(u => u.key === $("y").value);
  const points = sweep.trials.map((t, i) => ({t, i, x: across.of(t), s: up.of(t)}))
    .filter(p => p.x !== null && p.s && p.s.mean !== null && visible(p.t))
    .map(p => ({...p, y: up.scale(p.s.mean), half: 100 * (p.s.half ?? 0)}));
  const [svg, box] = frame($("chart"), 380);
  if (!points.length) {
    svg.append(element("text", {x: 60, y: 60}, "No finished run to show."));
    return;
  }
  const xs = points.map(p => p.x);
  const log = Math.min(...xs) > 0 && Math.max(...xs) > 10 * Math.min(...xs);
  const x = scaleOf(xs, box.left, box.right, log);
  const clip = v => Math.max(0, Math.min(100, v));
  const y = scaleOf(points.flatMap(p => [clip(p.y - p.half), clip(p.y + p.half)]), box.bottom,
    box.top);
  axes(svg, box, x, y, across.label, up.label);
  const best = front(points, up.sign);
  if (sweep.costs[across.key])
    svg.append(element("path", {class: "front", d: best.map((p, i) =>
      i ? `H${x(p.x)}V${y(p.y)}` : `M${x(p.x)} ${y(p.y)}`).join("")}));
  if (sweep.series === "family" && $("colour").value === "family") drawLines(svg, points, x, y);
  for (const p of points) svg.append(drawPoint(p, x(p.x), y(p.y), y(clip(p.y - p.half)),
    y(clip(p.y + p.half))));
}
// A family that is one network at several sizes: its points are joined.
function drawLines(svg, points, x, y) {
  const base = points.filter(p => p.t.tags.family === "base");
  for (const name of sweep.joined) {
    const mine = points.filter(p => String(p.t.tags.family) === name).sort((p, q) => p.x - q.x);
    const colour = mine.length ? colourOf(mine[0].t) : null;
    if (base.length === 1 && name !== "base") mine.unshift(base[0]);
    if (mine.length > 1)
      svg.append(element("path", {class: "family", stroke: colour, "stroke-width": 1.3,
        fill: "none", d: mine.map((p, i) => `${i ? "L" : "M"}${x(p.x)} ${y(p.y)}`).join("")}));
  }
}
function drawPoint(p, x, y, low, high) {
  const colour = colourOf(p.t);
  const group = element("g", {class: "point mark", tabindex: 0, "data-i": p.i, role: "img",
    "aria-label": `${p.t.name}, ${p.y.toFixed(2)}`},
  p.half ? element("line", {x1: x, x2: x, y1: low, y2: high, stroke: colour}) : null,
  element("path", {class: "shape", d: shapePath(shapeOf(p.t), x, y, 5.5), fill: colour}),
  element("circle", {cx: x, cy: y, r: 12, fill: "transparent"}));
  return pointing(group, p.i);
}

function drawGrid() {
  if (!sweep.grid) return;
  const [kx, ky] = sweep.grid;
  $("grid-section").hidden = false;
  $("grid-title").textContent = `Top-1 accuracy (%) over ${kx} and ${ky}`;
  const sorted = key => [...new Set(sweep.trials.map(t => t.tags[key])
    .filter(v => v !== undefined))].sort((a, b) => a - b);
  const xs = sorted(kx), ys = sorted(ky);
  const means = sweep.trials.map(t => t.top1.mean).filter(v => v !== null);
  const low = Math.min(...means), high = Math.max(...means);
  const cell = t => t.top1.mean === null ? "–"
    : t.states.stopped ? `(${percent(t.top1.mean, 1)})` : percent(t.top1.mean, 1);
  // Columns are as wide as what stands in and below them, a letter being 7 pixels at most.
  const letters = Math.max(...[...sweep.trials.map(cell), ...xs.map(exact)].map(s => s.length));
  const [svg, box] = frame($("grid"), Math.min(460, 70 + 46 * ys.length),
    64 + (7 * letters + 4) * xs.length);
  const w = (box.right - box.left) / xs.length, h = (box.bottom - box.top) / ys.length;
  sweep.trials.forEach((t, i) => {
    if (t.tags[kx] === undefined || t.tags[ky] === undefined) return;
    const x = box.left + w * xs.indexOf(t.tags[kx]), mean = t.top1.mean;
    const y = box.bottom - h * (ys.indexOf(t.tags[ky]) + 1);
    const part = mean === null ? null : (mean - low) / (high - low || 1);
    svg.append(pointing(element("g", {class: "point mark", tabindex: 0, "data-i": i, role: "img",
      "aria-label": `${t.name}, ${mean === null ? "no result" : percent(mean)}`},
    element("rect", {class: "shape", x: x + 1, y: y + 1, width: w - 2, height: h - 2, rx: 3,
      fill: part === null ? "transparent" : shade(part),
      stroke: part === null ? "currentColor" : null}),
    element("text", {x: x + w / 2, y: y + h / 2 + 4, "text-anchor": "middle",
      style: part === null ? null : `fill:${part < 0.42 ? "#fff" : "#000"}`
        + (mean === high ? ";font-weight:700" : "")},
    cell(t))), i));
  });
  axes(svg, box, Object.assign(v => box.left + w * (xs.indexOf(v) + 0.5), {ticks: []}),
    Object.assign(v => v, {ticks: []}), kx, ky);
  xs.forEach((v, i) => svg.append(element("text", {x: box.left + w * (i + 0.5),
    y: box.bottom + 17, "text-anchor": "middle"}, exact(v))));
  ys.forEach((v, i) => svg.append(element("text", {x: box.left - 7,
    y: box.bottom - h * (i + 0.5) + 4, "text-anchor": "end"}, exact(v))));
}

function drawCurves() {
  const shown = sweep.trials.map((t, i) => ({t, i}))
    .filter(p => p.t.curve && visible(p.t));
  $("curves-section").hidden = !sweep.trials.some(t => t.curve);
  if (!shown.length) return $("curves").replaceChildren();
  const [svg, box] = frame($("curves"), 360);
  const errors = c => [...c.eval, ...c.train].filter(v => v !== null).map(v => 100 * (1 - v));
  const x = scaleOf([0, ...shown.flatMap(p => p.t.curve.epoch)], box.left, box.right);
  const y = scaleOf([0, ...shown.flatMap(p => errors(p.t.curve))], box.bottom, box.top);
  axes(svg, box, x, y, "epoch", "top-1 error (%)");
  const line = (c, part) => {
    const found = c.epoch.map((e, k) => [e, c[part][k]]).filter(q => q[1] !== null)
      .map(([e, v]) => [x(e), y(100 * (1 - v))].map(p => +p.toFixed(1)));
    if (found.length === 1) return shapePath("circle", ...found[0], 3);  // No line would be seen.
    return found.map((p, k) => `${k ? "L" : "M"}${p.join(" ")}`).join("");
  };
  for (const {t, i} of shown) {
    const colour = colourOf(t), full = line(t.curve, "eval");
    svg.append(pointing(element("g", {class: "point curve mark", "data-i": i},
      element("path", {class: "train", d: line(t.curve, "train"), stroke: colour, fill: "none",
        "stroke-dasharray": "5 3", "stroke-width": 1.2, visibility: "hidden"}),
      element("path", {d: full, stroke: colour, fill: "none",
        "stroke-width": shown.length > 30 ? 0.8 : 1.5}),
      element("path", {d: full, stroke: "transparent", fill: "none", "stroke-width": 9})), i));
  }
}

// The trial pointed at, or else chosen, stands out in every figure and in the table.
function pointing(node, i) {
  const over = event => { state.hover = i; highlight(); showTip(i, event, node); };
  const out = () => { state.hover = null; highlight(); $("tip").hidden = true; };
  node.addEventListener("pointerenter", over);
  node.addEventListener("pointermove", event => showTip(i, event, node));
  node.addEventListener("pointerleave", out);
  node.addEventListener("focus", over);
  node.addEventListener("blur", out);
  node.addEventListener("click", () => choose(i));
  node.addEventListener("keydown", event => { if (event.key === "Enter") choose(i); });
  return node;
}
function choose(i) {
  state.chosen = state.chosen === i ? null : i;
  drawTable();
  highlight();
}
function highlight() {
  const lit = state.hover ?? state.chosen;
  for (const node of document.querySelectorAll(".mark")) {
    const me = Number(node.dataset.i) === lit;
    node.classList.toggle("lit", me);
    if (!node.matches("tr")) node.classList.toggle("dim", lit !== null && !me);
    const train = node.querySelector(".train");
    if (train) train.setAttribute("visibility", me ? "visible" : "hidden");
  }
}
function facts(t) {
  const tags = Object.entries(t.tags).map(([k, v]) => [k, String(v)]);
  return [["top-1 (%)", spread(t.top1)], ["95 % interval", interval(t.top1)],
    ["top-5 (%)", spread(t.top5)], ["training top-1 (%)", spread(t.train_top1)],
    ["parameters", t.params === null ? "" : t.params.toLocaleString("en")],
    ["multiply-adds", short(t.multiply_adds)], ["seconds", short(t.seconds)],
    ["images/s", short(t.images_per_second)], ...tags, ["runs", states(t)]]
    .filter(pair => pair[1] !== "");
}
function showTip(i, event, node) {
  const t = sweep.trials[i], tip = $("tip"), list = element("dl");
  for (const [name, value] of facts(t))
    list.append(element("dt", {}, name), element("dd", {}, value));
  tip.replaceChildren(element("b", {}, t.name), list);
  tip.hidden = false;
  const box = node.getBoundingClientRect();
  const [px, py] = event.clientX === undefined ? [box.right, box.top]
    : [event.clientX, event.clientY];
  const wide = document.documentElement.clientWidth;
  const left = Math.max(4, px + 14 + tip.offsetWidth > wide ? px - tip.offsetWidth - 14 : px + 14);
  const up = Math.max(4, Math.min(py + 12, innerHeight - tip.offsetHeight - 4));
  tip.style.left = `${Math.min(left, wide - tip.offsetWidth - 4) + scrollX}px`;
  tip.style.top = `${up + scrollY}px`;
}
