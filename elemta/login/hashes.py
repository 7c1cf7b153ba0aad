"""Hashes of passwords, as files and databases keep them.

Two kinds are taken, both hard to compute on purpose: argon2id (RFC 9106), which is made here, and
scrypt (RFC 7914), in the form that PHC gives them: ``$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH`` and
``$scrypt$ln=15,r=8,p=1$SALT$HASH``. A scheme in braces before it, as Dovecot writes it, is left out
of account. All others (bcrypt, sha512-crypt, ``{SSHA}``) are refused with a word on what to do:
they would need libraries that nobody maintains, or are too cheap to be worth keeping.

What is kept of app passwords is cheap to compare: they are made here, of 140 random bits, so
nobody could find one from its SHA-256 by trying; and a mail program logs in very often.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import argon2

#: The most that a hash may cost: KiB of memory, rounds, lanes.
_MOST_MEMORY: Final = 256 * 1024
_MOST_TIME: Final = 20
_MOST_LANES: Final = 16

_SCHEME: Final = re.compile(r"\{[A-Z0-9.-]{1,32}\}")
_SCRYPT: Final = re.compile(
    r"\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})\$([A-Za-z0-9+/]{8,86})\$([A-Za-z0-9+/]{22,86})"
)

#: What app passwords are made of: no letter looks like another.
_LETTERS: Final = "abcdefghijkmnpqrstuvwxyz23456789"
_GROUPS: Final = 7
_GROUP: Final = 4
_APP: Final = "sha256:"
_APP_FORM: Final = re.compile(_APP + "[0-9a-f]{64}")


def hash_password(password: str) -> str:
    """What is kept of a password, prepared already. Takes 30 ms and 19 MiB: not on the loop."""
    return _hasher().hash(password)


def check_hash(text: str) -> str:
    """A hash in the form in which it is verified.

    Raises:
        ValueError: it is of none of our kinds, or would cost too much. What it is is not said.
    """
    text = _SCHEME.sub("", text, count=1) if text.startswith("{") else text
    if (found := _SCRYPT.fullmatch(text)) is not None:
        logarithm, size, lanes = (int(each) for each in found.groups()[:3])
        if not (10 <= logarithm <= 20 and size >= 1 and 1 <= lanes <= _MOST_LANES):
            raise ValueError(
                "expected scrypt with ln of 10 to 20, r of at least 1 and p of 1 to 16"
            )
        if (size << logarithm) > 8 * _MOST_MEMORY:  # 128 octets each
            raise ValueError(f"scrypt may take at most {_MOST_MEMORY // 1024} MiB")
        for each in found.groups()[3:]:
            _unpadded(each)
        return text
    import argon2

    try:
        cost = argon2.extract_parameters(text)
    except (argon2.exceptions.InvalidHashError, ValueError):
        raise ValueError(
            "expected a hash that begins with $argon2id$ or $scrypt$; "
            "one of another kind must be made anew (`elemta user passwd`)"
        ) from None
    if cost.type is not argon2.Type.ID:
        raise ValueError("expected argon2id, not another argon2")
    if not (
        cost.memory_cost <= _MOST_MEMORY
        and cost.time_cost <= _MOST_TIME
        and cost.parallelism <= _MOST_LANES
    ):
        raise ValueError(
            f"argon2id may take at most {_MOST_MEMORY // 1024} MiB, "
            f"{_MOST_TIME} rounds and {_MOST_LANES} lanes"
        )
    return text


def verify_password(kept: str, password: str) -> bool:
    """Whether a password is the one that was hashed. Takes long on purpose: not on the loop.

    Args:
        kept: as `check_hash` returns it.
        password: prepared.
    """
    if (found := _SCRYPT.fullmatch(kept)) is not None:
        wanted = _unpadded(found[5])
        cost, size = 1 << int(found[1]), int(found[2])
        told = hashlib.scrypt(
            password.encode(),
            salt=_unpadded(found[4]),
            n=cost,
            r=size,
            p=int(found[3]),
            maxmem=128 * size * (cost + int(found[3]) + 2) + 2**20,
            dklen=len(wanted),
        )
        return hmac.compare_digest(told, wanted)
    import argon2

    try:
        return _hasher().verify(kept, password)
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return False


@lru_cache(maxsize=16)
def decoy(like: str = "") -> str:
    """The hash of what nobody has said: verifying it takes as long as verifying `like`.

    Takes as long to make, once.
    """
    word = secrets.token_urlsafe(32)
    if (found := _SCRYPT.fullmatch(like)) is not None:
        size = len(_unpadded(found[5]))
        salt = base64.b64encode(secrets.token_bytes(16)).decode().rstrip("=")
        told = base64.b64encode(secrets.token_bytes(size)).decode().rstrip("=")
        return f"$scrypt$ln={found[1]},r={found[2]},p={found[3]}${salt}${told}"
    import argon2

    try:
        return argon2.PasswordHasher.from_parameters(argon2.extract_parameters(like)).hash(word)
    except (argon2.exceptions.InvalidHashError, argon2.exceptions.HashingError):
        return hash_password(word)  # such a hash there is not, or nobody could make one


def costs(kept: str) -> str:
    """What verifying it costs, as a word that is the same where that is."""
    return kept.rpartition("$")[0].rpartition("$")[0]


def make_app_password() -> str:
    """A password for one program: 28 letters, 140 random bits, in groups to be typed."""
    letters = [secrets.choice(_LETTERS) for _ in range(_GROUPS * _GROUP)]
    return "-".join("".join(letters[at : at + _GROUP]) for at in range(0, len(letters), _GROUP))


def hash_app_password(password: str) -> str:
    """What is kept of it: however it is typed, with dashes, spaces and capitals or without."""
    bare = password.replace("-", "").replace(" ", "").lower()
    return _APP + hashlib.sha256(bare.encode()).hexdigest()


def check_app_hash(text: str) -> None:
    """See that it is one of `hash_app_password`.

    Raises:
        ValueError: it is none.
    """
    if not _APP_FORM.fullmatch(text):
        raise ValueError("expected sha256: and 64 digits, as `elemta user app add` writes it")


@cache
def _hasher() -> argon2.PasswordHasher:
    """Makes hashes at what OWASP takes for the least cost.

    RFC 9106's recommendations take more memory than a small mail server has for each that guesses.
    The library is loaded for those alone who need it: a relay without users has none.
    """
    import argon2

    return argon2.PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)


def _unpadded(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise ValueError("expected salt and hash in base64") from None
