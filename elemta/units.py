"""Quantities that know their unit, and how people write them."""

from __future__ import annotations

import re
from typing import Final, Self

from typing_extensions import override


class Seconds(float):
    """A duration in seconds; written ``90 s``, ``5 min``, ``4 h`` or ``5 d``."""

    UNITS: Final = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a duration.

        Raises:
            ValueError: no number, no unit, or neither.
        """
        return cls(_quantity(text, cls.UNITS))

    @property
    def written(self) -> str:
        """As people write it, in the largest unit of which it is a whole number."""
        for unit in ("d", "h", "min", "s", "ms"):
            count = self / self.UNITS[unit]
            if self and count.is_integer():
                return f"{count:.0f} {unit}"
        return f"{float(self):.15f}".rstrip("0").rstrip(".") + " s"


class Octets(int):
    """A size in octets; written ``512 B``, ``64 KiB``, ``50 MiB`` or ``2 GiB``."""

    UNITS: Final = {"B": 1.0, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a size.

        Raises:
            ValueError: no number, no unit, or neither.
        """
        return cls(_quantity(text, cls.UNITS))

    @property
    def written(self) -> str:
        """As people write it, in the largest unit of which it is a whole number."""
        for unit in ("GiB", "MiB", "KiB"):
            if self and self % int(self.UNITS[unit]) == 0:
                return f"{self // int(self.UNITS[unit])} {unit}"
        return f"{int(self)} B"


class Frequency:
    """So many in a time, and no more; written ``100/h``, ``100/1 h`` or ``5/10 s``.

    Attributes:
        count: how many, at least one.
        seconds: in which time.
    """

    __slots__ = ("count", "seconds")

    def __init__(self, count: int, seconds: Seconds) -> None:
        self.count = count
        self.seconds = seconds

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a frequency.

        Raises:
            ValueError: it is none, or of nothing, or in no time.
        """
        found = re.fullmatch(r"([0-9]{1,9}) ?/ ?(.+)", text)
        if found is None:
            raise ValueError(f"expected a number, / and a time, as in 100/1 h, not {text!r}")
        time = found[2] if found[2][0].isdigit() else f"1 {found[2]}"
        count, seconds = int(found[1]), Seconds.parse(time)
        if not (count and seconds):
            raise ValueError(f"expected at least one, in more than no time, not {text!r}")
        return cls(count, seconds)

    @property
    def written(self) -> str:
        """As people write it, with its unit of time."""
        return f"{self.count}/{self.seconds.written}"

    @override
    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Frequency):
            return NotImplemented
        return (self.count, self.seconds) == (other.count, other.seconds)

    @override
    def __hash__(self) -> int:
        return hash((self.count, self.seconds))

    @override
    def __str__(self) -> str:
        return f"{self.count}/{self.seconds:g} s"

    @override
    def __repr__(self) -> str:
        return f"Frequency({self.count!r}, {self.seconds!r})"


def _quantity(text: str, units: dict[str, float]) -> float:
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,15})?) ?([A-Za-z]+)", text)
    if found is None or found[2] not in units:
        raise ValueError(f"expected a number and one of {', '.join(units)}, not {text!r}")
    return float(found[1]) * units[found[2]]
