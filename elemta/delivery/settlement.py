"""What became of an attempt is told: to the queue, to the sender if need be, and to the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from elemta.delivery.carrier import Tried
from elemta.delivery.reports import News
from elemta.log import logger
from elemta.message import Action
from elemta.metrics.meters import Meters
from elemta.protocol import reply
from elemta.queue import Attempt, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from elemta.delivery.reports import Reporter
    from elemta.delivery.transaction import StoredBody
    from elemta.queue import Message, Queue, Recipient, Work

log = logger(__name__)

#: After a bug of ours, or where the content cannot be read.
NOT_TRIED: Final = Tried(Result.DEFERRED, reply(451, 3, 0, "internal trouble; not tried"))
#: Where the time was up before anybody could be asked.
_CLOSED: Final = reply(451, 4, 7, "not tried: the destination was closed to mail for too long")


class Settlement:
    """Settles works.

    Args:
        queue: what is told of each attempt.
        reporter: writes what senders are told.
        clock: seconds since the epoch.
        meters: told how long attempts took.
    """

    def __init__(
        self,
        queue: Queue,
        reporter: Reporter,
        clock: Callable[[], float],
        meters: Meters | None = None,
    ) -> None:
        self._meters = meters or Meters()
        self._queue = queue
        self._reporter = reporter
        self._clock = clock

    async def settle(
        self,
        work: Work,
        recipients: Sequence[Recipient],
        found: dict[int, Tried],
        body: StoredBody | None,
        started: float,
    ) -> None:
        """Tell the queue, the sender if need be, and the log.

        What the sender is told is queued in the transaction that it tells of.

        Args:
            work: what was tried.
            recipients: those of it that are settled now.
            found: what became of each, by its number; who is not in it is deferred.
            body: of the message; None if it cannot be read.
            started: when the attempt began, in seconds since the epoch.
        """
        ended = self._clock()
        message = work.message
        if not work.overdue:
            transport = work.lane.partition(":")[0]
            self._meters.attempts[transport].observe(ended - started)
        attempts: list[Attempt] = []
        news: list[News] = []
        for recipient in recipients:
            tried = found.get(recipient.number, NOT_TRIED)
            action = self._action(message, recipient, tried, ended)
            attempt = Attempt(
                number=recipient.number,
                started=started,
                ended=ended,
                result=tried.result,
                destination=tried.lane or work.lane,
                host=tried.host,
                reply=tried.reply,
                remote=tried.remote,
                expired=tried.result is Result.DEFERRED and action is Action.FAILED,
                warned=action is Action.DELAYED,
                tls=tried.tls,
            )
            attempts.append(attempt)
            if action is not None:
                deadline = self._queue.deadline(message, recipient)
                until = deadline if action is Action.DELAYED else None
                news.append(News(action, recipient, attempt, until))
        try:
            reports = await self._reporter.tell(message, news, body) if news else ()
        except Exception:
            # Whoever has the message must not get it again for a bug of ours.
            had = [attempt for attempt in attempts if attempt.result is Result.DELIVERED]
            await self._queue.settle(work, had)
            raise
        await self._queue.settle(work, attempts, reports)
        for recipient, attempt in zip(recipients, attempts, strict=True):
            _log(message, recipient, attempt)

    async def settle_overdue(self, work: Work, body: StoredBody | None) -> None:
        """Settle what there was no trying: its sender has to hear of it (`Work.overdue`)."""
        said = {each.number: each.last or _CLOSED for each in work.recipients}
        found = {number: Tried(Result.DEFERRED, last) for number, last in said.items()}
        await self.settle(work, work.recipients, found, body, self._clock())

    def _action(
        self, message: Message, recipient: Recipient, tried: Tried, now: float
    ) -> Action | None:
        """What the sender might be told was done for this recipient; None: nothing."""
        match tried.result:
            case Result.DELIVERED:
                # Nearly always nobody asked.
                return tried.action if recipient.params.notify else None
            case Result.FAILED:
                return Action.FAILED
            case Result.DEFERRED:
                if self._queue.expires(message, recipient, now):
                    return Action.FAILED
                return Action.DELAYED if self._queue.warns(message, recipient, now) else None


_EVENTS: Final = {
    Result.DELIVERED: "delivery.delivered",
    Result.DEFERRED: "delivery.deferred",
    Result.FAILED: "delivery.failed",
}


def _log(message: Message, recipient: Recipient, attempt: Attempt) -> None:
    """One line for each recipient of each attempt."""
    log.info(
        "delivery.expired" if attempt.expired else _EVENTS[attempt.result],
        id=message.id,
        to=str(recipient.address),
        lane=attempt.destination,
        host=attempt.host,
        tls=attempt.tls,
        reply=str(attempt.reply),
        attempt=recipient.attempts,
        delay=round(attempt.ended - message.received_at, 3),
        seconds=round(attempt.ended - attempt.started, 3),
    )
