"""What somebody at the keys wants: each key changes what is shown, or asks for something."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    from elemta.queue import Destination

#: Lines that a page of the list has.
PAGE: Final = 10


class Suspend(Struct, frozen=True):
    """Send nothing there."""

    name: str


class Resume(Struct, frozen=True):
    """End the suspension of this scope."""

    scope: str


class Flush(Struct, frozen=True):
    """Try all that waits there, now."""

    name: str


class Quit(Struct, frozen=True):
    """Enough."""


#: What is asked of the server.
Deed: TypeAlias = Suspend | Resume | Flush
#: What a key may come to.
Wish: TypeAlias = Deed | Quit


class Mode(enum.Enum):
    """What the next key means."""

    #: What the help says.
    LOOKING = enum.auto()
    #: It is part of the filter.
    FILTERING = enum.auto()
    #: Whether the deed is to be done.
    CONFIRMING = enum.auto()
    #: Any key ends the help.
    HELP = enum.auto()


class Wishes:
    """What is wanted so far.

    Attributes:
        mode: what the next key means.
        filter: what events must have in them.
        typed: the filter that is being entered.
        deed: that waits to be confirmed.
        paused: what is shown stays as it is.
        selected: the name of a destination; None: the first.
        said: what came of the last deed, or why there is none.
    """

    def __init__(self) -> None:
        self.mode = Mode.LOOKING
        self.filter = ""
        self.typed = ""
        self.deed: Deed | None = None
        self.paused = False
        self.selected: str | None = None
        self.said = ""

    def position(self, destinations: list[Destination]) -> int:
        """Where the selected destination stands; the first place if it is no longer there."""
        for number, each in enumerate(destinations):
            if each.name == self.selected:
                return number
        return 0

    def press(self, key: str, destinations: list[Destination]) -> Wish | None:
        """A key; gives what is to be done now."""
        match self.mode:
            case Mode.LOOKING:
                return self._look(key, destinations)
            case Mode.FILTERING:
                self._type(key)
            case Mode.CONFIRMING:
                return self._confirm(key)
            case Mode.HELP:
                self.mode = Mode.LOOKING
        return None

    def question(self) -> str:
        """What is asked before a deed is done."""
        match self.deed:
            case Suspend(name=name):
                return f"send nothing to {name}, until it is resumed?"
            case Resume(scope=scope):
                return f"send to {scope} again?"
            case Flush(name=name):
                return f"try all that waits for {name}, now?"
            case None:
                return ""

    def _look(self, key: str, destinations: list[Destination]) -> Wish | None:
        self.said = ""
        match key:
            case "q" | "Q":
                return Quit()
            case "p" | " ":
                self.paused = not self.paused
            case "/":
                self.mode, self.typed = Mode.FILTERING, self.filter
            case "escape":
                self.filter = ""
            case "h" | "?":
                self.mode = Mode.HELP
            case "s" | "r" | "f":
                self._ask(key, destinations)
            case _:
                self._move(key, destinations)
        return None

    def _move(self, key: str, destinations: list[Destination]) -> None:
        last = len(destinations) - 1
        here = self.position(destinations)
        steps = {
            "up": -1, "k": -1, "down": 1, "j": 1, "page up": -PAGE, "page down": PAGE,
            "home": -here, "end": last - here,
        }  # fmt: skip
        if key in steps and destinations:
            self.selected = destinations[min(max(here + steps[key], 0), last)].name

    def _ask(self, key: str, destinations: list[Destination]) -> None:
        if not destinations:
            self.said = "there is no destination to do that to"
            return
        meant = destinations[self.position(destinations)]
        self.selected = meant.name  # it may move in the list while we ask
        if key == "s":
            self.deed = Suspend(meant.name)
        elif key == "f":
            self.deed = Flush(meant.name)
        elif meant.suspended is None:
            self.said = f"{meant.name} is not suspended"
            return
        else:
            self.deed = Resume(meant.suspended)
        self.mode = Mode.CONFIRMING

    def _confirm(self, key: str) -> Wish | None:
        deed, self.deed, self.mode = self.deed, None, Mode.LOOKING
        if key in ("y", "Y"):
            return deed
        self.said = "nothing was done"
        return None

    def _type(self, key: str) -> None:
        match key:
            case "enter":
                self.filter, self.mode = self.typed, Mode.LOOKING
            case "escape":
                self.mode = Mode.LOOKING
            case "backspace":
                self.typed = self.typed[:-1]
            case _ if len(key) == 1:
                self.typed += key
            case _:  # other keys are no part of a text
                pass
