"""One client of the control socket: request after request, until one of us leaves.

::

    run
    ├── reads lines, and notices when the client has left
    └── answers one request at a time

A client that leaves ends its request, whatever that is doing. What a request may take is bounded:
its size, the time until the next one comes, the time in which an answer is taken, and, but for
what has no end, the time for all of it. Who may hand in large messages does so one by one, and few
do at a time: of each there are some copies in memory.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from elemta.config import ConfigError
from elemta.control.framing import MAX_REQUEST, MAX_SUBMISSION, Lines, decode_request, encode
from elemta.control.interface import (
    ControlError,
    ForbiddenError,
    RequestError,
    UnavailableError,
    UnknownError,
)
from elemta.control.messages import Done, Endless, Refusal, Refused, SpeakFor
from elemta.control.responses import respond
from elemta.log import logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from elemta.control.interface import Control
    from elemta.control.messages import Answer, Request
    from elemta.control.responses import Respond

log = logger(__name__)

#: Seconds in which a client must ask something.
IDLE: Final = 300.0
#: Requests that a client may be ahead; while there are more, we do not notice that it has left.
AHEAD: Final = 8
#: Seconds in which a client must take an answer.
PATIENCE: Final = 30.0
#: Octets that are read at a time.
PIECE: Final = 65536
#: Large requests that there may be in memory at a time, of all clients.
LARGE: Final = 2
#: Seconds in which the rest of a large one must come.
UPLOAD: Final = 60.0
#: Seconds that a request may take: a check or a copy of a large queue takes minutes.
LONGEST: Final = 3600.0

_REFUSALS: Final[dict[type[ControlError], Refusal]] = {
    RequestError: Refusal.REQUEST,
    UnknownError: Refusal.UNKNOWN,
    UnavailableError: Refusal.UNAVAILABLE,
    ForbiddenError: Refusal.FORBIDDEN,
}


#: A request, None if it was too long; and what is set once it is answered.
_Line: TypeAlias = tuple[bytes | None, trio.Event]


class _GoneError(Exception):
    """The client has left, or does not take what it asked for."""


class Conversation:
    """Serves one client.

    Args:
        stream: to it.
        control: gives the server as somebody may steer it.
        who: this client is, e.g. ``operator:root``.
        trusted: it may speak for others, and hand in large messages.
        large: for each large request one of these is taken: shared by all clients.
        answer: does what is asked.

    Resource handling:
        The stream is the caller's to close.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        control: Callable[[str], Control],
        who: str,
        *,
        trusted: bool = False,
        large: trio.Semaphore | None = None,
        answer: Respond = respond,
    ) -> None:
        self._stream = stream
        self._large = large or trio.Semaphore(LARGE)
        self._longest = MAX_SUBMISSION if trusted else MAX_REQUEST
        self._steered_by = control
        self._control = control(who)
        self._who = who
        self._trusted = trusted
        self._respond = answer

    async def run(self) -> None:
        """Serve until the client leaves or has nothing more to ask."""
        async with trio.open_nursery() as nursery:
            lines, coming = trio.open_memory_channel[_Line](AHEAD)
            nursery.start_soon(self._read, lines, nursery.cancel_scope)
            try:
                while True:
                    with trio.fail_after(IDLE):
                        line, answered = await coming.receive()
                    await self._answer(line)
                    del line  # it may be large, and the next one may not come for long
                    answered.set()
            except (_GoneError, trio.TooSlowError):
                nursery.cancel_scope.cancel()

    async def _read(
        self, lines: trio.MemorySendChannel[_Line], conversation: trio.CancelScope
    ) -> None:
        cut = Lines(self._longest)
        try:
            while await self._read_some(cut, lines) is not None:
                if cut.pending > MAX_REQUEST:
                    async with self._large:
                        await self._read_large(cut, lines)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            pass
        conversation.cancel()

    async def _read_large(self, cut: Lines, lines: trio.MemorySendChannel[_Line]) -> None:
        """Read a line to its end, and nothing beyond it until it is answered."""
        with trio.fail_after(UPLOAD):
            answered: trio.Event | None = trio.Event()
            while cut.pending > MAX_REQUEST and answered is not None:
                answered = await self._read_some(cut, lines)
        if answered is not None:
            await answered.wait()

    async def _read_some(
        self, cut: Lines, lines: trio.MemorySendChannel[_Line]
    ) -> trio.Event | None:
        """Read what is there; None: nothing comes any more.

        Returns:
            What is set once the last of the lines that came to their ends is answered.
        """
        octets = await self._stream.receive_some(PIECE)
        answered = trio.Event()
        answered.set()  # if there are none
        for line in cut.receive(bytes(octets)):
            answered = trio.Event()
            await lines.send((line, answered))
        return answered if octets else None

    async def _answer(self, line: bytes | None) -> None:
        """Do what is asked, and say how that ended.

        A fault of ours is this request's alone.
        """
        try:
            request = decode_request(line, self._longest)
            await self._do(request)
        except ConfigError as error:
            await self._give(
                Refused(
                    why=Refusal.CONFIGURATION,
                    text="the configuration has mistakes",
                    file=error.where,
                    mistakes=error.mistakes,
                )
            )
        except ControlError as error:
            why = _REFUSALS.get(type(error), Refusal.FAULT)
            await self._give(Refused(why=why, text=str(error), place=error.place))
        except _GoneError:
            raise
        except Exception:
            log.exception("control.failed", who=self._who)
            await self._give(
                Refused(why=Refusal.FAULT, text="a fault of the server; its log has more")
            )
        else:
            await self._give(Done())

    async def _do(self, request: Request) -> None:
        if isinstance(request, SpeakFor):
            self._speak_for(request.who)
            return
        within = math.inf if isinstance(request, Endless) else LONGEST
        with trio.move_on_after(within) as time:
            await self._respond(request, self._control, self._give)
        if time.cancelled_caught:
            raise UnavailableError(f"it took longer than {LONGEST:.0f} s, and was stopped")

    def _speak_for(self, who: str) -> None:
        if not self._trusted:
            raise RequestError(f"{self._who} may not speak for others", "who")
        self._who, self._control = who, self._steered_by(who)

    async def _give(self, answer: Answer) -> None:
        """Hand an answer over.

        Raises:
            _GoneError: the client does not take it.
        """
        line = encode(answer)
        try:
            with trio.fail_after(PATIENCE):
                await self._stream.send_all(line)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            raise _GoneError from None
