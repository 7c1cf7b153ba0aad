/** What judges mail, and in which order. */

import * as api from "../api.js";
import { h } from "../dom.js";
import { count, duration } from "../format.js";
import { badge, panel, poll, show } from "../shapes.js";
import { failed, toast } from "../toast.js";
import { table } from "../table.js";

/** Kinds that the API calls by SMTP's words. */
const KINDS = { hello: "HELO", mail: "sender", rcpt: "recipients", data: "content" };

/** What becomes of mail if a hook fails. */
const FAILING = {
  continue: "mail goes on",
  defer: "mail is put off",
  reject: "mail is refused",
  quarantine: "mail is held",
};

/** When a hook is asked. */
const WHEN = {
  on_connect: "a client connects",
  on_hello: "it says what it is called",
  on_authenticate: "it logs in",
  on_mail: "a sender is named",
  on_rcpt: "a recipient is named",
  on_unknown: "there is no such recipient",
  on_greylist: "a recipient would be taken",
  on_data: "the content is to come",
  on_header: "the header is there",
  on_body: "the body comes",
  on_inspect: "all of it is there, to be looked at",
  on_message: "all of it was looked at",
  on_disconnect: "the client is gone",
  on_event: "something happens in the queue",
  on_route: "the way of a recipient is chosen",
  on_attempt: "a delivery is to be tried",
  on_store: "a mailbox is to get it",
  on_attempted: "a delivery was tried",
};

/** Those of one hook that are asked at the same time. */
const BESIDE = "on_inspect";

export default function plugins({ signal }) {
  const list = h("div", { class: "scrolls" });
  const order = h("div", { class: "scrolls" });
  const load = async () => {
    const asked = api.get("/v1/plugins", signal);
    await Promise.all([
      show(list, async () => pluginsOf((await asked).plugins, load)),
      show(order, async () => orderOf(await asked)),
    ]);
  };
  poll(load, 10_000, signal);
  return {
    title: "Plugins",
    body: [panel("In the order of the configuration", [], list), panel("Who is asked when", [], order)],
  };
}

async function turn(plugin, enabled, after, undo = true) {
  try {
    await api.set(`/v1/plugins/${encodeURIComponent(plugin.name)}`, { enabled });
    await after();
    toast(`${plugin.name} is ${enabled ? "asked" : "not asked"} from the next session on, until the next reload or start.`, {
      kind: "good",
      action: undo ? { label: "Undo", run: () => turn(plugin, !enabled, after, false) } : null,
    });
  } catch (error) {
    failed(error);
  }
}

function pluginsOf(found, after) {
  return table(
    "Plugins",
    [
      { title: "Plugin", kind: "main", cell: aboutOf },
      { title: "Kind", cell: (each) => each.kinds.map((kind) => KINDS[kind] ?? kind).join(", ") || "–" },
      { title: "If it fails", cell: failingOf },
      { title: "Asked", kind: "number", cell: (each) => count(each.asked) },
      { title: "Objected", kind: "number", cell: (each) => count(each.objected) },
      { title: "Failed", kind: "number", cell: (each) => (each.failed ? badge("bad", count(each.failed)) : "0") },
      { title: "State", cell: (each) => badge(each.enabled ? "good" : "off", each.enabled ? "on" : "off") },
      ...(api.may("admin")
        ? [{ title: "", kind: "row-actions", cell: (each) =>
            h("button", { type: "button", class: "small", "aria-label": `${each.enabled ? "Disable" : "Enable"} ${each.name}`, onclick: () => turn(each, !each.enabled, after) }, each.enabled ? "Disable" : "Enable") }]
        : []),
    ],
    found,
    "The configuration has no plugins: mail is judged by its built-in rules alone.",
  );
}

/** How it is called, what it is for, how long it may take, whom it is asked about, and what it has counted. */
function aboutOf(each) {
  const more = [`patience ${duration(each.timeout)}`];
  if (each.listeners.length) more.push(`for clients of ${each.listeners.join(", ")} alone`);
  more.push(...Object.entries(each.events).map(([word, many]) => `${word} ${count(many)}`));
  return [
    h("strong", { class: "mono" }, each.name),
    h("div", {}, each.about),
    h("div", { class: "soft" }, more.join(" · ")),
  ];
}

/** What becomes of mail when it fails: of each hook, unless all do the same. */
function failingOf({ on_failure: words }) {
  const hooks = Map.groupBy(Object.keys(words), (hook) => words[hook]);
  if (hooks.size === 0) return "no harm to mail";
  return [...hooks].map(([word, which]) =>
    h("div", {}, FAILING[word] ?? word, hooks.size > 1 ? h("span", { class: "soft" }, ` (${which.join(", ")})`) : null));
}

function orderOf({ plugins: found, order }) {
  const listeners = new Map(found.map((each) => [each.name, each.listeners]));
  const asked = (name) => {
    const whose = listeners.get(name) ?? [];
    return h("li", {}, h("span", { class: "mono" }, name), whose.length ? h("span", { class: "soft" }, ` (${whose.join(", ")})`) : null);
  };
  return table(
    "Who is asked when",
    [
      { title: "Hook", kind: "mono", cell: ([hook]) => hook },
      { title: "When", cell: ([hook]) => WHEN[hook] ?? "" },
      { title: "Asks, first to last", kind: "main", cell: ([hook, names]) =>
        hook === BESIDE && names.length > 1
          ? [h("ul", { class: "asked" }, names.map(asked)), h("span", { class: "soft" }, "side by side")]
          : h("ol", { class: "asked" }, names.map(asked)) },
    ],
    Object.entries(order),
    "Nobody is asked.",
  );
}
