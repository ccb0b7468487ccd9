"use strict";
// Draws prepared pictures (paramgen.report.picture) with Observable Plot: nothing is computed from results here. A mark that belongs to a row
// is drawn only while the row is switched on. Fields that are empty are left out of the data.
const PHONE = 600; // below this width panels that are side by side scroll sideways
const RADII = { small: 2, medium: 3.8, large: 6.3 };
const DOTTED = { stroke: "var(--ink)", strokeDasharray: "1 4", strokeLinecap: "round", strokeWidth: 1.4 };
const FEW = 3; // ticks; an axis with no more of them takes the next finer level
const NEAR = 4; // pixels that a name keeps from other marks
const COVERED = 4; // points of other marks that a baseline's name may cover
const FONT = 11.5, CHARACTER = 6.3; // size of names, and the mean width of their characters, in pixels

const svgOf = (plot) => d3.select(plot.tagName === "svg" ? plot : plot.querySelector("svg"));
const textOf = (row, view) => (view.colours[row] === "base" ? "var(--muted)" : `var(--${view.colours[row]})`);
const weightOf = (row, view) => (/^g\d/.test(view.colours[row]) ? 650 : null);

/** The lowest and the highest place of an axis over the rows that are switched on; PanelAxis.limits of Python is the same over all rows. */
function limitsOf(axis, on) {
  const reach = Object.entries(axis.reach ?? {}), shown = reach.filter(([row]) => on(row));
  const places = [...(axis.always ?? []), ...(shown.length ? shown : reach).flatMap(([, ends]) => ends)];
  const [low, high] = places.length ? d3.extent(places) : [0, 1], span = high - low || 1, [before, after] = axis.margin;
  const least = low - before * span;
  return [axis.least == null ? least : Math.max(least, axis.least), high + after * span];
}

/** The first level with more than a few ticks between two places, else the finest one. */
function ticksOf(axis, [low, high]) {
  const levels = (axis.ticks ?? []).map((level) => level.filter(([at]) => at >= low && at <= high));
  const ticks = levels.find((level) => level.length > FEW) ?? levels[levels.length - 1] ?? [];
  return { ticks: ticks.map(([at]) => at), tickFormat: (at) => ticks.find(([place]) => place === at)[1] };
}

/** Widens one of two domains so that one unit has the same length on both axes. */
function square(x, y, width, height) {
  const unit = Math.max((x[1] - x[0]) / width, (y[1] - y[0]) / height);
  const around = ([a, b], pixels) => [(a + b) / 2 - (unit * pixels) / 2, (a + b) / 2 + (unit * pixels) / 2];
  return [around(x, width), around(y, height)];
}

/** A mark's points that are switched on, with their notes. */
function pointsOf(mark, view, slots) {
  return mark.x.map((x, i) => ({
    x, y: slots ? slots.get(Math.round(mark.y[i])) + mark.y[i] - Math.round(mark.y[i]) : mark.y[i], row: mark.through ? mark.through[i] : mark.row,
    note: mark.networks ? view.note(mark.row, mark.networks[i]) : mark.notes?.[i],
  })).filter((d) => d.row == null || view.on(d.row));
}

const xy = { x: "x", y: "y" };
// The marks of Plot that draw a mark, from its points and the panel.
const DRAW = {
  dots: (mark, points, { view, clip }) => {
    const colour = `var(--${view.colours[mark.row]})`, r = RADII[mark.size];
    if (mark.hollow) return [Plot.dot(points, { ...xy, r, fill: "var(--paper)", stroke: colour, strokeWidth: 1.6, clip })];
    return [Plot.dot(points, { ...xy, r, fill: colour, fillOpacity: mark.faint ? 0.42 : 1, stroke: mark.size === "large" ? "var(--paper)" : null, clip })];
  },
  line: (mark, points, { view, clip }) => [Plot.line(points, { ...xy, stroke: `var(--${view.colours[mark.row] ?? "base"})`, strokeWidth: mark.width, strokeDasharray: mark.dashed ? "5 4" : null, clip })],
  bar: (mark, points, { view }) => [Plot.ruleX(points, { x: "x", y1: (d) => d.y - 0.4, y2: (d) => d.y + 0.4, stroke: textOf(mark.row, view), strokeWidth: 2.4 })],
  rule: (mark) => [(mark.axis === "x" ? Plot.ruleX : Plot.ruleY)([mark.at], DOTTED)],
  band: (mark, _, { x, y }) => [
    Plot.rect([0], { x1: Math.max(mark.low, x[0]), x2: mark.high, y1: y[0], y2: y[1], fill: "var(--warn)", fillOpacity: 0.08 }),
    mark.text ? Plot.text([mark.text], { frameAnchor: "top-left", dx: 6, dy: 6, fill: "var(--warn)" }) : null,
  ],
  words: (mark, points) => [Plot.text(points, { ...xy, dx: -9, textAnchor: "end", fill: "var(--muted)", text: () => mark.text })],
  cells: (mark) => [Plot.rect(mark.points, { x1: (d) => d.x - 0.5, x2: (d) => d.x + 0.5, y1: (d) => d.y - 0.5, y2: (d) => d.y + 0.5, fill: (d) => (d.value >= 0 ? "var(--g0)" : "var(--g1)"), fillOpacity: (d) => Math.min(1, Math.abs(d.value ?? 0) / mark.most), shapeRendering: "crispEdges" }), Plot.frame({ stroke: "var(--rule)" })],
};

