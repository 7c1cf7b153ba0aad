/** Short notes in a corner, read out by screen readers; some can be undone. */

import { h, fill } from "./dom.js";
import { Problem } from "./api.js";

const SHOWN = 6_000;
const WITH_ACTION = 15_000;
const MOST = 4;

/**
 * Tell something.
 *
 * @param {string} text
 * @param {{kind?: "good"|"bad"|"", action?: {label: string, run: () => Promise}}} rest a note of
 *   kind "bad" stays until it is closed.
 */
export function toast(text, { kind = "", action = null } = {}) {
  const place = document.getElementById("toasts");
  const close = h("button", { type: "button", class: "quiet icon", "aria-label": "Close this note" }, "×");
  const note = h("div", { class: `toast ${kind}`, role: kind === "bad" ? "alert" : "status" });
  const gone = () => note.remove();
  let timer = null;
  const patience = () => {
    clearTimeout(timer);
    if (kind !== "bad") timer = setTimeout(gone, action ? WITH_ACTION : SHOWN);
  };
  close.addEventListener("click", gone);
  // Who reads it, or is about to press its button, is not hurried.
  note.addEventListener("focusin", () => clearTimeout(timer));
  note.addEventListener("mouseenter", () => clearTimeout(timer));
  note.addEventListener("focusout", patience);
  note.addEventListener("mouseleave", patience);
  const undo = action && h("button", { type: "button", class: "small" }, action.label);
  undo?.addEventListener("click", async () => {
    gone();
    try {
      await action.run();
    } catch (error) {
      failed(error);
    }
  });
  fill(note, h("span", { class: "said" }, text), undo, close);
  place.append(note);
  while (place.childElementCount > MOST) place.firstElementChild.remove();
  patience();
}

/** Tell that something was not done, and why. */
export function failed(error) {
  if (error.name === "AbortError") return;
  if (!(error instanceof Problem)) {
    console.error(error);
    toast(String(error.message), { kind: "bad" });
    return;
  }
  if (error.status === 401) return; // the login page is on its way
  toast(explained(error), { kind: "bad" });
}

/** What a refusal means to who reads it. */
export function explained(problem) {
  if (!(problem instanceof Problem)) return String(problem.message);
  if (problem.status === 403) return `You may not do this: ${problem.text}`;
  return problem.text;
}
