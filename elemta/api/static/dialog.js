/** Dialogs: the browser's own, which keep the focus inside and give it back. */

import { h, fill, fresh } from "./dom.js";
import { explained } from "./toast.js";

/**
 * Ask for something in a dialog.
 *
 * @param {Object} asked
 * @param {string} asked.title
 * @param {Array<Node>} asked.body fields and text.
 * @param {string} asked.confirm what the button says that does it.
 * @param {boolean} [asked.danger] it cannot be taken back.
 * @param {(form: HTMLFormElement) => Promise} asked.run does it; what it throws is shown, and the
 *   dialog stays open.
 * @param {(button: HTMLButtonElement, form: HTMLFormElement) => void} [asked.opened] is given the
 *   button, e.g. to hold it back until something was counted.
 * @returns {Promise<boolean>} whether it was done.
 */
export function dialog({ title, body, confirm, danger = false, run, opened }) {
  const heading = fresh("title");
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const yes = h("button", { type: "submit", class: danger ? "danger" : "primary" }, confirm);
  const no = h("button", { type: "button" }, run ? "Cancel" : "Close");
  const form = h(
    "form",
    { method: "dialog", novalidate: false },
    h("h2", { id: heading }, title),
    h("div", { class: "dialog-body" }, body),
    problem,
    h("div", { class: "buttons end" }, no, run ? yes : null),
  );
  const element = h("dialog", { "aria-labelledby": heading }, form);
  document.body.append(element);
  return new Promise((resolve) => {
    let done = false;
    no.addEventListener("click", () => element.close());
    element.addEventListener("close", () => {
      element.remove();
      resolve(done);
    });
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      yes.disabled = true;
      problem.hidden = true;
      try {
        await run(form);
        done = true;
        element.close();
      } catch (error) {
        fill(problem, explained(error));
        problem.hidden = false;
        yes.disabled = false;
      }
    });
    element.showModal();
    opened?.(yes, form);
  });
}
