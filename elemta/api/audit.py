"""Who changed what: a line of JSON each, in a file that nothing is ever taken out of.

The rules of this file:

- Whoever notes something waits for nothing. A disk that is slow, full or dead costs lines, which
  are counted; each is in the log, too.
- No secret gets in: what looks like a token is masked, whoever notes it.
- Nobody whom we do not know can push out what others did: of strangers only so much is kept.
"""

from __future__ import annotations

import os
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
import trio
from msgspec import Struct

from elemta.api.threads import in_thread
from elemta.api.tokens import masked
from elemta.log import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from elemta.api.threads import InThread
    from elemta.api.visit import Caller, Visit

log = logger(__name__)

#: Octets of the file, before it becomes ``audit.log.1``; and how many of those are kept.
SIZE: Final = 10 * 2**20
KEPT: Final = 9
#: Lines that wait for the disk.
WAITING: Final = 10_000
#: Lines that are known without looking into the file.
REMEMBERED: Final = 1000
#: Characters of what is told of a request.
TOLD: Final = 2000
#: Lines about strangers within `STRANGERS_TIME` seconds; what is beyond is only counted.
STRANGERS: Final = 100
STRANGERS_TIME: Final = 60.0
#: Seconds that lines are gathered for; and that the disk gets for them once we are to stop.
GATHER: Final = 0.2
LAST: Final = 1.0


class Noted(Struct, frozen=True, kw_only=True):
    """A change, a look into somebody's mail, or a login.

    Attributes:
        at: seconds since the epoch.
        who: e.g. ``token:monitoring``; empty: nobody that we know.
        client: the IP address that they came from.
        method: of HTTP; `WEBSOCKET` for a websocket.
        path: of the request.
        status: how it ended.
        told: what it was about.
    """

    at: float
    who: str
    client: str
    method: str
    path: str
    status: int
    told: str = ""


_encode: Final = msgspec.json.Encoder().encode
_noted: Final = msgspec.json.Decoder(Noted)


class AuditLog:
    """Remembers who changed what; see `Audit`.

    Args:
        folder: where ``audit.log`` is, or will be.
        clock: seconds since the epoch.
        size: octets of the file.
        in_thread: where the disk is waited for.

    Attributes:
        lost: lines that are not in the file.
    """

    def __init__(
        self,
        folder: Path,
        clock: Callable[[], float],
        size: int = SIZE,
        in_thread: InThread = in_thread,
    ) -> None:
        self.path = folder / "audit.log"
        self.lost = 0
        self._clock = clock
        self._size = size
        self._run = in_thread
        self._last: deque[Noted] = deque(maxlen=REMEMBERED)
        self._waiting: deque[Noted] = deque(maxlen=WAITING)
        self._news = trio.Event()
        self._failing = False
        self._strangers = 0
        self._strangers_since = 0.0
        self._disk = trio.CapacityLimiter(1)

    def note(self, caller: Caller | None, visit: Visit, status: int, told: str = "") -> None:
        """See `Audit`."""
        if caller is None and not self._heed_stranger():
            return
        noted = Noted(
            at=self._clock(),
            who=caller.who if caller is not None else "",
            client=visit.client,
            method=visit.method,
            path=masked(visit.path)[:TOLD],
            status=status,
            told=masked(told)[:TOLD],
        )
        log.info(
            "api.audit",
            who=noted.who,
            client=noted.client,
            method=noted.method,
            path=noted.path,
            status=status,
            told=noted.told,
        )
        self._last.append(noted)
        if len(self._waiting) == WAITING:
            self.lost += 1
        self._waiting.append(noted)
        self._news.set()

    def _heed_stranger(self) -> bool:
        """Whether one more is kept of those whom we do not know."""
        now = self._clock()
        if not 0 <= now - self._strangers_since < STRANGERS_TIME:
            if self._strangers > STRANGERS:
                log.warning("api.strangers", left_out=self._strangers - STRANGERS)
            self._strangers, self._strangers_since = 0, now
        self._strangers += 1
        return self._strangers <= STRANGERS

    def last(self, limit: int) -> list[Noted]:
        """The newest first."""
        return list(self._last)[: -limit - 1 : -1]

    async def run(self) -> None:
        """Write what is noted, until cancelled; what has been noted by then is written, too."""
        try:
            await self._remember()
            while True:
                await self._news.wait()
                await trio.sleep(GATHER)
                await self._flush()
        finally:
            with trio.move_on_after(LAST) as scope:
                scope.shield = True  # a shield has a deadline
                await self._flush()

    async def _remember(self) -> None:
        """Know what was noted before we were started."""
        before = await self._run(partial(_tail, self.path), self._disk)
        since = list(self._last)
        self._last.clear()
        self._last.extend([*before, *since])

    async def _flush(self) -> None:
        self._news = trio.Event()
        lines = list(self._waiting)
        self._waiting.clear()
        if not lines:
            return
        try:
            await self._run(partial(_append, self.path, lines, self._size), self._disk)
            self._failing = False
        except OSError as error:
            self.lost += len(lines)
            if not self._failing:
                log.warning("api.audit_not_written", error=str(error), lost=self.lost)
            self._failing = True


def _append(path: Path, lines: Sequence[Noted], size: int) -> None:
    """Write lines, durably; into a new file if this one is full."""
    octets = b"".join(_encode(line) + b"\n" for line in lines)
    if path.exists() and path.stat().st_size + len(octets) > size:
        for number in range(KEPT - 1, 0, -1):
            older = path.with_name(f"{path.name}.{number}")
            if older.exists():
                older.replace(path.with_name(f"{path.name}.{number + 1}"))
        path.replace(path.with_name(f"{path.name}.1"))
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    with os.fdopen(descriptor, "ab") as out:
        out.write(octets)
        out.flush()
        os.fsync(descriptor)


def _tail(path: Path) -> list[Noted]:
    """The last lines; a line that was written in part is left out."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - REMEMBERED * 512))
            lines = file.read().splitlines()[-REMEMBERED:]
    except OSError:
        return []
    found: list[Noted] = []
    for line in lines:
        try:
            found.append(_noted.decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
    return found
