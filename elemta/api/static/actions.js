/** What an operator does with mail that waits: counted first, confirmed, done, and undone if that can be. */

import * as api from "./api.js";
import * as clock from "./clock.js";
import { fill, h } from "./dom.js";
import { dialog } from "./dialog.js";
import { addresses, choice, line, written } from "./fields.js";
import { count, counted, octets, seconds } from "./format.js";
import { settled } from "./shapes.js";
import { explained, failed, toast } from "./toast.js";

export const PRIORITIES = [["low", "low"], ["normal", "normal"], ["high", "high"], ["critical", "critical"]];

/** Each action: what its button says, what it asks for, and what it does, in words. */
export const ACTIONS = {
  retry: { label: "Retry", about: "Try it now, whatever it waits for.", done: "Tried now" },
  hold: { label: "Hold", about: "Do not try it until somebody releases it.", done: "Held" },
  release: { label: "Release", about: "Try what is held, now.", done: "Released" },
  reprioritise: {
    label: "Priority",
    about: "Let the message go sooner, or later, than others.",
    done: "Changed the priority of",
    // It is set to another one than it has: otherwise there would be nothing to do.
    fields: (now) => [choice("Priority", "priority", PRIORITIES, { value: now === "high" ? "normal" : "high" })],
  },
  redirect: {
    label: "Redirect",
    about: "Deliver to another address, now.",
    done: "Redirected",
    fields: () => [line("To", "to", { required: true, type: "email", placeholder: "who@example.org" })],
  },
  reroute: {
    label: "Reroute",
    about: "Deliver by another way than the configuration's.",
    done: "Rerouted",
    fields: () => [line("Via", "via", {
      placeholder: "smtp://relay.example.net:25",
      hint: "One or several, with commas between, as routes have them; empty: as the configuration says.",
    })],
  },
  reschedule: {
    label: "Reschedule",
    about: "Set when it is tried next.",
    done: "Rescheduled",
    fields: () => [line("Try again in", "in", { required: true, value: "1 h", hint: "E.g. 15 min, 2 h, 1 d." })],
  },
  bounce: {
    label: "Bounce",
    about: "Give it up, and tell the sender. This cannot be undone.",
    done: "Bounced",
    danger: true,
  },
  delete: {
    label: "Delete",
    about: "Give it up, and tell nobody. This cannot be undone.",
    done: "Deleted",
    danger: true,
  },
};

/** What an action's form says, as the API has it. */
function argumentsOf(word, form) {
  const found = written(form);
  const told = { reason: found.reason ?? "" };
  if (word === "reprioritise") told.priority = found.priority;
  if (word === "redirect") told.to = found.to;
  if (word === "reroute") told.via = addresses(found.via);
  if (word === "reschedule") told.at = clock.now() + (seconds(found.in ?? "") ?? 0);
  return told;
}

/**
 * Do something with mail, after it was counted and confirmed.
 *
 * @param {string} word of `ACTIONS`.
 * @param {Object} meant
 * @param {?string} [meant.message] the id of one, with `recipients` perhaps.
 * @param {Array<string>} [meant.recipients] of that message; none means all.
 * @param {?Object} [meant.filter] or all that match; {} means everything.
 * @param {string} meant.what in words, e.g. "3 selected messages".
 * @param {() => void} [meant.after] when it was done, and when it was undone.
 * @param {?string} [meant.priority] as it is, so that a change can be undone.
 */
export async function act(word, meant) {
  const action = ACTIONS[word];
  const tally = h("p", { class: "tally", role: "status" }, "Counting…");
  let told = null;
  const ask = (form, dry) => send(word, meant, { ...argumentsOf(word, form), dry_run: dry });
  const counting = async (form) => {
    const counts = await ask(form, true);
    return { said: concerns(counts), possible: counts.recipients > 0 };
  };
  const done = await dialog({
    title: `${action.label}: ${meant.what}`,
    body: [
      h("p", { class: "soft" }, action.about),
      action.fields?.(meant.priority) ?? [],
      line("Reason", "reason", { hint: "For people; it stands in the timeline.", maxlength: 500 }),
      tally,
    ],
    confirm: action.label,
    danger: action.danger,
    run: async (form) => {
      told = await ask(form, false);
    },
    opened: (yes, form) => keepCounted(yes, form, tally, counting),
  });
  if (!done) return;
  meant.after?.();
  toast(`${action.done} ${counted(told.recipients, "recipient")} of ${counted(told.messages, "message")}.`, {
    kind: "good",
    action: undo(word, meant),
  });
}

/**
 * Count when a dialog opens, and again while somebody types; until then it cannot be confirmed. Not
 * when a field is left: that would take the button away from under the click that leaves it.
 */
