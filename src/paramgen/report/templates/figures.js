"use strict";
// One function a figure: (view, width) -> nodes. A view is an evaluation's results and the rows that are switched on.
const LABEL = { marginLeft: 116 };
const percent = (v, digits = 1) => (100 * v).toFixed(digits) + " %";
// What distances are divided by: the distance of a new run, or where the zoo has one run alone the step between its checkpoints.
const UNITS = {
  run: { ratio: "run_ratio", short: "of a new run's", axis: "distance to the zoo ÷ a new run's", place: "÷ a new run's distance" },
  step: { ratio: "nn_ratio", short: "steps", axis: "distance to the zoo in steps", place: "in steps" },
};
const unitOf = (view) => UNITS[view.results.unit];
const DOTTED = { stroke: "var(--ink)", strokeDasharray: "1 4", strokeLinecap: "round", strokeWidth: 1.4 };
const ORDER = { baseline: 0, reference: 1, generator: 2 };

// Axes reach over all but the untrained networks, which would press the rest together; what lies beyond is drawn at the edge.
const reach = (items) => { const near = items.filter((d) => d.row.role !== "untrained"); return near.length ? near : items; };

const COARSE = [0.9, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001];
const FINE = [0.9, 0.8, 0.6, 0.4, 0.3, 0.2, 0.15, 0.12, 0.1, 0.08, 0.06, 0.05, 0.04, 0.03, 0.025, 0.02, 0.015, 0.01, 0.008, 0.006, 0.005, 0.004, 0.003, 0.002, 0.001];

/** Where a score is drawn, better to the right or up: the logarithm of the error, of the score, or the score itself. */
function axisOf(results) {
  const spec = results.score || { name: "score", unit: "plain", axis: "linear", higher_is_better: true }, sign = spec.higher_is_better ? 1 : -1;
  const factor = spec.unit === "percent" ? 100 : 1, symbol = { percent: " %", dB: " dB", plain: "" }[spec.unit], fixed = spec.unit === "plain" ? 2 : 1;
  const least = 0.5 / Math.max(1, results.test_items); // an error is drawn as half an item at least: a log has no 0
  return {
    name: spec.name, label: spec.name + (symbol && "," + symbol), error: spec.axis === "error", factor,
    text: (v, digits = fixed) => (factor * v).toFixed(digits) + symbol,
    place: (v) => (v == null ? null : spec.axis === "error" ? -Math.log10(Math.max(1 - v, least)) : sign * (spec.axis === "log" ? Math.log10(Math.max(v, 1e-12)) : v)),
    value: (at) => (spec.axis === "error" ? 1 - 10 ** -at : spec.axis === "log" ? 10 ** (sign * at) : sign * at),
    between: (low, high) => (spec.axis === "log" ? d3.scaleLog().domain([low, high]).ticks(6) : d3.ticks(low, high, 6)),
  };
}

/** The scale of an axis of scores over some values. */
function scoreScale(view, values, extra = {}) {
  const axis = view.axis, floor = axis.place(d3.min(view.results.rows.filter((r) => r.role === "untrained"), (r) => r.values.mean) ?? null);
  const places = values.filter((v) => v != null).map(axis.place), known = places.filter((at) => floor == null || at >= floor); // no further than untrained networks
  const [least, most] = places.length ? d3.extent(known.length ? known : places) : [0, 1];
  const domain = axis.error ? [Math.max(least - 0.05, 0), most + 0.1] : [least - 0.05 * (most - least || 1), most + 0.05 * (most - least || 1)];
  const inside = (ticks) => ticks.filter((t) => t >= domain[0] && t <= domain[1]);
  const [coarse, fine] = [COARSE, FINE].map((errors) => inside(errors.map((e) => -Math.log10(e))));
  const ends = domain.map(axis.value).sort((a, b) => a - b);
  const ticks = !axis.error ? inside(axis.between(...ends).map(axis.place)) : coarse.length > 3 ? coarse : fine;
  return { domain, ticks, clamp: true, tickFormat: (t) => String(+(axis.factor * axis.value(t)).toPrecision(4)), ...extra };
}