const cellsOf = (mark) => mark.values.flatMap((line, r) => line.map((value, c) => ({ x: c + 0.5, y: r + 0.5, value, note: `${mark.name} [${r}, ${c}]\n${value == null ? "NaN" : value.toPrecision(3)}` })));

/** One panel. `size` has its width and, unless its axis lists names, its height; `named`: whether it prints these names. */
function drawPanel(panel, view, size, named = true) {
  const lines = (panel.y.slots ?? []).map((slot, i) => ({ ...slot, i })).filter((slot) => slot.row == null || view.on(slot.row));
  const slots = panel.y.slots ? new Map(lines.map((slot, place) => [slot.i, place])) : null;
  const marks = panel.marks.filter((mark) => mark.row == null || view.on(mark.row)).map((mark) => {
    if (mark.mark === "cells") mark.points ??= cellsOf(mark);
    const single = typeof mark.x === "number" ? { ...mark, x: [mark.x], y: [mark.y], notes: mark.note && [mark.note] } : mark;
    return { mark, points: mark.points ?? (single.x ? pointsOf(single, view, slots) : []) };
  });
  const cells = panel.marks.some((mark) => mark.mark === "cells"), ends = panel.marks.some((mark) => mark.mark === "line" && mark.name);
  const longest = d3.max(lines, (slot) => slot.name.length) ?? 0;
  const margin = slots ? { left: named ? Math.min(CHARACTER * 1.1 * longest + 22, size.width * 0.4) : 18, right: 18, top: 38, bottom: 6 }
    : cells ? { left: 0, right: 0, top: 26, bottom: 0 } : { left: 44, right: ends ? 110 : 14, top: panel.title ? 30 : 24, bottom: 40 };
  const height = slots ? margin.top + margin.bottom + view.pitch * lines.length : size.height;
  let [x, y] = [limitsOf(panel.x, view.on), slots ? [-0.5, lines.length - 0.5] : limitsOf(panel.y, view.on)];
  if (panel.square) [x, y] = square(x, y, size.width - margin.left - margin.right, height - margin.top - margin.bottom);
  const [across, up] = [ticksOf(panel.x, x), ticksOf(panel.y, y)], frame = { view, x, y, clip: panel.square };
  const noted = marks.flatMap(({ points }) => points).filter((d) => d.note && (!panel.square || (d.x >= x[0] && d.x <= x[1] && d.y >= y[0] && d.y <= y[1])));
  const grid = { stroke: "var(--rule)", strokeOpacity: 1 }, plain = { label: null, labelArrow: "none", tickSize: 0 };
  const text = (rows, style) => Plot.text(rows, { x: x[0], y: (slot) => slots.get(slot.i), text: "name", textAnchor: "end", dx: -10, fill: (slot) => (slot.row == null ? "var(--ink)" : textOf(slot.row, view)), ...style });
  const changes = lines.slice(1).flatMap((slot, i) => (slot.kind !== lines[i].kind ? [i + 0.5] : []));
  const plot = Plot.plot({
    className: "fig", width: size.width, height, marginLeft: margin.left, marginRight: margin.right, marginTop: margin.top, marginBottom: margin.bottom,
    x: cells ? { axis: null, domain: x } : { ...plain, ...across, domain: x, clamp: !panel.square, axis: slots ? "top" : "bottom", ...(slots || !panel.x.label ? {} : { label: panel.x.label + " →", labelAnchor: "right" }) },
    y: slots ? { domain: y, reverse: true, axis: null } : cells ? { axis: null, domain: y, reverse: true } : { ...plain, ...up, domain: y, clamp: !panel.square, ...(panel.y.label ? { label: "↑ " + panel.y.label } : {}) },
    r: { type: "identity" }, opacity: { type: "identity" },
    marks: [
      cells ? null : Plot.gridX({ ticks: across.ticks, ...grid }),
      slots ? Plot.ruleY(lines[0]?.row == null ? lines.map((_, i) => i) : changes, lines[0]?.row == null ? { stroke: "var(--rule)" } : { stroke: "var(--muted)", strokeOpacity: 0.6 }) : cells ? null : Plot.gridY({ ticks: up.ticks, ...grid }),
      panel.title ? Plot.text([panel.title], { frameAnchor: "top-left", dx: slots || cells ? 0 : -margin.left, dy: cells ? -22 : slots ? -34 : -28, fontWeight: cells ? 500 : 650, fill: "var(--ink)" }) : null,
      slots && named ? text(lines.filter((slot) => slot.kind !== "generator"), {}) : null, slots && named ? text(lines.filter((slot) => slot.kind === "generator"), { fontWeight: 650 }) : null,
      ...marks.flatMap(({ mark, points }) => DRAW[mark.mark](mark, points, frame)),
      Plot.tip(noted, Plot.pointer({ ...xy, title: "note", maxRadius: 40, lineHeight: 1.25, textPadding: 9, pointerSize: 6 })),
    ],
  });
  nameDots(plot, marks, frame, margin, size.width);
  nameEnds(plot, marks, view, size.width - margin.right + 6);
  return plot;
}

