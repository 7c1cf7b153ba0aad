"""Asks rspamd about each message, over HTTP (``POST /checkv2``), and does what it says.

What it says is an action, and changes of the header; how it came to that is kept for the timeline.
Anything else than an answer that we know defers mail.
"""

from __future__ import annotations

import re
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec
import trio
from msgspec import Meta, Struct, field
from typing_extensions import override

from elemta.config import Service, Table
from elemta.mailauth import Iprev
from elemta.net.http import post
from elemta.plugins import (
    CONTINUE,
    AddHeader,
    Change,
    Continue,
    Defer,
    Discard,
    PluginWith,
    Quarantine,
    Reject,
    RemoveHeader,
    Tag,
    Verdict,
)
from elemta.plugins.built_in.actions import check_wait
from elemta.units import Octets, Seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from elemta.message import HeaderScanner
    from elemta.plugins import Content, Transaction

#: What a message that rspamd takes for spam can be found by in the queue.
SPAM: Final = "spam"
#: Octets of an answer; a long one has some ten thousand.
_ANSWER: Final = 1024 * 1024
#: Symbols in a result: those that weigh most.
_SYMBOLS: Final = 20
#: Octets of what a client is told.
_TEXT: Final = 400
_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")
_UNPRINTABLE: Final = re.compile(r"[^ -~]+")
_LINE_END: Final = re.compile(r"\r?\n")


class Settings(Table, frozen=True):
    """The ``settings`` of ``rspamd``."""

    #: Where rspamd's normal worker (or proxy) listens: ``HOST:PORT`` or the path of its socket.
    address: Service = Service.parse("127.0.0.1:11333")
    #: What it wants to hear before it answers, if it wants to.
    password: str = ""
    #: It is also asked about clients that may relay or are allowed, and told who is logged in.
    all_clients: bool = False
    #: What ``greylist`` means: ``defer``, or ``continue`` for an rspamd whose own greylisting is
    #: off, since it says so again each time.
    greylist: Literal["defer", "continue"] = "defer"
    #: The largest message that it is asked about.
    max_size: Octets = Octets(20 * 2**20)
    #: Messages that it is asked about at a time; others wait.
    connections: Annotated[int, Meta(ge=1)] = 16
    #: How long to wait for a connection. All of a question has the ``timeout`` of the plugin.
    connect_timeout: Seconds = Seconds(5)

    def __post_init__(self) -> None:
        check_wait("connect_timeout", self.connect_timeout)


class Checked(Struct, frozen=True):
    """What rspamd says of a message.

    Attributes:
        action: what it wants done, in its words.
        score: the higher the worse.
        required: the score from which it would reject.
        symbols: what it found, that which weighs most first.
    """

    action: str
    score: float
    required: float
    symbols: tuple[str, ...] = ()

    @override
    def __str__(self) -> str:
        """For the timeline."""
        told = f"{self.action}, {self.score:.2f} of {self.required:.2f}"
        return f"{told}: {', '.join(self.symbols)}" if self.symbols else told


class AnswerError(Exception):
    """That was no answer of rspamd's that we know."""


# The answer, as far as we look at it.


class Symbol(Struct, frozen=True):
    """Something that was found. A number that is none, or without end, is null."""

    score: float | None = None


class Added(Struct, frozen=True):
    """A field that is to be added; `order` counts from the top, or is negative."""

    value: str
    order: int = -1


class Milter(Struct, frozen=True):
    """Changes of the header."""

    add_headers: dict[str, str | Added | list[str | Added]] = field(
        default_factory=dict[str, "str | Added | list[str | Added]"]
    )
    remove_headers: dict[str, int | list[int]] = field(default_factory=dict[str, "int | list[int]"])


class Answer(Struct, frozen=True):
    """See rspamd's documentation, "protocol"."""

    action: str
    score: float | None = None
    required_score: float | None = None
    symbols: dict[str, Symbol] = field(default_factory=dict[str, Symbol])
    subject: str | None = None
    messages: dict[str, object] = field(default_factory=dict[str, object])
    milter: Milter = field(default_factory=Milter)
    dkim_signature: str | list[str] = field(name="dkim-signature", default="")


_answer: Final = msgspec.json.Decoder(Answer)


