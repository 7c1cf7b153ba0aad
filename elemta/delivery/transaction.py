"""One transaction of a session: what the message needs of the host, and what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from msgspec import Struct

from elemta.delivery.replies import made
from elemta.protocol import Body, Extensions, Mailbox, MailParams, Reply, domain_to_ascii, reply
from elemta.queue import Message, Recipient, Result, value_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence


class StoredBody(Protocol):
    """A message's content, as the queue hands it out.

    Attributes:
        size: in octets.
        octets: the whole of it, if it is small; None: only `chunks` has it.
    """

    @property
    def size(self) -> int: ...  # noqa: D102  # told above

    @property
    def octets(self) -> bytes | None: ...  # noqa: D102  # told above

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """The whole of it, in pieces of at most 64 KiB."""
        ...


class Outcome(Struct, frozen=True):
    """What became of a message for one recipient.

    Attributes:
        remote: whether `reply` is the host's own words.
        elsewhere: it says less of the mail than of this host: another one of the same destination
            may judge otherwise.
    """

    result: Result
    reply: Reply
    remote: bool
    elsewhere: bool = False


class Transaction:
    """What is known so far of the recipients of one `SmtpSession.send`."""

    def __init__(self, recipients: int) -> None:
        self._outcomes: list[Outcome | None] = [None] * recipients
        #: Whether the host may have all of the message, and somebody to give it to.
        self.content_sent = False

    @property
    def undecided(self) -> int:
        """Of how many recipients nothing is known."""
        return self._outcomes.count(None)

    def decide(self, number: int, reply: Reply, result: Result | None = None) -> None:
        """Note the host's word on one recipient; only the first one counts."""
        if self._outcomes[number] is None:
            self._outcomes[number] = Outcome(result or _result(reply), reply, remote=True)

    def decide_rest(self, reply: Reply, *, remote: bool, elsewhere: bool = False) -> None:
        """Note what holds for all recipients of whom nothing is known."""
        rest = Outcome(_result(reply), reply, remote, elsewhere)
        self._outcomes = [outcome or rest for outcome in self._outcomes]

    def outcomes(self) -> list[Outcome]:
        """All of them."""
        decided = [outcome for outcome in self._outcomes if outcome is not None]
        assert len(decided) == len(self._outcomes), "a recipient was forgotten"
        return decided


def _result(reply: Reply) -> Result:
    if reply.code < 300:
        return Result.DELIVERED
    return Result.DEFERRED if reply.code < 500 else Result.FAILED


NO_SMTPUTF8: Final = reply(550, 6, 7, "the message needs SMTPUTF8, which the host does not offer")


def spelling(mailbox: Mailbox, offered: Extensions) -> Mailbox | None:
    """How to name somebody to a host; None: it cannot be told.

    A domain has a form that every host knows; a local part has not.
    """
    if offered.smtputf8 or mailbox.is_ascii:
        return mailbox
    if not mailbox.local_part.isascii():
        return None
    try:
        return Mailbox(mailbox.local_part, domain_to_ascii(mailbox.domain))
    except ValueError:  # no name that the DNS could have
        return None


def required(
    message: Message, recipients: Sequence[Recipient], body: StoredBody, offered: Extensions
) -> MailParams | Reply:
    """The parameters of MAIL; or, where the host cannot take such a message, why not.

    A recipient whom it cannot take (`spelling`) is no reason.
    """
    sender = message.sender
    utf8_header = _has_utf8_header(message, body)
    utf8_address = (sender is not None and not sender.is_ascii) or not all(
        recipient.address.is_ascii for recipient in recipients
    )
    if offered.size and body.size > offered.size:
        text = f"the message has {body.size} octets, and the host takes {offered.size}"
        return made(552, 3, 4, text)
    if utf8_header and not offered.smtputf8:
        return NO_SMTPUTF8
    if utf8_address and sender is not None and spelling(sender, offered) is None:
        return NO_SMTPUTF8
    if message.eight_bit and not offered.eight_bit:
        return made(554, 6, 3, "the message needs 8BITMIME, which the host does not offer")
    given = message.params
    return MailParams(
        size=body.size,
        body=Body.EIGHT_BIT if message.eight_bit else None,
        # Written only where it is offered: elsewhere domains are spelled in ASCII.
        smtputf8=utf8_header or utf8_address or given.smtputf8,
        ret=given.ret,
        envid=given.envid,
        mt_priority=value_of(message),
        # Not AUTH=: it would be our word, and we have not checked it (RFC 4954 §5).
    )


def _has_utf8_header(message: Message, body: StoredBody) -> bool:
    """Whether a header field goes beyond ASCII (RFC 6531 §3.2).

    That a client said SMTPUTF8 does not mean that it is needed: many say it always.
    """
    if not (message.params.smtputf8 and message.eight_bit):
        return False
    octets = body.octets
    return octets is None or not octets[: octets.find(b"\r\n\r\n")].isascii()