/** The band in which networks stay within a run, where runs have several checkpoints. */
const withinRun = (view, y1, y2) => view.results.unit !== "run" || view.results.checkpoints < 2 ? null : Plot.rect([0], { x1: 0, x2: view.results.thresholds.within_run, y1, y2, fill: "var(--warn)", fillOpacity: 0.08 });

/** Distance in the unit: linear near 0, where copies are, log beyond. */
function ratioScale(values, extra = {}) {
  const most = Math.max(1.5, ...values) * 1.1;
  const ticks = [0, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000].filter((t) => t <= most);
  return { type: "symlog", constant: 0.1, clamp: true, domain: [0, most], ticks, tickFormat: String, ...extra };
}

const tip = (items, x, y) => Plot.tip(items, Plot.pointer({ x, y, title: "says", maxRadius: 24, lineHeight: 1.25, textPadding: 9, pointerSize: 6 }));
const dotOf = (d) => ({ fill: d.row.role === "heldout" ? "var(--paper)" : d.colour, stroke: d.colour });

/** Single networks of the given rows, with their numbers. */
function networks(view, rows) {
  return rows.flatMap((row) => row.points.distance.map((_, i) => ({
    row, colour: view.colour(row), i, score: row.points.score[i], distance: row.points.distance[i], xy: row.points.xy[i],
    says: [`${row.name}, network ${i}`, row.points.score[i] == null ? null : `${view.axis.name} ${view.axis.text(row.points.score[i])}`, row.points.distance[i] == null ? null : `distance ${row.points.distance[i].toFixed(2)} ${unitOf(view).short}`].filter(Boolean).join("\n"),
  })));
}

const PHONE = 600; // below it the three strips scroll sideways

function strips(view, width) {
  const rows = view.rows, jitter = (i) => (((i * 0.618) % 1) - 0.5) * 0.56;
  const lines = rows.map((row, y) => ({ row, y, colour: view.colour(row) }));
  const dots = networks(view, rows).map((d) => ({ ...d, y: rows.indexOf(d.row) + jitter(d.i) }));
  const ends = lines.filter(({ y }) => y + 1 < rows.length && rows[y].kind !== rows[y + 1].kind).map(({ y }) => y + 0.5);
  const side = width > 820, phone = width < PHONE, wide = view.results.score ? [0.5, 0.29, 0.21] : [0.6, 0.4];
  const share = side ? wide : Array(3).fill(phone ? 0.86 : 1); // on a phone the next one shows at the edge
  const panel = (k, x, marks, label) => Plot.plot({
    className: "fig", width: width * share[k], height: 44 + 24 * rows.length, marginTop: 38, marginBottom: 6, marginRight: 18,
    marginLeft: k === 0 || !side ? LABEL.marginLeft : 18, x: { ...x, axis: "top", label: null, tickSize: 0 },
    y: { domain: [-0.5, rows.length - 0.5], reverse: true, axis: null },
    marks: [
      Plot.gridX({ ticks: x.ticks, stroke: "var(--rule)", strokeOpacity: 1 }), Plot.ruleY(ends, { stroke: "var(--muted)", strokeOpacity: 0.6 }),
      Plot.text([label], { frameAnchor: "top-left", dy: -34, fontWeight: 650, fill: "var(--ink)" }),
      k === 0 || !side ? Plot.text(lines.filter((d) => d.row.kind !== "generator"), { x: x.domain[0], y: "y", text: (d) => d.row.name, textAnchor: "end", dx: -10, fill: (d) => d.row.kind === "baseline" ? "var(--muted)" : "var(--ink)" }) : null,
      k === 0 || !side ? Plot.text(lines.filter((d) => d.row.kind === "generator"), { x: x.domain[0], y: "y", text: (d) => d.row.name, textAnchor: "end", dx: -10, fill: "colour", fontWeight: 650 }) : null,
      ...marks,
    ],
  });
  const strip = (items, middles, x) => [
    Plot.dot(items, { x, y: "y", r: 2, fill: "colour", fillOpacity: 0.42 }),
    Plot.ruleX(middles, { x, y1: (d) => d.y - 0.4, y2: (d) => d.y + 0.4, stroke: (d) => (d.row.kind === "baseline" ? "var(--muted)" : d.colour), strokeWidth: 2.4 }),
    tip([...items, ...middles], x, "y"),
  ];
  const scored = dots.filter((d) => d.score != null).map((d) => ({ ...d, at: view.axis.place(d.score) }));
  const means = lines.filter((d) => d.row.values.mean != null).map((d) => ({ ...d, at: view.axis.place(d.row.values.mean), says: `${d.row.name}\nmean ${view.axis.name} ${view.axis.text(d.row.values.mean, 2)}` }));
  const far = dots.filter((d) => d.distance != null);
  const unit = unitOf(view), ratio = (row) => row.values[unit.ratio];
  const medians = lines.filter((d) => ratio(d.row) != null).map((d) => ({ ...d, distance: ratio(d.row), says: `${d.row.name}\n${unit.ratio} ${ratio(d.row).toFixed(3)}` }));
  const band = [-0.5, rows.length - 0.5];
  const spread = lines.filter((d) => d.row.values.dispersion != null).map((d) => ({ ...d, at: Math.min(d.row.values.dispersion, 1.6), says: `${d.row.name}\ndispersion ${d.row.values.dispersion.toFixed(2)}` }));
  const dispersion = { domain: [0, 1.65], ticks: [0, 0.5, 1, 1.5], tickFormat: String };
  const k = view.results.score ? 1 : 0; // without scores there are two strips
  return [
    !k ? null : panel(0, scoreScale(view, reach(scored).map((d) => d.score)), [Plot.ruleX(view.zoo.values.mean == null ? [] : [view.axis.place(view.zoo.values.mean)], DOTTED), ...strip(scored, means, "at")], "Test " + view.axis.label),
    panel(k, ratioScale(reach(far).map((d) => d.distance)), [withinRun(view, ...band), Plot.ruleX([1], DOTTED), ...strip(far, medians, "distance")], unit.axis[0].toUpperCase() + unit.axis.slice(1)),
    panel(k + 1, dispersion, [
      Plot.rect([0], { x1: 0, x2: view.results.thresholds.collapsed, y1: band[0], y2: band[1], fill: "var(--warn)", fillOpacity: 0.08 }), Plot.ruleX([1], DOTTED),
      Plot.dot(spread, { x: "at", y: "y", r: 4, fill: "colour" }),
      Plot.text(spread.filter((d) => d.row.values.dispersion > 1.6), { x: "at", y: "y", dx: -9, textAnchor: "end", fill: "var(--muted)", text: (d) => d.row.values.dispersion.toFixed(1) + " →" }),
      tip(spread, "at", "y"),
    ], "Dispersion"),
  ].filter(Boolean);
}

