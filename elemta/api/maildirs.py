"""Maildirs as somebody reads them: what the sandbox caught, the newest first.

Rules of this file:

- All of it blocks: call it in a thread.
- An id says in which mailbox a message lies and what its file is called, never where: a name that
  could lead anywhere else is nobody's.
- Others may read, move and delete at any time: what vanishes in between is left out, or unknown.
"""

from __future__ import annotations

import base64
import binascii
import heapq
import os
import re
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from msgspec import Struct

from elemta.api.content import LOOKED_AT, Contents, view_of
from elemta.protocol import domain_to_ascii

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Octets of a message at whose head is looked for a list.
HEAD: Final = 2**15

#: The time at which a message was delivered begins the name of its file.
_STAMP: Final = re.compile(r"(\d{1,12})\.")
_END_OF_HEAD: Final = re.compile(rb"\r?\n\r?\n")


class Place(Struct, frozen=True, order=True):
    """Where a message lies. Those that came later are greater.

    Attributes:
        at: when it was delivered, seconds since the epoch.
        domain, local: names of folders.
        name: of the file, without the flags that mail programs add.
    """

    at: int
    domain: str
    local: str
    name: str

    @property
    def id(self) -> str:
        """One word for it, that is safe in a URL."""
        told = f"{self.domain}/{self.local}/{self.name}".encode("utf-8", "surrogateescape")
        return base64.urlsafe_b64encode(told).decode().rstrip("=")

    @property
    def mailbox(self) -> str:
        """The address that it is for."""
        return f"{unquote(self.local)}@{unquote(self.domain)}"


class Letter(Struct, frozen=True):
    """A message in a list.

    Attributes:
        view: its head.
        size: octets.
        seen: somebody has read it, with a program that says so.
    """

    place: Place
    view: Contents
    size: int
    seen: bool


def place_of(id: str) -> Place | None:  # noqa: A002 # the word of people
    """Where a message of this id lies; None: it cannot be one."""
    try:
        told = base64.b64decode(id + "=" * (-len(id) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    parts = told.decode("utf-8", "surrogateescape").split("/")
    if len(parts) != 3 or not all(map(_is_name, parts)):
        return None
    place = Place(_stamp(parts[2]), *parts)
    return place if place.id == id else None


def newest(
    root: Path, address: str | None, limit: int, before: Place | None
) -> tuple[list[Letter], Place | None]:
    """Messages, the newest first.

    Args:
        root: of all Maildirs; that there is none yet is no error.
        address: of one mailbox; None: of all of them.
        limit: so many at most.
        before: only those that are older than this one.

    Returns:
        What was found, and where to go on; None: these are all.
    """
    wanted = None if address is None else _folded(address)
    places = (
        place
        for place in _places(root)
        if (before is None or place < before) and (wanted in (None, _folded(place.mailbox)))
    )
    found = heapq.nlargest(limit + 1, places)
    page = found[:limit]
    letters = [letter for place in page if (letter := _letter(root, place)) is not None]
    return letters, page[-1] if len(found) > limit else None


def read(root: Path, place: Place) -> Contents | None:
    """A message; None: it is gone."""
    with suppress(OSError):
        fd, _ = _open(root, place)
        with open(fd, "rb") as file:
            return view_of(file.read(LOOKED_AT + 1))
    return None


def opened(root: Path, place: Place) -> tuple[int, int] | None:
    """A message's file, which the caller closes, and its octets; None: it is gone."""
    with suppress(OSError):
        fd, _ = _open(root, place)
        return fd, os.fstat(fd).st_size
    return None


def delete(root: Path, place: Place) -> bool:
    """Take a message away; False: it was gone."""
    found = _path(root, place)
    if found is None:
        return False
    with suppress(FileNotFoundError):
        os.unlink(found)
        return True
    return False


def _places(root: Path) -> Iterator[Place]:
    for domain in _names(root):
        for local in _names(root / domain):
            for part in ("new", "cur"):
                for name in _names(root / domain / local / part):
                    yield Place(_stamp(name), domain, local, name.partition(":")[0])


def _names(folder: Path) -> list[str]:
    with suppress(OSError):
        return [name for name in os.listdir(folder) if _is_name(name)]
    return []


def _is_name(name: str) -> bool:
    """Neither a way out nor hidden."""
    return bool(name) and not name.startswith(".") and "/" not in name and "\0" not in name


def _stamp(name: str) -> int:
    found = _STAMP.match(name)
    return int(found[1]) if found else 0


def _folded(address: str) -> str:
    """An address as all its spellings are one; the local part is not told by case."""
    local, _, domain = address.strip().rpartition("@")
    with suppress(ValueError):  # an address literal
        domain = domain_to_ascii(domain)
    return f"{local}@{domain}".casefold()


def _path(root: Path, place: Place) -> str | None:
    """Where the file is just now: a mail program moves it on and adds flags."""
    mailbox = os.path.join(root, place.domain, place.local)
    exact = os.path.join(mailbox, "new", place.name)
    if os.path.lexists(exact):
        return exact
    for part in ("cur", "new"):
        with suppress(OSError):
            for name in os.listdir(os.path.join(mailbox, part)):
                if name.partition(":")[0] == place.name:
                    return os.path.join(mailbox, part, name)
    return None


def _open(root: Path, place: Place) -> tuple[int, str]:
    """Its descriptor, and where it lies. Raises OSError: it is gone, or no file."""
    path = _path(root, place)
    if path is None:
        raise FileNotFoundError(place.name)
    # O_NONBLOCK: somebody may have put a pipe there.
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise FileNotFoundError(place.name)
    return fd, path


def _letter(root: Path, place: Place) -> Letter | None:
    with suppress(OSError):
        fd, path = _open(root, place)
        with open(fd, "rb") as file:
            head = _END_OF_HEAD.split(file.read(HEAD), maxsplit=1)[0]
            size = os.fstat(fd).st_size
        flags = path.rpartition("/")[2].partition(":2,")[2]
        return Letter(place, view_of(head + b"\n\n"), size, "S" in flags)
    return None
