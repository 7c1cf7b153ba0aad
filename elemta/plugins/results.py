"""What plugins found out, for those that come after them; and what one keeps for itself.

Both are found by their type, so whoever reads a result knows what is in it::

    transaction.results.add(Spf(result="pass", ...))
    spf = transaction.results.first(Spf)
"""

from __future__ import annotations

from typing import TypeVar

from msgspec import Struct
from typing_extensions import override

R = TypeVar("R", bound=Struct)
T = TypeVar("T")


class Allowed(Struct, frozen=True):
    """Somebody vouches for a client: plugins that only guess at spam leave it alone.

    Attributes:
        by: who, e.g. ``allow-deny``.
    """

    by: str

    @override
    def __str__(self) -> str:
        """For the timeline."""
        return f"allowed by {self.by}"


class Results:
    """Results in the order in which they were added.

    Args:
        beneath: those of the session, which each of its messages has, too.
    """

    __slots__ = ("_beneath", "_found")

    def __init__(self, beneath: Results | None = None) -> None:
        self._beneath = beneath
        self._found: list[tuple[str, Struct]] = []

    def add(self, result: Struct, plugin: str = "") -> None:
        """One more; its ``str()`` is what the timeline says of it, if it has one of its own.

        Args:
            result: what was found out.
            plugin: who did.
        """
        self._found.append((plugin, result))

    def of(self, kind: type[R]) -> tuple[R, ...]:
        """All of this type; those of the session first."""
        own = tuple(each for _, each in self._found if isinstance(each, kind))
        return own if self._beneath is None else (*self._beneath.of(kind), *own)

    def first(self, kind: type[R]) -> R | None:
        """The first of this type, or None."""
        found = None if self._beneath is None else self._beneath.first(kind)
        if found is not None:
            return found
        for _, each in self._found:
            if isinstance(each, kind):
                return each
        return None

    def told(self) -> list[tuple[str, str]]:
        """All that have something to say, the session's first: which plugin's, and what."""
        beneath = [] if self._beneath is None else self._beneath.told()
        return beneath + [
            (plugin, _said(result))
            for plugin, result in self._found
            if type(result).__str__ is not object.__str__
        ]


def _said(result: Struct) -> str:
    try:
        return str(result)
    except Exception as error:  # a third party's: it must not cost a message
        return f"{type(result).__name__}, which cannot be told: {type(error).__name__}"


class Store:
    """What plugins keep with a session or a message, one of each type."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[type, object] = {}

    def of(self, kind: type[T]) -> T:
        """The one of this type, made by calling it the first time."""
        found = self._kept.get(kind)
        if not isinstance(found, kind):
            found = self._kept[kind] = kind()
        return found