function plane(view, width) {
  const unit = unitOf(view), rows = view.rows.filter((r) => r.values[unit.ratio] != null && r.values.mean != null);
  const single = networks(view, rows.filter((r) => r.kind === "generator" || r.role === "heldout")).filter((d) => d.distance != null && d.score != null).map((d) => ({ ...d, x: d.distance }));
  const spots = spotsOf(view, rows, unit.ratio, (r) => `${unit.ratio} ${r.values[unit.ratio].toFixed(2)}`);
  return against(view, width, spots, single, ratioScale(reach([...spots, ...single]).map((d) => d.x)), 1, unit.axis + " →", (y) => [withinRun(view, ...y), Plot.text(withinRun(view, ...y) ? ["within a run"] : [], { frameAnchor: "top-left", dx: 6, dy: 6, fill: "var(--warn)" })]);
}

function alike(view, width) {
  const spots = spotsOf(view, view.rows.filter((r) => r.values.iou_wrong_max != null && r.values.mean != null), "iou_wrong_max", (r) => `IoU ${r.values.iou_wrong_max.toFixed(2)}`);
  return against(view, width, spots, [], { domain: [0, 1], ticks: [0, 0.25, 0.5, 0.75, 1], tickFormat: String }, view.zoo.values.iou_wrong_max, "IoU of wrong predictions with the zoo →");
}

function spotsOf(view, rows, key, say) {
  return rows.map((row) => ({ row, colour: view.colour(row), x: row.values[key], score: row.values.mean, says: `${row.name}\nmean ${view.axis.name} ${view.axis.text(row.values.mean)}\n${say(row)}` }))
    .sort((a, b) => ORDER[a.row.kind] - ORDER[b.row.kind]);
}

