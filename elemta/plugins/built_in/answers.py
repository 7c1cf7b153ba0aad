"""What the answers of a DNS list mean (RFC 5782 §2.1, §2.3): which count, and how much."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_PART: Final = re.compile(r"(\*)|(\d{1,3})(?:-(\d{1,3}))?")
_MASK: Final = re.compile(r"&(\d{1,3})")

#: Of each of the four numbers, the least and the most.
_Ranges: TypeAlias = tuple[tuple[int, int], ...]

_LISTS: Final = ipaddress.IPv4Network("127.0.0.0/8")
#: By which lists say that they do not answer us: we ask too much, or through a public resolver.
_REFUSALS: Final = ipaddress.IPv4Network("127.255.255.0/24")
#: Never a listing (RFC 5782 §5), and of some lists a refusal; it counts where a list says so.
_NOTHING: Final = ipaddress.IPv4Address("127.0.0.1")


class Answers:
    """The answers of one list.

    Args:
        patterns: which count, and how much; none: all.
        weight: how much one counts if there are no patterns.

    Raises:
        ValueError: a pattern is none.
    """

    def __init__(self, patterns: Mapping[str, float], weight: float) -> None:
        self._weight = weight
        self._patterns = [(_parse(text), weight) for text, weight in patterns.items()]

    def judge(self, answers: Iterable[str]) -> tuple[float | None, list[str]]:
        """What a list means.

        Args:
            answers: the addresses that it gave.

        Returns:
            What the weightiest of them counts, None if none does; and those that no list that is
            well would give.
        """
        weights: list[float] = []
        odd: list[str] = []
        for text in answers:
            try:
                answer = ipaddress.IPv4Address(text)
            except ValueError:
                odd.append(text)
                continue
            counts = [weight for pattern, weight in self._patterns if _fits(pattern, answer)]
            if answer not in _LISTS or answer in _REFUSALS:
                odd.append(text)
            elif counts:
                weights += counts
            elif answer == _NOTHING:
                odd.append(text)
            elif not self._patterns:
                weights.append(self._weight)
        return max(weights, key=abs, default=None), odd


def _parse(text: str) -> _Ranges | int:
    if found := _MASK.fullmatch(text):
        mask = int(found[1])
        if 0 < mask < 256:
            return mask
    elif "/" in text:
        try:
            network = ipaddress.IPv4Network(text)
        except ValueError:
            pass
        else:
            least, most = network[0].packed, network[-1].packed
            return tuple(zip(least, most, strict=True))
    else:
        parts = [_PART.fullmatch(part) for part in text.split(".")]
        ranges = [_range(part) for part in parts if part is not None]
        if len(parts) == len(ranges) == 4 and all(0 <= a <= b < 256 for a, b in ranges):
            return tuple(ranges)
    example = "127.0.0.2, 127.0.0.2-11, 127.0.*.1-3, 127.0.0.0/28 or &4"
    raise ValueError(f"expected an answer such as {example}, not {text!r}")


def _range(part: re.Match[str]) -> tuple[int, int]:
    if part[1]:
        return 0, 255
    return int(part[2]), int(part[3] or part[2])


def _fits(pattern: _Ranges | int, answer: ipaddress.IPv4Address) -> bool:
    if isinstance(pattern, int):
        return bool(answer.packed[3] & pattern)
    return all(
        least <= number <= most
        for (least, most), number in zip(pattern, answer.packed, strict=True)
    )
