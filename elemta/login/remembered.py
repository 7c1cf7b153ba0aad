"""Who was right before: remembered for minutes, so that it need not be computed or asked again.

Hashing takes long on purpose, and a directory is far: a program that hands in a hundred messages
would pay for each. What is remembered is a keyed hash of what was said, with a key that is nowhere
else and that nobody survives with: who reads our memory finds no password in it, and nothing that
could be tried without the key. Only what was right is remembered: a guess always costs.
"""

from __future__ import annotations

import hmac
import os
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

#: How many are remembered; who was not seen for longest makes room.
MOST: Final = 10_000


class Remembered(Generic[T]):
    """What was found out of words that are secret.

    Args:
        seconds: for so long, from when it was found out; 0: not at all.
        clock: seconds, of any beginning.
        most: how many.
    """

    def __init__(self, seconds: float, clock: Callable[[], float], most: int = MOST) -> None:
        self._seconds = seconds
        self._clock = clock
        self._most = most
        self._secret = os.urandom(32)
        self._known: OrderedDict[bytes, tuple[float, T]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def recall(self, *words: str) -> T | None:
        """What was found out of these words, if that was not too long ago."""
        if not self._known:
            return None
        key = self._key(words)
        if (found := self._known.get(key)) is None:
            return None
        until, value = found
        if self._clock() >= until:
            del self._known[key]
            return None
        self._known.move_to_end(key)
        return value

    def keep(self, value: T, *words: str) -> None:
        """Remember what was found out of them."""
        if self._seconds <= 0:
            return
        self._known[self._key(words)] = self._clock() + self._seconds, value
        while len(self._known) > self._most:
            self._known.popitem(last=False)

    def forget(self) -> None:
        """Remember nothing any more."""
        self._known.clear()

    def _key(self, words: tuple[str, ...]) -> bytes:
        # Each word with its length before it: no two lists of words read the same.
        told = b"".join(
            len(octets).to_bytes(4) + octets
            for octets in (word.encode("utf-8", "surrogatepass") for word in words)
        )
        return hmac.digest(self._secret, told, "sha256")
