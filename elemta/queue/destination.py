"""One destination as people see it."""

from __future__ import annotations

from msgspec import Struct


class Census(Struct, frozen=True, kw_only=True):
    """How many destinations there are, by how it stands with them, and what stands there.

    Attributes:
        destinations: by ``open``, ``parked``, ``suspended`` or ``throttled``.
        messages: that stand in those, or wait on disk for them, as far as they were found yet.
        workers: who are at work, or keep a connection, in all.
    """

    destinations: dict[str, int]
    messages: dict[str, int]
    workers: int


class Destination(Struct, frozen=True, kw_only=True):
    """How it stands with a lane that something waits in, or that is not as others are.

    Attributes:
        name: the lane's.
        ready: messages in memory that may be tried, or could be if it were open.
        on_disk: messages that wait for a place in memory, as far as they were found yet.
        workers: how many are at work there, or keep a connection.
        window: how many may be.
        parked_until: it did not answer and is left alone so long, seconds since the epoch.
        parks: how often in a row it did not answer.
        suspended: the scope of the suspension that stops it.
        throttled_until: its rates let nothing go before, seconds since the epoch.
        error: what was said last when an attempt failed; empty if none did.
    """

    name: str
    ready: int
    on_disk: int
    workers: int
    window: int
    parked_until: float | None
    parks: int
    suspended: str | None
    throttled_until: float | None
    error: str
