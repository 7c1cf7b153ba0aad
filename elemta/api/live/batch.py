"""What is told at a time, made once for all who are told the same."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elemta.control.plain import Value

#: Anything that has a form in JSON.
encode: Final = msgspec.json.Encoder().encode


class Item(Struct, frozen=True):
    """One thing that happened.

    Attributes:
        number: of it; 0: such things have none.
        octets: of it in JSON.
    """

    number: int
    octets: bytes


def item(number: int, value: Value) -> Item:
    """Make it from what JSON is made of."""
    return Item(number, encode(value))


class Batch:
    """Items that are sent together. Its forms are made when they are first wanted, and kept.

    Args:
        items: in order; at least one.

    Attributes:
        count: how many they are.
        size: octets, roughly as they are sent.
        last: the greatest number; 0 if they have none.
    """

    def __init__(self, items: Sequence[Item]) -> None:
        self._items = tuple(items)
        self.count = len(self._items)
        self.size = sum(len(each.octets) for each in self._items) + self.count
        self.last = max(each.number for each in self._items)

    @cached_property
    def frame(self) -> str:
        """The text of a websocket's frame: a JSON array."""
        return (b"[" + b",".join(each.octets for each in self._items) + b"]").decode()

    @cached_property
    def stream(self) -> bytes:
        """Server-Sent Events, one for each item."""
        return b"".join(
            b"id: %d\ndata: %b\n\n" % (each.number, each.octets)
            if each.number
            else b"data: %b\n\n" % each.octets
            for each in self._items
        )
