"""Keys of a terminal: octets to names, and the terminal in the state in which it tells each key."""

from __future__ import annotations

import codecs
import os
import re
import termios
import tty
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Iterator

#: What terminals send for keys that are no letters (ECMA-48, and what xterm made of it).
_NAMED: Final = {
    "\x1b[A": "up", "\x1bOA": "up",
    "\x1b[B": "down", "\x1bOB": "down",
    "\x1b[5~": "page up", "\x1b[6~": "page down",
    "\x1b[H": "home", "\x1bOH": "home", "\x1b[1~": "home",
    "\x1b[F": "end", "\x1bOF": "end", "\x1b[4~": "end",
    "\r": "enter", "\n": "enter",
    "\x7f": "backspace", "\x08": "backspace",
    "\x1b": "escape",
}  # fmt: skip
_KEY: Final = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|O[A-Za-z])|.", re.DOTALL)


class Keys:
    """Turns what a terminal sends into keys: a sign, or a name such as ``page up``."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def receive(self, octets: bytes) -> Iterator[str]:
        """The keys in what came at once. A lone ESC is the key of that name."""
        for found in _KEY.findall(self._decoder.decode(octets)):
            if name := _NAMED.get(found):
                yield name
            elif found.isprintable():
                yield found


@contextmanager
def telling(terminal: int) -> Generator[None]:
    """Let a terminal tell each key as it is pressed, and show none; it is put back afterwards.

    Ctrl-C stays what it is. Ctrl-Z is not heeded: it would leave the screen as it is.
    """
    before = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal)
        mode = termios.tcgetattr(terminal)
        mode[6][termios.VSUSP] = b"\0"
        termios.tcsetattr(terminal, termios.TCSANOW, mode)
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSAFLUSH, before)


async def pressed(terminal: int) -> AsyncGenerator[str]:
    """The keys that are pressed, until the terminal is gone.

    It is waited for rather than made not to block: standard output is the same terminal, and would
    then not block either.
    """
    keys = Keys()
    while True:
        await trio.lowlevel.wait_readable(terminal)
        try:
            octets = os.read(terminal, 1024)
        except OSError:  # it was hung up
            return
        if not octets:
            return
        for key in keys.receive(octets):
            yield key
