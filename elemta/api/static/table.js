/** Tables. Where there is no room each row becomes a card, with the column's name beside the value. */

import { h } from "./dom.js";

/**
 * A table.
 *
 * @param {string} caption read out by screen readers.
 * @param {Array<{title: string, cell: (row) => (Node|string|number|null), kind?: string}>} columns
 *   kind: "number", "mono", "main" (the widest), "tight".
 * @param {Array} rows
 * @param {string} empty what to say where there are none.
 */
export function table(caption, columns, rows, empty) {
  if (rows.length === 0) return nothing(empty);
  return h(
    "table",
    {},
    h("caption", { class: "unseen" }, caption),
    h(
      "thead",
      {},
      h("tr", {}, columns.map(({ title, kind }) => h("th", { scope: "col", class: kind }, title))),
    ),
    h("tbody", {}, rows.map((row) => line(columns, row))),
  );
}

/** One row. */
export function line(columns, row) {
  return h(
    "tr",
    {},
    columns.map(({ title, cell, kind }) => {
      const label = typeof title === "string" ? title : null;
      return h("td", { class: kind, "data-label": label }, h("div", {}, cell(row)));
    }),
  );
}

/** Says that there is nothing to show. */
export function nothing(text) {
  return h("p", { class: "nothing" }, text);
}

/** Names and values. */
export function facts(pairs) {
  const told = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h(
    "dl",
    { class: "facts" },
    told.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
  );
}
