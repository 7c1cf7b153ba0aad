/**
 * What is in a message. HTML of a stranger is never part of our page: it comes from the server as a
 * document of its own, whose policy loads nothing and runs nothing, into a frame that is sandboxed
 * once more.
 */

import * as api from "./api.js";
import { fill, h } from "./dom.js";
import { octets } from "./format.js";
import { show } from "./shapes.js";
import { facts, table } from "./table.js";

/** Octets of its source that are shown. */
const SOURCE = 2 ** 18;
const TOLD = ["from", "to", "cc", "reply-to", "date", "subject", "message-id"];

/**
 * Tabs with text, HTML, headers and source; each is fetched when it is wanted.
 *
 * @param {string} path of the message in the API.
 * @param {string} content and of its content, below it.
 */
export function letter(path, content = "/content") {
  const place = h("div", { class: "letter", "aria-busy": "true" });
  show(place, async () => {
    const found = await api.get(`${path}${content}`);
    return shown(found, path);
  });
  return place;
}

function shown(found, path) {
  const pages = [
    ["Text", () => h("pre", { class: "content", tabindex: "0" }, found.text || "This message has no text.")],
    ...(found.html ? [["HTML", () => frame(path)]] : []),
    ["Headers", () => h("pre", { class: "content", tabindex: "0" }, found.headers.map(([name, value]) => `${name}: ${value}`).join("\n"))],
    ["Source", () => source(path)],
  ];
  const page = h("div", { class: "page" });
  const tabs = pages.map(([name, make], index) =>
    h("button", { type: "button", class: "small", "aria-pressed": String(index === 0), onclick: (event) => {
      for (const each of tabs) each.setAttribute("aria-pressed", String(each === event.currentTarget));
      fill(page, make());
    } }, name));
  fill(page, pages[0][1]());
  return [
    facts(TOLD.map((name) => [titled(name), found.headers.filter(([each]) => each.toLowerCase() === name).map(([, value]) => value).join("\n")])),
    h("div", { class: "group", role: "group", "aria-label": "How to show it" }, tabs),
    page,
    found.cut ? h("p", { class: "soft" }, "It is long, or has many parts: this is not all of it.") : null,
    found.attachments.length
      ? [h("h3", {}, "Attachments"), table(
          "Attachments",
          [
            { title: "Name", kind: "main", cell: (each) => each.name || "unnamed" },
            { title: "Type", kind: "mono", cell: (each) => each.type },
            { title: "Size", kind: "number", cell: (each) => octets(each.size) },
          ],
          found.attachments,
          "",
        )]
      : null,
  ];
}

function titled(name) {
  return name === "message-id" ? "Message-ID" : name.replace(/^./, (first) => first.toUpperCase());
}

function frame(path) {
  return [
    h("p", { class: "soft" }, "Nothing in it runs, and nothing is loaded from elsewhere: pictures that are not in the message stay away."),
    h("iframe", { class: "content", sandbox: "", src: `${path}/html`, title: "The message as HTML", referrerpolicy: "no-referrer" }),
  ];
}

function source(path) {
  const place = h("div", {});
  show(place, async () => {
    const { text, cut } = await api.beginning(`${path}/raw`, SOURCE);
    return [
      h("pre", { class: "content", tabindex: "0" }, text),
      h("p", { class: "soft" }, cut ? "This is its beginning. " : null, h("a", { href: `${path}/raw`, download: "message.eml" }, "Save all of it")),
    ];
  });
  return place;
}
