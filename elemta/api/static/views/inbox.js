/** What the sandbox caught. */

import * as api from "../api.js";
import { dialog } from "../dialog.js";
import { fill, h } from "../dom.js";
import { line, written } from "../fields.js";
import { octets } from "../format.js";
import { letter } from "../letter.js";
import { address as hash } from "../router.js";
import { button, pageLinks, panel, poll, settled, trouble } from "../shapes.js";
import { nothing } from "../table.js";
import { toast } from "../toast.js";
import { ago } from "../times.js";

const PAGE = 50;

export default function inbox({ rest: [open = ""], query, signal }, store) {
  const list = h("ul", { class: "mails", "aria-label": "Mail" });
  const more = h("div", { class: "pager" });
  let drawn = "";

  const load = async () => {
    try {
      const found = await api.get(`/v1/inbox${api.query({ address: query.get("address"), cursor: query.get("cursor"), limit: PAGE })}`, signal);
      const text = JSON.stringify(found);
      if (text === drawn) return;
      drawn = text;
      const focused = document.activeElement?.getAttribute?.("data-row");
      fill(list, found.messages.length ? found.messages.map((each) => mailOf(each, open, query)) : h("li", {}, nothing("Nothing was caught yet. Send something to the sandbox.")));
      if (focused) list.querySelector(`[data-row="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
      fill(more, pageLinks("inbox", query, found.next, "Newest", "Older"));
    } catch (error) {
      if (error.name !== "AbortError") fill(list, h("li", {}, trouble(error)));
    }
  };
  const again = settled(load, 150, 800);
  store.watch((events) => events.some(({ type }) => type === "Delivered") && again(), signal);
  poll(load, 15_000, signal);

  const form = h(
    "form",
    { class: "filter inline", role: "search", "aria-label": "Which mailbox" },
    line("Address", "address", { value: query.get("address") ?? "", placeholder: "you@example.org" }),
    h("button", { type: "submit" }, "Show"),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    location.hash = hash("inbox", [], new URLSearchParams(written(form)));
  });

  return {
    title: "Inbox",
    keepsFocus: document.activeElement?.closest(".mails") !== null && document.activeElement !== document.body,
    body: [
      form,
      h("div", { class: `inbox${open ? " open" : ""}` },
        h("div", { class: "panel" }, list, more),
        open ? read(open, query) : h("div", { class: "panel wide" }, nothing("Choose a message."))),
    ],
  };
}

function mailOf(each, open, query) {
  const here = each.id === open;
  return h(
    "li",
    {},
    h(
      "a",
      { href: hash("inbox", [each.id], query), "aria-current": here ? "true" : null, "data-row": each.id, class: each.seen ? "" : "unseen-mail" },
      h("span", { class: "subject" }, each.subject || "No subject"),
      h("span", { class: "people" }, `${each.from || "No sender"} → ${each.mailbox}`),
      h("span", { class: "soft" }, each.date ? ago(each.date) : null, ` · ${octets(each.size)}`),
    ),
  );
}

function read(id, query) {
  const path = `/v1/inbox/${encodeURIComponent(id)}`;
  const back = hash("inbox", [], query);
  const away = async () => {
    const done = await dialog({
      title: "Delete this message",
      body: [h("p", {}, "The file is gone for good.")],
      confirm: "Delete",
      danger: true,
      run: () => api.remove(path),
    });
    if (!done) return;
    toast("Deleted.", { kind: "good" });
    location.hash = back;
  };
  return panel(
    "Message",
    [h("a", { class: "button small narrow", href: back }, "Back"), api.may("operate") ? button("Delete", away, "small danger-text") : null],
    letter(path, ""),
  );
}