/** Mean score against something: one named spot a row, the noise sweep joined, single networks behind. */
function against(view, width, spots, single, x, mark, label, band = () => []) {
  const place = (list) => list.map((d) => ({ ...d, y: view.axis.place(d.score) }));
  const [rows, dots] = [place(spots), place(single)];
  const noise = rows.filter((d) => d.row.noise != null).sort((a, b) => a.row.noise - b.row.noise);
  const held = rows.filter((d) => d.row.role === "heldout");
  const y = scoreScale(view, reach([...spots, ...single]).map((d) => d.score).concat(view.results.good_from), { label: "↑ mean test " + view.axis.label, labelArrow: "none", tickSize: 0 });
  const plot = Plot.plot({
    className: "fig", width, height: Math.max(320, Math.min(420, width * 0.78)), marginLeft: 38, marginTop: 24, marginRight: 12, marginBottom: 44,
    x: { ...x, label, labelAnchor: "right", labelArrow: "none", tickSize: 0 },
    y,
    marks: [
      Plot.gridX({ ticks: x.ticks, stroke: "var(--rule)", strokeOpacity: 1 }), Plot.gridY({ ticks: y.ticks, stroke: "var(--rule)", strokeOpacity: 1 }),
      ...band(y.domain), Plot.ruleX(mark == null ? [] : [mark], DOTTED), Plot.ruleY(view.results.good_from == null ? [] : [view.axis.place(view.results.good_from)], DOTTED),
      Plot.line(noise, { x: "x", y: "y", stroke: "var(--base)", strokeWidth: 1.4 }),
      Plot.dot(dots, { x: "x", y: "y", r: 2, fill: "colour", fillOpacity: 0.35 }),
      Plot.dot(rows, { x: "x", y: "y", r: (d) => (d.row.kind === "generator" ? 6.5 : 4.2), fill: (d) => dotOf(d).fill, stroke: "var(--paper)", strokeWidth: 1 }),
      Plot.dot(held, { x: "x", y: "y", r: 4.2, stroke: "var(--ink)", strokeWidth: 1.6 }),
      tip([...dots, ...rows], "x", "y"),
    ],
    r: { type: "identity" },
  });
  const beyond = (d) => (d.y < y.domain[0] ? " ↓" : "") + (x.type === "symlog" && d.x > x.domain[1] ? " →" : "");
  name(plot, rows.map((d) => ({ ...d, text: d.row.name + beyond(d) })), width);
  return [plot];
}

/** Names beside their spots where they cover nothing; hovering tells the rest. */
function name(plot, spots, width) {
  const svg = d3.select(plot.tagName === "svg" ? plot : plot.querySelector("svg")), [x, y] = [plot.scale("x").apply, plot.scale("y").apply];
  const around = (d, by) => [x(d.x) - by, y(d.y) - by, x(d.x) + by, y(d.y) + by];
  const taken = spots.filter((d) => d.row.kind !== "baseline").map((d) => around(d, 7)); // spots of baselines give way to generators' names
  const layer = svg.insert("g", "[aria-label=tip]").attr("font-size", 11.5).attr("pointer-events", "none");
  for (const d of [...spots].sort((a, b) => ORDER[b.row.kind] - ORDER[a.row.kind])) {
    if (d.row.kind === "baseline" && !taken.baselines) taken.push(...(taken.baselines = spots.filter((s) => s.row.kind === "baseline").map((s) => around(s, 5))));
    const w = 6.3 * d.text.length, cx = x(d.x), cy = y(d.y);
    for (const [dx, dy, anchor] of [[10, 4, "start"], [-10, 4, "end"], [0, -10, "middle"], [0, 18, "middle"]]) {
      const left = cx + dx - { start: 0, middle: w / 2, end: w }[anchor], box = [left, cy + dy - 9, left + w, cy + dy + 3];
      const free = box[0] > 38 && box[2] < width && box[1] > 14 && !taken.some((t) => box[0] < t[2] && t[0] < box[2] && box[1] < t[3] && t[1] < box[3]);
      if (!free) continue;
      taken.push(box);
      layer.append("text").attr("x", cx + dx).attr("y", cy + dy).attr("text-anchor", anchor).attr("fill", d.row.kind === "baseline" ? "var(--muted)" : d.colour).attr("font-weight", d.row.kind === "generator" ? 650 : null).text(d.text);
      break;
    }
  }
}

