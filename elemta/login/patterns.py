"""Which addresses are somebody's, told by patterns: those of the configuration, and of plugins."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from elemta.config import AddressPattern

if TYPE_CHECKING:
    from collections.abc import Iterable

    from elemta.protocol import Mailbox

#: Patterns that are remembered as they were read: an account's are asked for with each message.
_REMEMBERED: Final = 10_000


def owns(patterns: Iterable[str], mailbox: Mailbox) -> bool:
    """Whether one of these patterns means a mailbox.

    Args:
        patterns: ``bob@example.org``, ``@example.org``, ``@*.example.org`` (all below it) or
            ``*``. What is none gives nobody anything: whoever reads them from a file, says so there
            (`elemta.config.AddressPattern.parse`).
        mailbox: as it is said; of a sub-address of ours the caller has taken the tag off.
    """
    return any((found := _read(each)) is not None and mailbox in found for each in patterns)


@lru_cache(_REMEMBERED)
def _read(text: str) -> AddressPattern | None:
    try:
        return AddressPattern.parse(text)
    except ValueError:
        return None