function keepCounted(yes, form, tally, counting) {
  let asked = 0;
  const look = async () => {
    if (!form.checkValidity()) return;
    asked += 1;
    const turn = asked;
    let found;
    try {
      found = await counting(form);
    } catch (error) {
      found = { said: explained(error), possible: false };
    }
    if (turn !== asked) return; // somebody has typed on meanwhile
    fill(tally, found.said);
    yes.disabled = !found.possible;
  };
  const again = settled(look, 300, 2000);
  form.addEventListener("input", ({ target }) => {
    if (target.name === "reason" || target.name === "for") return;
    asked += 1;
    yes.disabled = true;
    again();
  });
  yes.disabled = true;
  if (form.checkValidity()) look();
  else fill(tally, "");
}

function concerns({ messages, recipients, octets: size, busy }) {
  if (recipients === 0) {
    return busy > 0
      ? `All ${count(busy)} are being tried just now, and are left alone.`
      : "There is nothing here that this could be done with.";
  }
  const left = busy > 0 ? ` ${counted(busy, "more is", "more are")} being tried just now, and left alone.` : "";
  return [h("strong", {}, counted(messages, "message")), `, ${counted(recipients, "recipient")}, ${octets(size)}.${left}`];
}

async function send(word, { message = null, recipients = [], filter = null }, told) {
  if (message !== null) {
    const body = recipients.length ? { ...told, recipients } : told;
    return api.post(`/v1/messages/${encodeURIComponent(message)}/${word}`, body);
  }
  const all = Object.keys(filter).length === 0;
  return api.post(`/v1/queue/${word}`, all ? { ...told, all: true } : { ...told, filter });
}

/** What takes it back; null where nothing does, or where it would take back more than was done. */
function undo(word, meant) {
  const exact = meant.message !== null && meant.message !== undefined ? true : Boolean(meant.filter?.ids);
  const back = { hold: ["release", {}], release: ["hold", {}] }[word]
    ?? (word === "reprioritise" && meant.priority ? ["reprioritise", { priority: meant.priority }] : null);
  if (!exact || back === null) return null;
  const [other, told] = back;
  return {
    label: "Undo",
    run: async () => {
      // What it was found by, e.g. that it waits, is no longer so: its ids say who is meant.
      const same = meant.filter ? { ...meant, filter: { ids: meant.filter.ids } } : meant;
      const counts = await send(other, same, { ...told, reason: "undone", dry_run: false });
      meant.after?.();
      toast(`Undone for ${counted(counts.recipients, "recipient")}.`);
    },
  };
}

/** Send nothing to a scope, after it was counted and confirmed. */
export async function suspend(scope, after) {
  const free = scope === null;
  const tally = h("p", { class: "tally", role: "status" });
  let chosen = scope;
  const told = (form, dry) => {
    const found = written(form);
    chosen = free ? found.scope : scope;
    const length = seconds(found.for ?? "");
    return {
      scope: chosen, reason: found.reason ?? "", dry_run: dry, ...(length === null ? {} : { for: length }),
    };
  };
  const counting = async (form) => {
    const counts = await api.post("/v1/destinations/suspend", told(form, true));
    return {
      said: counts.tally === null ? "" : `${counted(counts.tally.messages, "message waits", "messages wait")} there now.`,
      possible: true,
    };
  };
  const done = await dialog({
    title: free ? "Suspend" : `Suspend ${scope}`,
    body: [
      h("p", { class: "soft" }, "Nothing is sent there until it is resumed. Mail is still taken, and waits."),
      free
        ? line("Scope", "scope", {
            required: true, placeholder: "domain:example.net",
            hint: "all, destination:NAME or domain:NAME",
          })
        : [],
      line("For", "for", { hint: "E.g. 30 min, 2 h; empty: until somebody resumes it." }),
      line("Reason", "reason", { hint: "For people.", maxlength: 500 }),
      tally,
    ],
    confirm: "Suspend",
    run: (form) => api.post("/v1/destinations/suspend", told(form, false)),
    opened: (yes, form) => keepCounted(yes, form, tally, counting),
  });
  if (!done) return;
  after();
  toast(`Suspended ${chosen}.`, { kind: "good", action: { label: "Undo", run: () => resume(chosen, after) } });
}

/** Send to a scope again. */
export async function resume(scope, after, again = null) {
  await api.post("/v1/destinations/resume", { scope });
  after();
  const back = again && {
    label: "Undo",
    run: async () => {
      const left = again.until === null || again.until === undefined ? {} : { until: again.until };
      await api.post("/v1/destinations/suspend", { scope, reason: again.reason, ...left });
      after();
    },
  };
  toast(`Resumed ${scope}.`, { kind: "good", action: back });
}

/** Try all that waits for a destination, now. */
export async function flush(destination) {
  try {
    const counts = await api.post("/v1/destinations/flush", { destination });
    toast(`Tried now: ${counted(counts?.recipients ?? 0, "recipient")} for ${destination}.`, { kind: "good" });
  } catch (error) {
    failed(error);
  }
}
