/** Small things that several pages show alike. */

import { h, fill } from "./dom.js";
import { address as hash } from "./router.js";
import { explained } from "./toast.js";

/** Levels of the log, the least first. */
export const LEVELS = ["debug", "info", "warning", "error"];

const MEANING = {
  ready: "in", active: "in", deferred: "late", hold: "held", delivered: "good",
  failed: "bad", expired: "bad", deleted: "off", Queued: "in", AttemptStarted: "in",
  Delivered: "good", Deferred: "late", Failed: "bad", Expired: "bad", Held: "held",
  Released: "in", Deleted: "off", Redirected: "held", Reprioritised: "held", Parked: "late",
  Unparked: "good", Suspended: "held", Resumed: "good", Finished: "good", Missed: "bad",
  debug: "off", info: "in", warning: "late", error: "bad",
  in: "in", out: "good", good: "good", late: "late", bad: "bad", held: "held",
};

/** A word in a colour that is its meaning; the word says it without the colour, too. */
export function badge(word, text = word) {
  return h("span", { class: `badge ${MEANING[word] ?? "off"}` }, text);
}

/** A link to a message's page. */
export function messageLink(id) {
  return h("a", { href: `#/messages/${encodeURIComponent(id)}`, class: "mono" }, id);
}

/** An address, or what stands for none: the null sender of reports. */
export function address(text) {
  return text === null || text === undefined ? h("span", { class: "soft" }, "<>") : breakable(text);
}

/** Text that may break after an @, where an address is best broken. */
export function breakable(text) {
  return text.split(/(?<=@)/).flatMap((part, place) => (place ? [h("wbr"), part] : [part]));
}

/** Who holds a recipient, and why. */
export function holder({ held_by: who, held_for: why }) {
  return `held by ${who}${why ? `: ${why}` : ""}`;
}

/** A part of a page with a heading. `tools` stand beside it. */
export function panel(title, tools, ...content) {
  return h(
    "section",
    { class: "panel" },
    h("header", {}, h("h2", {}, title), h("div", { class: "tools" }, tools)),
    content,
  );
}

/** A button. */
export function button(text, run, kind = "") {
  return h("button", { type: "button", class: kind, onclick: run }, text);
}

/** What is wrong, where something should have been. */
export function trouble(error) {
  return h("p", { class: "problem", role: "alert" }, explained(error));
}

/**
 * Ask again and again as long as a page is there: at once, then so many milliseconds after each
 * answer, not while nobody looks, and at once when somebody does again.
 *
 * @param {() => Promise} ask
 * @param {number} every
 * @param {AbortSignal} signal
 * @returns {() => Promise} asks now.
 */
export function poll(ask, every, signal) {
  let timer = null;
  const once = async () => {
    clearTimeout(timer);
    if (signal.aborted) return;
    if (!document.hidden) await ask();
    if (!signal.aborted) {
      clearTimeout(timer);
      timer = setTimeout(once, every);
    }
  };
  document.addEventListener("visibilitychange", () => document.hidden || once(), { signal });
  signal.addEventListener("abort", () => clearTimeout(timer));
  once();
  return once;
}

/**
 * Show in a place what is asked for; where that fails, why.
 *
 * @param {HTMLElement} place
 * @param {() => Promise<Node|Array<Node>>} make
 */
export async function show(place, make) {
  place.setAttribute("aria-busy", "true");
  try {
    const made = await make();
    const again = focused(place);
    fill(place, made);
    again();
  } catch (error) {
    if (error.name !== "AbortError") fill(place, trouble(error));
  } finally {
    place.removeAttribute("aria-busy");
  }
}

/** What is shown anew every few seconds must not lose the keyboard each time: remembers where it is. */
function focused(place) {
  const reachable = () => [...place.querySelectorAll("a[href], button, input, select, summary")];
  const before = reachable();
  const turn = before.indexOf(document.activeElement);
  if (turn < 0) return () => {};
  const name = (each) => each.getAttribute("aria-label") ?? each.textContent;
  const wanted = name(before[turn]);
  return () => {
    const now = reachable();
    // Its name may have changed with what it did: then it is where it was.
    const found = now.find((each) => name(each) === wanted) ?? (now.length === before.length ? now[turn] : null);
    found?.focus({ preventScroll: true });
  };
}

/** Call it once when calls have stopped coming for a while, and no later than `latest` ms after the first. */
export function settled(run, wait = 250, latest = 1500) {
  let timer = null;
  let first = 0;
  return () => {
    const now = performance.now();
    if (timer === null) first = now;
    clearTimeout(timer);
    timer = setTimeout(() => {
      timer = null;
      run();
    }, Math.max(0, Math.min(wait, first + latest - now)));
  };
}

/**
 * Links to the first page of a list, and to the one that follows.
 *
 * @param {string} name of the page that has the list.
 * @param {URLSearchParams} query as it is shown.
 * @param {?string} next the cursor of the one that follows; null: there is none.
 * @param {string} first what the first is called.
 * @param {string} then what the one that follows is called.
 */
export function pageLinks(name, query, next, first, then) {
  const turned = (text, cursor) => {
    const there = new URLSearchParams(query);
    there.delete("cursor");
    if (cursor !== null) there.set("cursor", cursor);
    return h("a", { class: "button", href: hash(name, [], there) }, text);
  };
  return [query.has("cursor") ? turned(first, null) : null, next !== null ? turned(then, next) : null];
}
