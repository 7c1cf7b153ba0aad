/** The server's time: what is shown as "2 min ago" must not depend on how the browser's clock goes. */

let ahead = 0;

/** The server says that it is this late, in seconds since the epoch. */
export function set(seconds) {
  ahead = seconds - Date.now() / 1000;
}

/** Seconds since the epoch, as the server counts them. */
export function now() {
  return Date.now() / 1000 + ahead;
}
