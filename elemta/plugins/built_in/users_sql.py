"""Users in a database, SQLite or PostgreSQL, by a query of the administrator's.

What somebody calls himself is a parameter of the query, never part of its text. The database gives
hashes, and they are verified here: no password goes there. Of several rows each has one password:
that of his own, and those of single programs, which have a name in the column ``app``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Self

import msgspec
import trio
from msgspec import Meta
from typing_extensions import override

from elemta.config import AddressPattern, ConfigError, Mistake, Query, check, database_mistakes
from elemta.log import logger
from elemta.login import ScramVerifier, check_hash, costs, decoy, hash_app_password
from elemta.maps import SQLITE, MapDownError, database_of
from elemta.plugins import CONTINUE, Granted, Known, PluginWith
from elemta.plugins.built_in.elsewhere import LATER, Asked, DownError, Elsewhere, Said
from elemta.plugins.built_in.hashing import Hashing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from elemta.plugins import Session, Verdict
    from elemta.protocol import Credentials

log = logger(__name__)

_PARAMETERS: Final = ("user", "local_part", "domain")
_APP: Final = "sha256:"
#: Passwords of one user that are looked at, and those among them that cost something.
_ROWS: Final = 100
_OWN: Final = 3
_BETWEEN: Final = re.compile(r"[,\s]+")

_Row = Mapping[str, object]


class Settings(Asked, frozen=True, kw_only=True):
    """The ``settings`` of ``users-sql``."""

    #: Where the database is: ``sqlite:/PATH``, or ``postgresql://USER@HOST/NAME`` as libpq has it;
    #: its password stands in the file that ``passfile=`` names, or in ``$PGPASSFILE``.
    database: str
    #: What is asked; ``:user``, ``:local_part`` and ``:domain`` are what somebody calls himself.
    query: str
    #: Whether the query has a column ``scram``, so that programs may log in by SCRAM.
    scram: bool = False
    #: Passwords that are hashed at a time; each takes 19 MiB, or what its hash says.
    hashing: Annotated[int, Meta(ge=1, le=64)] = 2

    def __post_init__(self) -> None:
        self.check()
        for mistake in database_mistakes(self.database, "database"):
            raise ValueError(f"`database`: {mistake.problem}")
        if (path := self.path) is not None and not path.is_absolute():
            raise ValueError(f"`database`: expected a whole path, as in sqlite:/var/lib/{path}")
        try:
            _ = self.parsed_query
        except ValueError as error:
            raise ValueError(f"`query`: {error}") from None

    @property
    def path(self) -> Path | None:
        """Of SQLite's file; None: it is another database."""
        if not self.database.startswith(SQLITE):
            return None
        return Path(self.database.removeprefix(SQLITE))

    @property
    def parsed_query(self) -> Query:
        """See `query`.

        Raises:
            ValueError: it is none.
        """
        return Query.parse(self.query, _PARAMETERS)