function tasks(view, width) {
  const direct = view.zoo.tasks.unseen, names = Object.keys(direct).sort((a, b) => view.axis.place(direct[b]) - view.axis.place(direct[a]));
  const rows = view.rows.filter((r) => r.tasks).sort((a, b) => ORDER[a.kind] - ORDER[b.kind]);
  const dots = rows.flatMap((row) => names.map((task, y) => ({ row, y, colour: view.colour(row), score: row.tasks.unseen[task], at: view.axis.place(row.tasks.unseen[task]), says: `${row.name} on ${task}\n${view.axis.name} ${view.axis.text(row.tasks.unseen[task])}` })));
  const x = scoreScale(view, dots.map((d) => d.score));
  return [Plot.plot({
    className: "fig", width, height: 44 + 18 * names.length, marginTop: 38, marginBottom: 6, marginRight: 18, marginLeft: LABEL.marginLeft,
    x: { ...x, axis: "top", label: null, tickSize: 0 }, y: { domain: [-0.5, names.length - 0.5], reverse: true, axis: null },
    marks: [
      Plot.gridX({ ticks: x.ticks, stroke: "var(--rule)", strokeOpacity: 1 }), Plot.ruleY(names.map((_, y) => y), { stroke: "var(--rule)" }),
      Plot.text(["Test " + view.axis.label], { frameAnchor: "top-left", dy: -34, fontWeight: 650, fill: "var(--ink)" }),
      Plot.text(names, { x: x.domain[0], y: (_, i) => i, text: (d) => d, textAnchor: "end", dx: -10, fill: "var(--ink)" }),
      Plot.dot(dots, { x: "at", y: "y", r: (d) => (d.row.kind === "baseline" ? 2.6 : 4.2), fill: (d) => dotOf(d).fill, fillOpacity: 0.8 }),
      tip(dots, "at", "y"),
    ],
    r: { type: "identity" },
  })];
}

function novelty(view, width) {
  const rows = [...view.rows].sort((a, b) => ORDER[a.kind] - ORDER[b.kind]);
  const curve = view.results.thresholds.curve;
  const points = rows.flatMap((row) => Object.entries(row.novel_and_good).filter(([, v]) => v != null).sort(([a], [b]) => a - b).map(([c, v]) => ({ row, name: row.name, colour: view.colour(row), x: +c, y: 100 * v, says: `${row.name}\n${percent(v, 0)} good and ≥ ${c} of a new run's distance away` })));
  const of = (test) => points.filter((d) => test(d.row)), held = (r) => r.role === "heldout";
  const line = (items, more) => Plot.line(items, { x: "x", y: "y", z: "name", stroke: "colour", ...more });
  const plot = Plot.plot({
    className: "fig", width, height: Math.max(320, Math.min(420, width * 0.78)), marginLeft: 38, marginTop: 24, marginRight: 100, marginBottom: 44,
    x: { domain: d3.extent(curve), ticks: curve, tickFormat: String, label: "at least c × a new run's distance →", labelArrow: "none", tickSize: 0 },
    y: { domain: [0, 100], ticks: [0, 25, 50, 75, 100], label: "↑ novel and good, % of networks", labelArrow: "none", tickSize: 0 },
    marks: [
      Plot.gridX({ ticks: curve, stroke: "var(--rule)", strokeOpacity: 1 }), Plot.gridY({ ticks: [0, 25, 50, 75, 100], stroke: "var(--rule)", strokeOpacity: 1 }),
      line(of((r) => r.kind === "baseline"), { strokeWidth: 1, strokeOpacity: 0.6 }), line(of((r) => r.kind === "reference" && !held(r)), { strokeWidth: 2 }),
      line(of(held), { strokeWidth: 2, strokeDasharray: "5 4" }), line(of((r) => r.kind === "generator"), { strokeWidth: 2.6 }),
      Plot.dot(of((r) => r.kind !== "baseline"), { x: "x", y: "y", r: 2.6, fill: "colour" }), tip(points, "x", "y"),
    ],
  });
  const starts = d3.groups(of((r) => r.kind !== "baseline"), (d) => d.name).map(([, line]) => line[line.length - 1]);
  endLabels(plot, starts, width - 94);
  return [plot];
}

