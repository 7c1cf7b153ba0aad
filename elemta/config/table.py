"""What all tables of the configuration file have in common."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

#: A number of things of which there is at least one.
Count = Annotated[int, Meta(ge=1)]


class Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every table of the file."""
