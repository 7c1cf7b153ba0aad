"""Shows messages and counts to people: a line each, or all that is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elemta.cli.terminal import clock, counted, size, span
from elemta.queue import State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from elemta.protocol import ReversePath
    from elemta.queue import Attempt, Message, Note, Recipient, Stats, Suspension, Timeline


def line(message: Message, now: float) -> str:
    """ID, age, size, who to whom, and how it stands with those who wait."""
    waiting = [each for each in message.recipients if not each.state.final]
    first = waiting[0] if waiting else message.recipients[0]
    more = f" +{len(message.recipients) - 1}" if len(message.recipients) > 1 else ""
    last = f"  {first.last}" if first.last is not None else ""
    return (
        f"{message.id}  {span(now - message.received_at):>6}  {message.size:>9}  "
        f"{first.state.value:8}  {path(message.sender)} -> {first.address}{more}{last}"
    )


def story(timeline: Timeline, now: float) -> Iterator[str]:
    """One message, recipient by recipient."""
    yield from _head(timeline, now)
    for recipient in timeline.message.recipients:
        yield ""
        yield from _recipient(recipient, timeline.attempts, now)
    if timeline.notes:
        yield ""
        for note in timeline.notes:
            yield f"{clock(note.at)}  {_note(note, timeline.message)}"


def history(timeline: Timeline, now: float) -> Iterator[str]:
    """One message, moment by moment."""
    message = timeline.message
    yield from _head(timeline, now)
    yield ""
    named = dict.fromkeys(str(each.original or each.address) for each in message.recipients)
    moments = [(message.received_at, 0, f"received for {', '.join(named)}")]
    moments += [
        (each.ended, 1, f"{message.recipients[each.number].address}: {_attempt(each)}")
        for each in timeline.attempts
    ]
    moments += [
        # What plugins found as it came in is a moment older than that it came in, and follows it.
        (max(each.at, message.received_at), 2, _note(each, message))
        for each in timeline.notes
    ]
    if timeline.finished_at is not None:
        moments.append((timeline.finished_at, 3, "finished"))
    for at, _, text in sorted(moments, key=lambda moment: moment[:2]):
        yield f"{clock(at)}  {text}"


def fullness(stats: Stats, now: float) -> Iterator[str]:
    """How many wait, and for how long."""
    yield f"messages    {stats.messages}"
    for state in (State.READY, State.DEFERRED, State.HELD):
        yield f"{state.value:10}  {counted(stats.recipients.get(state, 0), 'recipient')}"
    yield f"oldest      {span(now - stats.oldest) if stats.oldest is not None else '-'}"
    yield f"history     {counted(stats.history, 'message')}"


def suspended(suspension: Suspension, now: float) -> str:
    """What is suspended, by whom, and why."""
    until = suspension.until
    ends = "until it is resumed" if until is None else f"for another {span(until - now)}"
    why = f": {suspension.reason}" if suspension.reason else ""
    return (
        f"{suspension.scope}  {ends}, by {suspension.who} {span(now - suspension.since)} ago{why}"
    )


def path(sender: ReversePath) -> str:
    """A sender, as people know it."""
    return "<>" if sender is None else str(sender)


def _head(timeline: Timeline, now: float) -> Iterator[str]:
    message, origin = timeline.message, timeline.message.origin
    yield f"id          {message.id}"
    yield f"received    {clock(message.received_at)}, {span(now - message.received_at)} ago"
    if message.due is not None:
        yield f"scheduled   {clock(message.due)}"
    yield f"from        {path(message.sender)}"
    yield f"size        {size(message.size)}"
    yield f"priority    {message.priority.name.lower()}"
    if message.tags:
        yield f"tags        {' '.join(message.tags)}"
    if origin.address:
        told = f"{origin.address} ({origin.helo}), {origin.protocol}, session {origin.session}"
        yield f"client      {told}"
    if origin.login:
        yield f"login       {origin.login}"
    if timeline.finished_at is not None:
        yield f"finished    {clock(timeline.finished_at)}"
    else:
        yield f"expires     {clock(message.expires_at)}"


def _recipient(recipient: Recipient, attempts: tuple[Attempt, ...], now: float) -> Iterator[str]:
    named = f" (for {recipient.original})" if recipient.original is not None else ""
    named += f" via {', '.join(recipient.via)}" if recipient.via else ""
    yield f"{recipient.address}{named}: {recipient.state.value}{_why(recipient, now)}"
    for attempt in attempts:
        if attempt.number == recipient.number:
            yield f"  {clock(attempt.ended)}  {_attempt(attempt)}"


def _why(recipient: Recipient, now: float) -> str:
    """What keeps a recipient waiting."""
    if recipient.state is State.DEFERRED:
        return f", next in {span(recipient.due - now)}" if recipient.due > now else ", due"
    if recipient.holder is not None:
        reason = f": {recipient.holder.reason}" if recipient.holder.reason else ""
        return f" by {recipient.holder.owner}{reason}"
    return ""


def _attempt(attempt: Attempt) -> str:
    result = "expired" if attempt.expired else attempt.result.value
    warned = " (the sender was told)" if attempt.warned else ""
    return f"{result}{warned}  {attempt.host or attempt.destination}: {attempt.reply}"


def _note(note: Note, message: Message) -> str:
    reason = f": {note.reason}" if note.reason else ""
    if not note.recipients:  # of the message as a whole
        did = " found" if note.action == "found" else f": {note.action}"
        return f"{note.who}{did}{reason}"
    whom = _names([message.recipients[number] for number in note.recipients])
    return f"{note.action} by {note.who}, {whom}{reason}"


def _names(recipients: list[Recipient]) -> str:
    return ", ".join(str(each.address) for each in recipients)