/** Names at the right end of curves, moved apart where they would meet. */
function endLabels(plot, ends, left) {
  const y = plot.scale("y").apply, svg = d3.select(plot.tagName === "svg" ? plot : plot.querySelector("svg"));
  let last = Infinity;
  for (const d of [...ends].sort((a, b) => a.y - b.y)) {
    last = Math.min(y(d.y), last - 14);
    svg.append("text").attr("x", left).attr("y", last + 4).attr("text-anchor", "start").attr("font-size", 11.5).attr("fill", d.colour).attr("font-weight", d.row.kind === "generator" ? 650 : null).text(d.row.name);
  }
}

function map(view, width) {
  const height = Math.max(320, Math.min(420, width * 0.78));
  const rows = view.rows.filter((r) => r.kind !== "baseline" || r.noise === 1).sort((a, b) => ORDER[a.kind] - ORDER[b.kind]);
  const dots = networks(view, rows).filter((d) => d.xy[0] != null).map((d) => ({ ...d, x: d.xy[0], y: d.xy[1] }));
  const frame = squareFrame(dots.filter((d) => d.row.kind !== "baseline"), width - 50, height - 68);
  const held = dots.filter((d) => d.row.role === "heldout");
  return [Plot.plot({
    className: "fig", width, height, marginLeft: 38, marginTop: 24, marginRight: 12, marginBottom: 44,
    x: { domain: frame.x, label: `first principal component ${unitOf(view).place} →`, labelArrow: "none", tickSize: 0, ticks: 6 }, y: { domain: frame.y, label: "↑ second", labelArrow: "none", tickSize: 0, ticks: 6 },
    marks: [
      Plot.gridX({ stroke: "var(--rule)", strokeOpacity: 1, ticks: 6 }), Plot.gridY({ stroke: "var(--rule)", strokeOpacity: 1, ticks: 6 }),
      Plot.dot(dots.filter((d) => d.row.role !== "heldout"), { x: "x", y: "y", r: (d) => (d.row.kind === "baseline" ? 2 : 3.2), fill: "colour", fillOpacity: (d) => (d.row.kind === "baseline" ? 0.4 : 0.7), clip: true }),
      Plot.dot(held, { x: "x", y: "y", r: 3.4, stroke: "var(--ink)", strokeWidth: 1.5, clip: true }),
      tip(dots.filter((d) => inside(d, frame)), "x", "y"),
    ],
    r: { type: "identity" }, opacity: { type: "identity" },
  })];
}

const inside = (d, frame) => d.x >= frame.x[0] && d.x <= frame.x[1] && d.y >= frame.y[0] && d.y <= frame.y[1];

/** Domains around the points with one unit the same length on both axes. */
function squareFrame(dots, width, height) {
  const [x, y] = ["x", "y"].map((k) => (dots.length ? d3.extent(dots, (d) => d[k]) : [-1, 1]));
  const unit = 1.12 * Math.max((x[1] - x[0]) / width, (y[1] - y[0]) / height, 1e-9);
  const around = ([a, b], pixels) => [(a + b) / 2 - (unit * pixels) / 2, (a + b) / 2 + (unit * pixels) / 2];
  return { x: around(x, width), y: around(y, height) };
}