class UsersSql(PluginWith[Settings]):
    """Knows users from a database, by a query that gives hashes of their passwords."""

    name = "users-sql"

    def __init__(self, settings: Settings, where: str = "") -> None:
        super().__init__(settings)
        self.idle = () if settings.scram else ("on_verifier",)
        self._database = database_of(
            settings.database, settings.parsed_query, float(settings.timeout), where
        )
        #: What the last hash cost: that of who is not there costs as much.
        self._like = ""

    @override
    @classmethod
    def configured(cls, settings: object, where: str) -> Self:
        return cls(check(settings, Settings, where), where)

    @override
    def examine(self, where: str) -> None:
        if (path := self.settings.path) is not None and not path.is_file():
            raise ConfigError(Mistake(f"{where}.database", f"there is no file {path}"))

    @override
    async def start(self) -> None:
        self._elsewhere = Elsewhere(self.settings, self.tools)
        self._hashing = Hashing(self.settings.hashing, self.tools)

    @override
    async def stop(self) -> None:
        await self.tools.in_thread(self._database.close)

    @override
    async def on_authenticate(
        self, session: Session, credentials: Credentials
    ) -> Granted | Verdict:
        return await self._elsewhere.judge(session, credentials, self._ask)

    @override
    async def on_account(self, session: Session) -> Verdict:
        async def look(name: str) -> frozenset[str] | None:
            rows = await self._rows(name)
            return frozenset(each for row in rows for each in _proofs(row)) if rows else None

        return await self._elsewhere.holds(session, look)

    @override
    async def on_verifier(self, session: Session, user: str) -> Known | Verdict:
        async def find(name: str) -> Known | None:
            for row in await self._rows(name):
                if isinstance(told := row.get("scram"), str) and told:
                    try:
                        return Known(ScramVerifier.parse(told), self._granted(row, name))
                    except ValueError as error:
                        raise DownError(f"{name}: {error}") from None
            return None

        found = await self._elsewhere.find(user, find)
        if isinstance(found, Known):
            proofs = frozenset((str(found.verifier),))
            self._elsewhere.note(session, user, found.granted.login, proofs)
        return LATER if found == "down" else found or CONTINUE

    async def _ask(self, name: str, password: str, proved: list[str]) -> Said:
        rows = await self._rows(name)
        app = hash_app_password(password)
        own: list[tuple[str, str, _Row]] = []
        for row in rows:
            kept = row["password"]
            if isinstance(kept, str) and kept.startswith(_APP):
                if kept == app:
                    proved.append(kept)
                    return self._granted(row, name)
            elif isinstance(kept, str) and kept:
                own.append((kept, _checked(kept, name), row))
        for written, kept, row in own[:_OWN]:
            self._like = kept if costs(kept) != costs(self._like) else self._like
            if await self._verify(kept, password):
                proved.append(written)
                return self._granted(row, name)
        if not own:
            like = self._like
            await self._verify(await self.tools.in_thread(lambda: decoy(like)), password)
        return "wrong" if rows else "unknown"

    async def _verify(self, kept: str, password: str) -> bool:
        try:
            return await self._hashing.verify(kept, password)
        except trio.TooSlowError:
            raise DownError("a hash takes too long") from None

    async def _rows(self, name: str) -> Sequence[_Row]:
        local_part, at, domain = name.rpartition("@")
        parameters = {
            "user": name,
            "local_part": local_part if at else name,
            "domain": domain if at else "",
        }
        try:
            found = await self.tools.in_thread(lambda: self._database.query(parameters))
        except MapDownError as error:
            raise DownError(str(error)) from error
        if found.rows and "password" not in found.names:
            raise DownError("the query has no column `password`")
        return [dict(zip(found.names, row, strict=True)) for row in found.rows[:_ROWS]]

    def _granted(self, row: _Row, name: str) -> Granted:
        login, app = row.get("login"), row.get("app")
        try:
            return Granted(
                str(login) if login is not None else name,
                tuple(self._addresses(row.get("addresses"))),
                str(app) if app is not None else "",
            )
        except ValueError as error:
            raise DownError(f"{name}: {error}") from None

    def _addresses(self, told: object) -> Sequence[str]:
        """Patterns: an array, or text with commas or spaces between them."""
        found: list[str] = []
        for text in _texts(told):
            try:
                AddressPattern.parse(text)
            except ValueError as error:
                log.warning("users.no_address", plugin=self.tools.name, error=str(error))
            else:
                found.append(text)
        return found


def _proofs(row: _Row) -> Iterator[str]:
    """What of a row somebody can have proved that he knows."""
    if isinstance(kept := row["password"], str):
        yield kept
    if isinstance(told := row.get("scram"), str) and told:
        with suppress(ValueError):
            yield str(ScramVerifier.parse(told))


def _texts(told: object) -> Sequence[str]:
    if told is None or isinstance(told, str):
        return list(filter(None, _BETWEEN.split(told or "")))
    try:
        return msgspec.convert(told, list[str])
    except msgspec.ValidationError:
        raise DownError("the column `addresses` has neither text nor an array of it") from None


def _checked(kept: str, name: str) -> str:
    try:
        return check_hash(kept)
    except ValueError as error:
        raise DownError(f"{name}: {error}") from None
