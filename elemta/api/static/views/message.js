/** One message: its whole life. */

import * as api from "../api.js";
import * as clock from "../clock.js";
import { ACTIONS, act } from "../actions.js";
import { fill, h } from "../dom.js";
import { counted, duration, full, octets } from "../format.js";
import { letter } from "../letter.js";
import { address, badge, breakable, button, holder, panel, poll, settled, trouble } from "../shapes.js";
import { explanation, transcript } from "../transcript.js";
import { facts, nothing, table } from "../table.js";
import { ago, at } from "../times.js";

/** Recipients, attempts and notes that are shown. */
const SHOWN = 200;
/** With more recipients, why each of them waits is folded up: it is mostly the same. */
const FOLDED = 3;
/** Notes of plugins that say what becomes of a message. */
const DECIDED = /^(quarantine|discard)\b/;
const RESULTS = { delivered: "Delivered", deferred: "Deferred", failed: "Failed", expired: "Expired" };

export default function message({ rest: [id = ""], signal }, store) {
  const path = `/v1/messages/${encodeURIComponent(id)}`;
  const about = h("div", { class: "about" });
  const recipients = h("div", {});
  const life = h("ol", { class: "timeline", "aria-live": "polite" });
  const why = h("div", {});
  const talks = h("div", {});
  const actions = h("div", { class: "actions", role: "group", "aria-label": "Do something with this message" });
  const state = h("span", { role: "status" });
  const content = h("div", {});
  const body = h("div", { class: "stack" });
  let found = null;
  let drawn = "";

  const load = async () => {
    try {
      found = await api.get(path, signal);
      const text = JSON.stringify(found);
      if (text !== drawn) {
        drawn = text;
        fill(about, aboutOf(found));
        fill(recipients, recipientsOf(found, one));
        fill(life, lifeOf(found));
        fill(state, statesOf(found));
        fill(actions, actionsOf(found, all));
        // What was opened stays open, whatever happens meanwhile.
        if (!content.querySelector(".letter")) fill(content, contentPanel(path, found));
      }
      await Promise.all([explain(), transcribe()]);
    } catch (error) {
      if (error.name === "AbortError") return;
      fill(found === null ? body : about, trouble(error));
    }
  };
  const explain = async () => {
    try {
      const told = await api.get(`${path}/why`, signal);
      // What was opened stays open; the first is at first, as most of them say the same.
      const before = [...why.querySelectorAll("details")].map((each) => each.open);
      fill(why, explanation(told, FOLDED), told.next_at ? h("p", {}, "Next: ", ago(told.next_at)) : null);
      why.querySelectorAll("details").forEach((each, place) => { each.open = before[place] ?? place === 0; });
    } catch (error) {
      if (error.name !== "AbortError") fill(why, trouble(error));
    }
  };
  let told = "";
  const transcribe = async () => {
    try {
      const { transcripts } = await api.get(`${path}/transcripts`, signal);
      const text = JSON.stringify(transcripts);
      if (text === told) return;
      told = text;
      const open = new Set([...talks.querySelectorAll("details[open]")].map((each) => each.dataset.id));
      fill(talks, transcripts.length
        ? transcripts.map((each) => {
            const element = transcript(each, open.has(each.id));
            element.dataset.id = each.id;
            return element;
          })
        : nothing("No conversation about it is remembered."));
    } catch (error) {
      if (error.name !== "AbortError") fill(talks, trouble(error));
    }
  };
  const all = (word) => act(word, { message: id, what: `message ${id}`, priority: found.priority, after: load });
  const one = (word, recipient) =>
    act(word, { message: id, recipients: [recipient], what: recipient, priority: found.priority, after: load });

  const again = settled(load);
  store.watch((events) => events.some((event) => event.id === id) && again(), signal);
  poll(load, 20_000, signal);

  fill(
    body,
    api.may("operate") ? actions : [],
    h("div", { class: "columns wide-first" }, [
      h("div", { class: "stack" }, panel("Life", [], life), panel("Conversations", [], talks)),
      h("div", { class: "stack" }, panel("Why?", [], why), panel("About", [], about)),
    ]),
    panel("Recipients", [], recipients),
    api.may("content") ? content : [],
  );
  return { title: "Message", tools: [state], body: [h("p", { class: "mono id" }, id), body] };
}

