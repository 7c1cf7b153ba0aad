"""What is wrong with an entry of ``maps``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlsplit

from elemta.config.source import Mistake
from elemta.config.targets import OF_MX
from elemta.config.web import WebAddress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from elemta.config.maps import Map
    from elemta.config.schema import Config

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
#: What is no name of a route, since it stands for a target.
_TAKEN: Final = ("maildir", "discard", OF_MX)
_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
#: What libpq takes in an URL beside the part before the host, where nobody would mask it.
_SECRETS: Final = ("password", "sslpassword")


def map_mistakes(name: str, table: Map) -> Iterator[Mistake]:
    """Everything that is wrong with a map whose types are right."""
    at = f"maps.{name}"
    if not _NAME.fullmatch(name):
        problem = "expected a name of letters, digits, dots, dashes and underscores"
        yield Mistake("maps", f"{problem}, not {name!r}")
        return
    given = [key for key in ("file", "database", "http") if getattr(table, key) is not None]
    if len(given) != 1:
        yield Mistake(at, f"expected one of file, database and http, not {len(given)}")
    if table.timeout <= 0:
        yield Mistake(f"{at}.timeout", "expected more than 0 s")
    if (table.query is None) != (table.database is None):
        there, missing = ("query", "database") if table.query else ("database", "query")
        yield Mistake(f"{at}.{there}", f"expected `{missing}` too")
    if table.query is not None:
        try:
            _ = table.parsed_query
        except ValueError as error:
            yield Mistake(f"{at}.query", str(error))
    if table.database is not None:
        yield from database_mistakes(table.database, f"{at}.database")
    if table.http is not None:
        yield from _http(table.http, f"{at}.http")


def named_map_mistakes(config: Config) -> Iterator[Mistake]:
    """Wherever a map is named: that there is one, and that nothing beside it contradicts it."""
    named = [("relay.domain_map", config.relay.domain_map)]
    for index, domain in enumerate(config.domains):
        at = f"domains[{index}]"
        named += [
            (f"{at}.mailbox_map", domain.mailbox_map),
            (f"{at}.alias_map", domain.alias_map),
            (f"{at}.deliver_map", domain.deliver_map),
        ]
    for index, route in enumerate(config.routes):
        at = f"routes[{index}]"
        named.append((f"{at}.map", route.map))
        if route.map is not None and route.via:
            yield Mistake(f"{at}.map", "expected no `via` beside it: the map says where to")
        if route.map is not None and route.name is not None:
            yield Mistake(f"{at}.map", "expected no `name` beside it: no map leads to another")
        if route.name in _TAKEN:
            yield Mistake(f"{at}.name", f"{route.name} means something else in a map")
    for at, wanted in named:
        if wanted is not None and wanted not in config.maps:
            yield Mistake(at, f"there is no such map: {wanted!r}")


def forwarding_mistakes(config: Config) -> Iterator[Mistake]:
    """What is wrong with ``forwarding``."""
    srs, secret_file = config.forwarding.srs, config.forwarding.secret_file
    if (srs is None) != (secret_file is None):
        there, missing = ("secret_file", "srs") if srs is None else ("srs", "secret_file")
        yield Mistake(f"forwarding.{there}", f"expected `{missing}` too")
    if srs is not None and srs.lower() not in {each.name.lower() for each in config.domains}:
        problem = f"expected one of `domains`, as reports come there, not {srs!r}"
        yield Mistake("forwarding.srs", problem)


def database_mistakes(text: str, at: str) -> Iterator[Mistake]:
    """Everything that is wrong with what says where a database is.

    Args:
        text: ``sqlite:PATH``, or an URL of libpq.
        at: its place in the file.
    """
    scheme, colon, rest = text.partition(":")
    if scheme == "sqlite" and rest:
        return
    if scheme not in ("postgresql", "postgres") or not rest.startswith("//") or not colon:
        yield Mistake(at, "expected sqlite:PATH or postgresql://USER@HOST/NAME")
        return
    for key in parse_qs(urlsplit(text).query):
        if key.lower() in _SECRETS:
            problem = f"expected no {key} behind the ?, where it would be shown: use passfile"
            yield Mistake(at, problem)


def _http(text: str, at: str) -> Iterator[Mistake]:
    try:
        WebAddress.parse(text)
    except ValueError as error:
        yield Mistake(at, str(error))
        return
    for name in _PLACEHOLDER.findall(text):
        if name not in ("key", "local_part", "domain"):
            problem = f"expected one of {{key}}, {{local_part}} and {{domain}}, not {{{name}}}"
            yield Mistake(at, problem)
