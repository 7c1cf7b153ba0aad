"""What can happen in an SMTP conversation, on either side of it.

On the server's side every event but `Chunk`, `Content` and `Closed` waits for exactly one reply
(`ContentEnd` under LMTP: one for each recipient that was taken).
"""

from __future__ import annotations

import enum
from typing import TypeAlias

from msgspec import Struct

from elemta.protocol.address import Mailbox, ReversePath
from elemta.protocol.framing import Fault
from elemta.protocol.reply import Reply


class Wait(enum.Enum):
    """Not an event: why there is none yet."""

    #: Read from the peer, then call `receive_data`.
    FOR_DATA = enum.auto()
    #: The server's side: the last event has no reply yet; call `send`.
    FOR_REPLY = enum.auto()


class Body(enum.Enum):
    """How a message body is encoded (RFC 6152; BINARYMIME of RFC 3030 is not offered)."""

    SEVEN_BIT = "7BIT"
    EIGHT_BIT = "8BITMIME"


class Ret(enum.Enum):
    """How much of the message a failure report returns (RFC 3461 §4.3)."""

    FULL = "FULL"
    HEADERS = "HDRS"


class Notify(enum.Enum):
    """When the sender wants a report (RFC 3461 §4.1)."""

    NEVER = "NEVER"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    DELAY = "DELAY"


class OriginalRecipient(Struct, frozen=True):
    """ORCPT (RFC 3461 §4.2): what the sender calls this recipient.

    Attributes:
        address_type: e.g. ``rfc822`` or ``utf-8``.
        address: xtext taken off.
    """

    address_type: str
    address: str


