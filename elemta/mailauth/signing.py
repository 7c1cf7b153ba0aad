"""Signs messages (RFC 6376, RFC 8463): a header and the digest of a body in, a field out.

dkimpy chooses the fields, brings them into their canonical form, and hashes the field that is to
sign, by the very functions that verify; the digest of the body is `elemta.mailauth.body`'s, which
takes linear time, and the signature OpenSSL's. No I/O, and no clock.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from typing import TYPE_CHECKING, Final, TypeAlias

import dkim
from dkim.canonicalization import CanonicalizationPolicy
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
#: Those of which one more is denied where there is one already. Where there is none, a mailing
#: list that changes nothing else may add its own.
_ONCE_THERE: Final = re.compile(r"list-.*")
#: Characters of a line, as far as it is ours to fold.
_LINE: Final = 76
_RELAXED: Final = CanonicalizationPolicy.from_c_value(b"relaxed/relaxed")
_LABEL: Final = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_SELECTOR: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_LONGEST_SELECTOR: Final = 190
_NAME: Final = re.compile(rb"[!-9;-~]+[ \t]*")

#: The name of a field and its value, as they stand: spaces, folds and final CRLF included.
RawField: TypeAlias = tuple[bytes, bytes]


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

    def of(self, fields: Sequence[RawField]) -> tuple[Sequence[Sequence[bytes]], list[bytes]]:
        """Those fields in their relaxed form, and their names as ``h=`` has them."""
        known = self._known
        canonical = relaxed([each for each in fields if each[0].lower().rstrip() in known])
        counts = Counter([name for name, _ in canonical])
        names: list[bytes] = []
        for name, once_more, once_there in self._names:
            there = counts[name]
            if there or once_more:
                names += [name] * (there + (once_more or once_there))
        return canonical, names


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
        canonical, self.names = selection.of(raw_fields(header))
        chosen = dkim.select_headers(canonical, self.names)
        self._signed = b"".join([b"%s:%s" % (name, value) for name, value in chosen])
        self._lines = _names(self.names)

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
    field = (name.encode("ascii"), value.encode("ascii"))
    digest = hashlib.sha256(signed)
    dkim.hash_headers(digest, _RELAXED, (), (), field, {})
    made = base64.b64encode(key.sign(digest.digest())).decode("ascii")
    pieces = [made[place : place + _LINE - 3] for place in range(0, len(made), _LINE - 3)]
    return value + "\r\n\t ".join(pieces)


def raw_fields(header: bytes) -> list[RawField]:
    """The fields of a header from the top, each as it stands; what is none is passed over.

    Args:
        header: each line with its CRLF; the last may lack it.
    """
    whole: list[bytes] = []
    for line in header.split(b"\r\n"):
        if line[:1] in (b" ", b"\t") and whole:
            whole[-1] += b"\r\n" + line
        elif line:
            whole.append(line)
    fields: list[RawField] = []
    for each in whole:
        name, colon, value = each.partition(b":")
        if colon and _NAME.fullmatch(name):
            fields.append((name, value + b"\r\n"))
    return fields


def relaxed(fields: Sequence[RawField]) -> Sequence[Sequence[bytes]]:
    """Fields in their relaxed form (RFC 6376 §3.4.2)."""
    return _RELAXED.canonicalize_headers(fields)


def _names(names: Sequence[bytes]) -> list[str]:
    """``h=`` in lines."""
    lines = ["h="]
    for place, name in enumerate(names, 1):
        word = name.decode("ascii") + (":" if place < len(names) else ";")
        if len(lines[-1]) + len(word) > _LINE:
            lines.append(" ")
        lines[-1] += word
    return lines
