/**
 * What is known of the server from its live events: rates, depth, and the last of them.
 *
 * It is bounded whatever comes: counts stand in rings of one number a second, events in a list that
 * forgets the oldest. Taking an event costs next to nothing; who looks is told once a frame, however
 * many came in between, so that a burst of thousands a second does not stop the page.
 */

import * as clock from "./clock.js";

/** Seconds that are remembered. */
export const SECONDS = 300;
/** Events that are remembered. */
export const EVENTS = 500;

const COUNTED = {
  Queued: "received",
  Delivered: "delivered",
  Deferred: "deferred",
  Failed: "failed",
  Expired: "failed",
};

/** One number for each of the last seconds. */
export class Ring {
  #values = new Float64Array(SECONDS);
  #stamps = new Float64Array(SECONDS).fill(-1);

  /** Add to a second; one that is long gone is left alone. */
  add(second, value) {
    const place = second % SECONDS;
    if (this.#stamps[place] > second) return;
    if (this.#stamps[place] < second) {
      this.#stamps[place] = second;
      this.#values[place] = 0;
    }
    this.#values[place] += value;
  }

  /** What a second came to. */
  at(second) {
    const place = second % SECONDS;
    return this.#stamps[place] === second ? this.#values[place] : 0;
  }

  /** The mean of the `span` whole seconds before this one. */
  mean(second, span) {
    let sum = 0;
    for (let back = 1; back <= span; back += 1) sum += this.at(second - back);
    return sum / span;
  }
}

export class Store {
  rates = {
    received: new Ring(),
    delivered: new Ring(),
    deferred: new Ring(),
    failed: new Ring(),
  };

  /** The second since which events are known; null before there is a connection. */
  began = null;

  /** The last events, the newest last. */
  events = [];

  /** Messages that wait, as far as is known; null before it was asked for. */
  depth = null;

  /** [second, depth] of the last seconds, the newest last. */
  depths = [];

  /** Events that did not reach us. */
  missed = 0;

  #watchers = new Set();
  #fresh = [];
  #due = false;
  #frame;

  /** @param {(draw: () => void) => void} frame calls once, when the page is drawn next. */
  constructor(frame) {
    this.#frame = frame;
  }

  /** Take what came over the websocket. */
  take(frames) {
    for (const event of frames) this.#one(event);
    if (this.events.length > EVENTS) this.events.splice(0, this.events.length - EVENTS);
    this.#tell();
  }

  #one(event) {
    if (event.type === "Missed") this.missed += event.count;
    if (event.type === "Hello") this.began ??= Math.floor(clock.now());
    if (event.at === undefined) return;
    const counted = COUNTED[event.type];
    if (counted) this.rates[counted].add(Math.floor(event.at), 1);
    if (event.type === "Queued") this.#deeper(1);
    if (event.type === "Finished") this.#deeper(-1);
    this.events.push(event);
    this.#fresh.push(event);
    if (this.#fresh.length > EVENTS) this.#fresh.splice(0, this.#fresh.length - EVENTS);
  }

  #deeper(by) {
    if (this.depth !== null) this.measured(Math.max(0, this.depth + by));
  }

  /** So many messages wait now. */
  measured(depth) {
    this.depth = depth;
    const second = Math.floor(clock.now());
    const last = this.depths.at(-1);
    if (last && last[0] >= second) last[1] = depth;
    else this.depths.push([second, depth]);
    if (this.depths.length > SECONDS) this.depths.shift();
  }

  /** How much of a kind happened in a second; null: nobody was here to count. */
  rateAt(kind, second) {
    return this.began === null || second < this.began ? null : this.rates[kind].at(second);
  }

  /** How many waited at a second; null: nobody knows. */
  depthAt(second) {
    for (let place = this.depths.length - 1; place >= 0; place -= 1) {
      if (this.depths[place][0] <= second) return this.depths[place][1];
    }
    return null;
  }

  /**
   * Hear of what is new, at most once a frame.
   *
   * @param {(events: Array<Object>) => void} watcher gets the last of what came since.
   * @param {AbortSignal} signal ends it.
   */
  watch(watcher, signal) {
    this.#watchers.add(watcher);
    signal.addEventListener("abort", () => this.#watchers.delete(watcher));
  }

  #tell() {
    if (this.#due) return;
    this.#due = true;
    this.#frame(() => {
      const fresh = this.#fresh;
      this.#fresh = [];
      this.#due = false;
      for (const watcher of this.#watchers) watcher(fresh);
    });
  }
}
