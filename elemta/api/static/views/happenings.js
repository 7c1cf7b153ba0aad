/** The queue's events, in a line each. */

import { h } from "../dom.js";
import { count, counted, distance, octets } from "../format.js";
import { badge, breakable, messageLink } from "../shapes.js";
import { at } from "../times.js";

const TOLD = {
  Queued: (e) => `from ${e.sender ?? "<>"} for ${few(e.recipients)}, ${octets(e.size)}`,
  AttemptStarted: (e) => `${few(e.recipients)} by ${e.lane}`,
  Delivered: (e) => `${e.recipient} at ${e.host || e.lane}: ${e.reply}`,
  Deferred: (e) => `${e.recipient}: ${e.reply}; again ${distance(e.due)}`,
  Failed: (e) => `${e.recipient}: ${e.reply}`,
  Expired: (e) => `${e.recipient}: ${e.reply}`,
  Held: steered,
  Released: steered,
  Deleted: steered,
  Redirected: (e) => `${e.former} to ${e.recipient} by ${e.who}${because(e)}`,
  Reprioritised: (e) => `by ${e.who}${because(e)}`,
  Parked: (e) => `${e.lane}, ${distance(e.until)}: ${e.reason}`,
  Unparked: (e) => `${e.lane} answers again`,
  Suspended: (e) => `${e.scope} by ${e.who}${because(e)}`,
  Resumed: (e) => e.scope,
  Finished: () => "nothing more is left to try",
  Missed: (e) => `${count(e.count)} events came too fast, or are too old to be kept`,
};

const WORDS = { AttemptStarted: "trying" };

function steered(event) {
  return `${event.recipient} by ${event.who}${because(event)}`;
}

function because({ reason }) {
  return reason ? ` (${reason})` : "";
}

function few(recipients) {
  if (recipients.length <= 2) return recipients.join(", ");
  return `${recipients[0]} and ${counted(recipients.length - 1, "other")}`;
}

/** An event in words. */
export function words(event) {
  return TOLD[event.type]?.(event) ?? "";
}

/** An event as an entry of a list. */
export function entry(event) {
  return h(
    "li",
    {},
    event.at === undefined ? null : at(event.at),
    badge(event.type, WORDS[event.type] ?? event.type.toLowerCase()),
    event.id ? messageLink(event.id) : null,
    h("span", { class: "words" }, breakable(words(event))),
  );
}
