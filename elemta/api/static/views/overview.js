/** How the server is, and what it does just now. */

import * as api from "../api.js";
import * as clock from "../clock.js";
import { columnChart, legend, liveChart } from "../chart.js";
import { fill, h } from "../dom.js";
import { count, counted, day, rate, span } from "../format.js";
import { address, badge, messageLink, panel, poll, show, trouble } from "../shapes.js";
import { facts, nothing, table } from "../table.js";
import { ago } from "../times.js";
import { entry } from "./happenings.js";

const WINDOW = 120;
/** Seconds over which the rates in figures are means. */
const MEAN = 5;
const SHOWN = 40;

export const FLOWS = [
  { name: "received", kind: "in", key: "received" },
  { name: "delivered", kind: "good", key: "delivered" },
  { name: "deferred", kind: "late", key: "deferred" },
  { name: "failed", kind: "bad", key: "failed" },
];

export const COUNTS = [
  { name: "delivered", kind: "good", keys: ["delivered"] },
  { name: "deferred", kind: "late", keys: ["deferred"] },
  { name: "failed", kind: "bad", keys: ["failed", "expired"] },
];

const SCALES = [["hour", "Hour"], ["day", "Day"], ["week", "Week"], ["month", "Month"]];

export default function overview({ signal }, store) {
  const health = h("div", { class: "health" });
  const listeners = h("div", {});
  const history = h("div", { class: "history" });
  const errors = h("div", { class: "errors" });
  const feed = h("ol", { class: "feed tall", tabindex: "0", "aria-label": "What happens" });
  const figures = tiles(store);

  const status = poll(
    async () => {
      try {
        const found = await api.get("/v1/status", signal);
        clock.set(found.asked_at);
        if (found.queue !== null) store.measured(found.queue.messages);
        fill(health, healthOf(found));
        fill(listeners, listenersOf(found));
        figures.set(found);
      } catch (error) {
        if (error.name !== "AbortError") fill(health, trouble(error));
      }
    },
    5_000,
    signal,
  );
  poll(() => show(errors, async () => errorsOf(await api.get("/v1/errors?limit=6", signal))), 20_000, signal);
  store.watch((events) => {
    figures.draw();
    tell(feed, events);
    if (events.some(({ type }) => type === "Parked" || type === "Suspended" || type === "Resumed")) status();
  }, signal);
  tell(feed, store.events.slice(-SHOWN));
  const timer = setInterval(figures.draw, 1000);
  signal.addEventListener("abort", () => clearInterval(timer));

  const flow = liveChart({
    title: "Messages received, recipients delivered, deferred and failed in each of the last two minutes' seconds",
    seconds: WINDOW, now: clock.now, signal,
    series: FLOWS.map(({ name, kind, key }) => ({ name, kind, at: (second) => store.rateAt(key, second) })),
  });
  const depth = liveChart({
    title: "Messages that waited in each of the last two minutes' seconds",
    seconds: WINDOW, now: clock.now, signal,
    series: [{ name: "waiting", kind: "held", at: (second) => store.depthAt(second) }],
  });

  return {
    title: "Overview",
    body: [
      figures.element,
      h(
        "div",
        { class: "columns wide-first" },
        panel("Throughput", legend(FLOWS), flow),
        panel("Queue depth", [], depth),
      ),
      h(
        "div",
        { class: "columns wide-first" },
        statisticsPanel(history, signal),
        panel("Health", [], health),
      ),
      h(
        "div",
        { class: "columns wide-first" },
        panel("Recent errors", h("a", { href: "#/statistics" }, "All"), errors),
        panel("Listeners", h("a", { href: "#/sessions" }, "Sessions"), listeners),
      ),
      panel("What happens", [], feed),
    ],
  };
}

/** The figures on top. */
function tiles(store) {
  const made = [...FLOWS.map(({ name, kind }) => [name, kind, "per second"]), ["waiting", "held", ""], ["sessions", "", ""]]
    .map(([name, kind, unit]) => {
      const value = h("strong", {}, "–");
      const about = h("small", {}, unit);
      return { name, value, about, element: h("div", { class: `tile ${kind}` }, h("span", {}, name), value, about) };
    });
  const of = (name) => made.find((each) => each.name === name);
  const say = (element, text) => {
    if (element.textContent !== text) element.textContent = text;
  };
  return {
    element: h("div", { class: "tiles" }, made.map(({ element }) => element)),
    draw() {
      const second = Math.floor(clock.now());
      for (const { name, key } of FLOWS) say(of(name).value, rate(store.rates[key].mean(second, MEAN)));
      say(of("waiting").value, store.depth === null ? "–" : count(store.depth));
    },
    set(status) {
      say(of("sessions").value, count(status.sessions));
      say(of("sessions").about, `of ${count(status.places)}`);
      const held = status.queue?.recipients;
      if (held) say(of("waiting").about, `${count(held.deferred)} deferred, ${count(held.held)} held`);
      this.draw();
    },
  };
}

