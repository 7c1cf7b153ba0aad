"""Names of messages: ULIDs, sortable by time and unguessable.

A ULID is 26 letters of five bits: 48 bits of milliseconds since the epoch, 80 bits of chance. Its
first 63 bits, told by the first 13 letters, are the *key* of the message in the store. One source
never gives a key twice, nor a lower one after a higher one, whatever the clock does; so keys can
be SQLite's row numbers, and rows are appended where they were appended before.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from elemta.queue.model import MessageId

#: Crockford's letters: none that reads like another.
_LETTERS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_ID: Final = re.compile(f"[0-7][{_LETTERS}]{{25}}")
_PAIRS: Final = [high + low for high in _LETTERS for low in _LETTERS]
#: Any octet to a letter; 256 is a multiple of 32, so that all stay equally likely.
_OCTET_TO_LETTER: Final = (_LETTERS * 8).encode()
_TO_PYTHON_DIGITS: Final = str.maketrans(_LETTERS, "0123456789abcdefghijklmnopqrstuv")
#: Ids for which chance is fetched at once; a system call each would cost more than all else.
_AHEAD: Final = 256


class IdSource:
    """Gives ids.

    Args:
        clock: seconds since the epoch.
        after: the highest key that was ever given.
        chance: so many octets that nobody can guess.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        after: int = 0,
        chance: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._clock = clock
        self._key = after
        self._chance = chance
        self._tails: list[str] = []
        self._time = (-1, "")

    def __call__(self) -> MessageId:
        """A new id; one microsecond."""
        if not self._tails:
            self._fetch()
        tail = self._tails.pop()
        # 15 bits follow the time. They start below a half, so that as many ids fit after them;
        # should they ever run over, the time is a millisecond early.
        start = int(tail[-3:].translate(_TO_PYTHON_DIGITS), 32) >> 1
        self._key = key = max(self._key + 1, int(self._clock() * 1000) << 15 | start)
        milliseconds = key >> 15
        if milliseconds != self._time[0]:
            pairs = [_PAIRS[milliseconds >> shift & 1023] for shift in (40, 30, 20, 10, 0)]
            self._time = (milliseconds, "".join(pairs))
        return f"{self._time[1]}{_LETTERS[key >> 10 & 31]}{_PAIRS[key & 1023]}{tail[:13]}"

    def _fetch(self) -> None:
        letters = self._chance(16 * _AHEAD).translate(_OCTET_TO_LETTER).decode()
        self._tails = [letters[start : start + 16] for start in range(0, len(letters), 16)]


def key_of(id: MessageId) -> int:  # noqa: A002 # the word of the contract
    """The key of a message, for an id that a source gave."""
    return int(id[:13].translate(_TO_PYTHON_DIGITS), 32)


def parse_id(text: str) -> MessageId | None:
    """The id that somebody typed, in letters of any case; None if it cannot be one."""
    found = _ID.fullmatch(text.strip().upper())
    return found[0] if found else None


def first_key(time: float) -> int:
    """The lowest key that an id given at this time (seconds since the epoch) can have."""
    return max(0, int(time * 1000)) << 15


def time_of(key: int) -> float:
    """When an id with this key was given, seconds since the epoch."""
    return (key >> 15) / 1000
