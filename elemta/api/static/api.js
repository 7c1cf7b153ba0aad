/** The API of the server that this page is from. */

/** Who is logged in: {who, scopes, csrf}; null before `enter`. */
let caller = null;

/** An answer that is no success (RFC 9457), or none at all. */
export class Problem extends Error {
  /**
   * @param {number} status of HTTP; 0: there was no answer.
   * @param {string} detail in a sentence.
   * @param {Array<{field: string, problem: string}>} faults what of the request is wrong.
   */
  constructor(status, detail, faults = []) {
    super(detail);
    this.status = status;
    this.faults = faults;
  }

  /** All of it, for people. */
  get text() {
    // One that the sentence tells already, e.g. a mistake in the configuration, is not told twice.
    const faults = this.faults
      .filter((each) => !(this.faults.length === 1 && this.message.endsWith(each.problem.replace(/^line \d+: /, ""))))
      .map((each) => `${each.field}: ${each.problem}`);
    return [this.message, ...faults].join("\n");
  }
}

/** Go to the login page, and come back to where we are. */
export function leave() {
  const here = location.pathname === "/" ? location.hash : location.pathname;
  location.replace(here === "" ? "/login" : `/login#next=${encodeURIComponent(here)}`);
}

/** Ask who we are. Leaves for the login page where that is nobody. */
export async function enter() {
  caller = await get("/v1/me");
  return caller;
}

/** Who is logged in. */
export function me() {
  return caller;
}

/** Whether who is logged in may do this. */
export function may(scope) {
  return caller !== null && (caller.scopes.includes(scope) || caller.scopes.includes("admin"));
}

/** A query string of what is given; null, empty text and empty lists are left out. */
export function query(values) {
  const search = new URLSearchParams();
  for (const [key, value] of Object.entries(values)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== null && each !== undefined && each !== "") search.append(key, each);
    }
  }
  const text = search.toString();
  return text === "" ? "" : `?${text}`;
}

/**
 * Ask for something.
 *
 * @param {string} method of HTTP.
 * @param {string} path with its query.
 * @param {{body?: Object, headers?: Object, signal?: AbortSignal}} rest
 * @returns what is in the JSON; null if the answer is empty; text if it is no JSON.
 * @throws {Problem} it was refused, or nobody answered.
 */
export async function ask(method, path, { body, headers = {}, signal } = {}) {
  const sent = { Accept: "application/json", ...headers };
  if (body !== undefined) sent["Content-Type"] = "application/json";
  if (method !== "GET" && caller !== null) sent["X-CSRF-Token"] = caller.csrf;
  const told = body === undefined ? undefined : JSON.stringify(body);
  const response = await answer(path, { method, headers: sent, body: told, signal });
  const type = response.headers.get("Content-Type") ?? "";
  if (response.status === 204) return null;
  return type.startsWith("application/json") ? response.json() : response.text();
}

/**
 * The beginning of a text that may be long.
 *
 * @param {number} most octets that are read, roughly.
 * @returns {Promise<{text: string, cut: boolean}>}
 */
export async function beginning(path, most) {
  const response = await answer(path, { method: "GET" });
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  for (let size = 0; size < most; ) {
    const { done, value } = await reader.read();
    if (done) return { text, cut: false };
    size += value.length;
    text += decoder.decode(value, { stream: true });
  }
  await reader.cancel();
  return { text, cut: true };
}

async function answer(path, options) {
  let response;
  try {
    response = await fetch(path, { ...options, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "The server does not answer.");
  }
  if (!response.ok) throw await refused(response, path);
  return response;
}

async function refused(response, path) {
  if (response.status === 401 && path !== "/v1/login") leave();
  let told = {};
  try {
    told = await response.json();
  } catch {
    // Not ours: a proxy's page. The status has to do.
  }
  const detail = told.detail || told.title || `HTTP status ${response.status}`;
  return new Problem(response.status, detail, told.faults ?? []);
}

/** Look at something. */
export const get = (path, signal) => ask("GET", path, { signal });

/** Have something done. */
export const post = (path, body, headers) => ask("POST", path, { body: body ?? {}, headers });

/** Set something. */
export const set = (path, body) => ask("PUT", path, { body });

/** Take something away. */
export const remove = (path) => ask("DELETE", path);

/** The address of a websocket of ours. */
export function socket(path) {
  return `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${path}`;
}
