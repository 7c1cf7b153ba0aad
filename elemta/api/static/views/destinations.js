/** Where mail goes, and what is kept from going there. */

import * as api from "../api.js";
import { flush, resume, suspend } from "../actions.js";
import { h } from "../dom.js";
import { count } from "../format.js";
import { badge, button, panel, poll, settled, show } from "../shapes.js";
import { failed } from "../toast.js";
import { table } from "../table.js";
import { ago } from "../times.js";

const CHANGES = new Set(["Parked", "Unparked", "Suspended", "Resumed"]);

export default function destinations({ signal }, store) {
  const places = h("div", {});
  const stopped = h("div", {});

  const load = () => Promise.all([
    show(stopped, async () => {
      const { suspensions } = await api.get("/v1/suspensions", signal);
      return suspensionsOf(suspensions, load);
    }),
    show(places, async () => {
      const { destinations: found } = await api.get("/v1/destinations", signal);
      return destinationsOf(found, load);
    }),
  ]);
  const again = settled(load, 200, 1000);
  store.watch((events) => events.some(({ type }) => CHANGES.has(type)) && again(), signal);
  poll(load, 4_000, signal);

  const may = api.may("operate");
  return {
    title: "Destinations",
    tools: may ? [button("Suspend…", () => suspend(null, load))] : [],
    body: [panel("Suspensions", [], stopped), panel("Where mail waits, or goes", [], places)],
  };
}

function stateOf(each) {
  const told = [];
  if (each.suspended) told.push(badge("Suspended", "suspended"));
  if (each.parked_until) told.push(badge("late", "parked"), " ", h("span", { class: "soft" }, "again ", ago(each.parked_until)));
  if (each.throttled_until) told.push(badge("late", "throttled"), " ", h("span", { class: "soft" }, ago(each.throttled_until)));
  return told.length ? told : badge("Delivered", "open");
}

function destinationsOf(found, after) {
  const tools = (each) => [
    h("button", { type: "button", class: "small", "aria-label": `Flush ${each.name}`, onclick: () => flush(each.name) }, "Flush"),
    each.suspended === `destination:${each.name}`
      ? h("button", { type: "button", class: "small", "aria-label": `Resume ${each.name}`, onclick: () => resume(`destination:${each.name}`, after).catch(failed) }, "Resume")
      : h("button", { type: "button", class: "small", "aria-label": `Suspend ${each.name}`, onclick: () => suspend(`destination:${each.name}`, after) }, "Suspend"),
  ];
  return table(
    "Destinations",
    [
      { title: "Name", kind: "mono", cell: (each) => h("a", { href: `#/queue?destination=${encodeURIComponent(each.name)}` }, each.name) },
      { title: "State", cell: stateOf },
      { title: "Ready", kind: "number", cell: (each) => count(each.ready) },
      { title: "On disk", kind: "number", cell: (each) => count(each.on_disk) },
      { title: "At work", kind: "number", cell: (each) => `${count(each.workers)} of ${count(each.window)}` },
      { title: "Last error", kind: "main", cell: (each) => h("span", { class: "reply" }, each.error || "–") },
      ...(api.may("operate") ? [{ title: "", kind: "row-actions", cell: tools }] : []),
    ],
    found,
    "Nothing waits for any destination, and all of them answer.",
  );
}

function suspensionsOf(found, after) {
  return table(
    "Suspensions",
    [
      { title: "Scope", kind: "mono", cell: (each) => each.scope },
      { title: "Reason", kind: "main", cell: (each) => each.reason || "–" },
      { title: "By", cell: (each) => each.who },
      { title: "Since", kind: "tight", cell: (each) => ago(each.since) },
      { title: "Ends", kind: "tight", cell: (each) => (each.until ? ago(each.until) : "when it is resumed") },
      ...(api.may("operate")
        ? [{ title: "", kind: "row-actions", cell: (each) =>
            h("button", { type: "button", class: "small", "aria-label": `Resume ${each.scope}`, onclick: () => resume(each.scope, after, each).catch(failed) }, "Resume") }]
        : []),
    ],
    found,
    "Nothing is suspended.",
  );
}
