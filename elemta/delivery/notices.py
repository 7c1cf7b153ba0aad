"""What parts of the server have to tell the postmaster, put into the queue like all mail."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from elemta.delivery.reports import DOUBLE_BOUNCE
from elemta.delivery.signing import signed
from elemta.log import logger
from elemta.message import write_notice
from elemta.plugins import Chain
from elemta.protocol import MailParams
from elemta.queue import Addressee, Envelope, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from elemta.protocol import Mailbox
    from elemta.queue import MessageId

log = logger(__name__)

#: Notices of one part in so many seconds: a flood of trouble must not become a flood of mail.
MOST: Final = 20
WITHIN: Final = 3600.0


class Accepts(Protocol):
    """What is needed of the queue."""

    @property
    def new_id(self) -> Callable[[], MessageId]:
        """Gives ids."""
        ...

    async def accept(
        self,
        envelope: Envelope,
        content: bytes,
        id: MessageId | None = None,  # noqa: A002 # the word of people
    ) -> MessageId:
        """Take a message; it is durable then."""
        ...


class Notices:
    """Tells the postmaster.

    Args:
        queue: where notices go.
        hostname: our own, as of now.
        postmaster: the address, and whom it leads to, as of now.
        clock: seconds since the epoch.
        plugins: those of this moment; they sign.
    """

    def __init__(
        self,
        queue: Accepts,
        *,
        hostname: Callable[[], str],
        postmaster: Callable[[], tuple[Mailbox, Sequence[Addressee]]],
        clock: Callable[[], float],
        plugins: Callable[[], Chain] = Chain,
    ) -> None:
        self._queue = queue
        self._hostname = hostname
        self._postmaster = postmaster
        self._clock = clock
        self._plugins = plugins
        self._told: dict[str, deque[float]] = {}

    async def tell(self, who: str, subject: str, text: str) -> bool:
        """Tell the postmaster something. Never raises for want of a disk.

        It has no sender, so nobody is told if it cannot be delivered; and its mark keeps it from
        becoming a report to the postmaster about the postmaster.

        Args:
            who: which part tells; each has at most `MOST` notices `WITHIN` an hour.
            subject: in one line.
            text: what people are to read, in lines.

        Returns:
            Whether it is on its way. The log has its subject in any case.
        """
        now = self._clock()
        told = self._told.setdefault(who, deque(maxlen=MOST))
        if len(told) == MOST and now - WITHIN < told[0] <= now:
            log.warning("notice.left_out", by=who, subject=subject)
            return False
        told.append(now)
        mailbox, addressees = self._postmaster()
        id_ = self._queue.new_id()
        content = write_notice(
            hostname=self._hostname(),
            notice_id=id_,
            to=mailbox,
            subject=subject,
            text=text,
            now=now,
        )
        content = await signed(self._plugins(), content, id_)
        named = [mailbox, *(each.address for each in addressees)]
        envelope = Envelope(
            sender=None,
            params=MailParams(smtputf8=not all(each.is_ascii for each in named)),
            recipients=tuple(addressees),
            tags=(DOUBLE_BOUNCE,),
        )
        try:
            await self._queue.accept(envelope, content, id_)
        except StoreUnavailable as error:
            log.warning("notice.not_stored", by=who, subject=subject, error=str(error))
            return False
        log.info("notice.written", by=who, id=id_, to=str(mailbox), subject=subject)
        return True
