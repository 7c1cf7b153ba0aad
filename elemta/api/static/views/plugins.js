/** What judges mail. */

import * as api from "../api.js";
import { h } from "../dom.js";
import { count, duration } from "../format.js";
import { badge, panel, poll, show } from "../shapes.js";
import { failed, toast } from "../toast.js";
import { table } from "../table.js";

export default function plugins({ signal }) {
  const list = h("div", {});
  const load = () => show(list, async () => {
    const found = await api.get("/v1/plugins", signal);
    return pluginsOf(found.plugins, load);
  });
  poll(load, 10_000, signal);
  return { title: "Plugins", body: [panel("In the order in which they are asked", [], list)] };
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
      { title: "Name", kind: "mono", cell: (each) => each.name },
      { title: "What it does", kind: "main", cell: (each) => each.about },
      { title: "Hooks", cell: (each) => each.hooks.join(", ") },
      { title: "Patience", kind: "tight", cell: (each) => duration(each.timeout) },
      { title: "Asked", kind: "number", cell: (each) => count(each.asked) },
      { title: "Failed", kind: "number", cell: (each) => count(each.failed) },
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
