/** Who is connected, and what is being said. */

import * as api from "../api.js";
import { fill, h } from "../dom.js";
import { choice, line, written } from "../fields.js";
import { count, octets } from "../format.js";
import { badge, breakable, messageLink, panel, poll, trouble } from "../shapes.js";
import { table } from "../table.js";
import { tail } from "../tail.js";
import { ago } from "../times.js";
import { said } from "../transcript.js";

export default function sessions({ query, signal }) {
  const list = h("div", {});
  const trace = tail({ label: "What is being said", signal, empty: "Waiting for somebody to say something.", line: (each) =>
    said(each, h("span", { class: "peer" }, each.direction === "in" ? "← " : "→ ", each.peer)) });
  const form = h(
    "form",
    { class: "filter", role: "search", "aria-label": "Which conversations" },
    h("div", { class: "grid" },
      choice("Direction", "direction", [["", "in and out"], ["in", "in"], ["out", "out"]], { value: query.get("direction") ?? "" }),
      line("Peer", "peer", { value: query.get("peer") ?? "", placeholder: "address or name" }),
      line("Listener or lane", "place", { value: query.get("place") ?? "" }),
      line("Mail address", "address", { value: query.get("address") ?? "" }),
      line("Session", "session", { value: query.get("session") ?? "" })),
    h("div", { class: "buttons" }, h("button", { type: "submit" }, "Trace these")),
  );
  const follow = () => trace.follow(api.socket(`/v1/trace${api.query(written(form))}`));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    trace.empty();
    follow();
  });
  follow();

  let drawn = "";
  poll(
    async () => {
      try {
        const { sessions: found } = await api.get("/v1/sessions", signal);
        const text = JSON.stringify(found);
        if (text === drawn) return;
        drawn = text;
        fill(list, sessionsOf(found));
      } catch (error) {
        if (error.name !== "AbortError") fill(list, trouble(error));
      }
    },
    2_000,
    signal,
  );

  return {
    title: "Sessions",
    body: [panel("Connected now", [], list), panel("Live trace", trace.tools, form, trace.element)],
  };
}

function sessionsOf(found) {
  return table(
    "Sessions",
    [
      { title: "Way", kind: "tight", cell: (each) => badge(each.direction) },
      { title: "Peer", kind: "name", cell: (each) => [breakable(each.peer), each.name ? h("div", { class: "soft" }, breakable(each.name)) : null] },
      { title: "Place", cell: (each) => breakable(each.place) },
      { title: "State", kind: "mono", cell: (each) => each.state },
      { title: "Encrypted", cell: (each) => (each.tls ? h("span", { title: each.tls }, each.tls.split(/[ ,]/)[0]) : "no") },
      { title: "Login", cell: (each) => each.login || "–" },
      { title: "Since", kind: "tight", cell: (each) => ago(each.since) },
      { title: "Messages", kind: "number", cell: (each) => count(each.messages) },
      { title: "Under way", kind: "main", cell: underWay },
    ],
    found,
    "Nobody is connected just now.",
  );
}

function underWay(each) {
  if (each.message === null && each.sender === null && each.recipients === 0) return "–";
  return [
    each.message ? [messageLink(each.message), " "] : null,
    each.sender === null ? "<>" : breakable(each.sender),
    h("span", { class: "soft" }, ` for ${count(each.recipients)}, ${octets(each.octets)}`),
  ];
}
