"""Users in a file of YAML, which people edit and ``elemta user`` writes; the server only reads it.

The rules of this file:

- What is kept of a password is a hash, and beside it a verifier for SCRAM.
- It is replaced as a whole: who reads it sees it as it was, or as it is. Who changes it holds a
  lock on its folder, so that two commands at a time lose nothing.
- Nobody but its owner may write to it, and not everybody may read it: else it is refused. So is
  what is no user, with the line on which it stands.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
import yaml
from msgspec import field
from typing_extensions import override

from elemta.config import AddressPattern, ConfigError, Mistake, Table, check, load_table
from elemta.files import TooLargeError, read_file, replace_file
from elemta.login.hashes import check_app_hash, check_hash
from elemta.login.preparing import prepare_name
from elemta.login.scram import ScramVerifier

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

#: Octets of a file that is read: some hundred thousand users.
_LARGEST: Final = 64 * 2**20
#: What an app password may be called: it stands in the log, and with all that is sent by it.
_APP: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@ -]{0,62}")
_HEAD: Final = (
    "# Users. Written by `elemta user`, and may be edited; comments stay at the top only.\n"
)

T = TypeVar("T")


class App(Table, frozen=True, kw_only=True):
    """An entry of a user's ``apps``: a password of its own for one program.

    Attributes:
        password: see `hash_app_password`.
        created: seconds since the epoch.
    """

    password: str
    created: float = 0

    def __post_init__(self) -> None:
        check_app_hash(self.password)

    @override
    def __repr__(self) -> str:
        """Without what is secret: what is shown may be logged."""
        return "App(...)"


class User(Table, frozen=True, kw_only=True):
    """An entry of ``users``.

    Attributes:
        password: a hash of it; see `check_hash`. None: he has app passwords only.
        scram: see `ScramVerifier`; None: he cannot log in by SCRAM.
        addresses: what he may send as beside his name, if that is an address; see
            `elemta.config.AddressPattern`.
        apps: by what he calls them.
        disabled: he cannot log in.
    """

    password: str | None = None
    scram: str | None = None
    addresses: list[str] = field(default_factory=list[str])
    apps: dict[str, App] = field(default_factory=dict[str, App])
    disabled: bool = False

    def __post_init__(self) -> None:
        if self.password is not None:
            check_hash(self.password)
        if self.scram is not None:
            ScramVerifier.parse(self.scram)
        for each in self.addresses:
            AddressPattern.parse(each)
        for name in self.apps:
            check_app_name(name)

    @override
    def __repr__(self) -> str:
        """Without what is secret: what is shown may be logged."""
        return f"User(addresses={self.addresses!r}, apps={list(self.apps)!r})"


class Users(Table, frozen=True, kw_only=True):
    """All of the file."""

    #: By name, as `prepare_name` has it.
    users: dict[str, User] = field(default_factory=dict[str, User])


# Made before any thread asks: two that convert the first of a kind at once end the process.
check({}, Users)


class UserFileError(Exception):
    """The file cannot be read, written or used; the message says where and why, a line a mistake.

    Attributes:
        denied: only because of who we are.
    """

    def __init__(self, message: str, *, denied: bool = False) -> None:
        super().__init__(message)
        self.denied = denied


def check_app_name(text: str) -> None:
    """See that it can be what somebody calls an app password.

    Raises:
        ValueError: it cannot.
    """
    if not _APP.fullmatch(text):
        raise ValueError(
            f"expected a name of letters, digits, dots, dashes and spaces, not {text!r}"
        )


class UserFile:
    """The file of users.

    Args:
        path: of it.
        group: who may read it beside its owner, if it is made anew; None: nobody. So a server can
            read what it cannot change.
    """

    def __init__(self, path: Path, group: int | None = None) -> None:
        self.path = path
        self._group = group

    def read(self) -> dict[str, User]:
        """Its users, by name.

        Raises:
            UserFileError: the disk, who may read or write it, or what is in it.
        """
        return self._read()[0]

    def _read(self) -> tuple[dict[str, User], str]:
        try:
            file = read_file(self.path, _LARGEST)
        except TooLargeError:
            raise UserFileError(f"{self.path}: is larger than {_LARGEST // 2**20} MiB") from None
        except OSError as error:
            raise self._trouble(error) from error
        mode = stat.S_IMODE(file.mode)
        if mode & (stat.S_IWGRP | stat.S_IWOTH | stat.S_IROTH):
            raise UserFileError(
                f"{self.path}: its mode is {mode:04o}, so that others may read or write it: "
                f"expected 0600 or 0640"
            )
        try:
            text = file.octets.decode()
        except UnicodeDecodeError as error:
            raise UserFileError(f"{self.path}: is no UTF-8 at octet {error.start}") from None
        try:
            found = load_table(text, str(self.path), Users, _mistakes)
        except ConfigError as error:
            raise UserFileError(str(error)) from None
        return found.users, text

    def change(self, alter: Callable[[dict[str, User]], T], *, make: bool = False) -> T:
        """Replace what is in the file; durable once this returns. Its owner and mode stay.

        Args:
            alter: changes the users, and returns what is to be returned. What it raises passes
                through, and nothing has changed.
            make: make the file if there is none.

        Raises:
            UserFileError: as `read`; then it stays as it is.
        """
        path = self.path.resolve()  # a link stays one
        with self._locked(path.parent):
            if make and not path.exists():
                users, text = dict[str, User](), _HEAD
            else:
                users, text = self._read()
                users = dict(users)
            told = alter(users)
            try:
                self._write(path, _head(text) + _written(users))
            except OSError as error:
                raise self._trouble(error) from error
            return told

    @contextmanager
    def _locked(self, folder: Path) -> Generator[None]:
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self._trouble(error) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError as error:
                raise self._trouble(error) from error
            yield
        finally:
            os.close(descriptor)

    def _write(self, path: Path, text: str) -> None:
        def own(descriptor: int) -> None:
            self._take_after(descriptor, path)

        replace_file(path, text.encode(), own)

    def _take_after(self, descriptor: int, path: Path) -> None:
        """Let a new file be whose the old one is, and be read by whom that may be read."""
        try:
            before = path.stat()
        except FileNotFoundError:
            if self._group is not None:
                os.fchown(descriptor, -1, self._group)
                os.fchmod(descriptor, 0o640)
            return
        if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(descriptor, before.st_uid, before.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(before.st_mode))

    def _trouble(self, error: OSError) -> UserFileError:
        return UserFileError(
            f"{self.path}: {error.strerror or error}", denied=isinstance(error, PermissionError)
        )


def _mistakes(found: Users) -> Generator[Mistake]:
    for name in found.users:
        try:
            prepared = prepare_name(name)
        except ValueError as error:
            yield Mistake(_place(name), str(error), of_key=True)
            continue
        if prepared != name:
            problem = f"is looked up as {prepared!r}: write it so"
            yield Mistake(_place(name), problem, of_key=True)


def _place(name: str) -> str:
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'users["{quoted}"]'


def _head(text: str) -> str:
    """The comments at the top."""
    found = re.match(r"(?:[ \t]*(?:#[^\n]*)?\n)*", text)
    return found[0] if found is not None else ""


def _written(users: dict[str, User]) -> str:
    plain: dict[str, object] = {}
    for name, user in users.items():
        told: dict[str, object] = {}
        if user.password is not None:
            told["password"] = user.password
        if user.scram is not None:
            told["scram"] = user.scram
        if user.addresses:
            told["addresses"] = user.addresses
        if user.apps:
            told["apps"] = msgspec.to_builtins(user.apps)
        if user.disabled:
            told["disabled"] = True
        plain[name] = told
    return yaml.dump(
        {"users": plain}, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=1000
    )


def _dumper() -> type[yaml.SafeDumper | yaml.CSafeDumper]:
    """Writes no reference (``*id001``) to what two users have in common: people edit this."""
    if yaml.__with_libyaml__:

        class Quick(yaml.CSafeDumper):
            @override
            def ignore_aliases(self, data: object) -> bool:
                return True

        return Quick

    class Slow(yaml.SafeDumper):
        @override
        def ignore_aliases(self, data: object) -> bool:
            return True

    return Slow
