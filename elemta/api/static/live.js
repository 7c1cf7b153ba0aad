/**
 * A websocket that comes back by itself.
 *
 * After a loss it is opened again, at first after half a second, then more and more seldom, and asks
 * for what happened since: so nothing is shown twice, and nothing is left out without being said.
 */

const FIRST = 500;
const LONGEST = 15_000;
/** Without a frame for so long it is taken for dead: heartbeats come oftener. */
const SILENCE = 45_000;

export class Live {
  #open;
  #socket = null;
  #timer = null;
  #watch = null;
  #wait = FIRST;
  #closed = false;

  /** What is told: "connecting", "open" or "lost". */
  state = "connecting";

  /** The number of the last event; null before there was any. */
  since = null;

  /**
   * @param {(since: ?number) => string} address where to connect, to go on after that number.
   * @param {(frames: Array<Object>) => void} take gets what comes, in order.
   * @param {(state: string) => void} changed hears how it stands.
   * @param {(address: string) => WebSocket} open a test's network may be another.
   */
  constructor(address, take, changed, open = (url) => new WebSocket(url)) {
    this.address = address;
    this.take = take;
    this.changed = changed;
    this.#open = open;
    this.#connect();
  }

  /** Come back at once, e.g. since the network is there again. */
  hurry() {
    if (this.state === "lost") {
      clearTimeout(this.#timer);
      this.#connect();
    }
  }

  /** Never come back. */
  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#watch);
    this.#socket?.close();
  }

  #connect() {
    const socket = this.#open(this.address(this.since));
    this.#socket = socket;
    socket.onopen = () => this.#heard();
    socket.onmessage = (message) => {
      this.#wait = FIRST;
      this.#heard();
      this.#told("open");
      this.#read(message.data);
    };
    socket.onclose = () => this.#lost(socket);
  }

  #read(text) {
    const told = JSON.parse(text);
    const frames = Array.isArray(told) ? told : [told];
    // In order; of what was missed, the last one that was.
    for (const { number, last } of frames) this.since = number ?? (last || this.since);
    this.take(frames);
  }

  #heard() {
    clearTimeout(this.#watch);
    this.#watch = setTimeout(() => this.#socket?.close(), SILENCE);
  }

  #lost(socket) {
    if (this.#closed || socket !== this.#socket) return;
    clearTimeout(this.#watch);
    this.#told("lost");
    this.#timer = setTimeout(() => this.#connect(), this.#wait * (0.75 + Math.random() / 2));
    this.#wait = Math.min(LONGEST, this.#wait * 2);
  }

  #told(state) {
    if (this.state === state) return;
    this.state = state;
    this.changed(state);
  }
}
