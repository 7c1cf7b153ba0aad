"""Has each message looked at by ClamAV's daemon, over its socket (clamd(8), INSTREAM).

The message is streamed as it lies there, so a large one is never in memory as a whole. A scanner
that gives no answer defers mail: what was not looked at does not pass for clean.
"""

from __future__ import annotations

import re
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

import trio
from msgspec import Meta, Struct
from typing_extensions import override

from elemta.config import Service, Table
from elemta.log import logger
from elemta.plugins import (
    CONTINUE,
    Continue,
    Defer,
    Discard,
    PluginWith,
    Quarantine,
    Reject,
    Tag,
    Verdict,
)
from elemta.plugins.built_in.actions import check_wait
from elemta.units import Octets, Seconds

if TYPE_CHECKING:
    from elemta.plugins import Content, Transaction

log = logger(__name__)

#: What a message that was not scanned can be found by in the queue.
UNSCANNED: Final = "unscanned"
#: Octets of an answer; a line with the name of a signature in it is far shorter.
_ANSWER: Final = 4096
_FOUND: Final = re.compile(rb"(?:stream: )?(.+) FOUND")
_UNPRINTABLE: Final = re.compile(r"[^!-~]+")
#: Seconds between two looks at whether the scanner is there, after one in vain.
_PATIENCE: Final = 60.0

Outcome: TypeAlias = Literal["clean", "infected", "too_large"]


class Settings(Table, frozen=True):
    """The ``settings`` of ``clamav``."""

    #: Where clamd listens: the path of its socket (``LocalSocket``), or ``HOST:PORT``.
    address: Service = Service.parse("/run/clamav/clamd.ctl")
    #: What becomes of a message with something in it: ``reject``, ``quarantine`` or ``discard``.
    infected: Literal["reject", "quarantine", "discard"] = "reject"
    #: The largest message that is scanned. No more than clamd's own ``StreamMaxLength``.
    max_size: Octets = Octets(25 * 2**20)
    #: What becomes of a larger one: ``continue`` (with the tag ``unscanned``), ``defer``,
    #: ``reject`` or ``quarantine``.
    too_large: Literal["continue", "defer", "reject", "quarantine"] = "continue"
    #: Messages that are scanned at a time; others wait. Fewer than clamd's ``MaxThreads``.
    connections: Annotated[int, Meta(ge=1)] = 8
    #: How long to wait for a connection. All of a scan has the ``timeout`` of the plugin.
    connect_timeout: Seconds = Seconds(5)

    def __post_init__(self) -> None:
        check_wait("connect_timeout", self.connect_timeout)


class Scanned(Struct, frozen=True):
    """What ClamAV says of a message.

    Attributes:
        outcome: ``too_large``: it was not scanned.
        signature: what was found.
    """

    outcome: Outcome
    signature: str = ""

    @override
    def __str__(self) -> str:
        """For the timeline."""
        if self.outcome == "too_large":
            return "not scanned: too large"
        return f"infected: {self.signature}" if self.signature else self.outcome


class ScanError(Exception):
    """The scanner said something else than what it found."""


class ClamAv(PluginWith[Settings]):
    """Asks ClamAV about each message: of whatever client, as an account may be stolen."""

    name = "clamav"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._places = trio.Semaphore(settings.connections)

    @override
    async def run(self) -> None:
        """Say in the log if the scanner is not there: mail comes all the same, and is deferred."""
        while True:
            try:
                with trio.fail_after(self.settings.connect_timeout):
                    await self._ping()
            except (OSError, trio.BrokenResourceError, trio.TooSlowError, ScanError) as error:
                log.warning(
                    "clamav.unreachable",
                    plugin=self.tools.name,
                    address=str(self.settings.address),
                    error=f"{type(error).__name__}: {error}",
                )
            else:
                return
            await trio.sleep(_PATIENCE)

    @override
    async def on_inspect(self, transaction: Transaction, content: Content) -> Verdict:
        meters, began = self.tools.meters, trio.current_time()
        try:
            scanned = await self._scan(content)
        except BaseException:  # its deadline, too
            meters.scans["failed"] += 1
            raise
        meters.scans[scanned.outcome] += 1
        if scanned.outcome != "too_large":
            meters.scan_seconds.observe(trio.current_time() - began)
        transaction.results.add(scanned, self.tools.name)
        return self._verdict(scanned)

    def _verdict(self, scanned: Scanned) -> Verdict:
        told = str(scanned)
        match scanned.outcome:
            case "clean":
                return CONTINUE
            case "infected":
                match self.settings.infected:
                    case "reject":
                        return Reject((7, 1), "this message has malware in it", note=told)
                    case "quarantine":
                        return Quarantine(told)
                    case "discard":
                        return Discard(told)
            case "too_large":
                match self.settings.too_large:
                    case "continue":
                        return Continue((Tag(UNSCANNED),), note=told)
                    case "defer":
                        return Defer((3, 4), "this message is too large to be scanned", note=told)
                    case "reject":
                        return Reject((3, 4), "this message is too large to be scanned", note=told)
                    case "quarantine":
                        return Quarantine(told, changes=(Tag(UNSCANNED),))

    # The protocol: a question and an answer, each ended by a zero.

    async def _ping(self) -> None:
        async with await self.tools.connect(self.settings.address) as stream:
            await stream.send_all(b"zPING\0")
            answer = await _answer(stream)
        if answer != b"PONG":
            raise ScanError(f"an answer to PING: {answer[:100]!r}")

    async def _scan(self, content: Content) -> Scanned:
        if content.size > self.settings.max_size:
            return Scanned("too_large")
        async with self._places:
            with trio.fail_after(self.settings.connect_timeout):
                stream = await self.tools.connect(self.settings.address)
            async with stream:
                with suppress(trio.BrokenResourceError):  # it has heard enough, and says why
                    await _show(stream, content)
                return _read(await _answer(stream))


async def _show(stream: trio.abc.Stream, content: Content) -> None:
    await stream.send_all(b"zINSTREAM\0")
    async with aclosing(content.pieces()) as pieces:
        async for piece in pieces:
            if piece:  # an empty one would be the end
                await stream.send_all(len(piece).to_bytes(4, "big") + piece)
    await stream.send_all(bytes(4))


async def _answer(stream: trio.abc.Stream) -> bytes:
    """What is said up to the first zero, or the end."""
    answer = b""
    while b"\0" not in answer and len(answer) < _ANSWER:
        some = await stream.receive_some(_ANSWER)
        if not some:
            break
        answer += some
    return answer.partition(b"\0")[0].strip()


def _read(answer: bytes) -> Scanned:
    if answer in (b"stream: OK", b"OK"):
        return Scanned("clean")
    if (found := _FOUND.fullmatch(answer)) is not None:
        name = _UNPRINTABLE.sub("?", found[1].decode("ascii", "replace"))
        return Scanned("infected", name[:200])
    if answer.startswith(b"INSTREAM size limit exceeded"):
        return Scanned("too_large")
    raise ScanError(f"an answer that says nothing: {answer[:200]!r}")
