/** What would become of a message that may come. */

import * as api from "../api.js";
import { fill, h } from "../dom.js";
import { line, written } from "../fields.js";
import { address as hash } from "../router.js";
import { panel, show } from "../shapes.js";
import { explanation } from "../transcript.js";

const ASKED = ["to", "from", "client", "helo", "login", "listener", "size"];

export default function explain({ query, signal }) {
  const place = h("div", { role: "status" });
  const value = (name) => query.get(name) ?? "";
  const form = h(
    "form",
    { class: "filter", "aria-label": "A message that may come" },
    h("div", { class: "grid" },
      line("To", "to", { value: value("to"), required: true, placeholder: "you@example.org" }),
      line("From", "from", { value: value("from"), placeholder: "empty: the null sender" }),
      line("Client's IP address", "client", { value: value("client"), placeholder: "127.0.0.1" }),
      line("It calls itself", "helo", { value: value("helo"), placeholder: "localhost" }),
      line("Logged in as", "login", { value: value("login"), placeholder: "nobody" }),
      line("Listener", "listener", { value: value("listener"), placeholder: "the first" }),
      line("Size in octets", "size", { value: value("size"), inputmode: "numeric", pattern: "\\d+", placeholder: "0" })),
    h("div", { class: "buttons" }, h("button", { type: "submit", class: "primary" }, "Explain")),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const there = hash("explain", [], new URLSearchParams(written(form)));
    if (location.hash === there) ask();
    else location.hash = there;
  });
  const ask = () => show(place, async () => {
    const asked = Object.fromEntries(ASKED.map((name) => [name, query.get(name)]));
    return panel("What would happen", [], explanation(await api.get(`/v1/explain${api.query(asked)}`, signal)));
  });
  if (value("to")) ask();
  else fill(place, h("p", { class: "soft" }, "Nothing is sent and nobody is told: each decision is made as it would be for real."));
  return { title: "Explain", keepsFocus: query.has("to"), body: [panel("A message that may come", [], form), place] };
}
