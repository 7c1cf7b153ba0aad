/** What waits, and what became of what did: with filters, and with what can be done about it. */

import * as api from "../api.js";
import { ACTIONS, PRIORITIES, act } from "../actions.js";
import { fill, h } from "../dom.js";
import { choice, line, written } from "../fields.js";
import { count, counted, octets, seconds } from "../format.js";
import { address as hash } from "../router.js";
import { address, badge, button, holder, messageLink, pageLinks, poll, settled, trouble } from "../shapes.js";
import { failed, toast } from "../toast.js";
import { table } from "../table.js";
import { ago } from "../times.js";

const VIEWS = [
  ["", "Waiting", "All that is not finished."],
  ["active", "Active", "It is due: it is tried as soon as its destination takes it, which may be parked or suspended."],
  ["deferred", "Deferred", "It waits for its time: that of the next attempt, or the one that was asked for when it was sent."],
  ["hold", "Held", "It is not tried until somebody releases it."],
  ["failed", "Failed", "It was given up, and is remembered for a while."],
  ["delivered", "Delivered", "It has left, and is remembered for a while."],
];
const WORDS = ["domain", "sender", "recipient", "tag", "error", "destination", "owner", "text"];
const NUMBERS = ["older_than", "younger_than", "larger_than", "smaller_than"];
const PAGE = 50;
/** So many that match are acted upon one by one, which can be undone exactly. */
const ONE_BY_ONE = 500;

export default function queue({ query, signal }, store) {
  const chosen = new Set();
  const list = h("div", { class: "list", "aria-busy": "true" });
  const bar = h("div", { class: "actions", role: "group", "aria-label": "Do something with mail" });
  const counts = h("span", { class: "soft", role: "status" });
  const pager = h("div", { class: "pager" });
  let rows = [];
  let drawn = "";

  const load = async () => {
    try {
      const found = await api.get(`/v1/queue/messages${search(query)}`, signal);
      const text = JSON.stringify(found);
      if (text === drawn) return;
      drawn = text;
      rows = found.messages;
      for (const id of chosen) if (!rows.some((row) => row.id === id)) chosen.delete(id);
      const focused = document.activeElement?.getAttribute?.("data-row");
      fill(list, listOf(rows, chosen, drawBar));
      if (focused) list.querySelector(`[data-row="${CSS.escape(focused)}"]`)?.focus();
      fill(pager, pageLinks("queue", query, found.next, "First page", "Next page"));
      drawBar();
    } catch (error) {
      if (error.name !== "AbortError") fill(list, trouble(error));
    } finally {
      list.removeAttribute("aria-busy");
    }
  };

  const drawBar = () => {
    const many = chosen.size;
    const label = many ? `${counted(many, "selected message")}` : "All that match";
    fill(counts, many ? `${count(many)} selected` : `${counted(rows.length, "message")} on this page`);
    fill(
      bar,
      h("span", { class: "actions-for" }, label),
      Object.entries(ACTIONS).map(([word, { label: text, danger }]) =>
        button(text, () => start(word), `small${danger ? " danger-text" : ""}`)),
    );
  };

  const start = async (word) => {
    try {
      const ids = [...chosen];
      const given = filterOf(query);
      const meant = ids.length ? { ...given, ids } : await exact(given, query);
      if (meant === null) {
        toast("No message is like this.");
        return;
      }
      const known = rows.filter((row) => ids.includes(row.id)).map((row) => row.priority);
      await act(word, {
        filter: meant,
        what: ids.length ? counted(ids.length, "selected message") : "all that match",
        priority: known.length && new Set(known).size === 1 ? known[0] : null,
        after: () => load(),
      });
    } catch (error) {
      failed(error);
    }
  };

  const again = settled(load, 400, 2000);
  store.watch((events) => events.some(({ id }) => id !== undefined) && again(), signal);
  poll(load, 15_000, signal);

  return {
    title: "Queue",
    keepsFocus: document.activeElement?.closest(".filter, .pager") !== null && document.activeElement !== document.body,
    tools: [counts],
    body: [
      views(query),
      filterForm(query),
      api.may("operate") ? bar : [],
      list,
      pager,
    ],
  };
}

/** If few enough match they are named one by one: then what was confirmed is what is done. Null: none does. */
async function exact(filter, query) {
  const { messages } = await api.get(`/v1/queue/messages${search(query, { limit: ONE_BY_ONE, cursor: null })}`);
  if (messages.length === ONE_BY_ONE) return filter;
  if (messages.length === 0) return null;
  return { ...filter, ids: messages.map(({ id }) => id) };
}

function views(query) {
  const current = query.get("view") ?? "";
  const list = h(
    "ul",
    { class: "views" },
    VIEWS.map(([view, text, about]) => {
      const there = new URLSearchParams(query);
      there.delete("cursor");
      if (view) there.set("view", view);
      else there.delete("view");
      return h("li", {}, h("a", { title: about, href: hash("queue", [], there), "aria-current": view === current ? "true" : null }, text));
    }),
  );
  return [list, h("p", { class: "soft" }, VIEWS.find(([view]) => view === current)?.[2] ?? "")];
}