function trajectories(view, width) {
  const height = Math.max(320, Math.min(420, width * 0.78));
  const zoo = networks(view, [view.zoo]).filter((d) => d.xy[0] != null).map((d) => ({ ...d, x: d.xy[0], y: d.xy[1] }));
  const points = view.rows.flatMap((row) => (view.results.trajectories[row.name] || []).flatMap((line, i) => line.map(([x, y], step) => ({
    row, x, y, step, last: step === line.length - 1, line: `${row.name} ${i}`, colour: view.colour(row),
    says: `${row.name}, network ${i}\n${step ? (step === line.length - 1 ? "sample" : `state ${step} of ${line.length - 1}`) : "noise"}`,
  })))).filter((d) => d.x != null && d.y != null);
  const frame = squareFrame([...zoo, ...points], width - 50, height - 68), at = { x: "x", y: "y" };
  return [Plot.plot({
    className: "fig", width, height, marginLeft: 38, marginTop: 24, marginRight: 12, marginBottom: 44,
    x: { domain: frame.x, label: `first principal component ${unitOf(view).place} →`, labelArrow: "none", tickSize: 0, ticks: 6 }, y: { domain: frame.y, label: "↑ second", labelArrow: "none", tickSize: 0, ticks: 6 },
    marks: [
      Plot.gridX({ stroke: "var(--rule)", strokeOpacity: 1, ticks: 6 }), Plot.gridY({ stroke: "var(--rule)", strokeOpacity: 1, ticks: 6 }),
      Plot.dot(zoo, { ...at, r: 2, fill: "var(--ink)", fillOpacity: 0.5 }), Plot.line(points, { ...at, z: "line", stroke: "colour", strokeWidth: 1.5 }),
      Plot.dot(points.filter((d) => d.step === 0), { ...at, r: 3.4, fill: "var(--paper)", stroke: "colour", strokeWidth: 1.5 }),
      Plot.dot(points.filter((d) => d.last), { ...at, r: 3.4, fill: "colour" }), tip(points, "x", "y"),
    ],
    r: { type: "identity" }, opacity: { type: "identity" },
  })];
}

function weights(view, width, state) {
  const layers = view.results.weights, layer = layers[state.layer ?? 0];
  const most = Math.max(...layer.pairs.flatMap((p) => [...p.sample.flat(), ...p.nearest.flat()]).map(Math.abs).filter(Number.isFinite), 1e-12);
  const on = layer.pairs.filter((p) => view.rows.some((r) => r.name === p.name));
  const across = width > 700 ? 3 : width > 480 ? 2 : 1, panel = (width - 24 * (across - 1)) / across;
  const heat = (title, values) => {
    const cells = values.flatMap((line, r) => line.map((v, c) => ({ r, c, v, says: `${layer.tensor} [${r}, ${c}]\n${v == null ? "NaN" : v.toPrecision(3)}` })));
    return Plot.plot({
      className: "fig", width: panel, height: 26 + Math.max(40, (panel * values.length) / values[0].length), margin: 0, marginTop: 26,
      x: { axis: null, type: "linear", domain: [0, values[0].length] }, y: { axis: null, type: "linear", domain: [values.length, 0] },
      marks: [
        Plot.text([title], { frameAnchor: "top-left", dy: -22, fill: "var(--ink)", fontWeight: 500 }),
        Plot.rect(cells, { x1: "c", x2: (d) => d.c + 1, y1: "r", y2: (d) => d.r + 1, fill: (d) => (d.v >= 0 ? "var(--g0)" : "var(--g1)"), fillOpacity: (d) => Math.min(1, Math.abs(d.v ?? 0) / most), shapeRendering: "crispEdges" }),
        Plot.frame({ stroke: "var(--rule)" }), tip(cells.map((d) => ({ ...d, x: d.c + 0.5, y: d.r + 0.5 })), "x", "y"),
      ],
      opacity: { type: "identity" },
    });
  };
  const minus = (a, b) => a.map((line, r) => line.map((v, c) => (v == null || b[r][c] == null ? null : v - b[r][c])));
  const choice = d3.create("div").attr("class", "choice").attr("role", "group").attr("aria-label", "Layer");
  choice.selectAll("button").data(layers).join("button").attr("type", "button").attr("aria-pressed", (d) => d === layer).text((d) => `${d.tensor} ${d.shape.join(" × ")}`).on("click", (_, d) => { state.layer = layers.indexOf(d); state.redraw(); });
  return [choice.node(), ...on.flatMap((p) => [heat(`${p.name}, network ${p.network}`, p.sample), heat("nearest training network", p.nearest), heat("difference", minus(p.sample, p.nearest))])];
}

