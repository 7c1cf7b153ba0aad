/** What runs, what the file would change, and taking it over. */

import * as api from "../api.js";
import { fill, h } from "../dom.js";
import { counted } from "../format.js";
import { dialog } from "../dialog.js";
import { badge, button, panel, show, trouble } from "../shapes.js";
import { toast } from "../toast.js";
import { table } from "../table.js";

export default function configuration({ signal }) {
  const place = h("div", {});
  const tools = h("div", { class: "tools" });
  const found = h("div", { role: "status" });
  const load = () => show(place, async () => {
    const { file, values } = await api.get("/v1/configuration", signal);
    if (file && api.may("admin")) fill(tools, button("Check the file", check), button("Reload…", reload));
    return [
      h("p", { class: "soft" }, file ? ["From ", h("span", { class: "mono" }, file), ". Secrets are masked."] : "The sandbox's own: there is no file."),
      h("pre", { class: "content", tabindex: "0" }, yaml(values)),
    ];
  });

  const check = async () => {
    try {
      const { changes } = await api.post("/v1/configuration/check");
      fill(found, panel("The file is right", [], changesOf(changes)));
    } catch (error) {
      fill(found, panel("The file", [], trouble(error)));
    }
  };
  const reload = async () => {
    const told = h("div", {}, "Looking at the file…");
    const done = await dialog({
      title: "Reload the configuration",
      body: [told],
      confirm: "Reload",
      run: () => api.post("/v1/configuration/reload"),
      opened: async (yes) => {
        yes.disabled = true;
        try {
          const { changes } = await api.post("/v1/configuration/check");
          fill(told, changesOf(changes));
          yes.disabled = false;
        } catch (error) {
          fill(told, trouble(error));
        }
      },
    });
    if (!done) return;
    fill(found);
    load();
    toast("The configuration was reloaded.", { kind: "good" });
  };

  load();
  return {
    title: "Configuration",
    tools,
    body: [found, panel("What runs", [], place)],
  };
}

function changesOf(changes) {
  if (changes.length === 0) return h("p", {}, "It says what runs already.");
  return [
    h("p", {}, `${counted(changes.length, "value")} would change.`),
    table(
      "Changes",
      [
        { title: "Where", kind: "mono main", cell: (each) => each.place },
        { title: "Now", kind: "mono", cell: (each) => (each.before === null ? h("span", { class: "soft" }, "not there") : h("del", {}, each.before)) },
        { title: "Then", kind: "mono", cell: (each) => (each.after === null ? h("span", { class: "soft" }, "not there") : h("ins", {}, each.after)) },
        { title: "Holds", cell: (each) => (each.needs_restart ? badge("late", "after a restart") : badge("good", "at once")) },
      ],
      changes,
      "",
    ),
  ];
}

/** Values as the file has them, near enough to read. */
export function yaml(value, indent = "") {
  if (Array.isArray(value)) {
    if (value.length === 0) return " []";
    if (value.every((each) => each === null || typeof each !== "object")) return ` [${value.map(scalar).join(", ")}]`;
    return `\n${value.map((each) => `${indent}-${yaml(each, `${indent}  `).replace(/^\n\s*/, " ")}`).join("\n")}`;
  }
  if (value !== null && typeof value === "object") {
    const entries = Object.entries(value);
    if (entries.length === 0) return " {}";
    const lines = entries.map(([key, each]) => `${indent}${key}:${yaml(each, `${indent}  `)}`);
    return `${indent === "" ? "" : "\n"}${lines.join("\n")}`;
  }
  return ` ${scalar(value)}`;
}

function scalar(value) {
  if (value === null) return "null";
  if (typeof value !== "string") return String(value);
  return value === "" || /^[\s\-?:,[\]{}#&*!|>'"%@`]|: | #|\s$|^(true|false|null|yes|no|on|off|~|[\d.]+)$/i.test(value)
    ? JSON.stringify(value)
    : value;
}
