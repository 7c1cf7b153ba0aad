/** Moments on the page. One timer keeps all that say how long ago something was. */

import { h } from "./dom.js";
import { distance, full, moment } from "./format.js";

/** A moment as a distance, "3 min ago", that stays right. */
export function ago(seconds) {
  const date = new Date(seconds * 1000);
  return h(
    "time",
    { datetime: date.toISOString(), title: full(seconds), "data-ago": seconds },
    distance(seconds),
  );
}

/** A moment as a time of the day. */
export function at(seconds) {
  const date = new Date(seconds * 1000);
  return h("time", { datetime: date.toISOString(), title: full(seconds) }, moment(seconds));
}

setInterval(() => {
  for (const element of document.querySelectorAll("time[data-ago]")) {
    const text = distance(Number(element.dataset.ago));
    if (element.textContent !== text) element.textContent = text;
  }
}, 1000);
