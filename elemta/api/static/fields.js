/** Fields of forms, each with its label. */

import { h, fresh } from "./dom.js";

/** A labelled control; `hint` says what is expected. */
function labelled(label, control, hint) {
  control.id ||= fresh("field");
  const told = hint ? h("small", { id: `${control.id}-hint` }, hint) : null;
  if (told) control.setAttribute("aria-describedby", told.id);
  return h("div", { class: "field" }, h("label", { for: control.id }, label), control, told);
}

/** One line of text; `rest` are attributes of the input. */
export function line(label, name, { hint, ...rest } = {}) {
  return labelled(label, h("input", { type: "text", name, spellcheck: "false", autocomplete: "off", ...rest }), hint);
}

/** Several lines of text. */
export function lines(label, name, { hint, value = "", ...rest } = {}) {
  const control = h("textarea", { name, rows: 8, ...rest });
  control.value = value;
  return labelled(label, control, hint);
}

/** One of several; `options` are [value, text] pairs. */
export function choice(label, name, options, { hint, value = "", ...rest } = {}) {
  const control = h(
    "select",
    { name, ...rest },
    options.map(([key, text]) => h("option", { value: key }, text)),
  );
  control.value = value;
  return labelled(label, control, hint);
}

/** Yes or no. */
export function check(label, name, { value = "yes", checked = false, ...rest } = {}) {
  const control = h("input", { type: "checkbox", name, id: fresh("field"), ...rest });
  control.value = value;
  control.checked = checked;
  return h("div", { class: "check" }, control, h("label", { for: control.id }, label));
}

/** What a form has in it, trimmed, by name; what is empty is left out. */
export function written(form) {
  const found = {};
  for (const [key, value] of new FormData(form)) {
    if (typeof value === "string" && value.trim() !== "") found[key] = value.trim();
  }
  return found;
}

/** Addresses, one a line or with commas between. */
export function addresses(text = "") {
  return text.split(/[,\n]/).map((each) => each.trim()).filter((each) => each !== "");
}
