"""A connection to a milter: what both sides have agreed on, and questions with their answers."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import trio

from elemta.plugins.milter import wire
from elemta.plugins.milter.wire import Actions, MilterError, Steps

#: What a milter may do here.
OFFERED: Final = (
    Actions.ADD_FIELDS
    | Actions.CHANGE_FIELDS
    | Actions.ADD_RECIPIENTS
    | Actions.REMOVE_RECIPIENTS
    | Actions.QUARANTINE
)
#: What it may leave out: all but hearing of recipients that were refused.
OPTIONAL: Final = (Steps.LEADING_SPACE << 1) - 1 & ~Steps.REJECTED_RCPT

#: What each packet is left out by, and what leaves its answer out.
_LEFT_OUT: Final[dict[type[wire.Command], tuple[Steps, Steps]]] = {
    wire.Connect: (Steps.NO_CONNECT, Steps.MUTE_CONNECT),
    wire.Helo: (Steps.NO_HELO, Steps.MUTE_HELO),
    wire.Mail: (Steps.NO_MAIL, Steps.MUTE_MAIL),
    wire.Rcpt: (Steps.NO_RCPT, Steps.MUTE_RCPT),
    wire.Data: (Steps.NO_DATA, Steps.MUTE_DATA),
    wire.Field: (Steps.NO_FIELDS, Steps.MUTE_FIELDS),
    wire.EndOfHeader: (Steps.NO_END_OF_HEADER, Steps.MUTE_END_OF_HEADER),
    wire.Body: (Steps.NO_BODY, Steps.MUTE_BODY),
}
#: Seconds for a goodbye.
_FAREWELL: Final = 1.0
_SOME: Final = 64 * 1024


class Link:
    """A connection to a milter.

    Args:
        stream: to it; the link closes it.
        patience: seconds that an answer may take; each `wire.Progress` begins them anew.

    Attributes:
        actions: what the milter wants to be able to do.
        steps: what it does not want to hear or to answer, and whether it knows `Steps.SKIP` and
            `Steps.LEADING_SPACE`.
    """

    def __init__(self, stream: trio.abc.Stream, patience: float) -> None:
        self._stream = stream
        self._patience = patience
        self._inbox = wire.Inbox()
        self._unsent = bytearray()
        self.actions = Actions(0)
        self.steps = Steps(0)

    async def negotiate(self) -> None:
        """Agree on what is done; before all else.

        Raises:
            MilterError: the milter wants more than we offer; so does each of these, if it does not
                keep to the protocol.
            trio.TooSlowError: it takes too long.
            trio.BrokenResourceError: it is gone.
        """
        found = await self.say(wire.Negotiate(wire.VERSION, OFFERED, Steps(OPTIONAL)))
        if not isinstance(found, wire.Negotiate):
            raise MilterError(f"{type(found).__name__} in place of options")
        if not 2 <= found.version <= wire.VERSION:
            raise MilterError(f"it speaks version {found.version}")
        if found.actions & ~OFFERED or found.steps & ~OPTIONAL:
            wanted = f"{int(found.actions):#x}, {int(found.steps):#x}"
            raise MilterError(f"it wants what we do not offer: {wanted}")
        self.actions, self.steps = found.actions, found.steps

    async def say(
        self, command: wire.Command, macros: tuple[tuple[bytes, bytes], ...] = ()
    ) -> wire.Response | None:
        """Say something, and hear what the milter answers; None if it does not want to.

        Args:
            command: what is said.
            macros: what is known by now.
        """
        unwanted, mute = _LEFT_OUT.get(type(command), (Steps(0), Steps(0)))
        if self.steps & unwanted:
            return None
        if not self._inbox.empty:
            # The next answer would be taken for one to this, and each after it likewise.
            raise MilterError("it has answered what it was not asked")
        if macros:
            self._unsent += bytes(wire.Macros(command.LETTER, macros))
        self._unsent += bytes(command)
        answered = not self.steps & mute
        if not answered and len(self._unsent) < _SOME:
            return None
        with trio.fail_after(self._patience):  # one for both: a header has many fields
            await self._flush()
            found = await self._next() if answered else None
        return await self.hear() if isinstance(found, wire.Progress) else found

    async def hear(self) -> wire.Response:
        """The next answer that is one."""
        while True:
            with trio.fail_after(self._patience):
                found = await self._next()
            if not isinstance(found, wire.Progress):
                return found

    async def abort(self) -> None:
        """This message is over; nothing is answered."""
        self._unsent += bytes(wire.Abort())
        with trio.fail_after(self._patience):
            await self._flush()

    async def quit(self) -> None:
        """Say goodbye, if it is still there, and close."""
        with trio.move_on_after(_FAREWELL), suppress(trio.BrokenResourceError):
            self._unsent += bytes(wire.Quit())
            await self._flush()
        await self.close()

    async def close(self) -> None:
        """Close at once; may be repeated."""
        await trio.aclose_forcefully(self._stream)

    async def _flush(self) -> None:
        octets = bytes(self._unsent)
        self._unsent.clear()
        await self._stream.send_all(octets)

    async def _next(self) -> wire.Response:
        while (found := self._inbox.response()) is None:
            octets = await self._stream.receive_some(_SOME)
            if not octets:
                raise MilterError("it has hung up")
            self._inbox.feed(bytes(octets))
        return found
