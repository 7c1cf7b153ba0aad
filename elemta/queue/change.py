"""The two things that are written all the time: a message came in, and something was settled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from elemta.queue.bodies import is_large
from elemta.queue.model import WAITING, State
from elemta.queue.operation import Operation
from elemta.queue.records import (
    encode_arrival,
    encode_attempt,
    encode_message,
    encode_note,
    encode_outcome,
    encode_standing,
)
from elemta.queue.schema import Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from elemta.queue.entry import Entry
    from elemta.queue.model import Attempt, Note, Receipt, Recipient
    from elemta.queue.operation import Rows, Value


class Insert(Operation):
    """A message came in.

    Args:
        entry: of the phase in which it comes in: WHOLE, or SCATTERED if it is not tried at once.
        content: its body; None if that is in a file, synced already.
        queued: told that it is durable.
        receipt: is written with it, or not at all.
        notes: the first of its timeline.
    """

    def __init__(
        self,
        entry: Entry,
        content: bytes | None,
        queued: Callable[[Insert], None],
        receipt: Receipt | None = None,
        notes: Sequence[Note] = (),
    ) -> None:
        super().__init__()
        self.entry = entry
        self.content = content
        self._notes = [encode_note(each) for each in notes]
        self._record = encode_message(entry.message)
        self._recipients: list[Value] | None = None
        if entry.phase is Phase.SCATTERED:
            self._recipients = _recipient_rows(entry.key, entry.message.recipients)
        self._due = entry.message.due
        self._receipt = receipt
        self._queued = queued

    @override
    def collect(self, rows: Rows) -> None:
        key, count = self.entry.key, len(self.entry.message.recipients)
        if self._recipients is None:
            rows.messages += (key, Phase.WHOLE, count, self._record)
        else:
            rows.messages += (key, Phase.SCATTERED, count, self._record)
            rows.recipients += self._recipients
        if self.content is not None:
            rows.bodies += (key, self.content)
        if self._due is not None:
            rows.scheduled += (key, self._due)
        for note in self._notes:
            rows.notes += (key, note)
        if (receipt := self._receipt) is not None:
            rows.receipts += (receipt.key, receipt.id, receipt.digest, receipt.at)

    @override
    def written(self) -> None:
        self._queued(self)


class Settle(Operation):
    """Some recipients of a message are not where they were.

    Made when they have been moved in memory; it is written until it holds, since what moved them
    has happened.

    Args:
        changed: these recipients.
        attempts: what moved them, if attempts did.
        reports: messages that are queued with it, or not at all.
        now: seconds since the epoch.
        settled: told that it is durable.
    """

    keep = True

    def __init__(
        self,
        entry: Entry,
        changed: Sequence[Recipient],
        attempts: Sequence[Attempt],
        reports: Sequence[Insert],
        now: float,
        settled: Callable[[Settle], None],
    ) -> None:
        super().__init__()
        self.entry = entry
        self.changed = changed
        self.finished = not entry.left
        self.reports = reports
        self.urgent = False
        self._on_settled = settled
        self._before = entry.phase
        self._outcome_row: tuple[int, Phase, bytes] | None = None
        self._recipients: list[Value] = []
        self._attempts: list[Value] = []
        if self.finished:
            self._finish(attempts, now)
        elif changed:
            self._scatter(changed, attempts)
        entry.writes += 1

    def _finish(self, attempts: Sequence[Attempt], now: float) -> None:
        entry = self.entry
        well = all(each.state is State.DELIVERED for each in entry.message.recipients)
        entry.phase = Phase.DELIVERED if well else Phase.FAILED
        self._outcome_row = (entry.key, entry.phase, encode_outcome(entry.message, now, attempts))

    def _scatter(self, changed: Sequence[Recipient], attempts: Sequence[Attempt]) -> None:
        entry, recipients = self.entry, self.entry.message.recipients
        whole = self._before is Phase.WHOLE
        self._recipients = _recipient_rows(entry.key, recipients if whole else changed)
        for attempt in attempts:
            ordinal = recipients[attempt.number].attempts
            self._attempts += (entry.key, attempt.number, ordinal, encode_attempt(attempt))
        entry.phase = Phase.SCATTERED

    @override
    def collect(self, rows: Rows) -> None:
        key = self.entry.key
        if self._outcome_row is not None:
            rows.finished += self._outcome_row
            rows.dead_bodies.append(key)
            if self._before is Phase.SCATTERED:
                rows.gathered.append(key)
            if is_large(self.entry.message.size):
                rows.dead_files.append(self.entry.message.id)
        elif self._recipients:
            rows.recipients += self._recipients
            rows.attempts += self._attempts
            if self._before is Phase.WHOLE:
                rows.scattered.append(key)
        for report in self.reports:
            report.collect(rows)

    @override
    def written(self) -> None:
        self.entry.writes -= 1
        for report in self.reports:
            report.written()
        self._on_settled(self)


class Steered(Settle):
    """An operator moved recipients, or changed the message itself.

    Args:
        changed: as for `Settle`; none if only the message is another.
        note: what is remembered of it.
        renewed: the message's record is written anew, as a priority or an address is another.
    """

    def __init__(
        self,
        entry: Entry,
        changed: Sequence[Recipient],
        note: Note,
        reports: Sequence[Insert],
        now: float,
        settled: Callable[[Settle], None],
        *,
        renewed: bool,
    ) -> None:
        super().__init__(entry, changed, (), reports, now, settled)
        self.urgent = True
        self._note = encode_note(note)
        self._record = encode_arrival(entry.message) if renewed else None

    @override
    def collect(self, rows: Rows) -> None:
        super().collect(rows)
        rows.notes += (self.entry.key, self._note)
        if self._record is not None:
            rows.renewed += (self.entry.key, self._record)


def _recipient_rows(key: int, recipients: Iterable[Recipient]) -> list[Value]:
    rows: list[Value] = []
    for each in recipients:
        due = each.due if each.state in WAITING else None
        rows += (key, each.number, each.state.value, due, encode_standing(each))
    return rows