/** Names beside their dots where they cover no other name and no dot of a generator or reference, and as few other marks as can be. */
function nameDots(plot, marks, { view, x, y }, margin, width) {
  const named = marks.filter(({ mark, points }) => mark.name && mark.mark === "dots" && points.length).map(({ mark, points: [d] }) => ({ mark, x: d.x, y: d.y }));
  if (!named.length) return;
  const [px, py] = [plot.scale("x").apply, plot.scale("y").apply], height = plot.scale("y").range[0];
  const spots = marks.flatMap(({ mark, points }) => (mark.mark === "dots" ? points.map((d) => [px(d.x), py(d.y)]) : mark.mark === "line" ? d3.pairs(points).flatMap(([a, b]) => d3.range(0, 1, 0.02).map((t) => [px(a.x) * (1 - t) + px(b.x) * t, py(a.y) * (1 - t) + py(b.y) * t])) : mark.mark === "rule" ? d3.range(0, 1, 0.01).map((t) => (mark.axis === "x" ? [px(mark.at), t * height] : [t * width, py(mark.at)])) : []));
  const taken = named.filter(({ mark }) => view.colours[mark.row] !== "base").map((d) => ({ mark: d.mark, box: [px(d.x) - 7, py(d.y) - 7, px(d.x) + 7, py(d.y) + 7] }));
  const layer = svgOf(plot).insert("g", "[aria-label=tip]").attr("font-size", FONT).attr("pointer-events", "none");
  for (const { mark, ...d } of named.reverse()) {
    const text = mark.name + (d.y < y[0] ? " ↓" : "") + (d.x > x[1] ? " →" : ""), w = CHARACTER * text.length, [cx, cy] = [px(d.x), py(d.y)];
    const places = [[10, 4, "start"], [-10, 4, "end"], [0, -10, "middle"], [0, 18, "middle"], [7, -7, "start"], [7, 15, "start"], [-7, -7, "end"], [-7, 15, "end"]].map(([dx, dy, anchor]) => {
      const left = cx + dx - { start: 0, middle: w / 2, end: w }[anchor], box = [left, cy + dy - 9, left + w, cy + dy + 3];
      const free = box[0] > margin.left && box[2] < width && box[1] > 14 && box[3] < height && !taken.some((t) => t.mark !== mark && box[0] < t.box[2] && t.box[0] < box[2] && box[1] < t.box[3] && t.box[1] < box[3]);
      return { dx, dy, anchor, box, free, covers: spots.filter(([sx, sy]) => sx > box[0] - NEAR && sx < box[2] + NEAR && sy > box[1] - NEAR && sy < box[3] + NEAR).length };
    }).filter((place) => place.free);
    const best = places[d3.minIndex(places, (place) => place.covers)];
    if (!best || (view.colours[mark.row] === "base" && best.covers > COVERED)) continue;
    taken.push({ box: best.box });
    layer.append("text").attr("x", cx + best.dx).attr("y", cy + best.dy).attr("text-anchor", best.anchor).attr("fill", textOf(mark.row, view)).attr("font-weight", weightOf(mark.row, view)).text(text);
  }
}

