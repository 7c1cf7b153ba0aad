"""What every part of the API is given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import trio
from msgspec import Struct, field

from elemta.api.visit import Access, Audit
from elemta.control.interface import Control


class Site(Struct, frozen=True, kw_only=True, eq=False):
    """A server, as the API shows it.

    Attributes:
        steered_by: the server, as somebody steers it.
        access: who may come in.
        audit: remembers who changed what.
        clock: seconds since the epoch.
        inbox: the Maildirs of the sandbox; None: it is no sandbox, and there is no inbox.
        stopping: set when the API is to end: what never ends by itself ends then.
    """

    steered_by: Callable[[str], Control]
    access: Access
    audit: Audit
    clock: Callable[[], float]
    inbox: Path | None = None
    stopping: trio.Event = field(default_factory=trio.Event)
