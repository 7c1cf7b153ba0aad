"""Why a message waits, and when it goes on; or what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from elemta.control.facts import Explanation, Step
from elemta.explaining.lanes import lane_state
from elemta.explaining.words import counted, moment, ordinal
from elemta.queue import State
from elemta.units import Seconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from elemta.explaining.lanes import LaneState
    from elemta.queue import Attempt, Queue, Recipient, Standing, Timeline

_ENDS: Final = {
    State.DELIVERED: "delivered",
    State.FAILED: "given up",
    State.EXPIRED: "given up, as its time was over",
    State.DELETED: "deleted",
}


def why(timeline: Timeline, queue: Queue, now: float) -> Explanation:
    """What is to be said of each recipient of a message.

    Args:
        timeline: what is known on disk.
        queue: knows the rest.
        now: seconds since the epoch.
    """
    told = _Waiting(timeline, queue, now)
    steps = tuple(told.step(each) for each in timeline.message.recipients)
    next_at = min(told.times, default=None)
    return Explanation(summary=_summary(timeline, next_at, now), steps=steps, next_at=next_at)


class _Waiting:
    """Tells of one recipient after the other, and gathers when they are tried next."""

    def __init__(self, timeline: Timeline, queue: Queue, now: float) -> None:
        self.times: list[float] = []
        self._timeline = timeline
        self._message = timeline.message
        self._queue = queue
        self._standings: Mapping[int, Standing] = queue.standings(timeline.message.id)
        self._now = now

    def step(self, recipient: Recipient) -> Step:
        """How it stands with a recipient."""
        named = f" (for {recipient.original})" if recipient.original is not None else ""
        question = f"{recipient.address}{named}"
        attempt = _last(self._timeline.attempts, recipient)
        reply = "" if recipient.last is None else str(recipient.last)
        if recipient.state.final:
            return Step(
                question=question,
                answer=self._end(recipient, attempt),
                good=recipient.state is State.DELIVERED,
                reply=reply,
                details=_spoken_to(attempt),
            )
        answer, known = self._wait(recipient)
        details = [each for each in known if not (reply and each.endswith(reply))]
        return Step(
            question=question,
            answer=answer,
            reply=reply,
            details=(*details, *self._patience(recipient), *_spoken_to(attempt)),
        )

    def _end(self, recipient: Recipient, attempt: Attempt | None) -> str:
        end = _ENDS[recipient.state]
        notes = [each for each in self._timeline.notes if recipient.number in each.recipients]
        if notes and (attempt is None or notes[-1].at > attempt.ended):
            note = notes[-1]
            reason = f": {note.reason}" if note.reason else ""
            return f"{end} by {note.who} {moment(note.at, self._now)}{reason}"
        return end if attempt is None else f"{end} {moment(attempt.ended, self._now)}"

    def _wait(self, recipient: Recipient) -> tuple[str, tuple[str, ...]]:
        now = self._now
        if (holder := recipient.holder) is not None:
            reason = f": {holder.reason}" if holder.reason else ""
            since = moment(holder.since, now)
            return f"held by {holder.owner} since {since}, until it is released{reason}", ()
        standing = self._standings.get(recipient.number)
        if standing is not None and standing.tried:
            self.times.append(now)
            return f"is being tried just now, in {standing.lane}", ()
        state = lane_state(self._queue, recipient, self._message.sender, now)
        if standing is None and recipient.due > now:
            return self._put_off(recipient, state)
        self._note(state, now)
        return self._ready(standing, state), state.details

    def _put_off(self, recipient: Recipient, state: LaneState) -> tuple[str, tuple[str, ...]]:
        """It waits for its time, and then perhaps for its lane."""
        self._note(state, recipient.due)
        when = moment(recipient.due, self._now)
        if not recipient.attempts and self._message.due is not None:
            answer = f"scheduled: not to be tried before {when}, as its sender wants it"
        elif not recipient.attempts:
            answer = f"not to be tried before {when}"
        else:
            tried = ordinal(recipient.attempts)
            answer = f"the {tried} attempt failed for now; the next is due {when}"
        if state.open:
            return answer, ()
        return answer, (f"its lane {state.name} is {state.answer}", *state.details)

    def _ready(self, standing: Standing | None, state: LaneState) -> str:
        if standing is None:
            place = "waits on disk until its lane has room in memory"
        elif standing.on_disk:
            place = f"waits on disk, behind {counted(standing.ahead, 'message')} in memory"
        elif standing.ahead:
            place = f"waits behind {counted(standing.ahead, 'message')}"
        else:
            place = "is next"
        return f"ready: {place}; its lane {state.name} is {state.answer}"

    def _note(self, state: LaneState, due: float) -> None:
        """When it is tried next, if that is known."""
        if state.open:
            self.times.append(due)
        elif state.until is not None:
            self.times.append(max(due, state.until))

    def _patience(self, recipient: Recipient) -> tuple[str, ...]:
        policy = self._queue.patience.policy(recipient, self._message.sender)
        waits = ", ".join(Seconds(each).written for each in policy.schedule)
        end = moment(self._queue.deadline(self._message, recipient), self._now)
        count = counted(recipient.attempts, "attempt")
        told = [f"given up {end}", f"{count} so far; after each failed one it waits {waits}"]
        if recipient.via:
            told.insert(0, f"goes via {', '.join(recipient.via)}, as somebody chose")
        return tuple(told)


def _last(attempts: Sequence[Attempt], recipient: Recipient) -> Attempt | None:
    found = (each for each in reversed(attempts) if each.number == recipient.number)
    return next(found, None)


def _spoken_to(attempt: Attempt | None) -> tuple[str, ...]:
    if attempt is None:
        return ()
    host = attempt.host or attempt.destination
    tls = f", {attempt.tls}" if attempt.tls else ""
    return (f"last attempt: {host}{tls}",)


def _summary(timeline: Timeline, next_at: float | None, now: float) -> str:
    if timeline.finished_at is not None:
        return f"Finished {moment(timeline.finished_at, now)}"
    waiting = [each for each in timeline.message.recipients if not each.state.final]
    whose = f"{len(waiting)} of {counted(len(timeline.message.recipients), 'recipient')}"
    if next_at is None:
        return f"{whose}: nothing is tried before somebody wants it"
    when = "now, or as soon as it is its turn" if next_at <= now else moment(next_at, now)
    return f"{whose} left to try; the next attempt is {when}"