/** Names at the right ends of lines, moved apart where they would meet. */
function nameEnds(plot, marks, view, left) {
  const ends = marks.filter(({ mark, points }) => mark.name && mark.mark === "line" && points.length).map(({ mark, points }) => ({ mark, y: points[points.length - 1].y }));
  let last = Infinity;
  for (const { mark, y } of d3.sort(ends, (d) => d.y)) {
    last = Math.min(plot.scale("y").apply(y), last - 14);
    svgOf(plot).append("text").attr("x", left).attr("y", last + 4).attr("text-anchor", "start").attr("font-size", FONT).attr("fill", textOf(mark.row, view)).attr("font-weight", weightOf(mark.row, view)).text(mark.name);
  }
}

/** The nodes of a picture at a width. `state` remembers what was chosen. */
function drawPicture(picture, view, width, state) {
  const panels = picture.panels.filter((panel) => panel.row == null || view.on(panel.row));
  if (picture.layout === "side") {
    const phone = width < PHONE, side = width > 820; // on a phone the next panel shows at the edge
    const several = panels.length > 1, share = (panel) => (!several ? 1 : side ? panel.share : phone ? 0.86 : 1);
    return panels.map((panel, i) => drawPanel(panel, { ...view, pitch: several ? 24 : 18 }, { width: width * share(panel) }, i === 0 || !side));
  }
  const choices = [...new Set(picture.panels.map((panel) => panel.choice).filter(Boolean))], choice = choices[state.choice ?? 0];
  const shown = panels.filter((panel) => panel.choice === choice);
  const columns = Math.max(1, Math.min(picture.columns, Math.floor(width / picture.narrowest))), gap = 28, own = (width - gap * (columns - 1)) / columns;
  const nodes = shown.map((panel) => {
    const cells = panel.marks.find((mark) => mark.mark === "cells");
    const height = cells ? 26 + Math.max(40, (own * cells.values.length) / cells.values[0].length) : picture.columns > 1 ? 220 : Math.max(320, Math.min(420, own * 0.78));
    return drawPanel(panel, view, { width: own, height });
  });
  if (!choices.length) return nodes;
  const buttons = d3.create("div").attr("class", "choice").attr("role", "group").attr("aria-label", "Layer");
  buttons.selectAll("button").data(choices).join("button").attr("type", "button").attr("aria-pressed", (d) => d === choice).text((d) => d).on("click", (_, d) => { state.choice = choices.indexOf(d); state.redraw(); });
  return [buttons.node(), ...nodes];
}

/** Draw a section's pictures now and whenever their width or its rows change. */
function drawFigures(section) {
  const { notes, pictures } = JSON.parse(section.querySelector("script.pictures").textContent);
  const chips = [...section.querySelectorAll(".chip")], off = new Set(), rows = chips.map((chip) => chip.dataset.row);
  const note = (row, i) => [`${row}, network ${i}`, ...notes.lines.map((line, k) => (notes.numbers[row]?.[k]?.[i] == null ? null : line.replace("#", notes.numbers[row][k][i]))).filter(Boolean)].join("\n");
  const view = { on: (row) => !off.has(row), note };
  const plots = [...section.querySelectorAll(".plot")].map((node) => {
    const picture = pictures[node.dataset.figure], state = { width: 0, redraw: () => {
      state.width = node.clientWidth;
      node.classList.toggle("side", picture.layout === "side");
      node.classList.toggle("sideways", picture.layout === "side" && picture.panels.length > 1 && state.width < PHONE);
      if (state.width) node.replaceChildren(...(off.size < rows.length ? drawPicture(picture, { ...view, colours: picture.colours }, Math.floor(state.width), state) : []));
    } };
    new ResizeObserver(() => { if (node.clientWidth !== state.width) setTimeout(state.redraw); }).observe(node);
    return state;
  });
  const redraw = () => {
    chips.forEach((chip) => chip.setAttribute("aria-pressed", view.on(chip.dataset.row)));
    section.querySelectorAll(".rows tbody tr").forEach((tr) => tr.classList.toggle("off", off.has(tr.dataset.row)));
    plots.forEach((plot) => plot.redraw());
  };
  plots.forEach((plot) => plot.redraw());
  section.classList.add("drawn");
  chips.forEach((chip) => { chip.onclick = () => { if (!off.delete(chip.dataset.row)) off.add(chip.dataset.row); redraw(); }; });
  section.querySelectorAll(".chips-baselines").forEach((button) => {
    button.onclick = () => {
      const names = chips.filter((chip) => chip.dataset.colour === "base").map((chip) => chip.dataset.row), hide = names.some(view.on);
      names.forEach((name) => (hide ? off.add(name) : off.delete(name)));
      redraw();
    };
  });
}
document.querySelectorAll("section.evaluation").forEach((section) => section.hidden || drawFigures(section));
document.addEventListener("shown", (e) => e.target.classList.contains("drawn") || drawFigures(e.target));
