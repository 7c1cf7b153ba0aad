"""The tables of the configuration file for what is looked up elsewhere, and for forwarding."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from elemta.config.queries import Query
from elemta.config.table import Count, Table
from elemta.units import Seconds

#: What a map may be asked with.
MAP_PARAMETERS: Final = ("key", "local_part", "domain")


class Map(Table, frozen=True, kw_only=True):
    """An entry of ``maps``, by its name: a table of names to others. One of the first three."""

    #: A file with a key and its values on each line. Relative to the directory of this file.
    file: Path | None = None
    #: ``sqlite:PATH``, or ``postgresql://USER@HOST/NAME`` as libpq has it.
    database: str | None = None
    #: Where to ask by GET; ``{key}``, ``{local_part}`` and ``{domain}`` in it are replaced.
    http: str | None = None
    #: What `database` is asked, with ``:key``, ``:local_part`` or ``:domain`` in it.
    query: str | None = None
    #: How long one answer may take.
    timeout: Seconds = Seconds(5)
    #: How long an answer of `database` or `http` is remembered.
    ttl: Seconds = Seconds(60)
    #: How long it is remembered that something is not there.
    negative_ttl: Seconds = Seconds(10)
    #: How long after that an answer still counts while the map is down; then mail is put off.
    stale: Seconds = Seconds(0)
    #: Answers that are remembered.
    entries: Count = 10_000

    @property
    def parsed_query(self) -> Query | None:
        """`query`, parsed."""
        return None if self.query is None else Query.parse(self.query, MAP_PARAMETERS)


class Forwarding(Table, frozen=True, kw_only=True):
    """``forwarding``: how mail goes on that comes by an alias which leads elsewhere."""

    #: One of `domains` that senders elsewhere are rewritten to (SRS), so that SPF lets them pass.
    #: None: they stay as they are.
    srs: str | None = None
    #: A file with a secret on each line, 16 octets or more; not for others to read. The first makes
    #: addresses, all of them check. Relative to the directory of this file.
    secret_file: Path | None = None
