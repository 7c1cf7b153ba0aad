/** Which page is shown: the part of the address behind the "#", e.g. `#/queue?domain=example.net`. */

/** A page's address, taken apart. */
export function parse(hash) {
  const [path, search = ""] = hash.replace(/^#/, "").split(/\?(.*)/s);
  const [, name = "", ...rest] = path.split("/");
  return { name: name || "overview", rest: rest.map(decodeURIComponent), query: new URLSearchParams(search) };
}

/** Put together again. */
export function address(name, rest = [], query = null) {
  const path = [name, ...rest.map(encodeURIComponent)].join("/");
  const search = query?.toString();
  return `#/${path}${search ? `?${search}` : ""}`;
}

export class Router {
  #pages;
  #shown;
  #life = null;

  /**
   * @param {Object<string, (place: Object) => void>} pages by name.
   * @param {(place: Object, page: Function) => void} shown puts a page up; `place.signal` aborts
   *   when another one follows.
   */
  constructor(pages, shown) {
    this.#pages = pages;
    this.#shown = shown;
    addEventListener("hashchange", () => this.go());
  }

  /** Show what the address says. */
  go() {
    let place;
    try {
      place = parse(location.hash);
    } catch { // a % that begins nothing
      place = parse("");
    }
    const page = this.#pages[place.name];
    if (page === undefined) {
      location.replace(address("overview"));
      return;
    }
    this.#life?.abort();
    this.#life = new AbortController();
    this.#shown({ ...place, signal: this.#life.signal }, page);
  }
}
