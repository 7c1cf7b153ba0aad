/** Starts the dashboard: who is here, what is live, which page is shown. */

import * as api from "./api.js";
import * as clock from "./clock.js";
import * as theme from "./theme.js";
import { fill, h } from "./dom.js";
import { Live } from "./live.js";
import { Router } from "./router.js";
import { Store } from "./store.js";
import { failed } from "./toast.js";
import { trouble } from "./shapes.js";
import access from "./views/access.js";
import compose from "./views/compose.js";
import configuration from "./views/configuration.js";
import destinations from "./views/destinations.js";
import explain from "./views/explain.js";
import inbox from "./views/inbox.js";
import logs from "./views/logs.js";
import message from "./views/message.js";
import overview from "./views/overview.js";
import plugins from "./views/plugins.js";
import queue from "./views/queue.js";
import sessions from "./views/sessions.js";
import statistics from "./views/statistics.js";

const PAGES = {
  overview, queue, messages: message, destinations, sessions, logs, statistics, compose, explain,
  inbox, plugins, configuration, access,
};

const IN_SANDBOX = document.documentElement.dataset.inbox === "yes";

/** Pages by what people come for; a third entry is the scope without which there is nothing to see. */
const MENU = [
  ["Watch", [
    ["overview", "Overview", "read"], ["queue", "Queue", "read"],
    ["destinations", "Destinations", "read"], ["sessions", "Sessions", "read"],
    ["logs", "Logs", "read"], ["statistics", "Statistics", "read"],
  ]],
  ["Try", [
    ["compose", "Compose", "submit"], ["explain", "Explain", "read"],
    ...(IN_SANDBOX ? [["inbox", "Inbox", "content"]] : []),
  ]],
  ["Server", [
    ["plugins", "Plugins", "read"], ["configuration", "Configuration", "read"],
    ["access", "Access", "admin"],
  ]],
];

/** Whether a page was left for another one. */
let moved = false;

const bar = (id) => document.getElementById(id);

async function start() {
  const me = await api.enter();
  const store = new Store(requestAnimationFrame.bind(window));
  drawMenu();
  drawBar(me);
  connect(store);
  // How it is, for whoever opens a page: the overview asks again.
  api.get("/v1/status").then((status) => {
    clock.set(status.asked_at);
    fill(bar("host"), status.hostname);
  }, failed);
  if (!location.hash.startsWith("#/")) history.replaceState(null, "", `#/${first()}`);
  const router = new Router(PAGES, (place, page) => show(place, page, store));
  router.go();
}

function show(place, page, store) {
  // What a dialog asks belongs to the page that opened it, e.g. after the browser's Back.
  for (const open of document.querySelectorAll("dialog")) open.close();
  let shown;
  try {
    shown = lacking(place.name) ?? page(place, store);
  } catch (error) {
    shown = { title: "Trouble", body: [trouble(error)] };
  }
  document.title = `${shown.title} – Elemta`;
  for (const link of bar("nav").querySelectorAll("a")) {
    const here = link.dataset.page === (place.name === "messages" ? "queue" : place.name);
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const heading = h("h1", { tabindex: "-1" }, shown.title);
  const head = h("div", { class: "head" }, heading, h("div", { class: "tools" }, shown.tools ?? []));
  fill(bar("main"), head, shown.body);
  closeMenu();
  // The first page begins at the top, with the link that skips the menu; a page that only changed
  // its filter keeps the focus where it was put.
  if (moved && !shown.keepsFocus) {
    heading.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
  moved = true;
}

/** What is said instead of a page by whoever has found its address, but may not see it; else null. */
function lacking(name) {
  const [, title, scope] = MENU.flatMap(([, pages]) => pages).find(([page]) => page === name) ?? [];
  if (scope === undefined || api.may(scope)) return null;
  const needs = h("p", {}, "This page needs the scope ", h("code", {}, scope), ", which your token does not have.");
  const help = h("p", { class: "soft" }, "Log out and come in with another token, or ask an admin for one.");
  return { title, body: [h("section", { class: "panel" }, needs, help)] };
}

function drawMenu() {
  const groups = MENU.map(([title, pages]) => {
    const seen = pages.filter(([, , scope]) => api.may(scope));
    const links = seen.map(([page, text]) =>
      h("li", {}, h("a", { href: `#/${page}`, "data-page": page }, text)));
    return links.length ? [h("h2", {}, title), h("ul", {}, links)] : [];
  });
  fill(bar("nav"), groups, h("p", { class: "outside" }, h("a", { href: "/docs" }, "API documentation")));
  bar("menu").addEventListener("click", () => {
    const open = document.body.classList.toggle("menu-open");
    bar("menu").setAttribute("aria-expanded", String(open));
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !document.body.classList.contains("menu-open")) return;
    closeMenu();
    bar("menu").focus();
  });
}

/** The first page that who is here may see. */
function first() {
  const seen = MENU.flatMap(([, pages]) => pages).find(([, , scope]) => api.may(scope));
  return seen ? seen[0] : "overview";
}

function closeMenu() {
  document.body.classList.remove("menu-open");
  bar("menu").setAttribute("aria-expanded", "false");
}

function drawBar(me) {
  const button = bar("theme");
  const label = () => {
    const now = theme.chosen();
    fill(button, { system: "◐", light: "☀", dark: "☾" }[now], h("span", { class: "wide" }, ` ${now}`));
    button.setAttribute("aria-label", `Colours: ${now}. Change to ${theme.next(now)}`);
  };
  button.addEventListener("click", () => {
    theme.choose(theme.next(theme.chosen()));
    label();
  });
  label();
  bar("logout").title = `You are ${me.who}`;
  bar("logout").addEventListener("click", async () => {
    try {
      await api.post("/v1/logout");
      location.replace("/login");
    } catch (error) {
      failed(error);
    }
  });
  bar("skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address is the page's, not an anchor's
    bar("main").focus();
  });
}

function connect(store) {
  if (!api.may("read")) return;
  const words = { connecting: "connecting", open: "live", lost: "connection lost" };
  const live = new Live(
    (since) => api.socket(`/v1/events${api.query({ since })}`),
    (frames) => store.take(frames),
    (state) => {
      document.body.classList.toggle("lost", state === "lost");
      bar("live").className = `live ${state}`;
      fill(bar("live"), words[state]);
      // A session that has ended looks like a lost connection: ask, and be sent to the login page.
      if (state === "lost") setTimeout(() => api.get("/v1/me").catch(() => null), 1500);
    },
  );
  addEventListener("online", () => live.hurry());
  document.addEventListener("visibilitychange", () => document.hidden || live.hurry());
}

start().catch((error) => {
  if (error.status !== 401) fill(bar("main"), h("h1", {}, "Elemta"), trouble(error));
});
