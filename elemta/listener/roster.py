"""Who is being served: asked to hurry when there are many, and to leave when we stop."""

from __future__ import annotations

from typing import Final, Protocol

from elemta.log import logger
from elemta.privileges import open_files

log = logger(__name__)

#: Parts of all places above which clients must hurry, and below which they need not any more.
#: Two of them, so that one client who comes and goes does not make all others hurry each time.
BUSY: Final = 0.8
CALM: Final = 0.7


def places(wanted: int, deliveries: int) -> int:
    """How many sessions there may be, given how many files this process may open.

    Args:
        wanted: sessions at a time.
        deliveries: that there may be besides.
    """
    files = open_files(wanted, deliveries)
    if files.connections < wanted:
        log.warning("sessions.limited", wanted=wanted, places=files.connections, files=files.limit)
    return files.connections


class DrainedError(Exception):
    """The server is shutting down, and the client is in the middle of nothing."""


class Guest(Protocol):
    """A session, as the roster sees it."""

    def hurry(self) -> None:
        """Wait less long for the client from now on."""
        ...

    def drain(self) -> None:
        """Raise `DrainedError` where the session only waits for the client to say something new.

        Sessions in the middle of a message look at `Roster.draining` when they have taken it.
        """
        ...


class Roster:
    """All sessions of all listeners.

    Attributes:
        places: how many there may be.
        busy: whether clients must hurry.
        draining: whether we are shutting down.
    """

    def __init__(self, places: int) -> None:
        self.places = places
        self.busy = False
        self.draining = False
        self._guests: set[Guest] = set()

    def __len__(self) -> int:
        return len(self._guests)

    @property
    def full(self) -> bool:
        """Whether there is no place left."""
        return len(self._guests) >= self.places

    def enter(self, guest: Guest) -> None:
        """Take somebody in. A guest that enters must `leave`."""
        self._guests.add(guest)
        if not self.busy and len(self._guests) > self.places * BUSY:
            self.busy = True
            log.warning("sessions.many", sessions=len(self._guests), places=self.places)
            for each in self._guests:
                each.hurry()

    def leave(self, guest: Guest) -> None:
        """Let somebody go."""
        self._guests.discard(guest)
        if self.busy and len(self._guests) < self.places * CALM:
            self.busy = False

    def drain(self) -> None:
        """Let sessions finish the message they are in the middle of, and no more."""
        self.draining = True
        for guest in list(self._guests):
            guest.drain()
