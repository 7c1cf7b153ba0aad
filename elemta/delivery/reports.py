"""Who is told what became of a message (RFC 5321 §6.1, RFC 3461 §5.2).

The rules of this file:

- Who is told of what, NOTIFY says for each recipient. Where it was not said, a sender is told of
  failures and delays, not of success (RFC 3461 §4.1).
- A report tells of all recipients that share a fate: those with another get one of their own.
- It returns the header alone, unless the sender said RET=FULL and it is a failure: a body that was
  not wanted there is not wanted here, and may not even be the sender's.
- Where an alias led is the business of who made it. The sender is told of the recipient that it
  named: neither the address behind it nor the host is shown (RFC 3464 §4.2). Of an alias that
  stands for several, only the first has SUCCESS of NOTIFY (`elemta.listener.recipients`), and its
  delivery is reported as ``expanded``.
- A message from the null sender is a report itself, and is not answered by one (RFC 5321 §4.5.5).
  At most our own postmaster is told of it; what fails on its way there is dropped.
"""

from __future__ import annotations

import re
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Final, NamedTuple

import trio
from msgspec import Struct
from msgspec.structs import replace

from elemta.delivery.signing import signed
from elemta.log import logger
from elemta.message import Action, RecipientStatus, split, write_report
from elemta.plugins import Chain
from elemta.protocol import Mailbox, MailParams, Notify, Reply, Ret, parse_mailbox
from elemta.queue import Addressee, Attempt, Envelope, Recipient, Report, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from elemta.config import Config
    from elemta.delivery.transaction import StoredBody
    from elemta.queue import Message, MessageId

log = logger(__name__)

#: Octets of a message that are searched for its header.
MAX_HEADER: Final = 50_000

#: Marks what goes to the postmaster: if it fails too, that is the end of it.
DOUBLE_BOUNCE: Final = "double-bounce"


class Counts(Struct):
    """How many reports were made since the start.

    Attributes:
        double_bounced: those that told a postmaster of a report that could not be delivered.
        dropped: messages from the null sender of whose failure nobody was told.
    """

    failure: int = 0
    delay: int = 0
    success: int = 0
    relayed: int = 0
    double_bounced: int = 0
    dropped: int = 0


class News(NamedTuple):
    """What became of one recipient, as far as its sender may want to know.

    Attributes:
        retry_until: for how long a delayed one is tried, in seconds since the epoch.
    """

    action: Action
    recipient: Recipient
    attempt: Attempt
    retry_until: float | None = None


def wants(message: Message, recipient: Recipient, action: Action) -> bool:
    """Whether the sender is to be told of this (RFC 3461 §4.1)."""
    notify = recipient.params.notify
    if message.sender is None:
        return False
    match action:
        case Action.FAILED:
            return not notify or Notify.FAILURE in notify
        case Action.DELAYED:
            return not notify or Notify.DELAY in notify
        case _:
            return Notify.SUCCESS in notify