function filterForm(query) {
  const value = (name) => query.get(name) ?? "";
  const more = [...WORDS.slice(4, -1), ...NUMBERS, "priority", "tag"].some((name) => value(name) !== "");
  const form = h(
    "form",
    { class: "filter", role: "search", "aria-label": "Filter" },
    h(
      "div",
      { class: "grid" },
      line("Text", "text", { value: value("text"), placeholder: "address, reply or id" }),
      line("Recipient's domain", "domain", { value: value("domain"), placeholder: "example.net or *.example.net" }),
      line("Sender", "sender", { value: value("sender"), placeholder: "address, @domain or <>" }),
      line("Recipient", "recipient", { value: value("recipient"), placeholder: "address" }),
    ),
    h(
      "details",
      { open: more },
      h("summary", {}, "More"),
      h(
        "div",
        { class: "grid" },
        line("Destination", "destination", { value: value("destination") }),
        line("Last reply has", "error", { value: value("error"), placeholder: "e.g. 421 or timed out" }),
        line("Tag", "tag", { value: value("tag") }),
        choice("Priority", "priority", [["", "any"], ...PRIORITIES], { value: value("priority") }),
        line("Older than", "older_than", { value: inWords(value("older_than")), placeholder: "e.g. 2 h" }),
        line("Younger than", "younger_than", { value: inWords(value("younger_than")), placeholder: "e.g. 15 min" }),
        line("Larger than (octets)", "larger_than", { value: value("larger_than"), inputmode: "numeric", pattern: "\\d+" }),
        line("Smaller than (octets)", "smaller_than", { value: value("smaller_than"), inputmode: "numeric", pattern: "\\d+" }),
        line("Held by", "owner", { value: value("owner") }),
      ),
    ),
    h(
      "div",
      { class: "buttons" },
      h("button", { type: "submit", class: "primary" }, "Filter"),
      h("a", { class: "button", href: hash("queue") }, "Clear"),
    ),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    try {
      const there = new URLSearchParams();
      if (query.get("view")) there.set("view", query.get("view"));
      for (const [key, text] of Object.entries(written(form))) {
        there.set(key, key.endsWith("er_than") && !key.startsWith("larger") && !key.startsWith("smaller") ? String(seconds(text)) : text);
      }
      location.hash = hash("queue", [], there);
    } catch (error) {
      toast(error.message, { kind: "bad" });
    }
  });
  return form;
}

/** Seconds of the address, as somebody would have written them. */
function inWords(value) {
  return value === "" ? "" : `${value} s`;
}

function listOf(rows, chosen, changed) {
  const boxes = [];
  const every = h("input", { type: "checkbox", "aria-label": "Select all on this page", "data-row": "every" });
  const marks = () => {
    every.checked = rows.length > 0 && chosen.size === rows.length;
    every.indeterminate = chosen.size > 0 && chosen.size < rows.length;
    changed();
  };
  every.addEventListener("change", () => {
    for (const row of rows) {
      if (every.checked) chosen.add(row.id);
      else chosen.delete(row.id);
    }
    for (const box of boxes) box.checked = every.checked;
    marks();
  });
  const box = (row) => {
    const element = h("input", {
      type: "checkbox", "aria-label": `Select ${row.id}`, "data-row": row.id, checked: chosen.has(row.id),
      onchange: () => {
        if (element.checked) chosen.add(row.id);
        else chosen.delete(row.id);
        marks();
      },
    });
    boxes.push(element);
    return element;
  };
  const may = api.may("operate");
  return table(
    "Messages",
    [
      ...(may ? [{ title: every, kind: "select", cell: box }] : []),
      { title: "Message", kind: "tight", cell: (row) => [messageLink(row.id), h("div", { class: "soft" }, ago(row.received_at), ` · ${octets(row.size)}`)] },
      { title: "From and to", kind: "name", cell: (row) => [h("div", {}, address(row.sender)), recipientsOf(row)] },
      { title: "State", cell: statesOf },
      { title: "Last reply", kind: "main", cell: lastOf },
    ],
    rows,
    "No message is like this.",
  );
}

function recipientsOf({ recipients }) {
  const [first, ...others] = recipients;
  return [h("span", { class: "soft", "aria-hidden": "true" }, "→ "), address(first.address), others.length ? h("span", { class: "soft" }, ` +${count(others.length)}`) : null];
}

function statesOf({ recipients, priority }) {
  const states = new Map();
  for (const { state } of recipients) states.set(state, (states.get(state) ?? 0) + 1);
  return [
    [...states].map(([state, many]) => badge(state, many > 1 ? `${many} ${state}` : state)),
    priority === "normal" ? null : badge("off", priority),
  ];
}

function lastOf({ recipients }) {
  const due = recipients.filter((each) => each.due !== null).map((each) => each.due);
  const held = recipients.find((each) => each.held_by);
  const told = held ? holder(held) : recipients.find((each) => each.last)?.last ?? "";
  return [
    h("span", { class: held ? "soft" : "reply" }, told),
    due.length ? h("span", { class: "soft" }, told ? " · next " : "next ", ago(Math.min(...due))) : null,
  ];
}

/** The query of the API for this page's. */
function search(query, more = {}) {
  const asked = Object.fromEntries([...WORDS, ...NUMBERS, "view", "priority", "cursor"].map((key) => [key, query.get(key)]));
  return api.query({ ...asked, newest: "true", limit: PAGE, ...more });
}

/** The filter of a bulk action for this page's query. */
function filterOf(query) {
  const found = {};
  for (const key of [...WORDS, "priority"]) if (query.get(key)) found[key] = query.get(key);
  for (const key of NUMBERS) if (query.get(key)) found[key] = Number(query.get(key));
  if (query.get("view")) found.views = [query.get("view")];
  return found;
}
