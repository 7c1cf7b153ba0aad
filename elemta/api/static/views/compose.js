/** Hands in a message, and shows what becomes of it. */

import * as api from "../api.js";
import * as clock from "../clock.js";
import { PRIORITIES } from "../actions.js";
import { fill, h } from "../dom.js";
import { addresses, choice, line, lines, written } from "../fields.js";
import { counted, octets, seconds } from "../format.js";
import { messageLink, panel } from "../shapes.js";
import { explained, toast } from "../toast.js";
import { entry } from "./happenings.js";

export default function compose({ signal }, store) {
  const followed = h("div", { class: "stack" });
  const lives = new Map();
  const files = h("input", { type: "file", name: "files", multiple: true });
  const listed = h("small", {});
  files.addEventListener("change", () => {
    const all = [...files.files];
    fill(listed, all.length ? `${counted(all.length, "file")}, ${octets(all.reduce((sum, each) => sum + each.size, 0))}` : "");
  });
  files.id = "compose-files";
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const send = h("button", { type: "submit", class: "primary" }, "Send");
  const form = h(
    "form",
    { class: "compose", "aria-label": "A message" },
    h("div", { class: "grid two" },
      line("From", "from", { required: true, value: "me@example.org" }),
      line("To", "to", { required: true, placeholder: "you@example.org, …" }),
      line("Subject", "subject", { value: "A test", spellcheck: "true" }),
      choice("Priority", "priority", [["", "as it comes"], ...PRIORITIES])),
    lines("Text", "text", { value: "Hello.\n" }),
    h("details", {}, h("summary", {}, "More"),
      h("div", { class: "grid two" },
        line("Cc", "cc"), line("Bcc", "bcc"), line("Reply to", "reply_to"),
        line("Send after", "after", { placeholder: "now; or e.g. 10 min" }),
        line("Tags", "tags", { placeholder: "one, another" })),
      lines("HTML", "html", { rows: 5 })),
    h("div", { class: "field" }, h("label", { for: files.id }, "Attachments"), files, listed),
    problem,
    h("div", { class: "buttons" }, send),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    send.disabled = true;
    problem.hidden = true;
    try {
      const told = await messageOf(form, files.files);
      // Whoever presses twice, or whose connection breaks, sends once.
      const { id } = await api.post("/v1/messages", told, { "Idempotency-Key": crypto.randomUUID?.() ?? String(Math.random()) });
      follow(id, told);
      toast("It is in the queue, and on disk.", { kind: "good" });
    } catch (error) {
      fill(problem, explained(error));
      problem.hidden = false;
    } finally {
      send.disabled = false;
    }
  });

  const follow = (id, told) => {
    const life = h("ol", { class: "feed", "aria-live": "polite" });
    lives.set(id, life);
    followed.prepend(panel(told.subject || "No subject", messageLink(id), life));
    // What happened before the answer came is known already.
    life.append(...store.events.filter((event) => event.id === id).map(entry));
  };
  store.watch((events) => {
    for (const event of events) lives.get(event.id)?.append(entry(event));
  }, signal);

  return { title: "Compose", body: [panel("A message", [], form), followed] };
}

async function messageOf(form, files) {
  const found = written(form);
  const told = {
    from: found.from, to: addresses(found.to), subject: found.subject ?? "", text: form.elements.text.value,
  };
  for (const key of ["cc", "bcc"]) if (found[key]) told[key] = addresses(found[key]);
  for (const key of ["reply_to", "html", "priority"]) if (found[key]) told[key] = found[key];
  if (found.tags) told.tags = addresses(found.tags);
  const after = seconds(found.after ?? "");
  if (after !== null) told.send_at = clock.now() + after;
  if (files.length) told.attachments = await Promise.all([...files].map(attachment));
  return told;
}

/** A file, in base64 as JSON wants it. */
function attachment(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve({
      name: file.name, type: file.type || "application/octet-stream", content: reader.result.split(",", 2)[1] ?? "",
    });
    reader.onerror = () => reject(new Error(`cannot read ${file.name}`));
    reader.readAsDataURL(file);
  });
}