class MailParams(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The parameters of MAIL FROM.

    Attributes:
        size: octets, as the client estimates them (RFC 1870), or None.
        body: RFC 6152; None if not said.
        smtputf8: RFC 6531.
        ret: RFC 3461.
        envid: RFC 3461 §4.4, xtext taken off.
        auth: AUTH= of RFC 4954 §5: who submitted it, as somebody claims: an addr-spec, ``<>``,
            or None if not said.
        mt_priority: RFC 6710: from -9 to 9, the higher the sooner; None if not said, as 0.
    """

    size: int | None = None
    body: Body | None = None
    smtputf8: bool = False
    ret: Ret | None = None
    envid: str | None = None
    auth: str | None = None
    mt_priority: int | None = None


class RcptParams(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The parameters of RCPT TO (RFC 3461). An empty `notify` means: not said."""

    notify: frozenset[Notify] = frozenset()
    orcpt: OriginalRecipient | None = None


class Hello(Struct, frozen=True, gc=False):
    """EHLO, HELO or LHLO (RFC 5321 §4.1.1.1). The name is a claim: nothing has verified it.

    Attributes:
        name: a domain, lower case, or an address literal.
        extended: not HELO.
    """

    name: str
    extended: bool


class Mail(Struct, frozen=True):
    """MAIL FROM (RFC 5321 §4.1.1.2). No path is the null sender of a report."""

    path: ReversePath
    params: MailParams


class Rcpt(Struct, frozen=True):
    """RCPT TO (RFC 5321 §4.1.1.3)."""

    path: Mailbox
    params: RcptParams


class Data(Struct, frozen=True, gc=False):
    """DATA (RFC 5321 §4.1.1.4). Replying 354 opens the content."""


class Chunk(Struct, frozen=True, gc=False):
    """BDAT (RFC 3030): `size` octets of content follow. Takes no reply of its own.

    The chunk's `Content` and then `ChunkEnd`, or `ContentEnd` if it is the last, come next,
    whatever we think of the message: what we think is said in the reply to that end.
    """

    size: int
    last: bool


class Content(Struct, frozen=True, gc=False):
    """Some octets of the message, dots unstuffed, line ends as sent. Takes no reply."""

    octets: bytes


class ChunkEnd(Struct, frozen=True, gc=False):
    """A chunk is whole and was not the last. A refusal ends the transaction (RFC 3030 §2).

    Attributes:
        fault: why the message must be refused, or None.
    """

    fault: Fault | None


class ContentEnd(Struct, frozen=True, gc=False):
    """The message is whole. Replying 250 takes responsibility for it (RFC 5321 §6.1).

    Attributes:
        fault: why the content must be refused, or None.
    """

    fault: Fault | None


class StartTls(Struct, frozen=True, gc=False):
    """STARTTLS (RFC 3207). After a 220 the connection object is spent: make a new one.

    Attributes:
        injected: octets were pipelined behind the command: somebody may have put them there
            (RFC 3207 §6). Refuse with 554: nothing else can be said, and the conversation is over
            with it.
    """

    injected: bool = False


class Auth(Struct, frozen=True):
    """AUTH (RFC 4954 §4). Replying 334 with a challenge asks for an `AuthResponse`.

    Attributes:
        mechanism: upper case.
        initial: the initial response, base64 taken off; None if there was none.
    """

    mechanism: str
    initial: bytes | None


class AuthResponse(Struct, frozen=True):
    """The answer to a challenge, base64 taken off; None if the client gives up with ``*``."""

    response: bytes | None


class Verify(Struct, frozen=True):
    """VRFY (RFC 5321 §4.1.1.6)."""

    text: str


class Help(Struct, frozen=True, gc=False):
    """HELP (RFC 5321 §4.1.1.8)."""


class Reset(Struct, frozen=True, gc=False):
    """RSET (RFC 5321 §4.1.1.5)."""


class Noop(Struct, frozen=True, gc=False):
    """NOOP (RFC 5321 §4.1.1.9)."""


class Quit(Struct, frozen=True, gc=False):
    """QUIT (RFC 5321 §4.1.1.10)."""


class Refused(Struct, frozen=True):
    """A command the engine itself turns down: unknown, malformed, or out of order.

    Attributes:
        line: the offending line, for logs; never echoed to the peer. Empty where it was too long
            to keep, or part of a login.
        reply: what the RFC asks for; send this one or a harsher one.
        hostile: this is no client that ever meant well, or where its next command begins cannot
            be told. The conversation is over with the reply, whatever its code: `Closed` is next.
    """

    line: bytes
    reply: Reply
    hostile: bool = False


class Closed(Struct, frozen=True, gc=False):
    """The peer is gone, or the conversation is over. Takes no reply; nothing follows."""


Command: TypeAlias = (
    Hello | Mail | Rcpt | Data | StartTls | Auth | Verify | Help | Reset | Noop | Quit
)
#: What a server sees.
Event: TypeAlias = (
    Command | AuthResponse | Chunk | Content | ChunkEnd | ContentEnd | Refused | Closed
)


class Extensions(Struct, frozen=True, kw_only=True):
    """What a server announced in its answer to EHLO or LHLO, as a client sees it.

    Attributes:
        size: the largest message in octets (RFC 1870); 0: no fixed limit; None: not announced.
        limits: RFC 9422: e.g. ``{"RCPTMAX": 100}``.
        auth: the SASL mechanisms, upper case.
        keywords: every keyword announced, upper case, with its parameters.
    """

    pipelining: bool = False
    size: int | None = None
    eight_bit: bool = False
    smtputf8: bool = False
    enhanced_status_codes: bool = False
    dsn: bool = False
    chunking: bool = False
    starttls: bool = False
    mt_priority: bool = False
    auth: frozenset[str] = frozenset()
    limits: dict[str, int] = {}
    keywords: dict[str, str] = {}


class Greeting(Struct, frozen=True):
    """A server's first words."""

    reply: Reply


class HelloAnswer(Struct, frozen=True):
    """The answer to EHLO, HELO or LHLO. No extensions if it is a refusal, or to HELO."""

    reply: Reply
    extensions: Extensions


class MailAnswer(Struct, frozen=True):
    """The answer to MAIL FROM."""

    reply: Reply


class RcptAnswer(Struct, frozen=True):
    """The answer to one RCPT TO.

    Attributes:
        number: which of this transaction's recipients, from 0.
    """

    number: int
    reply: Reply


class DataAnswer(Struct, frozen=True):
    """The answer to DATA: content is wanted if it is 354."""

    reply: Reply


class ContentAnswer(Struct, frozen=True):
    """What became of the message for one recipient.

    SMTP has one answer for all: the engine repeats it for each recipient that was accepted. LMTP
    has one each (RFC 2033 §4.2).

    Attributes:
        number: which of this transaction's recipients, from 0.
    """

    number: int
    reply: Reply


class TransferAnswer(Struct, frozen=True):
    """The answer to octets of a message, where it speaks for no recipient.

    To a chunk that was not the last (RFC 3030): a refusal is one of the whole message. Or to the
    end of a message for which no recipient was accepted (RFC 2920 §3.1).
    """

    reply: Reply


class StartTlsAnswer(Struct, frozen=True):
    """The answer to STARTTLS. After 220 the connection object is spent: make a new one."""

    reply: Reply


class AuthAnswer(Struct, frozen=True):
    """The answer to AUTH or to a response.

    Attributes:
        challenge: base64 taken off, if `reply` is a 334; None otherwise.
    """

    reply: Reply
    challenge: bytes | None


class ResetAnswer(Struct, frozen=True):
    """The answer to RSET."""

    reply: Reply


class NoopAnswer(Struct, frozen=True):
    """The answer to NOOP."""

    reply: Reply


class QuitAnswer(Struct, frozen=True):
    """The answer to QUIT."""

    reply: Reply


class Goodbye(Struct, frozen=True):
    """A 421 that ends the conversation, whatever was asked (RFC 5321 §3.8)."""

    reply: Reply


class Broken(Struct, frozen=True):
    """What the server sent is no SMTP; nothing more can be said to it.

    Attributes:
        reason: for our log.
    """

    reason: str


#: What a client sees.
Answer: TypeAlias = (
    Greeting
    | HelloAnswer
    | MailAnswer
    | RcptAnswer
    | DataAnswer
    | ContentAnswer
    | TransferAnswer
    | StartTlsAnswer
    | AuthAnswer
    | ResetAnswer
    | NoopAnswer
    | QuitAnswer
    | Goodbye
    | Broken
    | Closed
)
