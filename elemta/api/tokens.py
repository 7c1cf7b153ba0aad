"""Who may come in: a file of tokens and one-time links, which knows their hashes only.

The rules of this file:

- A secret is seen once, by whom it is made for. What is kept is its argon2id hash.
- The file is changed by one at a time, under a lock, and replaced as a whole: who reads it sees it
  as it was, or as it is. The command line and the server both do so.
- It belongs to whom the data directory belongs to, whoever writes it.
- All of this waits for the disk, and hashing for the processor: the server does it in threads.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Final, TypeVar

import argon2
import msgspec
from msgspec import Struct

from elemta.api.visit import Scope
from elemta.files import like_folder, replace_file

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

#: Seconds that a one-time link is good for.
LINK_LIFETIME: Final = 3600.0
#: Links that are good at a time; the oldest make room.
LINKS: Final = 20
#: Tokens that there may be.
TOKENS: Final = 1000

#: What a token is called, as a regular expression.
NAME: Final = "[A-Za-z0-9][A-Za-z0-9_.@-]{0,62}"

_ID: Final = "abcdefghijklmnopqrstuvwxyz0123456789"
_TEXT: Final = re.compile(r"(elemta|once)_([a-z0-9]{12})_([A-Za-z0-9_-]{43})")
#: What a token or a link looks like in the middle of something else.
SECRET: Final = re.compile(r"\b(elemta|once)_([a-z0-9]{12})_[A-Za-z0-9_-]+")

# The secret is 256 random bits, which no hash could make weaker: the least that is recommended
# (RFC 9106 §4 and what OWASP makes of it for small machines) spares memory that mail may need.
_hasher: Final = argon2.PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)

T = TypeVar("T")


class TokenFileError(Exception):
    """The tokens cannot be read or written; the message says where and why."""


class Token(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Somebody, or some program, that may come in.

    Attributes:
        id: stands in the token's text, and is no secret.
        name: what it is for; stands in timelines and in the audit log.
        scopes: what it may do.
        created: seconds since the epoch.
        expires: when it ends, seconds since the epoch; None: when it is revoked.
        used: when it was last used, about; None: never.
        hash: argon2id, of its secret.
    """

    id: str
    name: str
    scopes: tuple[Scope, ...]
    created: float
    expires: float | None = None
    used: float | None = None
    hash: str

    def good(self, now: float) -> bool:
        """Whether it has not ended."""
        return self.expires is None or now < self.expires


class Link(Struct, frozen=True, kw_only=True):
    """A way in that works once, for whoever may read what the server prints.

    Attributes:
        expires: seconds since the epoch.
        hash: argon2id, of its secret.
    """

    id: str
    expires: float
    hash: str


class Known(Struct, frozen=True, kw_only=True):
    """What is in the file."""

    tokens: tuple[Token, ...] = ()
    links: tuple[Link, ...] = ()


# Made before any thread asks: two that decode the first of a kind at once end the process.
_known: Final = msgspec.json.Decoder(Known)


class Text(Struct, frozen=True):
    """The text of a token or a link, taken apart.

    Attributes:
        once: it is a link's.
    """

    once: bool
    id: str
    secret: str


def parse(text: str) -> Text | None:
    """Take the text of a token or of a link apart; None: it is neither."""
    found = _TEXT.fullmatch(text)
    return found and Text(found[1] == "once", found[2], found[3])


