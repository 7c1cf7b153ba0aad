"""How it stands with a recipient that is ready: being tried, or behind whom."""

from __future__ import annotations

from msgspec import Struct


class Standing(Struct, frozen=True, kw_only=True):
    """Where a recipient is that is ready, and whose message is in memory.

    Attributes:
        lane: where it stands, or is being tried; ``domain:NAME`` if that is suspended.
        tried: a worker has it just now.
        ahead: messages that go before it there, as far as they are in memory.
        on_disk: it waits on disk for a place there.
    """

    lane: str
    tried: bool = False
    ahead: int = 0
    on_disk: bool = False
