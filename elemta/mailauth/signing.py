"""Signs messages (RFC 6376, RFC 8463): a header and the digest of a body in, a field out.

All mail of ours comes through here, so the header is gone through once, where dkimpy would go four
times; dkimpy verifies, and tests hold this against it. The digest of the body is
`elemta.mailauth.body`'s, which takes linear time, and the signature OpenSSL's. No I/O, no clock.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from elemta.mailauth.private_keys import PrivateKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: Fields that are signed as often as they are there, in lower case: what people see, what threads
#: are made of, what says how to read the rest (RFC 6376 §5.4.1), and what buttons of mail programs
#: do (RFC 8058 §4). Trace fields are not among them: those change on the way.
SIGNED: Final = (
    *("from", "sender", "reply-to", "to", "cc", "subject", "date", "message-id"),
    *("in-reply-to", "references", "mime-version", "content-type", "content-transfer-encoding"),
    *("content-id", "content-description", "content-disposition", "content-language"),
    *("resent-date", "resent-from", "resent-sender", "resent-to", "resent-cc"),
    *("resent-message-id", "resent-reply-to", "autocrypt"),
    *("list-id", "list-help", "list-unsubscribe", "list-unsubscribe-post", "list-subscribe"),
    *("list-post", "list-owner", "list-archive"),
)
#: Those that are signed once more than they are there, so that nobody can add one: whoever shows
#: the message might show that one (RFC 6376 §8.15).
OVERSIGNED: Final = (
    *("from", "reply-to", "to", "cc", "subject", "date", "message-id"),
    *("mime-version", "content-type", "content-transfer-encoding"),
)
#: Those of which one more is denied where there is one already: programs would show either. Where
#: there is none, a mailing list that changes nothing else may add its own.
_ONCE_THERE: Final = re.compile(r"list-.*|sender|in-reply-to|references")
#: Characters of a line, as far as it is ours to fold.
_LINE: Final = 76
#: What a line begins with that goes on with the one before it; or it is empty.
_SPACES: Final = (b" ", b"\t", b"")
_LABEL: Final = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_SELECTOR: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_LONGEST_SELECTOR: Final = 190


def is_selector(text: str) -> bool:
    """Whether keys can be found by it: labels of the DNS (RFC 6376 §3.1)."""
    return len(text) <= _LONGEST_SELECTOR and _SELECTOR.fullmatch(text) is not None


class Signer(Struct, frozen=True):
    """Whose signature a message gets.

    Attributes:
        domain: A-labels in lower case.
        selector: by which others find the key, below ``_domainkey``.
        key: signs.
    """

    domain: str
    selector: str
    key: PrivateKey

    @property
    def record(self) -> str:
        """Where others find the key."""
        return f"{self.selector}._domainkey.{self.domain}"


class Selection:
    """Which fields are signed, and which of them once more than they are there.

    Args:
        signed, oversigned: names of fields in any case; see `SIGNED` and `OVERSIGNED`. Of the
            latter those that are not among the former are passed over.
    """

    def __init__(
        self, signed: Iterable[str] = SIGNED, oversigned: Iterable[str] = OVERSIGNED
    ) -> None:
        more = {each.lower() for each in oversigned}
        self._names = [
            (name.encode("ascii"), name in more, _ONCE_THERE.fullmatch(name) is not None)
            for name in dict.fromkeys(each.lower() for each in signed)
        ]
        self._known = frozenset(name for name, _, _ in self._names)

    def of(self, header: bytes) -> tuple[bytes, tuple[bytes, ...]]:
        """What is signed of a header, in its relaxed form, and the names as ``h=`` has them.

        Args:
            header: each line with its CRLF; the last may lack it. What is no field is passed over.
        """
        there = self._there(header)
        names: list[bytes] = []
        signed: list[bytes] = []
        for name, once_more, once_there in self._names:
            values = there.get(name)
            if values is not None:
                names += [name] * (len(values) + (once_more or once_there))
                # Of several the lowest is the first (RFC 6376 §5.4.2).
                signed += [b"%s:%s" % (name, relaxed(each)) for each in reversed(values)]
            elif once_more:
                names.append(name)
        return b"".join(signed), tuple(names)

    def _there(self, header: bytes) -> dict[bytes, list[bytes]]:
        """The values of the fields that count, by name from the top, each as it stands."""
        there: dict[bytes, list[bytes]] = {}
        values: list[bytes] | None = None
        for line in header.split(b"\r\n"):
            if line[:1] in _SPACES:
                if values is not None and line:
                    values[-1] += line  # unfolded by that
                continue
            name, colon, value = line.partition(b":")
            key = name.rstrip(b" \t").lower() if colon else b""
            if key in self._known:
                values = there.setdefault(key, [])
                values.append(value)
            else:
                values = None
        return there


_USUAL: Final = Selection()


class Signing:
    """A header that is to be signed, by one key or by several.

    Args:
        header: as it will be sent, each line with its CRLF.
        selection: which fields.

    Attributes:
        names: as ``h=`` has them.
    """

    def __init__(self, header: bytes, selection: Selection = _USUAL) -> None:
        self._signed, self.names = selection.of(header)
        self._lines = _lines(self.names)

    def field(
        self, signer: Signer, body: bytes, *, now: float, expires: float | None = None
    ) -> str:
        """The value of a DKIM-Signature field, folded, as it stands behind the colon.

        Args:
            signer: whose it is.
            body: the SHA-256 digest of the body in its relaxed form.
            now: seconds since the epoch.
            expires: likewise; None: the signature is good for ever.
        """
        times = f"t={int(now)};" + ("" if expires is None else f" x={int(expires)};")
        lines = [
            f" v=1; a={signer.key.kind}-sha256; c=relaxed/relaxed;",
            f"d={signer.domain}; s={signer.selector};",
            times,
        ]
        return self.tagged("DKIM-Signature", lines, signer.key, body)

    def tagged(self, name: str, lines: list[str], key: PrivateKey, body: bytes) -> str:
        """The value of a field that signs the header and a body.

        Args:
            name: of the field.
            lines: its first tags; the first line begins with a space.
            key: signs.
            body: as above.
        """
        bh = base64.b64encode(body).decode("ascii")
        lines = [*lines, *self._lines, f"bh={bh};"]
        return signature(name, lines, key, self._signed)


def signature(name: str, lines: Sequence[str], key: PrivateKey, signed: bytes) -> str:
    """The value of a field that signs.

    Args:
        name: of the field.
        lines: its tags but for ``b=``, as `Signing.tagged` has them.
        key: signs.
        signed: all that is signed but this field, in its relaxed form.
    """
    value = "\r\n\t".join([*lines, "b="])
    digest = hashlib.sha256(signed)
    # Without its line end (RFC 6376 §3.7).
    digest.update(b"%s:%s" % (name.lower().encode("ascii"), relaxed(value.encode("ascii"))[:-2]))
    made = base64.b64encode(key.sign(digest.digest())).decode("ascii")
    pieces = [made[place : place + _LINE - 3] for place in range(0, len(made), _LINE - 3)]
    return value + "\r\n\t ".join(pieces)


def relaxed(value: bytes) -> bytes:
    """The value of a field in its relaxed form (RFC 6376 §3.4.2), its line end included.

    Args:
        value: as it stands behind the colon, with folds.
    """
    value = value.replace(b"\r\n", b"").replace(b"\n", b"").replace(b"\t", b" ")
    while b"  " in value:
        value = value.replace(b"  ", b" ")  # each time of half as many
    return value.strip() + b"\r\n"


@lru_cache(maxsize=128)  # most messages of a program have the same fields
def _lines(names: tuple[bytes, ...]) -> tuple[str, ...]:
    """``h=`` in lines."""
    lines = ["h="]
    for place, name in enumerate(names, 1):
        word = name.decode("ascii") + (":" if place < len(names) else ";")
        if len(lines[-1]) + len(word) > _LINE:
            lines.append(" ")
        lines[-1] += word
    return tuple(lines)
