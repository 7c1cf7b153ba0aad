/** What was said in a conversation. */

import { h } from "./dom.js";
import { counted, duration } from "./format.js";
import { badge, breakable, messageLink } from "./shapes.js";
import { at } from "./times.js";

/** One line: who said it, and what. */
export function said({ speaker, text, at: moment }, extra = null) {
  return h(
    "li",
    { class: speaker === "C" ? "client" : "server" },
    at(moment),
    extra,
    h("span", { class: "speaker", "aria-label": speaker === "C" ? "client" : "server" }, `${speaker}:`),
    h("span", { class: "text" }, text),
  );
}

/** A conversation that can be opened. */
export function transcript(each, open = false) {
  const length = each.ended === null ? "goes on" : `took ${duration(each.ended - each.began)}`;
  return h(
    "details",
    { class: "transcript", open },
    h(
      "summary",
      {},
      badge(each.direction, each.direction === "in" ? "received" : "sent"),
      h("span", { class: "words" }, `${each.peer}, ${each.place}`),
      h("span", { class: "soft" }, at(each.began), ` · ${length} · ${counted(each.said.length, "line")}`),
    ),
    each.cut ? h("p", { class: "soft" }, `${counted(each.cut, "line")} are forgotten.`) : null,
    h("ol", { class: "lines mono", tabindex: "0", "aria-label": `Conversation with ${each.peer}` }, each.said.map((line) => said(line))),
    each.messages.length > 1 ? h("p", { class: "soft" }, "About: ", each.messages.map((id) => [messageLink(id), " "])) : null,
  );
}

/** Steps that are shown with all their details; of more, e.g. one for each of many recipients, each can be opened. */
const OPEN = 25;
const SHOWN = 200;

/** Why something is as it is: decision by decision. */
export function explanation({ summary, steps }, open = OPEN) {
  const marks = { true: ["good", "✓", "goes on"], false: ["bad", "✗", "ends here"], undefined: ["off", "•", "note"] };
  return [
    h("p", { class: "summary" }, summary),
    h(
      "ol",
      { class: "steps" },
      steps.slice(0, SHOWN).map((step) => {
        const [kind, mark, means] = marks[String(step.good ?? undefined)];
        return h(
          "li",
          { class: kind },
          h("span", { class: "mark", role: "img", "aria-label": means }, mark),
          steps.length > open
            ? h("details", {}, h("summary", {}, h("strong", {}, breakable(step.question))), contentOf(step))
            : h("div", {}, h("strong", {}, breakable(step.question)), contentOf(step)),
        );
      }),
    ),
    steps.length > SHOWN ? h("p", { class: "soft" }, `and ${counted(steps.length - SHOWN, "step")} more: the API has them all.`) : null,
  ];
}

function contentOf(step) {
  return [
    h("span", { class: "answer" }, step.answer),
    step.reply ? h("code", { class: "reply" }, step.reply) : null,
    step.details?.length ? h("ul", { class: "soft" }, step.details.map((each) => h("li", {}, each))) : null,
  ];
}
