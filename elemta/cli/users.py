"""Makes, shows and changes users, in the file that the server reads; it need not run."""

from __future__ import annotations

import os
import pwd
import sys
import time
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, ParamSpec, TypeVar

import click
from msgspec import Struct
from msgspec.structs import replace

from elemta.cli import codes
from elemta.cli.options import configuration
from elemta.cli.terminal import clock, counted, say, say_json, span
from elemta.config import AddressPattern
from elemta.login import (
    App,
    ScramVerifier,
    Usage,
    User,
    UserFile,
    UserFileError,
    check_app_name,
    hash_app_password,
    hash_password,
    make_app_password,
    prepare_name,
    prepare_password,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from elemta.config import Config
    from elemta.control.plain import Value

P = ParamSpec("P")
T = TypeVar("T")

#: What the plugin is called.
PLUGIN: Final = "users-file"


class Place(Struct, frozen=True):
    """Which users.

    Attributes:
        data_dir: where the server wrote down when they logged in; None: nobody knows.
    """

    file: UserFile
    data_dir: Path | None = None


def find(config: Path | None, file: Path | None) -> Place:
    """The users of a file, or of a configuration. Ends the process if there are none.

    Args:
        config: the file of the configuration; None: see `configuration`.
        file: of users; None: that of the configuration.
    """
    if file is not None and config is None:
        return Place(UserFile(file.absolute()))
    found, _ = configuration(config, sandbox=False, port=None)
    if file is None:
        file = _configured(found)
    group = None
    if os.geteuid() == 0 and found.user is not None:
        try:
            group = pwd.getpwnam(found.user).pw_gid
        except KeyError:
            _misconfigured(f"user: there is no user {found.user!r} on this machine")
    return Place(UserFile(file.absolute(), group), found.data_dir)


def _configured(config: Config) -> Path:
    from elemta.config import ConfigError
    from elemta.plugins.built_in.users_file import UsersFile

    entries = [(place, each) for place, each in enumerate(config.plugins) if each.name == PLUGIN]
    files: set[Path] = set()
    for place, each in entries:
        try:
            plugin = UsersFile.configured(each.settings, f"plugins[{place}].settings")
        except ConfigError as error:
            _misconfigured(str(error))
        files.add(plugin.settings.file)
    if not files:
        _misconfigured(f"the configuration has no plugin {PLUGIN}: say which --file")
    if len(files) > 1:
        told = ", ".join(sorted(map(str, files)))
        raise click.UsageError(f"the configuration has several files of users: --file of {told}")
    return files.pop()


def _misconfigured(problem: str) -> NoReturn:
    say(f"elemta: {problem}", err=True)
    raise SystemExit(codes.MISCONFIGURED)


def _guarded(run: Callable[P, int]) -> Callable[P, int]:
    """Say it if the file cannot be used, and end accordingly."""

    @wraps(run)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return run(*args, **kwargs)
        except UserFileError as error:
            say(f"elemta: {error}", err=True)
            return codes.FORBIDDEN if error.denied else codes.UNREADABLE

    return guarded


# Users.


@_guarded
def add(
    place: Place,
    name: str,
    addresses: Sequence[str],
    *,
    from_stdin: bool,
    no_password: bool,
    as_json: bool,
) -> int:
    """Add a user; returns the exit code."""
    name = _name(name)
    for each in addresses:
        _right(AddressPattern.parse, each)
    if name in _known(place):
        return _there(name)
    made = User(addresses=list(addresses))
    if not no_password:
        made = _with_password(made, _password(from_stdin))

    def alter(users: dict[str, User]) -> int:
        if name in users:
            return _there(name)
        users[name] = made
        return 0

    if (code := place.file.change(alter, make=True)) == 0:
        _say_user(place, name, made, f"added {name}", as_json=as_json)
    return code


@_guarded
def passwd(place: Place, name: str, *, from_stdin: bool, as_json: bool) -> int:
    """Give a user another password; returns the exit code."""
    if name not in _known(place) and _name(name) not in _known(place):
        return _absent(name)
    password = _password(from_stdin)
    hashed = _with_password(User(), password)
    return _change(
        place,
        name,
        lambda user: replace(user, password=hashed.password, scram=hashed.scram),
        "changed the password of {}",
        as_json=as_json,
    )


@_guarded
def show(place: Place, *, as_json: bool) -> int:
    """Print all users; returns the exit code."""
    found, used = place.file.read(), _used(place)
    if as_json:
        say_json([plain(name, user, used.get(name, {})) for name, user in found.items()])
    elif not found:
        say("there are no users")
    else:
        now, width = time.time(), max(map(len, found))
        for name, user in found.items():
            say(_line(name, user, used.get(name, {}), now, width))
    return 0


@_guarded
def remove(place: Place, name: str, *, as_json: bool) -> int:
    """Remove a user; returns the exit code."""
    name = _name(name)

    def alter(users: dict[str, User]) -> User | None:
        return users.pop(name, None)

    if (gone := place.file.change(alter)) is None:
        return _absent(name)
    _say_user(place, name, gone, f"removed {name}", as_json=as_json)
    return 0


@_guarded
def switch(place: Place, name: str, *, disabled: bool, as_json: bool) -> int:
    """Let a user log in, or not; returns the exit code."""
    word = "disabled {}" if disabled else "enabled {}"
    return _change(
        place, name, lambda user: replace(user, disabled=disabled), word, as_json=as_json
    )


# Their app passwords.


@_guarded
def add_app(place: Place, name: str, app: str, *, as_json: bool) -> int:
    """Make an app password and print it; returns the exit code."""
    name = _name(name)
    _right(check_app_name, app)
    password = make_app_password()
    made = App(password=hash_app_password(password), created=float(int(time.time())))

    def alter(users: dict[str, User]) -> int:
        if (user := users.get(name)) is None:
            return _absent(name)
        if app in user.apps:
            say(f"elemta: {name} has an app password {app!r} already", err=True)
            return codes.USAGE
        users[name] = replace(user, apps={**user.apps, app: made})
        return 0

    if (code := place.file.change(alter)) == 0:
        if as_json:
            say_json({**plain_app(app, made, None), "password": password})
        else:
            say(password)
            say(f"{app} of {name}; this is the only time that it is shown", err=True)
    return code


@_guarded
def show_apps(place: Place, name: str, *, as_json: bool) -> int:
    """Print a user's app passwords; returns the exit code."""
    name = _name(name)
    if (user := place.file.read().get(name)) is None:
        return _absent(name)
    used, now = _used(place).get(name, {}), time.time()
    if as_json:
        say_json([plain_app(app, each, used.get(app)) for app, each in user.apps.items()])
    elif not user.apps:
        say(f"{name} has no app passwords")
    else:
        width = max(map(len, user.apps))
        for app, each in user.apps.items():
            say(f"{app:{width}}  made {clock(each.created)}, {_last(used.get(app), now)}")
    return 0


@_guarded
def remove_app(place: Place, name: str, app: str, *, as_json: bool) -> int:
    """Take an app password away; returns the exit code."""
    name = _name(name)

    def alter(users: dict[str, User]) -> App | None:
        if (user := users.get(name)) is None or app not in user.apps:
            return None
        users[name] = replace(
            user, apps={other: each for other, each in user.apps.items() if other != app}
        )
        return user.apps[app]

    if (gone := place.file.change(alter)) is None:
        say(f"elemta: there is no app password {app!r} of {name!r}", err=True)
        return codes.NOT_FOUND
    if as_json:
        say_json(plain_app(app, gone, None))
    else:
        say(f"removed {app} of {name}")
    return 0


# What both are made of.


def plain(name: str, user: User, used: dict[str, float]) -> dict[str, Value]:
    """A user as JSON has it, without secrets."""
    return {
        "name": name,
        "addresses": list(user.addresses),
        "password": user.password is not None,
        "scram": user.scram is not None,
        "disabled": user.disabled,
        "used": used.get(""),
        "apps": [plain_app(app, each, used.get(app)) for app, each in user.apps.items()],
    }


def plain_app(name: str, app: App, used: float | None) -> dict[str, Value]:
    """An app password as JSON has it, without itself."""
    return {"name": name, "created": app.created, "used": used}


def _line(name: str, user: User, used: dict[str, float], now: float, width: int) -> str:
    last = max(used.values()) if used else None
    told = [_last(last, now)]
    if user.disabled:
        told.insert(0, "disabled")
    if user.password is None:
        told.append("no password of his own")
    if user.apps:
        told.append(counted(len(user.apps), "app password"))
    if user.addresses:
        told.append(f"also {' '.join(user.addresses)}")
    return f"{name:{width}}  {', '.join(told)}"


def _last(used: float | None, now: float) -> str:
    return "never used" if used is None else f"used {span(now - used)} ago"


def _say_user(place: Place, name: str, user: User, text: str, *, as_json: bool) -> None:
    if as_json:
        say_json(plain(name, user, _used(place).get(name, {})))
    else:
        say(text)


def _change(
    place: Place, name: str, alter: Callable[[User], User], text: str, *, as_json: bool
) -> int:
    name = _name(name)

    def run(users: dict[str, User]) -> User | None:
        if (user := users.get(name)) is None:
            return None
        users[name] = alter(user)
        return users[name]

    if (found := place.file.change(run)) is None:
        return _absent(name)
    _say_user(place, name, found, text.format(name), as_json=as_json)
    return 0


def _known(place: Place) -> dict[str, User]:
    return place.file.read() if place.file.path.exists() else {}


def _name(text: str) -> str:
    return _right(prepare_name, text)


def _right(read: Callable[[str], T], text: str) -> T:
    try:
        return read(text)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _password(from_stdin: bool) -> str:
    """What is typed, twice; never an argument, which all of the machine could see."""
    if from_stdin:
        typed = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        typed = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        raise click.UsageError("there is no terminal to ask for the password: --password-stdin")
    return _right(prepare_password, typed)


def _with_password(user: User, password: str) -> User:
    return replace(user, password=hash_password(password), scram=str(ScramVerifier.of(password)))


def _used(place: Place) -> dict[str, dict[str, float]]:
    """When they logged in last, at any node."""
    from elemta.login import merged, usage_name

    found: dict[str, dict[str, float]] = {}
    if place.data_dir is None:
        return found
    name = usage_name(place.file.path)
    nodes = (place.data_dir / "nodes").glob("*")
    for folder in (place.data_dir, *nodes):
        try:
            found = merged(found, Usage(folder / "plugins" / PLUGIN / name).read())
        except OSError:  # it is of no weight
            continue
    return found


def _absent(name: str) -> int:
    say(f"elemta: there is no user {name!r}", err=True)
    return codes.NOT_FOUND


def _there(name: str) -> int:
    say(f"elemta: there is a user {name!r} already", err=True)
    return codes.USAGE
