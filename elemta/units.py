"""Quantities that know their unit, and how people write them."""

from __future__ import annotations

import re
from typing import Final, Self


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


def _quantity(text: str, units: dict[str, float]) -> float:
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,15})?) ?([A-Za-z]+)", text)
    if found is None or found[2] not in units:
        raise ValueError(f"expected a number and one of {', '.join(units)}, not {text!r}")
    return float(found[1]) * units[found[2]]
