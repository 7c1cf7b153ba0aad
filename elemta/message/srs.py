"""The Sender Rewriting Scheme: an address of ours that stands for a sender elsewhere.

Who forwards mail sends it on from a machine that the sender's domain knows nothing of, so SPF
fails. The scheme (M. Wong, S. Shevek: "SRS, the Sender Rewriting Scheme", 2003) puts a sender of
the forwarder's in place of it, by which a report finds the way back::

    ann@far.example            SRS0=HASH=DAY=far.example=ann@us.example
    SRS0=h=d=far=ann@fwd       SRS1=HASH=fwd==h=d=far=ann@us.example
    SRS1=h=fwd==…@second       SRS1=HASH=fwd==…@us.example

The rules of this file:

- Only what we have made ourselves leads anywhere, and only for `LIFETIME` days: else whoever wants
  to send through us writes such an address himself.
- A forwarder of a forwarder leads back to the first one at once, whose hash guards the rest.
- Servers on the way may change the case of all of it; so case tells nothing apart.
"""

from __future__ import annotations

import base64
import hmac
from typing import TYPE_CHECKING, Final

from elemta.protocol import MAX_LOCAL_PART, Mailbox, parse_mailbox

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Days for which a report finds the way back: longer than any server tries.
LIFETIME: Final = 21
#: Characters of a hash, of six bits each, of which those that are the same but for case count as
#: one: some 31 bits, to be guessed one RCPT at a time.
HASH: Final = 6

_DAY: Final = 86400
#: Two characters of base32.
_DAYS: Final = 1024
_DIGITS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
#: What may stand behind the tag.
_SEPARATORS: Final = "=+-"


class Srs:
    """Rewrites senders, and leads back.

    Args:
        domain: ours, lower case; the senders are of it.
        secrets: the first makes hashes, all check them: so one can be replaced by another.
    """

    def __init__(self, domain: str, secrets: Sequence[bytes]) -> None:
        self.domain: Final = domain
        self._secrets = tuple(secrets)

    def rewritten(self, sender: Mailbox, now: float) -> Mailbox | None:
        """An address of ours that stands for a sender.

        Args:
            sender: of another domain.
            now: seconds since the epoch.

        Returns:
            None: it would be longer than a local part may be (RFC 5321 §4.5.3.1.1).
        """
        local_part, domain = sender.local_part, sender.domain
        kind, host, rest = _kind(local_part), "", ""
        if kind == "SRS0":
            host, rest = domain, local_part[4:]
        elif kind == "SRS1":
            # The hash of the second one says nothing to us, nor to the first.
            _, _, inner = local_part[5:].partition("=")
            host, _, rest = inner.partition("=")
            if not host or rest[:1] not in tuple(_SEPARATORS):
                kind = ""
        if kind:
            text = f"SRS1={self._hash(self._secrets[0], host, rest)}={host}={rest}"
        else:
            day = _written(int(now // _DAY))
            hash_ = self._hash(self._secrets[0], day, domain, local_part)
            text = f"SRS0={hash_}={day}={domain}={local_part}"
        return Mailbox(text, self.domain) if len(text.encode()) <= MAX_LOCAL_PART else None

    def original(self, mailbox: Mailbox, now: float) -> Mailbox | None:
        """Whom an address of ours stands for.

        Args:
            mailbox: for which `is_rewritten` holds.
            now: seconds since the epoch.

        Returns:
            None: we have not made it, or too long ago.
        """
        local_part = mailbox.local_part
        told, _, inner = local_part[5:].partition("=")
        if _kind(local_part) == "SRS1":
            host, _, rest = inner.partition("=")
            if rest[:1] not in tuple(_SEPARATORS) or not self._made(told, host, rest):
                return None
            return _mailbox(f"SRS0{rest}", host)
        day, _, inner = inner.partition("=")
        domain, _, user = inner.partition("=")
        if not self._made(told, day, domain, user) or not _is_recent(day, int(now // _DAY)):
            return None
        return _mailbox(user, domain)

    def _made(self, told: str, *parts: str) -> bool:
        """Whether a hash is one of ours."""
        return any(
            hmac.compare_digest(self._hash(secret, *parts).lower().encode(), told.lower().encode())
            for secret in self._secrets
        )

    def _hash(self, secret: bytes, *parts: str) -> str:
        # With lengths, so that no two ways to cut a text have one hash.
        text = "".join(f"{len(part)}:{part}" for part in parts).lower()
        digest = hmac.digest(secret, text.encode("utf-8", "surrogatepass"), "sha256")
        return base64.b64encode(digest, b"+/")[:HASH].decode("ascii")


def is_rewritten(local_part: str) -> bool:
    """Whether a local part looks as `Srs.rewritten` makes them."""
    return bool(_kind(local_part))


def _kind(local_part: str) -> str:
    kind = local_part[:4].upper()
    return kind if kind in ("SRS0", "SRS1") and local_part[4:5] in tuple(_SEPARATORS) else ""


def _mailbox(local_part: str, domain: str) -> Mailbox | None:
    try:
        return parse_mailbox(str(Mailbox(local_part, domain)))
    except ValueError:
        return None


def _written(day: int) -> str:
    day %= _DAYS
    return _DIGITS[day >> 5] + _DIGITS[day & 31]


def _is_recent(written: str, today: int) -> bool:
    """Whether a day is not long ago. One that is to come is another machine's, at midnight."""
    places = [_DIGITS.find(sign) for sign in written.upper()]
    if len(places) != 2 or min(places) < 0:
        return False
    age = (today - (places[0] << 5 | places[1])) % _DAYS
    return age <= LIFETIME or age == _DAYS - 1
