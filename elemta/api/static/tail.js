/**
 * The end of something that goes on: lines come in below, the oldest go. It can be paused, stays at
 * the end as long as one looks there, and draws once a frame whatever comes.
 */

import { h } from "./dom.js";
import { Live } from "./live.js";
import { count } from "./format.js";

const KEPT = 500;

/**
 * @param {Object} given
 * @param {string} given.label what a screen reader says.
 * @param {(entry: Object) => Node} given.line an entry as a list item.
 * @param {AbortSignal} given.signal ends it.
 * @param {string} given.empty what is said while there is none.
 */
export function tail({ label, line, signal, empty }) {
  const list = h("ol", { "data-empty": empty, class: "lines mono tall", tabindex: "0", "aria-label": label, role: "log", "aria-live": "off" });
  const state = h("span", { class: "soft", role: "status" });
  const pause = h("button", { type: "button", class: "small", "aria-pressed": "false" }, "Pause");
  const clear = h("button", { type: "button", class: "small" }, "Clear");
  let waiting = [];
  let dropped = 0;
  let paused = false;
  let due = false;
  let live = null;

  const say = () => {
    const lost = live?.state === "lost" ? "connection lost, coming back" : "";
    const held = paused ? `${count(waiting.length)} new lines wait` : "";
    const gone = dropped ? `${count(dropped)} lines came too fast` : "";
    const text = [lost, held, gone].filter(Boolean).join(" · ");
    if (state.textContent !== text) state.textContent = text;
  };
  const draw = () => {
    due = false;
    if (!paused && waiting.length) {
      const end = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
      list.append(...waiting.map(line));
      waiting = [];
      while (list.childElementCount > KEPT) list.firstElementChild.remove();
      if (end) list.scrollTop = list.scrollHeight;
    }
    say();
  };
  const soon = () => {
    if (due) return;
    due = true;
    requestAnimationFrame(draw);
  };
  const put = (entries) => {
    for (const entry of entries) {
      if (entry.type === "Missed") dropped += entry.count;
      else if (entry.type !== "Hello" && entry.type !== "Heartbeat") waiting.push(entry);
    }
    if (waiting.length > KEPT) {
      dropped += waiting.length - KEPT;
      waiting = waiting.slice(-KEPT);
    }
    soon();
  };

  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Go on" : "Pause";
    soon();
  });
  clear.addEventListener("click", () => {
    list.replaceChildren();
    waiting = [];
    dropped = 0;
    soon();
  });
  signal.addEventListener("abort", () => live?.close());

  return {
    element: list,
    tools: [state, pause, clear],
    put,
    /** Read from this websocket from now on, and from no other. */
    follow(address) {
      live?.close();
      live = new Live(() => address, put, soon);
    },
    /** Forget what is shown. */
    empty() {
      clear.click();
    },
  };
}