/** What is in it is somebody's letter: it is shown when it is asked for, and that is written down. */
function contentPanel(path, found) {
  const place = h("div", {});
  if (!unfinished(found)) return panel("Content", [], h("p", { class: "soft" }, "It is finished, and its content is gone."));
  const open = button("Show", () => {
    open.hidden = true;
    fill(place, letter(path));
  }, "small");
  fill(place, h("p", { class: "soft" }, "Who looks at the content stands in the audit log."));
  return panel("Content", open, place);
}

function unfinished({ recipients }) {
  return recipients.some(({ state }) => state === "ready" || state === "deferred" || state === "held");
}

function actionsOf(found, run) {
  if (!unfinished(found)) return h("span", { class: "soft" }, "It is finished: nothing is left to do.");
  const held = found.recipients.some(({ state }) => state === "held");
  const waits = found.recipients.some(({ state }) => state === "ready" || state === "deferred");
  const usable = Object.entries(ACTIONS).filter(([word]) => {
    if (word === "release") return held;
    if (word === "hold" || word === "retry") return waits;
    return true;
  });
  return usable.map(([word, { label, danger }]) => button(label, () => run(word), `small${danger ? " danger-text" : ""}`));
}

/** Whom it was thrown away for. To the queue that is a delivery like any other, and to people it is none. */
function thrownAway({ attempts }) {
  return new Set(attempts.filter(isThrownAway).map(({ recipient }) => recipient));
}

function isThrownAway({ result, remote, reply }) {
  return result === "delivered" && !remote && reply.startsWith("250 2.0.0 discarded");
}

function statesOf(found) {
  const { recipients, finished_at: finished } = found;
  const nobody = thrownAway(found);
  const states = [...new Set(recipients.map(({ address: to, state }) => (nobody.has(to) ? "discarded" : state)))];
  return [states.map((state) => badge(state)), finished ? badge("off", "finished") : null];
}

function aboutOf(found) {
  return facts([
    ["From", address(found.sender)],
    ["Received", [at(found.received_at), " (", ago(found.received_at), ")"]],
    ["Given up", found.finished_at ? null : ago(found.expires_at)],
    ["Finished", found.finished_at ? [at(found.finished_at), ` after ${duration(found.finished_at - found.received_at)}`] : null],
    ["Size", octets(found.size)],
    ["Priority", found.priority],
    ["Tags", found.tags.length ? found.tags.map((tag) => badge("off", tag)) : null],
    ["Client", found.client],
    ["Called itself", found.helo],
    ["Logged in as", found.login],
    ["Listener", found.listener && found.protocol ? `${found.listener}, by ${found.protocol}` : found.listener],
    ["Session", found.session && h("span", { class: "mono" }, found.session)],
  ]);
}

function recipientsOf(found, run) {
  const may = api.may("operate") && unfinished(found);
  const buttons = ({ address: recipient, state }) => {
    const words = { ready: ["retry", "hold", "redirect", "delete"], deferred: ["retry", "hold", "redirect", "delete"], held: ["release", "redirect", "delete"] }[state] ?? [];
    return words.map((word) =>
      h("button", { type: "button", class: "small quiet", "aria-label": `${ACTIONS[word].label} ${recipient}`, onclick: () => run(word, recipient) }, ACTIONS[word].label));
  };
  const nobody = thrownAway(found);
  const list = table(
    "Recipients",
    [
      { title: "Address", kind: "name", cell: (each) => [address(each.address), each.original && each.original !== each.address ? h("small", {}, " for ", each.original) : null] },
      { title: "State", cell: (each) => badge(nobody.has(each.address) ? "discarded" : each.state) },
      { title: "Attempts", kind: "number", cell: (each) => each.attempts },
      { title: "Next", cell: (each) => (each.due ? ago(each.due) : "–") },
      { title: "Last reply", kind: "main", cell: (each) => [
        h("span", { class: "reply" }, each.last ?? "–"),
        each.held_by ? h("div", { class: "soft" }, breakable(holder(each))) : null] },
      ...(may ? [{ title: "", kind: "row-actions", cell: buttons }] : []),
    ],
    found.recipients.slice(0, SHOWN),
    "It has no recipients.",
  );
  return [list, more(found.recipients.length, "recipient")];
}

