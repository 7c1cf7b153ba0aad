"""A token bucket, told as one number: when it is full again. Pure, told the time.

A bucket of ``100/1 h`` holds 100 and gains one each 36 s. Who was quiet may take 100 at once, and
then one each 36 s: so in the worst hour nearly 200. What that buys beside a window that slides: one
number for each key, which says at the same time how long the key matters at all, in memory and on
disk; and nobody who keeps to the rate is ever told to wait for the end of an hour.
"""

from __future__ import annotations

from msgspec import Struct


class Bucket(Struct, frozen=True):
    """How much there is of something, and in what time it comes back.

    Attributes:
        count: what a full one holds, more than 0.
        seconds: how long an empty one takes to be full.
    """

    count: float
    seconds: float

    def left(self, full_at: float, now: float) -> float:
        """How much is in it; below 0 if it owes some.

        Args:
            full_at: when it will be full, if nothing is taken; any time that is over: it is.
            now: likewise in seconds.
        """
        behind = min(max(full_at - now, 0.0), 2 * self.seconds)
        return self.count * (1 - behind / self.seconds)

    def has(self, amount: float, full_at: float, now: float) -> bool:
        """Whether so much is in it; a thousandth part of one makes no difference."""
        return self.left(full_at, now) > amount - 0.001

    def joined(self, before: float, here: float, there: float, now: float) -> float:
        """When it will be full, if two have taken of it at once.

        Args:
            before: when it would have been.
            here: when it is to one of them.
            there: when it is to the other.
            now: shortly after.
        """
        return min(max(there, now) + here - max(before, now), now + 2 * self.seconds)

    def take(self, amount: float, full_at: float, now: float) -> float:
        """Take something out, or put it back if it is less than 0.

        It may owe as much as it holds and no more: so what was taken at once, and a clock that was
        set back, keep nobody out for longer than twice its time.

        Returns:
            When it will be full.
        """
        full_at = min(max(full_at, now), now + 2 * self.seconds)
        return min(full_at + amount * self.seconds / self.count, now + 2 * self.seconds)
