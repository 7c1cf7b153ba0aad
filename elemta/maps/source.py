"""What a map is asked of, and what its answers look like."""

from __future__ import annotations

import re
from typing import Final, Protocol, TypeVar

#: Commas between values; one in quotes is part of a local part.
_VALUE: Final = re.compile(r'\s*((?:[^,"]|"(?:[^"\\]|\\.)*+"?)*+)')


T = TypeVar("T")


class MapDownError(Exception):
    """A map cannot be asked just now. What it would have said, nobody knows."""


class Source(Protocol):
    """Who is asked what is not in the cache."""

    async def find(self, key: str, *, exact: bool = False) -> tuple[str, ...] | None:
        """What is there for a key (lower case); None: it is not there.

        Args:
            key: an address, or any other name.
            exact: an address is not to be found by its local part alone.

        Raises:
            MapDownError: it cannot be asked. The caller has a deadline, too.
        """
        ...

    def close(self) -> None:
        """Keep nothing open any more. It may be asked all the same, by who has it still."""
        ...


def values_of(text: str) -> tuple[str, ...]:
    """Values with commas between them."""
    return tuple(value for found in _VALUE.findall(text) if (value := found.strip()))


def parts_of(key: str) -> tuple[str, str]:
    """The local part and the domain of an address; of a name without an ``@``, it and nothing."""
    local_part, at, domain = key.rpartition("@")
    return (local_part, domain) if at else (key, "")
