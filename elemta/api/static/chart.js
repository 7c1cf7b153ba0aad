/** Charts, drawn by hand in SVG; colours come from the style sheet, by class. */

import { h, fill } from "./dom.js";
import { count } from "./format.js";

const WIDTH = 1000;
const HEIGHT = 200;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

/** The next round number to which an axis can go: 1, 2, 5, 10, 20, … */
export function ceiling(value) {
  if (value <= 1) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((each) => each * power).find((each) => each >= value);
}

/** A path through values: [x, y] in the chart's own units; null ends a stretch. */
export function path(points) {
  let told = "";
  let on = false;
  for (const point of points) {
    if (point === null) {
      on = false;
      continue;
    }
    told += `${on ? "L" : "M"}${point[0].toFixed(1)} ${point[1].toFixed(1)}`;
    on = true;
  }
  return told;
}

/**
 * A chart of the last seconds that moves on by itself.
 *
 * @param {Object} given
 * @param {string} given.title what a screen reader says.
 * @param {number} given.seconds how far back it goes.
 * @param {Array<{name: string, kind: string, at: (second: number) => ?number}>} given.series the
 *   first is drawn as an area, too.
 * @param {() => number} given.now seconds, with a fraction.
 * @param {AbortSignal} given.signal stops it.
 */
export function liveChart({ title, seconds, series, now, signal }) {
  const top = h("span", { class: "axis top" });
  const middle = h("span", { class: "axis middle" });
  const lines = series.map(({ kind }) => h("svg:path", { class: `line ${kind}` }));
  const area = h("svg:path", { class: `area ${series[0].kind}` });
  const moving = h("svg:g", {}, area, lines);
  const picture = h(
    "svg:svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    [0, 1, 2].map((each) =>
      h("svg:line", { class: "grid", x1: 0, x2: WIDTH, y1: (each * HEIGHT) / 2, y2: (each * HEIGHT) / 2 })),
    moving,
  );
  const element = h(
    "figure",
    { class: "chart", role: "img", "aria-label": title },
    h("div", { class: "plot" }, picture, top, middle),
    h("figcaption", {}, h("span", {}, `${seconds / 60} min ago`), h("span", {}, "now")),
  );
  const step = WIDTH / (seconds - 2);
  let scale = 0;

  const draw = () => {
    if (document.hidden) return;
    const whole = Math.floor(now());
    const part = now() - whole;
    let most = 1;
    const drawn = series.map(({ at }) => {
      const values = [];
      for (let back = seconds; back >= 1; back -= 1) {
        const value = at(whole - back);
        values.push(value);
        if (value !== null && value > most) most = value;
      }
      return values;
    });
    scale = ceiling(most * 1.05);
    const place = (value, index) =>
      value === null ? null : [index * step, HEIGHT - (value / scale) * (HEIGHT - 4) - 1];
    drawn.forEach((values, which) => {
      const points = values.map(place);
      lines[which].setAttribute("d", path(points));
      if (which === 0) {
        const known = points.filter((each) => each !== null);
        const closed = known.length < 2 ? "" : `${path(known)}L${known.at(-1)[0]} ${HEIGHT}L${known[0][0]} ${HEIGHT}Z`;
        area.setAttribute("d", closed);
      }
    });
    // Between two seconds it glides, so that the last one does not jump in.
    moving.setAttribute("transform", `translate(${-(calm.matches ? 1 : part) * step} 0)`);
    if (top.textContent !== count(scale)) fill(top, count(scale));
    const half = scale / 2;
    const text = Number.isInteger(half) ? count(half) : "";
    if (middle.textContent !== text) fill(middle, text);
  };

  draw();
  const timer = setInterval(draw, calm.matches ? 1000 : 200);
  signal.addEventListener("abort", () => clearInterval(timer));
  return element;
}

/**
 * Columns side by side, each in stretches one on the other.
 *
 * @param {Object} given
 * @param {string} given.title what a screen reader says.
 * @param {Array<{kind: string, name: string}>} given.series from below.
 * @param {Array<{label: string, values: Array<number>}>} given.columns `values` as `series`.
 * @param {Array<string>} given.ends what stands below the first column and the last.
 */
export function columnChart({ title, series, columns, ends }) {
  const sums = columns.map(({ values }) => values.reduce((sum, each) => sum + each, 0));
  const scale = ceiling(Math.max(1, ...sums));
  const wide = WIDTH / columns.length;
  const drawn = columns.map(({ label, values }, index) => {
    let low = HEIGHT;
    const told = series.map(({ name }, which) => `${count(values[which])} ${name}`).join(", ");
    const parts = values.map((value, which) => {
      const high = (value / scale) * (HEIGHT - 2);
      low -= high;
      return h("svg:rect", {
        class: `fill ${series[which].kind}`,
        x: (index * wide + wide * 0.1).toFixed(1), width: (wide * 0.8).toFixed(1),
        y: low.toFixed(1), height: high.toFixed(1),
      });
    });
    const whole = h("svg:rect", { class: "touch", x: index * wide, width: wide, y: 0, height: HEIGHT });
    return h("svg:g", { class: "column" }, whole, parts, h("svg:title", {}, `${label}: ${told}`));
  });
  return h(
    "figure",
    { class: "chart", role: "img", "aria-label": title },
    h(
      "div",
      { class: "plot" },
      h(
        "svg:svg",
        { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none" },
        [0, 1, 2].map((each) =>
          h("svg:line", { class: "grid", x1: 0, x2: WIDTH, y1: (each * HEIGHT) / 2, y2: (each * HEIGHT) / 2 })),
        drawn,
      ),
      h("span", { class: "axis top" }, count(scale)),
    ),
    h("figcaption", {}, ends.map((text) => h("span", {}, text))),
  );
}

/** What the colours mean; `value` elements can be kept up to date by whoever gave them. */
export function legend(series) {
  return h(
    "ul",
    { class: "legend" },
    series.map(({ name, kind, value }) =>
      h("li", {}, h("span", { class: `swatch ${kind}`, "aria-hidden": "true" }), name, value ?? null)),
  );
}
