"""What the queue's things are as JSON: the words of ``--json`` and of the API."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import msgspec

from elemta.control.facts import asked_in_order
from elemta.protocol import Mailbox, Reply
from elemta.queue import AttemptStarted, Queued, State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elemta.control.facts import (
        Configuration,
        Explanation,
        LogEntry,
        PluginStatus,
        SessionStatus,
        Spoken,
        Statistics,
        Transcript,
    )
    from elemta.control.interface import Happening, Status
    from elemta.protocol import ReversePath
    from elemta.queue import (
        Destination,
        Message,
        Missed,
        Recipient,
        Stats,
        Suspension,
        Tally,
        Timeline,
    )

#: What JSON is made of.
Value: TypeAlias = "str | int | float | bool | list[Value] | dict[str, Value] | None"


def message(message: Message) -> dict[str, Value]:
    """A message that waits, or is history."""
    origin = message.origin
    return {
        "id": message.id,
        "sender": address(message.sender),
        "received_at": message.received_at,
        "expires_at": message.expires_at,
        "send_at": message.due,
        "size": message.size,
        "priority": message.priority.name.lower(),
        "client": origin.address or None,
        "helo": origin.helo or None,
        "session": origin.session or None,
        "listener": origin.listener or None,
        "protocol": origin.protocol or None,
        "login": origin.login or None,
        "tags": list(message.tags),
        "recipients": [_recipient(each) for each in message.recipients],
    }


def _recipient(recipient: Recipient) -> dict[str, Value]:
    holder = recipient.holder
    return {
        "address": str(recipient.address),
        "original": address(recipient.original),
        "via": list(recipient.via),
        "state": recipient.state.value,
        "due": recipient.due if recipient.state is State.DEFERRED else None,
        "attempts": recipient.attempts,
        "last": None if recipient.last is None else str(recipient.last),
        "held_by": None if holder is None else holder.owner,
        "held_since": None if holder is None else holder.since,
        "held_for": None if holder is None else holder.reason,
    }


def timeline(timeline: Timeline) -> dict[str, Value]:
    """A message, and what happened to it."""
    found = timeline.message
    return {
        **message(found),
        "finished_at": timeline.finished_at,
        "attempts": [
            {
                "recipient": str(found.recipients[each.number].address),
                "started": each.started,
                "ended": each.ended,
                "result": "expired" if each.expired else each.result.value,
                "destination": each.destination,
                "host": each.host or None,
                "reply": str(each.reply),
                "remote": each.remote,
                "warned": each.warned,
            }
            for each in timeline.attempts
        ],
        "notes": [
            {
                "at": each.at,
                "who": each.who,
                "action": each.action,
                "reason": each.reason or None,
                "recipients": [str(found.recipients[n].address) for n in each.recipients],
            }
            for each in timeline.notes
        ],
    }


def stats(stats: Stats) -> dict[str, Value]:
    """How full the queue is."""
    return {
        "messages": stats.messages,
        "recipients": {state.value: stats.recipients.get(state, 0) for state in State},
        "oldest": stats.oldest,
        "history": stats.history,
    }


def tally(tally: Tally, *, dry_run: bool) -> dict[str, Value]:
    """What an action came to, or would come to."""
    return {
        "messages": tally.messages,
        "recipients": tally.recipients,
        "octets": tally.octets,
        "busy": tally.busy,
        "dry_run": dry_run,
    }


def destination(destination: Destination) -> dict[str, Value]:
    """Where mail goes."""
    return _built(destination)


def suspension(suspension: Suspension) -> dict[str, Value]:
    """What is suspended."""
    return {"until": None, **_built(suspension)}


def status(status: Status) -> dict[str, Value]:
    """How a server is."""
    built = _built(status)
    built["queue"] = None if status.queue is None else stats(status.queue)
    return built


def configuration(configuration: Configuration) -> dict[str, Value]:
    """What runs."""
    return _built(configuration)


def explanation(explanation: Explanation) -> dict[str, Value]:
    """Why something is as it is."""
    return {
        "summary": explanation.summary,
        "next_at": explanation.next_at,
        "steps": [
            {
                "question": each.question,
                "answer": each.answer,
                "good": each.good,
                "reply": each.reply,
                "details": list(each.details),
            }
            for each in explanation.steps
        ],
    }


def plugin(plugin: PluginStatus) -> dict[str, Value]:
    """A plugin."""
    return _built(plugin)


def plugins(found: Sequence[PluginStatus]) -> dict[str, Value]:
    """All plugins, and whom each hook asks, first to last."""
    order: dict[str, Value] = {
        hook: list[Value](names) for hook, names in asked_in_order(found).items()
    }
    return {"plugins": [plugin(each) for each in found], "order": order}


def session(session: SessionStatus) -> dict[str, Value]:
    """A conversation that goes on."""
    return _built(session)


def transcript(transcript: Transcript) -> dict[str, Value]:
    """A conversation, as far as it is remembered."""
    return _built(transcript)


def spoken(line: Spoken | Missed) -> dict[str, Value]:
    """A line of a conversation, or how many were missed; `type` says which."""
    return _built(line)


def entry(entry: LogEntry | Missed) -> dict[str, Value]:
    """An event of the log, or how many were missed; `type` says which."""
    return _built(entry)


def statistics(statistics: Statistics) -> dict[str, Value]:
    """How much happened."""
    return _built(statistics)


def event(event: Happening) -> dict[str, Value]:
    """Something that happened: addresses and replies as people write them."""
    plain = _built(event)
    for key in event.__struct_fields__:
        value: object = getattr(event, key)
        if isinstance(value, (Mailbox, Reply)):
            plain[key] = str(value)
    if isinstance(event, (Queued, AttemptStarted)):
        plain["recipients"] = [str(each) for each in event.recipients]
    return {"type": type(event).__name__, **plain}


def address(path: ReversePath) -> str | None:
    """An address as it is written; None if there is none."""
    return None if path is None else str(path)


def _built(value: msgspec.Struct) -> dict[str, Value]:
    built: dict[str, Value] = msgspec.to_builtins(value, str_keys=True)
    return built
