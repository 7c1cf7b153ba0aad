"""How much room the disk has left."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Reserve(Struct, frozen=True, kw_only=True):
    """What must stay free for mail to be taken in. All conditions hold.

    Attributes:
        octets: at least so many; or, on a small disk, `share` of it.
        share: of the disk.
        largest: octets of the largest message that is taken; half as much again must be free.
        inodes: the share of the file system's inodes; not asked where it does not count them.
    """

    octets: int = 2**30
    share: float = 0.1
    largest: int = 0
    inodes: float = 0.1


class Disk:
    """Asks the file system, once a second at most: a system call for each MAIL would be dear.

    Args:
        folder: on the disk in question.
        clock: seconds.
        reusable: octets that are free inside our own files.
    """

    def __init__(
        self,
        folder: Path,
        reserve: Reserve,
        clock: Callable[[], float],
        reusable: Callable[[], int],
        ask: Callable[[Path], os.statvfs_result] = os.statvfs,
    ) -> None:
        self._folder = folder
        self._reserve = reserve
        self._clock = clock
        self._reusable = reusable
        self._ask = ask
        self._asked = float("-inf")
        self._room = True

    def room(self) -> bool:
        """Whether new mail may be taken in. A file system that does not answer has no room."""
        now = self._clock()
        if not 0 <= now - self._asked < 1.0:
            self._asked = now
            try:
                self._room = self._enough(self._ask(self._folder))
            except OSError:
                self._room = False
        return self._room

    def _enough(self, found: os.statvfs_result) -> bool:
        reserve = self._reserve
        share = reserve.share * found.f_blocks * found.f_frsize
        wanted = max(min(reserve.octets, share), 1.5 * reserve.largest)
        free = found.f_bavail * found.f_frsize + self._reusable()
        return free >= wanted and found.f_favail >= reserve.inodes * found.f_files