class TokenFile:
    """The file of a server.

    Args:
        folder: its data directory.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "tokens.json"
        self._folder = folder
        self._lock = folder / "tokens.lock"

    def exists(self) -> bool:
        """Whether anything was ever written down.

        Raises:
            TokenFileError: the disk.
        """
        try:
            self.path.stat()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _trouble(self.path, error) from error
        return True

    def read(self) -> Known:
        """What is in the file; nothing, if there is none.

        Raises:
            TokenFileError: the disk, or it is damaged.
        """
        try:
            octets = self.path.read_bytes()
        except FileNotFoundError:
            return Known()
        except OSError as error:
            raise _trouble(self.path, error) from error
        try:
            return _known.decode(octets)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise TokenFileError(f"{self.path} is damaged: {error}") from error

    def change(self, alter: Callable[[Known], tuple[Known, T]]) -> T:
        """Replace what is in the file; durable once this returns.

        Args:
            alter: gives what is to be there instead, and what to return. What it raises passes
                through, and nothing has changed.

        Raises:
            TokenFileError: the disk, or the file is damaged: then it stays as it is.
        """
        with self._locked():
            known, told = alter(self.read())
            try:
                self._write(msgspec.json.format(msgspec.json.encode(known), indent=1))
            except OSError as error:
                raise _trouble(self.path, error) from error
            return told

    @contextmanager
    def _locked(self) -> Generator[None]:
        try:
            descriptor = self._open_lock()
        except OSError as error:
            raise _trouble(self._lock, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _open_lock(self) -> int:
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(self._lock, flags | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return os.open(self._lock, flags)
        # Given away only if we have made it: it might be another name of a file of root's.
        like_folder(self._folder)(descriptor)
        return descriptor

    def _write(self, octets: bytes) -> None:
        replace_file(self.path, octets, like_folder(self._folder))


def issue(
    file: TokenFile, name: str, scopes: Sequence[Scope], *, now: float, expires: float | None
) -> tuple[Token, str]:
    """Make a token.

    Args:
        file: where it is kept.
        name: what it is for.
        scopes: what it may do.
        now: seconds since the epoch.
        expires: the same; None: it lasts until it is revoked.

    Returns:
        It, and its text: nobody can see that again.

    Raises:
        ValueError: there is a token of this name, or there are too many.
        TokenFileError: see `TokenFile`.
    """
    id_, secret = _name(), secrets.token_urlsafe(32)
    ordered = tuple(scope for scope in Scope if scope in scopes)
    token = Token(
        id=id_,
        name=name,
        scopes=ordered,
        created=now,
        expires=expires,
        hash=_hasher.hash(secret),
    )

    def alter(known: Known) -> tuple[Known, None]:
        # One that has expired is shown until its name, or its place, is wanted.
        kept = [each for each in known.tokens if each.good(now) or each.name != name]
        if any(each.name == name for each in kept):
            raise ValueError(f"there is a token named {name!r} already")
        if len(kept) >= TOKENS:
            raise ValueError(f"there are {TOKENS} tokens already")
        return msgspec.structs.replace(known, tokens=(*kept, token)), None

    file.change(alter)
    return token, f"elemta_{id_}_{secret}"


def revoke(file: TokenFile, id: str) -> Token:  # noqa: A002 # the word of people
    """End a token.

    Raises:
        LookupError: there is none of this id.
        TokenFileError: see `TokenFile`.
    """

    def alter(known: Known) -> tuple[Known, Token]:
        for token in known.tokens:
            if token.id == id:
                left = tuple(each for each in known.tokens if each is not token)
                return msgspec.structs.replace(known, tokens=left), token
        raise LookupError(f"there is no token {id!r}")

    return file.change(alter)


def invite(file: TokenFile, *, now: float) -> str:
    """Make a one-time link, good for `LINK_LIFETIME`.

    Returns:
        What stands behind the ``#once=`` of its address.

    Raises:
        TokenFileError: see `TokenFile`.
    """
    id_, secret = _name(), secrets.token_urlsafe(32)
    link = Link(id=id_, expires=now + LINK_LIFETIME, hash=_hasher.hash(secret))

    def alter(known: Known) -> tuple[Known, None]:
        good = [each for each in known.links if now < each.expires][-(LINKS - 1) :]
        return msgspec.structs.replace(known, links=(*good, link)), None

    file.change(alter)
    return f"once_{id_}_{secret}"


def redeem(file: TokenFile, text: Text, *, now: float) -> bool:
    """Use up a one-time link; false: it is none, or no longer.

    Raises:
        TokenFileError: see `TokenFile`. It may work later, then.
    """
    hashes = [each.hash for each in file.read().links if each.id == text.id and text.once]
    if not verify(hashes[0] if hashes else None, text.secret):
        return False

    def alter(known: Known) -> tuple[Known, bool]:
        left = tuple(each for each in known.links if each.id != text.id)
        good = any(each.id == text.id and now < each.expires for each in known.links)
        return msgspec.structs.replace(known, links=left), good

    return file.change(alter)


def verify(hash: str | None, secret: str) -> bool:  # noqa: A002 # what it is
    """Whether a secret is the one that was hashed.

    Takes as long where there is no hash, so that nobody learns which ids there are.
    """
    try:
        _hasher.verify(hash or _decoy(), secret)
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return False
    return hash is not None


def masked(text: str) -> str:
    """The text without the secrets of tokens and links in it."""
    return SECRET.sub(r"\1_\2_…", text)


@cache
def _decoy() -> str:
    """The hash of something that nobody has said."""
    return _hasher.hash(secrets.token_urlsafe(32))


def _name() -> str:
    return "".join(secrets.choice(_ID) for _ in range(12))


def _trouble(path: Path, error: OSError) -> TokenFileError:
    return TokenFileError(f"{path}: {error.strerror or error}")
