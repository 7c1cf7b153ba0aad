"""Where the control socket lies in the file system, and who may write to it.

File permissions are the access control: who may write to the socket may steer the server.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import socket
import stat
import struct
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    import trio

#: Clients that may wait to be accepted.
BACKLOG: Final = 32
#: Octets of a socket's path, its final NUL left out (unix(7)).
MAX_PATH: Final = 107


@contextmanager
def reachable(path: Path) -> Generator[str]:
    """A name for this path that is short enough for a socket's address.

    Raises:
        OSError: its folder is not there, or not for us.
    """
    if len(os.fsencode(path)) <= MAX_PATH:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


@contextmanager
def listening(path: Path, group: str | None = None) -> Generator[socket.socket]:
    """Listen there: for the owner of this process alone, or for a group too.

    A socket that is left of a process that is gone is replaced.

    Raises:
        OSError: somebody listens there, or it is something else, or we may not.
        LookupError: there is no such group.

    Resource handling:
        On leaving, the socket is closed and its file removed.
    """
    gid = -1 if group is None else grp.getgrnam(group).gr_gid
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        with reachable(path) as name:
            _make_way(name, path)
            sock.bind(name)
            # Nobody can connect before `listen`, so these are the permissions from the first on.
            os.chown(name, -1, gid)
            os.chmod(name, 0o600 if group is None else 0o660)
            sock.listen(BACKLOG)
            ours = os.lstat(name)
        try:
            yield sock
        finally:
            with suppress(OSError):  # another process may have put its own there
                if os.path.samestat(ours, os.lstat(path)):
                    path.unlink()


def _make_way(name: str, path: Path) -> None:
    """Remove a socket that nobody listens at.

    Raises:
        OSError: somebody does, or it is no socket.
    """
    try:
        found = os.lstat(name)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise FileExistsError(errno.EEXIST, "something else is there", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(name)
        except ConnectionRefusedError:
            os.unlink(name)
            return
        except BlockingIOError:  # there is a listener, that has much to do
            pass
    raise OSError(errno.EADDRINUSE, "another process listens there", str(path))


def peer_of(sock: trio.socket.SocketType) -> int:
    """The uid of the process at the other end, as the kernel saw it connect (unix(7))."""
    credentials = struct.Struct("3i")
    _, uid, _ = credentials.unpack(
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size)
    )
    return int(uid)


def name_of(uid: int) -> str:
    """What this user is called."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid-{uid}"