/** A message may have a hundred thousand recipients, and a page that shows them all shows nothing. */
function more(many, word) {
  return many > SHOWN ? h("p", { class: "soft" }, `and ${counted(many - SHOWN, word)} more: the API has them all.`) : null;
}

/** What happened, in the order in which it did; of very much, the last. */
function lifeOf(found) {
  const steps = [
    { at: found.received_at, kind: "in", title: "Received", text: [
      `from ${found.sender ?? "<>"}`, found.client ? ` by ${found.client}` : "", found.helo ? ` (${found.helo})` : "",
      `, for ${counted(found.recipients.length, "recipient")}, ${octets(found.size)}`] },
    ...found.attempts.slice(-SHOWN).map(attemptOf),
    ...judgedOf(found),
    ...found.notes.filter((note) => !isJudgement(note, found)).slice(-SHOWN).map((note) => ({
      // What was decided while it came in is a moment older than that it came in, and follows it.
      at: Math.max(note.at, found.received_at),
      kind: kindOf(note), title: note.action.replace(/^./, (first) => first.toUpperCase()),
      text: [`by ${note.who}`, note.reason ? `: ${note.reason}` : ""],
      more: note.recipients.length < found.recipients.length ? note.recipients.join(", ") : null,
    })),
  ].sort((one, other) => one.at - other.at);
  if (found.finished_at) {
    steps.push({ at: found.finished_at, kind: "good", title: "Finished", text: [`after ${duration(found.finished_at - found.received_at)}`] });
  } else {
    const due = found.recipients.filter((each) => each.due).map((each) => each.due);
    if (due.length) {
      const next = Math.min(...due);
      const title = next > clock.now() ? "Next attempt" : "Due, and waits for its destination";
      steps.push({ at: next, kind: "off", title, text: [""], future: true });
    }
  }
  return steps.map((step) =>
    h(
      "li",
      { class: `${step.kind}${step.future ? " future" : ""}` },
      h("div", { class: "when", title: full(step.at) }, step.future ? ago(step.at) : at(step.at)),
      h("div", { class: "what" },
        h("strong", {}, step.title), " ", step.text.map((part) => breakable(part)),
        step.reply ? h("code", { class: "reply" }, step.reply) : null,
        step.facts ? facts(step.facts) : null,
        step.more ? h("div", { class: "soft" }, step.more) : null),
    ));
}

/** What becomes of a message stands by itself; all else that plugins said of it as it came in, together. */
function isJudgement({ at: moment, who, action }, found) {
  return moment <= found.received_at && who.startsWith("plugin:") && !DECIDED.test(action);
}

function kindOf({ action }) {
  if (action === "found") return "off";
  return action.startsWith("discard") ? "bad" : "held";
}

/** What plugins found out and changed as it came in: a line each, by plugin. */
function judgedOf(found) {
  const notes = found.notes.filter((note) => isJudgement(note, found)).slice(-SHOWN);
  if (notes.length === 0) return [];
  const plugins = Map.groupBy(notes, (note) => note.who.replace(/^plugin:/, ""));
  const told = ({ action, reason }) => (action === "found" ? reason : `${action}${reason ? `: ${reason}` : ""}`);
  return [{
    at: found.received_at, kind: "off", title: "Judged", text: [`by ${counted(plugins.size, "plugin")}`],
    facts: [...plugins].map(([name, its]) => [name, its.map(told).join("\n")]),
  }];
}

function attemptOf(attempt) {
  const where = [attempt.host, attempt.destination].filter(Boolean).filter((each, place, all) => all.indexOf(each) === place);
  const kinds = { delivered: "good", deferred: "late", failed: "bad", expired: "bad" };
  if (isThrownAway(attempt)) {
    return { at: attempt.ended, kind: "off", title: "Discarded", text: [attempt.recipient, attempt.host ? ` by ${attempt.host}` : ""], reply: attempt.reply };
  }
  return {
    at: attempt.ended,
    kind: kinds[attempt.result] ?? "off",
    title: RESULTS[attempt.result] ?? attempt.result,
    text: [`${attempt.recipient}`, where.length ? ` by ${where.join(", ")}` : "", ` in ${duration(attempt.ended - attempt.started)}`],
    reply: attempt.reply,
    more: [attempt.remote || attempt.result === "delivered" ? null : "our own answer, not the other side's", attempt.warned ? "the sender was told of the delay" : null]
      .filter(Boolean).join("; ") || null,
  };
}
