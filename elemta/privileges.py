"""Giving up root: who the daemon is once its ports are bound, and what is its own by then."""

from __future__ import annotations

import os
import pwd
import resource
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from elemta.files import sync_folder

if TYPE_CHECKING:
    from pathlib import Path


#: Descriptors that a client or a delivery may hold at a time: a socket, and a large message's file.
EACH: Final = 2
#: Descriptors beside those: the queue, Maildirs, DNS, the control socket, and some to spare.
SPARE: Final = 512


class StartError(Exception):
    """The daemon cannot start; the message is one line for the one who started it."""


class Identity(Struct, frozen=True):
    """Whom to become."""

    name: str
    uid: int
    gid: int


def identity(user: str | None, *, allow_root: bool) -> Identity | None:
    """Find out whom to become.

    Args:
        user: the name in the configuration.
        allow_root: root may stay root.

    Returns:
        None: stay who we are.

    Raises:
        StartError: there is no such user, we are somebody else and may not change that, or we
            would stay root.
    """
    uid = os.geteuid()
    if user is None:
        if uid == 0 and not allow_root:
            raise StartError(
                "refusing to run as root: set `user` in the configuration, or use --allow-root"
            )
        return None
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise StartError(f"there is no user {user!r} on this machine") from None
    if entry.pw_uid == uid:
        if uid == 0 and not allow_root:
            raise StartError("refusing to run as root: `user` is root; use --allow-root")
        return None
    if uid != 0:
        raise StartError(f"only root can become {user!r}: start as root or as {user!r}")
    return Identity(user, entry.pw_uid, entry.pw_gid)


def own(directory: Path, who: Identity | None) -> None:
    """See that the data directory is there, for its owner alone; and is theirs whom we become.

    Raises:
        StartError: it cannot be made.
    """
    try:
        missing = [place for place in (directory, *directory.parents) if not place.exists()]
        if not directory.is_dir():
            directory.mkdir(mode=0o700, parents=True)
        for place in missing:
            # A name is durable once the folder that holds it is: else a power cut soon after
            # the first start would take the whole queue with it.
            sync_folder(place.parent)
        if who is not None and directory.stat().st_uid != who.uid:
            os.chown(directory, who.uid, who.gid)
    except OSError as error:
        raise StartError(f"{directory} cannot be made: {error.strerror or error}") from None


def writable(directory: Path) -> None:
    """See that we can write to the data directory, as whom we have become.

    Raises:
        StartError: we cannot.
    """
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        raise StartError(f"{directory} cannot be written by {_me()}")


def drop(who: Identity) -> None:
    """Become somebody else, for good.

    Raises:
        StartError: that did not work; nobody goes on half as root.
    """
    try:
        os.initgroups(who.name, who.gid)
        os.setgid(who.gid)
        os.setuid(who.uid)
    except OSError as error:
        raise StartError(f"cannot become {who.name!r}: {error.strerror or error}") from None
    if {os.getuid(), os.geteuid()} != {who.uid} or {os.getgid(), os.getegid()} != {who.gid}:
        raise StartError(f"became {who.name!r} only in part")
    os.environ.update(HOME="/", USER=who.name, LOGNAME=who.name)


def runnable(program: str) -> None:
    """See that whom we have become can start a program, as several nodes need it.

    Raises:
        StartError: we cannot.
    """
    if not os.access(program, os.X_OK):
        raise StartError(
            f"{program} cannot be executed by {_me()}, who is to start the nodes with it: "
            "let him, or take another Python, or set `nodes: 1`"
        )


class Files(Struct, frozen=True, kw_only=True):
    """What the descriptors of this process are enough for.

    Attributes:
        limit: how many there are; -1: no limit.
        connections: of clients, at a time.
        deliveries: at a time.
    """

    limit: int
    connections: int
    deliveries: int


def open_files(connections: int, deliveries: int) -> Files:
    """Ask for as many descriptors as so much may need, and see for how much there are enough.

    Where the hard limit is too low, clients and deliveries get the same part of what they wanted.
    """
    wanted = EACH * (connections + deliveries) + SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return Files(limit=soft, connections=connections, deliveries=deliveries)
    part = (soft - min(SPARE, soft // 2)) / (wanted - SPARE)
    return Files(
        limit=soft,
        connections=max(1, int(connections * part)),
        deliveries=max(1, int(deliveries * part)),
    )


def more_files(count: int) -> None:
    """Ask for so many descriptors beside those that mail may need, as far as there are any."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        wanted = soft + count if hard == resource.RLIM_INFINITY else min(soft + count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _me() -> str:
    uid = os.geteuid()
    try:
        return repr(pwd.getpwuid(uid).pw_name)
    except KeyError:
        return f"uid {uid}"
