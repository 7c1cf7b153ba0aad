"""Users in a file of YAML, beside the configuration: see `elemta.login.users`.

The file is looked at when somebody logs in, once a second at the most, and read again when it has
changed; with a mistake in it, what was holds. Passwords are hashed in threads, few at a time, since
each takes its memory and a processor. Who is not in the file costs as much as who is and is wrong.

App passwords are looked for first, as that costs nothing. They are for PLAIN and LOGIN: SCRAM asks
for one verifier before it knows by which password somebody comes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import trio
from msgspec import Meta, Struct
from typing_extensions import override

from elemta.config import ConfigError, Mistake, Table
from elemta.files import Watched
from elemta.log import logger
from elemta.login import (
    Remembered,
    ScramVerifier,
    Usage,
    UserFile,
    UserFileError,
    check_hash,
    costs,
    decoy,
    hash_app_password,
    prepare_name,
    prepare_password,
    usage_name,
)
from elemta.plugins import CONTINUE, Defer, Granted, Known, PluginWith, Reject
from elemta.plugins.built_in.hashing import Hashing
from elemta.units import Seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from elemta.login import User
    from elemta.plugins import Session, Verdict
    from elemta.protocol import Credentials

log = logger(__name__)

T = TypeVar("T")

#: Seconds between two looks at the file.
LOOK: Final = 1.0
#: Seconds that the disk gets for one, before what was known goes on being believed.
LOOK_PATIENCE: Final = 1.0
#: Seconds that a password may wait for its turn and be hashed in; then somebody may come again.
PATIENCE: Final = 20.0
#: Seconds between two looks at whether a use is to be written down, and how old it is to be.
USAGE_EVERY: Final = 60.0
USAGE_AGE: Final = 3600.0

_UNKNOWN: Final = "is not in the file"
_WRONG: Final = "the password is wrong"
_DISABLED: Final = "the user is disabled"


class Settings(Table, frozen=True, kw_only=True):
    """The ``settings`` of ``users-file``."""

    #: The file of users; ``elemta user`` writes it.
    file: Path = Path("/etc/elemta/users.yaml")
    #: For how long a password that was right need not be hashed again; ``0 s``: each time.
    remember: Seconds = Seconds(300)
    #: Passwords that are hashed at a time; each takes 19 MiB, or what its hash says.
    hashing: Annotated[int, Meta(ge=1, le=64)] = 2
    #: Whether programs may log in by SCRAM; one that has the choice may then take no other way,
    #: and app passwords are for the other ways.
    scram: bool = True


class _Kept(Struct, frozen=True):
    """A user, ready to be asked about.

    Attributes:
        hash: in the form in which it is verified; None: he has app passwords only.
        apps: what he calls them, by their hashes.
    """

    granted: Granted
    hash: str | None
    scram: ScramVerifier | None
    apps: Mapping[str, str]
    disabled: bool

    @property
    def proofs(self) -> set[str]:
        """By what he can have logged in."""
        found = {*self.apps, self.hash or ""}
        return found if self.scram is None else found | {str(self.scram)}


class _Users(Struct, frozen=True):
    """All of them, by name.

    Attributes:
        like: what a hash costs that most have: that of who is not there costs as much.
    """

    by_name: Mapping[str, _Kept]
    like: str


class _Proved(Struct):
    """By what a client has logged in, or is about to: a hash, or a verifier.

    Attributes:
        plugin: who has let it in.
    """

    plugin: str = ""
    login: str = ""
    by: str = ""


class UsersFile(PluginWith[Settings]):
    """Knows users from a file, with passwords of their own and of their programs."""

    name = "users-file"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._file = UserFile(settings.file)
        self._known = Watched(
            (settings.file,),
            self._read,
            wrong=(UserFileError,),
            renewed=self._hear_renewed,
            refused=self._hear_refused,
        )
        self.idle = () if settings.scram else ("on_verifier", "on_disconnect")
        self._sure: Remembered[str] = Remembered(settings.remember, trio.current_time)
        self._used: dict[str, dict[str, float]] = {}
        self._written: dict[tuple[str, str], float] = {}

    # Its file.

    @override
    def examine(self, where: str) -> None:
        try:
            self._file.read()
        except UserFileError as error:
            raise ConfigError(Mistake(f"{where}.file", str(error))) from None

    @override
    async def start(self) -> None:
        self._hashing = Hashing(self.settings.hashing, self.tools)
        await self.tools.in_thread(self._known.begin)

    @override
    async def run(self) -> None:
        """Write down now and then who was here."""
        while True:
            await trio.sleep(USAGE_EVERY)
            await self._write_usage(USAGE_AGE)

    @override
    async def stop(self) -> None:
        await self._write_usage(0)

    async def _look(self) -> None:
        """See whether the file is another by now. Believes what it knew, if the disk is slow."""
        await self._known.fresh(LOOK, self.tools.in_thread, patience=LOOK_PATIENCE)

    def _hear_renewed(self, users: _Users, _problem: str) -> None:
        self.tools.count("read")
        log.info("users_file.read", plugin=self.tools.name, users=len(users.by_name))

    def _hear_refused(self, error: Exception) -> None:
        self.tools.count("not_read")
        log.error("users_file.not_read", plugin=self.tools.name, error=str(error))

    def _read(self) -> _Users:
        users = {name: _kept(name, user) for name, user in self._file.read().items()}
        hashes = {costs(each.hash): each.hash for each in users.values() if each.hash is not None}
        usual = Counter(costs(each.hash) for each in users.values() if each.hash is not None)
        like = hashes[usual.most_common(1)[0][0]] if usual else ""
        decoy(like)  # made now: it would take twice as long for the first who is not there
        return _Users(users, like)

    # Its answers.

    @override
    async def on_authenticate(
        self, session: Session, credentials: Credentials
    ) -> Granted | Verdict:
        await self._look()
        user = self._find(credentials.user)
        try:
            password = prepare_password(credentials.password)
        except ValueError:
            password = ""  # nobody's
        if user is not None and (app := user.apps.get(hash_app_password(password))) is not None:
            return self._granted(session, user, app)
        kept = user.hash if user is not None else None
        digest = _digest(kept or "")
        if user is not None and self._sure.recall(user.granted.login, password) == digest:
            return self._granted(session, user, "")
        try:
            with trio.fail_after(PATIENCE):
                right = await self._hashing.verify(
                    kept or decoy(self._known.content.like), password
                )
        except trio.TooSlowError:
            self.tools.count("too_busy")
            return Defer((3, 2), "try again later", note="too many passwords are being hashed")
        if user is None:
            self.tools.count("unknown")
            return CONTINUE
        if kept is None or not right or not password:
            self.tools.count("wrong")
            return Reject((7, 8), "authentication failed", note=_WRONG)
        if not user.disabled:
            self._sure.keep(digest, user.granted.login, password)
        return self._granted(session, user, "")

    @override
    async def on_verifier(self, session: Session, user: str) -> Known | Verdict:
        await self._look()
        found = self._find(user)
        if found is None or found.scram is None:
            return CONTINUE
        if found.disabled:
            return _disabled()
        self._note(session, found, str(found.scram))
        return Known(found.scram, found.granted)

    @override
    async def on_account(self, session: Session) -> Verdict:
        proved = session.kept.of(_Proved)
        if proved.plugin != self.tools.name or proved.login != session.login:
            return CONTINUE  # another plugin knows him
        await self._look()
        user = self._find(proved.login)
        if user is None:
            return _ended("is not in the file any more")
        if user.disabled:
            return _ended(_DISABLED)
        if proved.by not in user.proofs:
            return _ended("has another password by now")
        session.addresses = user.granted.addresses
        return CONTINUE

    def _note(self, session: Session, user: _Kept, by: str) -> None:
        proved = session.kept.of(_Proved)
        proved.plugin, proved.login, proved.by = self.tools.name, user.granted.login, by

    @override
    async def on_disconnect(self, session: Session) -> None:
        # By SCRAM somebody proves himself to the listener: here only his verifier was asked for.
        if (login := session.login) is not None and login in self._known.content.by_name:
            self._used.setdefault(login, {})[session.app] = self.tools.clock()

    def _find(self, name: str) -> _Kept | None:
        try:
            return self._known.content.by_name.get(prepare_name(name))
        except ValueError:
            return None

    def _granted(self, session: Session, user: _Kept, app: str) -> Granted | Verdict:
        if user.disabled:
            self.tools.count("disabled")
            return _disabled()
        login, addresses = user.granted.login, user.granted.addresses
        self._used.setdefault(login, {})[app] = self.tools.clock()
        by = next(each for each, name in user.apps.items() if name == app) if app else user.hash
        self._note(session, user, by or "")
        self.tools.count("granted_app" if app else "granted")
        return Granted(login, addresses, app) if app else user.granted

    # When they were here.

    async def _write_usage(self, age: float) -> None:
        """Write down what was last written down so long ago."""
        due = {
            user: {
                app: at
                for app, at in apps.items()
                if at - self._written.get((user, app), 0.0) >= age
            }
            for user, apps in self._used.items()
        }
        due = {user: apps for user, apps in due.items() if apps}
        if not due:
            return
        try:
            usage = Usage(self.tools.folder / usage_name(self.settings.file))
            await self._in_thread(lambda: usage.add(due))
        except (OSError, trio.TooSlowError) as error:  # of no weight, and its turn comes again
            log.info("users_file.use_not_saved", plugin=self.tools.name, error=str(error))
            return
        for user, apps in due.items():
            for app, at in apps.items():
                self._written[user, app] = at
                if self._used[user].get(app) == at:
                    del self._used[user][app]
        self._used = {user: apps for user, apps in self._used.items() if apps}

    async def _in_thread(self, call: Callable[[], T]) -> T:
        with trio.fail_after(LOOK_PATIENCE):
            return await self.tools.in_thread(call)


def _kept(name: str, user: User) -> _Kept:
    return _Kept(
        Granted(name, tuple(user.addresses)),
        None if user.password is None else check_hash(user.password),
        None if user.scram is None else ScramVerifier.parse(user.scram),
        {each.password: app for app, each in user.apps.items()},
        user.disabled,
    )


def _digest(text: str) -> str:
    """Which hash it was that a password was held against."""
    return hashlib.sha256(text.encode()).hexdigest()


def _disabled() -> Reject:
    # The listener tells nobody but our log: who guesses does not learn whom there is.
    return Reject((7, 13), "authentication failed", note=_DISABLED)


def _ended(why: str) -> Reject:
    return Reject((7, 13), "the login is over", note=why)