class Rspamd(PluginWith[Settings]):
    """Asks rspamd about each message of a stranger, and does what it says."""

    name = "rspamd"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._places = trio.Semaphore(settings.connections)

    @override
    async def on_inspect(self, transaction: Transaction, content: Content) -> Verdict:
        if transaction.exempt and not self.settings.all_clients:
            return CONTINUE
        if content.size > self.settings.max_size:
            return Continue(note="not asked: too large")
        meters, began = self.tools.meters, trio.current_time()
        try:
            answer = await self._ask(transaction, content)
            verdict = self._verdict(answer, content.header)
        except BaseException:  # its deadline, too
            meters.checks["failed"] += 1
            raise
        meters.checks[answer.action.replace(" ", "_")] += 1
        meters.check_seconds.observe(trio.current_time() - began)
        transaction.results.add(_checked(answer), self.tools.name)
        return verdict

    async def _ask(self, transaction: Transaction, content: Content) -> Answer:
        async with self._places:
            with trio.fail_after(self.settings.connect_timeout):
                stream = await self.tools.connect(self.settings.address)
            async with stream, aclosing(content.pieces()) as pieces:
                answer = await post(
                    stream,
                    "/checkv2",
                    [(name, _said(value)) for name, value in self._fields(transaction)],
                    content.size,
                    pieces,
                    most=_ANSWER,
                )
        if answer.status != 200:
            raise AnswerError(f"status {answer.status}: {answer.body[:200]!r}")
        try:
            return _answer.decode(answer.body)
        except (msgspec.DecodeError, RecursionError) as error:
            raise AnswerError(f"an answer that says nothing: {error}") from error

    def _fields(self, transaction: Transaction) -> Iterator[tuple[bytes, str]]:
        session = transaction.session
        yield b"Host", "rspamd"
        yield b"Queue-Id", transaction.id
        yield b"MTA-Name", self.tools.hostname
        if session.address:
            yield b"IP", session.address
        if session.helo:
            yield b"Helo", session.helo
        if (iprev := session.results.first(Iprev)) is not None and iprev.name:
            yield b"Hostname", iprev.name
        if session.login is not None:
            yield b"User", session.login
        if (encryption := session.encryption) is not None:
            yield b"TLS-Version", encryption.version
            yield b"TLS-Cipher", encryption.cipher
        yield b"From", str(transaction.sender or "<>")
        for recipient in transaction.recipients:
            yield b"Rcpt", str(recipient)
        if len(transaction.addressees) == 1:
            yield b"Deliver-To", str(next(iter(transaction.addressees)))
        if self.settings.password:
            yield b"Password", self.settings.password

    def _verdict(self, answer: Answer, header: HeaderScanner) -> Verdict:
        note, text = str(_checked(answer)), _text(answer)
        match answer.action:
            case "no action":
                return Continue(tuple(_changes(answer, header)), note)
            case "greylist":
                if self.settings.greylist == "continue":
                    return Continue(tuple(_changes(answer, header)), note)
                return Defer((7, 1), text or "greylisted, try again later", note)
            case "add header":
                return Continue((*_changes(answer, header), *_marked()), note)
            case "rewrite subject":
                return Continue(
                    (*_changes(answer, header), *_rewritten(answer.subject), *_marked()), note
                )
            case "soft reject":
                return Defer((7, 1), text or "try again later", note)
            case "reject":
                return Reject((7, 1), text or "this message looks like spam", note)
            case "quarantine":
                return Quarantine(note, changes=tuple(_changes(answer, header)))
            case "discard":
                return Discard(note)
            case _:
                raise AnswerError(f"an action that we do not know: {answer.action[:100]!r}")


def _said(text: str) -> bytes:
    """As it can stand in a field of HTTP."""
    return _CONTROL.sub(b"?", text.encode("utf-8", "replace")).strip()


def _shown(text: str) -> str:
    """As it can stand in a log, or be told to a client."""
    return _UNPRINTABLE.sub("?", text)[:_TEXT]


def _checked(answer: Answer) -> Checked:
    symbols = sorted(answer.symbols.items(), key=lambda each: -abs(each[1].score or 0.0))
    return Checked(
        _shown(answer.action),
        answer.score or 0.0,
        answer.required_score or 0.0,
        tuple(_shown(name)[:64] for name, _ in symbols[:_SYMBOLS]),
    )


def _text(answer: Answer) -> str:
    """What the operator of rspamd wants the client to read."""
    found = answer.messages.get("smtp_message")
    return _shown(found).strip() if isinstance(found, str) else ""


def _changes(answer: Answer, header: HeaderScanner) -> Iterator[Change]:
    """What is to be changed whatever the action is.

    Raises:
        ValueError: it cannot be.
    """
    for name, numbers in answer.milter.remove_headers.items():
        for number in numbers if isinstance(numbers, list) else [numbers]:
            counted = number
            if number < 0:  # from the bottom
                wanted = name.lower().encode()
                counted = sum(each == wanted for each, _ in header.fields) + 1 + number
            if counted >= 0 and (counted or not number):
                yield RemoveHeader(name, counted)
    for name, values in answer.milter.add_headers.items():
        for each in values if isinstance(values, list) else [values]:
            added = Added(each) if isinstance(each, str) else each
            yield _field(name, added.value, top=added.order >= 0)
    signatures = answer.dkim_signature
    for signature in [signatures] if isinstance(signatures, str) else signatures:
        if signature:
            yield _field("DKIM-Signature", signature, top=True)


def _field(name: str, value: str, *, top: bool) -> AddHeader:
    if "\n" not in value:
        return AddHeader(name, value, top)
    # It is folded already: a signature would not survive another fold.
    return AddHeader(name, " " + _LINE_END.sub("\r\n", value).strip(), top, verbatim=True)


def _marked() -> tuple[Change, ...]:
    return (RemoveHeader("X-Spam"), AddHeader("X-Spam", "Yes"), Tag(SPAM))


def _rewritten(subject: str | None) -> tuple[Change, ...]:
    if subject is None:
        return ()
    text = _LINE_END.sub(" ", subject)
    return (RemoveHeader("Subject"), AddHeader("Subject", text, top=False))