function training(view, width) {
  const series = view.rows.filter((r) => r.kind === "generator").flatMap((row) => Object.entries((view.results.generators[row.name] || {}).history || {}).map(([key, points]) => ({ row, key, points })));
  const keys = [...new Set(series.map((s) => s.key))], across = Math.max(1, Math.min(keys.length, Math.floor(width / 300))), panel = (width - 28 * (across - 1)) / across;
  return keys.map((key) => {
    const relative = /(dispersion|_ratio)$/.test(key), scored = key.startsWith("sample/score"), factor = scored ? view.axis.factor : 1;
    const points = series.filter((s) => s.key === key).flatMap((s) => s.points.filter(([, v]) => v != null).map(([step, v]) => ({ step, value: v * factor, v, name: s.row.name, colour: view.colour(s.row), says: `${s.row.name}, step ${step.toLocaleString("en")}\n${key} ${v.toPrecision(3)}` })));
    const positive = key.includes("loss") && points.every((d) => d.value > 0), log = positive && d3.max(points, (d) => d.value) > 20 * d3.min(points, (d) => d.value);
    return Plot.plot({
      className: "fig", width: panel, height: 220, marginLeft: 44, marginTop: 26, marginBottom: 40, marginRight: 14,
      x: { label: "optimizer steps →", labelArrow: "none", ticks: 4, tickFormat: "~s", tickSize: 0 }, y: { type: log ? "log" : "linear", label: "↑ " + key + (scored ? ", " + view.axis.label : ""), labelArrow: "none", ticks: 4, tickSize: 0, zero: relative },
      marks: [
        Plot.gridY({ ticks: 4, stroke: "var(--rule)", strokeOpacity: 1 }), relative ? Plot.ruleY([1], DOTTED) : null,
        Plot.line(points, { x: "step", y: "value", z: "name", stroke: "colour", strokeWidth: 2 }), key.startsWith("sample/") ? Plot.dot(points, { x: "step", y: "value", fill: "colour", r: 2.6 }) : null,
        tip(points, "step", "value"),
      ],
    });
  });
}

const DRAW = { tasks, strips, plane, novelty, alike, map, trajectories, weights, training };

/** Draw a section's figures now and whenever their width or its rows change. */
function drawFigures(section) {
  const results = JSON.parse(section.querySelector("script.results").textContent);
  const measured = results.rows.filter((r) => r.n > 0); // a baseline that failed has no figures
  const chips = [...section.querySelectorAll(".chip")], colours = new Map(chips.map((c) => [c.dataset.row, `var(--${c.dataset.colour})`]));
  const view = {
    results, zoo: results.rows[0], rows: measured, colour: (row) => colours.get(row.name),
    axis: axisOf(results),
  };
  const plots = [...section.querySelectorAll(".plot")].map((node) => {
    const plot = { width: 0, redraw: () => {
      plot.width = node.clientWidth;
      node.classList.toggle("sideways", node.dataset.figure === "strips" && plot.width < PHONE);
      if (plot.width) node.replaceChildren(...(view.rows.length ? DRAW[node.dataset.figure](view, Math.floor(plot.width), plot) : []));
    } };
    new ResizeObserver(() => { if (node.clientWidth !== plot.width) setTimeout(plot.redraw); }).observe(node);
    return plot;
  });
  const choose = (off) => {
    chips.forEach((c) => c.setAttribute("aria-pressed", !off.has(c.dataset.row)));
    section.querySelectorAll(".rows tbody tr").forEach((tr) => tr.classList.toggle("off", off.has(tr.dataset.row)));
    view.rows = measured.filter((r) => !off.has(r.name));
    plots.forEach((p) => p.redraw());
  };
  plots.forEach((plot) => plot.redraw());
  section.classList.add("drawn");
  const off = new Set();
  chips.forEach((c) => { c.onclick = () => { if (!off.delete(c.dataset.row)) off.add(c.dataset.row); choose(off); }; });
  section.querySelectorAll(".chips-baselines").forEach((button) => {
    button.onclick = () => {
      const names = measured.filter((r) => r.kind === "baseline").map((r) => r.name), hide = names.some((n) => !off.has(n));
      names.forEach((n) => (hide ? off.add(n) : off.delete(n)));
      choose(off);
    };
  });
}
document.querySelectorAll("section.evaluation").forEach((section) => section.hidden || drawFigures(section));
document.addEventListener("shown", (e) => e.target.classList.contains("drawn") || drawFigures(e.target));
