"""Moments and spans of time, and counts, in words for people."""

from __future__ import annotations

import time
from typing import Final

_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "min"))


def moment(at: float, now: float) -> str:
    """A moment, and how far away it is: ``2026-11-22 00:00:00 UTC (in 5 min)``."""
    written = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))
    away = f"in {span(at - now)}" if at > now else f"{span(now - at)} ago"
    return f"{written} ({away})"


def span(seconds: float) -> str:
    """A duration in its largest unit, cut: ``59 s``, ``4 min``, ``23 h``, ``5 d``."""
    for unit, name in _UNITS:
        if seconds >= unit:
            return f"{int(seconds // unit)} {name}"
    return f"{max(0, int(seconds))} s"


def counted(number: int, noun: str, nouns: str = "") -> str:
    """``1 message``, ``2 messages``; of an odd noun, `nouns` is its plural."""
    return f"{number} {noun}" if number == 1 else f"{number} {nouns or noun + 's'}"


def ordinal(number: int) -> str:
    """``1st``, ``2nd``, ``3rd``, ``4th``, ``11th``."""
    if number % 100 in (11, 12, 13):
        return f"{number}th"
    return f"{number}{('st', 'nd', 'rd')[number % 10 - 1] if number % 10 in (1, 2, 3) else 'th'}"
