"use strict";
// Without this script the page is complete; it adds the choice of the axis and the values under the pointer.

const SVG = "http://www.w3.org/2000/svg";
const MAX_SHOWN = 8; // runs whose values fit beside the pointer

const curves = document.getElementById("curves");
for (const input of document.querySelectorAll(".choice input")) {
  input.addEventListener("change", () => { curves.dataset.axis = input.value; });
}

window.addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details")) part.open = true;
});

function add(parent, name, attributes, text) {
  const child = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) child.setAttribute(key, value);
  if (text !== undefined) child.textContent = text;
  parent.append(child);
  return child;
}

// Returns the point of a run that is nearest in x. Points are in the order of x.
function nearest(points, x) {
  let low = 0, high = points.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (points[middle][0] < x) low = middle; else high = middle;
  }
  return Math.abs(points[low][0] - x) <= Math.abs(points[high][0] - x) ? points[low] : points[high];
}

function show(chart, data, x) {
  const box = chart.viewBox.baseVal, group = chart.querySelector(".pointer");
  group.replaceChildren();
  const found = data.runs.map((run) => ({ run, point: nearest(run.at, x) }));
  const closest = found.reduce((best, each) =>
    Math.abs(each.point[0] - x) < Math.abs(best.point[0] - x) ? each : best).point;
  const shown = found.filter((each) => Math.abs(each.point[0] - closest[0]) < 12);
  add(group, "line", { x1: closest[0], x2: closest[0], y1: 14, y2: box.height - 46 });
  for (const { run, point } of shown) add(group, "circle", { cx: point[0], cy: point[1], r: 4, class: `c${run.color}` });
  const lines = shown.slice(0, MAX_SHOWN).map(({ run, point }) => ({
    color: run.color,
    text: data.runs.length > 1 ? `${run.label.slice(0, 28)}: ${point[3]}` : point[3],
  }));
  if (shown.length > MAX_SHOWN) lines.push({ text: `and ${shown.length - MAX_SHOWN} more` });
  const heading = `${closest[2]} ${data.x}`;
  const frame = add(group, "rect", { rx: 4 });
  const texts = [add(group, "text", { "font-weight": 600 }, heading)];
  const dots = [];
  for (const line of lines) {
    texts.push(add(group, "text", {}, line.text));
    dots.push(line.color === undefined ? null : add(group, "circle", { r: 3.5, class: `c${line.color}` }));
  }
  const width = Math.max(...texts.map((text) => text.getComputedTextLength())) + 34;
  const height = 17 * texts.length + 12;
  const left = closest[0] + 12 + width > box.width ? closest[0] - 12 - width : closest[0] + 12;
  for (const [key, value] of Object.entries({ x: left, y: 18, width, height })) frame.setAttribute(key, value);
  texts.forEach((text, row) => {
    text.setAttribute("x", left + (row ? 24 : 10));
    text.setAttribute("y", 18 + 19 + 17 * row);
    if (row && dots[row - 1]) {
      dots[row - 1].setAttribute("cx", left + 14);
      dots[row - 1].setAttribute("cy", 18 + 15 + 17 * row);
    }
  });
}

for (const chart of document.querySelectorAll(".chart")) {
  const data = JSON.parse(chart.dataset.points);
  chart.addEventListener("pointermove", (event) => {
    const place = chart.getBoundingClientRect();
    show(chart, data, (event.clientX - place.left) * chart.viewBox.baseVal.width / place.width);
  });
  chart.addEventListener("pointerleave", () => chart.querySelector(".pointer").replaceChildren());
}
