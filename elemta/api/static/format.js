/** Quantities and moments, as people write them. */

import * as clock from "./clock.js";

const number = new Intl.NumberFormat("en");
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];
const SPANS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];

/** 12345 as "12,345". */
export function count(value) {
  return number.format(value);
}

/** "1 message", "2 messages". */
export function counted(value, one, many = `${one}s`) {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** A rate per second: two digits that mean something. */
export function rate(value) {
  if (value === 0) return "0";
  if (value < 10) return value.toFixed(1);
  return count(Math.round(value));
}

/** Octets with a unit. */
export function octets(value) {
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value < 10 && unit > 0 ? value.toFixed(1) : Math.round(value)} ${UNITS[unit]}`;
}

/** Seconds as the two largest units: "2 h 5 min"; as one, where the second would say little. */
export function span(seconds) {
  let left = Math.max(0, Math.round(seconds));
  if (left === 0) return seconds > 0 ? `${Math.max(1, Math.round(seconds * 1000))} ms` : "0 s";
  const told = [];
  for (const [unit, size] of SPANS) {
    const many = Math.floor(left / size);
    if (many > 0) told.push(`${many} ${unit}`);
    else if (told.length > 0) break;
    if (told.length === 2 || many >= 10) break;
    left -= many * size;
  }
  return told.join(" ");
}

/** How long something took: short ones to the millisecond. */
export function duration(seconds) {
  if (seconds < 0.0005) return "0 ms";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  return span(seconds);
}

/** How far a moment is from now: "3 min ago", "in 2 h". */
export function distance(moment) {
  const gone = clock.now() - moment;
  if (Math.abs(gone) < 1) return "just now";
  return gone > 0 ? `${span(gone)} ago` : `in ${span(-gone)}`;
}

/** The time of the day, local; with the day where it is another one than today. */
export function moment(seconds) {
  const date = new Date(seconds * 1000);
  const time = date.toLocaleTimeString("en-GB");
  const today = new Date(clock.now() * 1000).toDateString() === date.toDateString();
  return today ? time : `${day(seconds)} ${time}`;
}

/** The day, local: "2026-11-28". */
export function day(seconds) {
  const date = new Date(seconds * 1000);
  const two = (value) => String(value).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
}

/** Day and time, local, in full. */
export function full(seconds) {
  return `${day(seconds)} ${new Date(seconds * 1000).toLocaleTimeString("en-GB")}`;
}

/**
 * Seconds from what people write: "90", "15 min", "2 h", "1 d".
 *
 * @returns {?number} null: nothing was written.
 * @throws {Error} it is no duration.
 */
export function seconds(text) {
  const written = text.trim().toLowerCase();
  if (written === "") return null;
  const found = /^(\d+(?:\.\d+)?)\s*(s|m|min|h|d|w)?$/.exec(written);
  if (!found) throw new Error(`“${text}” is no duration: write e.g. 15 min, 2 h or 1 d`);
  const sizes = { s: 1, m: 60, min: 60, h: 3600, d: 86400, w: 604800 };
  return Number(found[1]) * sizes[found[2] ?? "s"];
}
