/** What the server writes into its log. */

import * as api from "../api.js";
import { h } from "../dom.js";
import { LEVELS, badge, messageLink, panel } from "../shapes.js";
import { choice } from "../fields.js";
import { address } from "../router.js";
import { failed, toast } from "../toast.js";
import { tail } from "../tail.js";
import { at } from "../times.js";

const PAST = 200;

export default function logs({ query, signal }) {
  const level = LEVELS.includes(query.get("level")) ? query.get("level") : "info";
  const shown = tail({ label: "The log", line: entry, signal, empty: "Nothing was logged at this level." });

  const start = async () => {
    try {
      const { entries } = await api.get(`/v1/logs${api.query({ level, limit: PAST })}`, signal);
      shown.put(entries);
      shown.follow(api.socket(`/v1/logs/live${api.query({ level })}`));
    } catch (error) {
      failed(error);
    }
  };
  start();

  const which = choice("Show", "level", LEVELS.map((each) => [each, `${each} and worse`]), {
    value: level,
    onchange: (event) => {
      location.hash = address("logs", [], new URLSearchParams({ level: event.target.value }));
    },
  });
  const form = h("form", { class: "filter inline" }, which, api.may("admin") ? writtenLevel(signal) : []);
  form.addEventListener("submit", (event) => event.preventDefault());
  return { title: "Logs", body: [form, panel("Log", shown.tools, shown.element)] };
}

/** The least that is logged at all: it holds until the next reload or start. */
function writtenLevel(signal) {
  const field = choice("Write", "write", LEVELS.map((each) => [each, `${each} and worse`]));
  const control = field.querySelector("select");
  control.disabled = true;
  api.get("/v1/logs/level", signal).then((told) => {
    control.value = told.level;
    control.disabled = false;
  }, failed);
  control.addEventListener("change", async () => {
    try {
      await api.set("/v1/logs/level", { level: control.value });
      toast(`The log has ${control.value} and worse, until the next reload or start.`, { kind: "good" });
    } catch (error) {
      failed(error);
    }
  });
  return field;
}

function entry({ at: moment, level, event, logger, fields }) {
  return h(
    "li",
    { class: `log ${level}` },
    at(moment),
    badge(level),
    h("strong", { title: logger }, event),
    h("span", { class: "text" }, Object.entries(fields).filter(([, value]) => value !== "" && value !== null).map(([key, value]) => [
      h("span", { class: "key" }, `${key}=`),
      ["message", "id", "about"].includes(key) && typeof value === "string" && /^[0-9A-Z]{26}$/.test(value) ? messageLink(value) : String(value),
      " ",
    ])),
  );
}
