"""Whose mail a route is for: the envelope senders that it names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from elemta.config import AddressPattern

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elemta.protocol import ReversePath

#: The null sender, as a pattern: reports, and other mail that nobody may answer.
NULL: Final = "<>"


class Senders(Struct, frozen=True):
    """Some senders.

    Attributes:
        patterns: of addresses.
        null: whether the null sender is among them.
    """

    patterns: tuple[AddressPattern, ...]
    null: bool

    @classmethod
    def of(cls, written: Sequence[str]) -> Senders:
        """Those that ``senders`` of a route names."""
        patterns = (AddressPattern.parse(each) for each in written if each != NULL)
        return cls(tuple(patterns), NULL in written)

    def __contains__(self, sender: ReversePath) -> bool:
        if sender is None:
            return self.null
        return any(sender in pattern for pattern in self.patterns)
