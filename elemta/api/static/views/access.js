/** Who may come in, and who did what. */

import * as api from "../api.js";
import * as clock from "../clock.js";
import { dialog } from "../dialog.js";
import { h } from "../dom.js";
import { check, line } from "../fields.js";
import { seconds } from "../format.js";
import { badge, button, panel, show } from "../shapes.js";
import { toast } from "../toast.js";
import { table } from "../table.js";
import { ago } from "../times.js";

const SCOPES = [
  ["read", "look at everything but the content of messages"],
  ["content", "read the content of messages"],
  ["operate", "change what waits: retry, hold, delete, suspend"],
  ["submit", "hand in mail"],
  ["admin", "everything, tokens included"],
];

export default function access({ signal }) {
  const tokens = h("div", {});
  const audit = h("div", {});
  const load = () => Promise.all([
    show(tokens, async () => {
      const found = await api.get("/v1/tokens", signal);
      return tokensOf(found.tokens, load);
    }),
    show(audit, async () => {
      const found = await api.get("/v1/audit?limit=100", signal);
      return auditOf(found.entries);
    }),
  ]);
  load();
  return {
    title: "Access",
    tools: [button("New token…", () => create(load)), button("Look again", load)],
    body: [panel("Tokens", [], tokens), panel("Audit log", [], audit)],
  };
}

async function create(after) {
  let made = null;
  await dialog({
    title: "New token",
    body: [
      line("Name", "name", {
        required: true, maxlength: 63, pattern: "[A-Za-z0-9][A-Za-z0-9_.@\\-]*",
        hint: "Timelines and the audit log have it. Letters, digits, and _ . @ -",
      }),
      h("fieldset", {}, h("legend", {}, "It may"), SCOPES.map(([scope, about]) =>
        check(`${scope}: ${about}`, "scopes", { value: scope, checked: scope === "read" }))),
      line("Ends after", "ends", { hint: "E.g. 90 d; empty: when it is revoked." }),
    ],
    confirm: "Create",
    run: async (form) => {
      const found = new FormData(form);
      const scopes = found.getAll("scopes");
      if (scopes.length === 0) throw new Error("Choose at least one thing that it may do.");
      const ends = seconds(found.get("ends"));
      made = await api.post("/v1/tokens", { name: found.get("name").trim(), scopes, ...(ends === null ? {} : { expires: clock.now() + ends }) });
    },
  });
  if (made === null) return;
  after();
  await reveal(made);
}

/** The one moment in which anybody sees it: only its hash is kept. */
async function reveal({ token }) {
  const field = h("input", { type: "text", readonly: true, class: "mono", "aria-label": "The token", onfocus: (event) => event.target.select() });
  field.value = token;
  await dialog({
    title: "Copy it now",
    body: [
      h("p", {}, "It is shown this once. Whoever has it may do what it may."),
      field,
      navigator.clipboard
        ? button("Copy", async () => {
            await navigator.clipboard.writeText(token);
            toast("Copied.");
          }, "small")
        : null,
    ],
    confirm: "",
  });
}

function tokensOf(found, after) {
  return table(
    "Tokens",
    [
      { title: "Name", cell: (each) => each.name },
      { title: "Id", kind: "mono", cell: (each) => each.id },
      { title: "May", cell: (each) => each.scopes.map((scope) => badge(scope === "admin" ? "held" : "off", scope)) },
      { title: "Made", kind: "tight", cell: (each) => ago(each.created) },
      { title: "Last used", kind: "tight", cell: (each) => (each.used ? ago(each.used) : "never") },
      { title: "Ends", kind: "tight", cell: (each) => (each.expires ? ago(each.expires) : "when revoked") },
      { title: "", kind: "row-actions", cell: (each) =>
        h("button", { type: "button", class: "small danger-text", "aria-label": `Revoke ${each.name}`, onclick: () => revoke(each, after) }, "Revoke") },
    ],
    found,
    "There are no tokens.",
  );
}

async function revoke(token, after) {
  const done = await dialog({
    title: `Revoke ${token.name}`,
    body: [h("p", {}, "Whoever uses it is locked out at once. This cannot be undone.")],
    confirm: "Revoke",
    danger: true,
    run: () => api.remove(`/v1/tokens/${encodeURIComponent(token.id)}`),
  });
  if (!done) return;
  after();
  toast(`${token.name} is revoked.`, { kind: "good" });
}

function auditOf(found) {
  return table(
    "Audit log",
    [
      { title: "When", kind: "tight", cell: (each) => ago(each.at) },
      { title: "Who", cell: (each) => each.who || "nobody known" },
      { title: "From", kind: "mono", cell: (each) => each.client },
      { title: "What", kind: "mono main", cell: (each) => [`${each.method} ${each.path}`, each.told && each.told !== "{}" ? h("div", { class: "soft" }, each.told) : null] },
      { title: "Answer", kind: "number", cell: (each) => badge(each.status < 400 ? "good" : "bad", String(each.status)) },
    ],
    found,
    "Nothing was changed yet.",
  );
}
