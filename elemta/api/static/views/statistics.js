/** How much happened, and what went wrong. */

import * as api from "../api.js";
import { h } from "../dom.js";
import { panel, poll, settled, show } from "../shapes.js";
import { errorsOf, statisticsPanel } from "./overview.js";

export default function statistics({ signal }, store) {
  const columns = h("div", { class: "history" });
  const errors = h("div", {});
  const load = () => show(errors, async () => errorsOf(await api.get("/v1/errors?limit=100", signal)));
  const again = settled(load, 500, 3000);
  const bad = new Set(["Deferred", "Failed", "Expired"]);
  store.watch((events) => events.some(({ type }) => bad.has(type)) && again(), signal);
  poll(load, 30_000, signal);
  return { title: "Statistics", body: [statisticsPanel(columns, signal), panel("Attempts that failed", [], errors)] };
}
