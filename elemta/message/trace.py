"""The fields that a message collects on its way (RFC 5321 §4.4), and how fields are written.

Whatever is written here may come from an attacker: what a client calls itself, what the DNS says
of its address, a local part. So each value is made harmless before it becomes part of a field:
nothing can end a line, open or close a comment, or add a field.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from elemta.protocol import Mailbox, ReversePath

#: Received fields beyond which a message is taken to go round in circles.
MAX_HOPS: Final = 50

#: Characters of a line, CRLF not counted: wanted, and allowed (RFC 5322 §2.1.1).
WANTED: Final = 78
ALLOWED: Final = 998

#: Characters of one value that we did not choose ourselves (a domain has 255, RFC 5321 §4.5.3.1.2).
_LONGEST: Final = 255

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)

#: Octets that one word of a folded field may have: with a name or a gap, less than a line.
_LONGEST_WORD: Final = 900

#: A domain, an address literal, an id: what stands in a trace field as it is.
_HARMLESS: Final = re.compile(r"[\w.:+-]{1,255}|\[[\w.:+-]{1,253}\]", re.ASCII)
_HARMFUL: Final = re.compile(r"[^\w.:+-]", re.ASCII)
#: The same for a comment, where words are.
_HARMFUL_COMMENT: Final = re.compile(r"[^\w.:+/=, -]", re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]+")
_WORD: Final = re.compile(r"( *)([^ ]+)")
_NAME: Final = re.compile(r"[!-9;-~]{1,77}")


def received(
    *,
    helo: str,
    address: str,
    rdns: str | None,
    by: str,
    protocol: str,
    id: str,  # noqa: A002 (the RFC's name of the clause)
    recipient: Mailbox | None,
    tls: str | None,
    time: float,
) -> bytes:
    """The field that says who handed the message to whom (RFC 5321 §4.4).

    Args:
        helo: what the client called itself; empty if it did not.
        address: its IP address; empty for a Unix socket, or if we are the client ourselves.
        rdns: the name of that address, if it has a proven one.
        by: our own name.
        protocol: e.g. ``ESMTP`` or ``ESMTPSA`` (RFC 3848).
        id: of the message, in our queue.
        recipient: only if it is the only one: the others must not be told of each other.
        tls: version and cipher, e.g. ``version=TLSv1.3 cipher=TLS_AES_256_GCM_SHA384``.
        time: seconds since the epoch.

    Returns:
        The whole field, folded, with its CRLF. UTF-8 only if the recipient needs it.
    """
    source = f"Received: from {harmless(helo)}"
    if address:
        literal = f"[IPv6:{harmless(address)}]" if ":" in address else f"[{harmless(address)}]"
        source += f" ({literal})" if rdns is None else f" ({harmless(rdns)} {literal})"
    target = _target(by, protocol, tls)
    what = f"id {harmless(id)}"
    if recipient is not None:
        what += f" for <{path(recipient)}>"
    widest = max(map(len, target.split("\r\n\t")))
    if len(source) > WANTED or widest >= WANTED or len(what) >= WANTED - 1:
        value = f"{source} {target} {what}; {date(time)}"
        return fold("Received", value.removeprefix("Received: "))
    return f"{source}\r\n\t{target}\r\n\t{what};\r\n\t{date(time)}\r\n".encode("utf-8", "replace")


@lru_cache(maxsize=64)  # our own words, which are few
def _target(by: str, protocol: str, tls: str | None) -> str:
    """Folded before the comment if that is too much for a line: as with most ciphers."""
    target = f"by {harmless(by)} with {harmless(protocol)}"
    if tls is None:
        return target
    comment = f"({_HARMFUL_COMMENT.sub('?', tls[:_LONGEST])})"
    gap = " " if len(target) + 1 + len(comment) < WANTED else "\r\n\t"
    return f"{target}{gap}{comment}"


def return_path(sender: ReversePath) -> bytes:
    """The field of final delivery that keeps the envelope sender (RFC 5321 §4.4)."""
    return _wire(f"Return-Path: <{path(sender) if sender is not None else ''}>")


def delivered_to(mailbox: Mailbox, original: Mailbox | None = None) -> bytes:
    """The field of final delivery by which a mailbox knows its own mail again (RFC 9228).

    Args:
        mailbox: whose it is.
        original: as the client named it, if an alias, a tag or a catch-all led here: it stands in
            a field of its own, whose name others have made usual.
    """
    field = _wire(f"Delivered-To: {path(mailbox)}")
    if original is None or original == mailbox:
        return field
    return field + _wire(f"X-Original-To: {path(original)}")


def date(time: float) -> str:
    """A date and time in UTC as fields have it (RFC 5322 §3.3).

    Args:
        time: seconds since the epoch; from the year 1 to 9999.
    """
    return _date(int(time // 1))


@lru_cache(maxsize=64)  # most fields are of this very second
def _date(time: int) -> str:
    when = datetime.fromtimestamp(time, UTC)
    return (
        f"{_DAYS[when.weekday()]}, {when.day:02d} {_MONTHS[when.month - 1]} {when.year:04d}"
        f" {when.hour:02d}:{when.minute:02d}:{when.second:02d} +0000"
    )


def fold(name: str, value: str) -> bytes:
    """One field, folded before spaces to lines of 78 octets if that can be, of 998 in any case.

    Unfolding it gives the value back, except that control characters become spaces, spaces round
    the value go, and what nobody writes is cut by spaces: words of more than 900 octets.

    Args:
        name: printable ASCII without spaces and colons, at most 77 characters.
        value: any text. What is not ASCII is written as UTF-8 (RFC 6532).

    Raises:
        ValueError: `name` is no name.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"no name of a field: {name!r}")
    folded = b""
    line = f"{name}:".encode("ascii")
    bare = True  # a fold right behind the name confuses old readers
    for piece in _pieces(value):
        if not bare and len(line) + len(piece) > WANTED:
            folded += line + b"\r\n"
            line = b""
        line += piece
        bare = False
    return folded + line + b"\r\n"


def _pieces(value: str) -> Iterator[bytes]:
    """Words, each with the spaces before it: a fold is put before those, so none are lost."""
    for spaces, word in _WORD.findall(_CONTROLS.sub(" ", value).strip(" ")):
        gap = (spaces[:64] or " ").encode("ascii")
        octets = word.encode("utf-8", "replace")
        if len(octets) <= _LONGEST_WORD:
            yield gap + octets
        else:
            for start in range(0, len(word), _LONGEST_WORD // 4):
                piece = word[start : start + _LONGEST_WORD // 4]
                yield (gap if start == 0 else b" ") + piece.encode("utf-8", "replace")


def harmless(text: str) -> str:
    """A domain, an address literal or an id, without whatever could be none of these."""
    if _HARMLESS.fullmatch(text):
        return text
    return _HARMFUL.sub("?", text[:_LONGEST]) or "unknown"


def path(mailbox: Mailbox) -> str:
    """An address as fields have it, without its angle brackets."""
    text = str(mailbox)
    if len(text) > _LONGEST:
        # A valid one has at most 386 octets, so nothing is lost.
        text = text.encode("utf-8", "replace")[:_LONGEST_WORD].decode("utf-8", "ignore")
    return text if text.isprintable() else _CONTROL.sub("?", text)


def _wire(line: str) -> bytes:
    return f"{line}\r\n".encode("utf-8", "replace")