class Reporter:
    """Writes reports.

    Args:
        config: may be changed by `configure`.
        new_id: gives the ids that reports are called by; not to be guessed.
        clock: seconds since the epoch.
        plugins: those that sign mail sign reports, too.

    Attributes:
        counts: what it wrote.
    """

    def __init__(
        self,
        config: Config,
        new_id: Callable[[], MessageId],
        clock: Callable[[], float],
        plugins: Callable[[], Chain] = Chain,
    ) -> None:
        self.counts = Counts()
        self._new_id = new_id
        self._clock = clock
        self._plugins = plugins
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Write by another configuration from now on."""
        home = config.domains[0].name if config.domains else config.hostname
        self._hostname = config.hostname
        self._postmaster = parse_mailbox(f"postmaster@{home}")
        self._tells_postmaster = config.queue.double_bounces == "postmaster"
        self._return_size = config.queue.return_size

    async def failure(
        self, message: Message, failed: Sequence[tuple[Recipient, Attempt]], body: StoredBody | None
    ) -> tuple[Report, ...]:
        """What to tell of a failure, to be queued together with it.

        Args:
            message: the one that failed.
            failed: recipients that failed or expired, and how; none of them need want a report.
            body: of the message; None if it cannot be read: its header is not returned then.
        """
        news = [News(Action.FAILED, recipient, attempt) for recipient, attempt in failed]
        return await self.tell(message, news, body)

    async def tell(
        self, message: Message, news: Sequence[News], body: StoredBody | None
    ) -> tuple[Report, ...]:
        """What to tell of these recipients, to be queued together with what became of them.

        Args:
            message: whose recipients they are.
            news: about any of its recipients, whoever wants to be told.
            body: of the message; None if it cannot be read.
        """
        if message.sender is None:
            failed = [each for each in news if each.action is Action.FAILED]
            return await self._report_undeliverable(message, failed, body) if failed else ()
        fates: dict[Action, list[RecipientStatus]] = {}
        for each in news:
            recipient, action = each.recipient, each.action
            if wants(message, recipient, action) and not _known(message, recipient, action):
                fate = _as_named(message, recipient, action)
                fates.setdefault(fate, []).append(_without_target(each))
        reports: list[Report] = []
        for action, statuses in fates.items():
            whole = action is Action.FAILED and message.params.ret is Ret.FULL
            reports.append(
                await self._write(message, message.sender, action, statuses, body, whole=whole)
            )
            self._count(action)
        return tuple(reports)

    async def _report_undeliverable(
        self, message: Message, failed: Sequence[News], body: StoredBody | None
    ) -> tuple[Report, ...]:
        """A report that nobody takes, or some other message without a sender."""
        tells = self._tells_postmaster and DOUBLE_BOUNCE not in message.tags
        log.warning(
            "delivery.report_undeliverable",
            id=message.id,
            recipients=len(failed),
            told=str(self._postmaster) if tells else "",
        )
        if not tells:
            self.counts.dropped += 1
            return ()
        self.counts.double_bounced += 1
        statuses = [_status(each) for each in failed]
        return (
            await self._write(message, self._postmaster, Action.FAILED, statuses, body, whole=True),
        )

    async def _write(
        self,
        message: Message,
        to: Mailbox,
        action: Action,
        statuses: Sequence[RecipientStatus],
        body: StoredBody | None,
        *,
        whole: bool,
    ) -> Report:
        whole = whole and body is not None and body.size <= self._return_size
        content = b"" if body is None else await _read(body, whole=whole)
        report_id = self._new_id()
        octets = write_report(
            hostname=self._hostname,
            report_id=report_id,
            to=to,
            action=action,
            # Of some who are behind one alias the same may have to be told: once is enough.
            recipients=tuple(dict.fromkeys(statuses)),
            content=content,
            whole=whole and len(content) == message.size,
            message_id=message.id,
            arrived=message.received_at,
            now=self._clock(),
            envid=message.params.envid,
            of_a_report=message.sender is None,
        )
        octets = await signed(self._plugins(), octets, message.id)
        log.info(
            "report.written",
            about=message.id,
            action=action.value,
            to=str(to),
            recipients=len(statuses),
        )
        return Report(
            envelope=Envelope(
                sender=None,
                params=MailParams(smtputf8=not to.is_ascii),
                recipients=(Addressee(address=to),),
                tags=(DOUBLE_BOUNCE,) if message.sender is None else (),
            ),
            content=octets,
        )

    def _count(self, action: Action) -> None:
        match action:
            case Action.FAILED:
                self.counts.failure += 1
            case Action.DELAYED:
                self.counts.delay += 1
            case Action.DELIVERED | Action.EXPANDED:
                self.counts.success += 1
            case Action.RELAYED:
                self.counts.relayed += 1


def _known(message: Message, recipient: Recipient, action: Action) -> bool:
    """Whether the sender was told of the delay already, for another behind the same alias."""
    return (
        action is Action.DELAYED
        and recipient.original is not None
        and any(each.warned for each in _behind(message, recipient.original))
    )


def _as_named(message: Message, recipient: Recipient, action: Action) -> Action:
    """What was done for the recipient that the sender named (RFC 3464 §2.3.3)."""
    success = action in (Action.DELIVERED, Action.RELAYED)
    if not success or recipient.original is None:
        return action
    return Action.EXPANDED if len(_behind(message, recipient.original)) > 1 else action


def _behind(message: Message, alias: Mailbox) -> list[Recipient]:
    return [each for each in message.recipients if each.original == alias]


def _status(news: News) -> RecipientStatus:
    attempt = news.attempt
    return RecipientStatus(
        address=news.recipient.address,
        orcpt=news.recipient.params.orcpt,
        reply=attempt.reply,
        remote=attempt.remote,
        # Whose verdict it was is not the sender's to know.
        host="" if attempt.host.startswith("plugin:") else attempt.host,
        attempted=attempt.ended,
        retry_until=news.retry_until,
    )


def _without_target(news: News) -> RecipientStatus:
    """The same without where an alias led, which is not the sender's to know."""
    status, alias, reply = _status(news), news.recipient.original, news.attempt.reply
    if alias is None:
        return status
    target = re.compile(re.escape(str(status.address)), re.IGNORECASE)
    lines = tuple([target.sub(lambda _: str(alias), line) for line in reply.lines])
    reply = Reply(reply.code, reply.status, lines)
    return replace(status, address=alias, reply=reply, host="")


async def _read(body: StoredBody, *, whole: bool) -> bytes:
    """The message, or at least its header: its beginning, if that is very long."""
    if body.octets is not None:
        return body.octets if whole else split(body.octets[:MAX_HEADER])[0]
    begin = b""
    # Who must not get the message again is not settled yet: this is not the moment to give up.
    with trio.CancelScope(shield=True), suppress(StoreUnavailable):
        async with aclosing(body.chunks()) as chunks:
            async for chunk in chunks:
                begin += chunk
                if not whole and (len(begin) >= MAX_HEADER or b"\r\n\r\n" in begin):
                    break
    return begin if whole else split(begin[:MAX_HEADER])[0]