function healthOf(status) {
  const troubles = [...status.troubles];
  if (status.stopping) troubles.unshift("It is stopping: it takes no more mail.");
  const parts = status.parts.filter((part) => !part.running || part.failure !== null);
  const good = troubles.length === 0 && parts.length === 0;
  return [
    h("p", { class: `verdict ${good ? "good" : "bad"}`, role: "status" }, good ? "All is well" : counted(troubles.length + parts.length, "trouble")),
    troubles.length ? h("ul", { class: "troubles" }, troubles.map((each) => h("li", {}, each))) : null,
    parts.length
      ? h("ul", { class: "troubles" }, parts.map((part) =>
          h("li", {}, `${part.name} ${part.running ? "runs again" : "is being started again"}, after ${counted(part.restarts, "restart")}: ${part.failure ?? ""}`)))
      : null,
    facts([
      ["Version", status.version],
      ["Running for", span(status.asked_at - status.started_at)],
      ["Oldest waiting", status.queue?.oldest ? ago(status.queue.oldest) : "none"],
      ["In memory", counted(status.in_memory, "message")],
      ["In history", status.queue ? counted(status.queue.history, "message") : "unknown"],
      ["Deliveries at a time", count(status.deliveries)],
    ]),
  ];
}

function listenersOf(status) {
  return table(
    "Listeners",
    [
      { title: "Name", cell: (each) => [each.name, each.name === each.kind ? null : h("div", { class: "soft" }, each.kind)] },
      { title: "Address", kind: "mono", cell: (each) => each.addresses.join(", ") },
      { title: "Clients", kind: "number", cell: (each) => count(each.connections) },
    ],
    status.listeners,
    "No listener: mail comes in over the API only.",
  );
}

/** The last failures, the newest first. */
export function errorsOf({ errors }) {
  return table(
    "Recent errors",
    [
      { title: "When", kind: "tight", cell: (each) => [badge(each.type, each.type.toLowerCase()), h("div", { class: "soft" }, ago(each.at))] },
      { title: "Recipient", kind: "name", cell: (each) => [address(each.recipient), h("br"), messageLink(each.id)] },
      { title: "Answer", kind: "main", cell: (each) => h("span", { class: "reply" }, each.reply) },
    ],
    errors,
    "No attempt has failed lately.",
  );
}

/** Columns by hour, day, week or month, with a switch. */
export function statisticsPanel(place, signal) {
  let scale = "hour";
  const ask = poll(
    () => show(place, async () => columnsOf(await api.get(`/v1/statistics?scale=${scale}`, signal))),
    30_000,
    signal,
  );
  const tabs = SCALES.map(([value, text]) =>
    h("button", { type: "button", class: "small", "aria-pressed": String(value === scale), onclick: (event) => {
      scale = value;
      for (const each of tabs) each.setAttribute("aria-pressed", String(each === event.currentTarget));
      ask();
    } }, text));
  return panel("Rates", h("div", { class: "group", role: "group", "aria-label": "How far back" }, tabs), place);
}

function columnsOf({ scale, buckets, total, step }) {
  const sum = (counts, keys) => keys.reduce((all, key) => all + (counts[key] ?? 0), 0);
  const label = (bucket) => {
    if (step >= 86400) return day(bucket.start);
    return new Date(bucket.start * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  };
  if (buckets.length === 0) return nothing("Nothing is counted yet.");
  return [
    columnChart({
      title: `Recipients delivered, deferred and failed in the last ${scale}`,
      series: COUNTS,
      columns: buckets.map((bucket) => ({ label: label(bucket), values: COUNTS.map(({ keys }) => sum(bucket.counts, keys)) })),
      ends: [label(buckets[0]), "now"],
    }),
    legend([
      { name: "received ", kind: "none", value: h("b", {}, count(total.queued ?? 0)) },
      ...COUNTS.map(({ name, kind, keys }) => ({ name: `${name} `, kind, value: h("b", {}, count(sum(total, keys))) })),
    ]),
  ];
}

/** Put new events on top of a list, and forget the oldest. */
function tell(feed, events) {
  const last = events.slice(-SHOWN).reverse();
  if (last.length === 0) {
    if (feed.childElementCount === 0) feed.append(h("li", { class: "nothing" }, "Nothing has happened since this page was opened."));
    return;
  }
  feed.querySelector(".nothing")?.remove();
  feed.prepend(...last.map(entry));
  while (feed.childElementCount > SHOWN) feed.lastElementChild.remove();
}
