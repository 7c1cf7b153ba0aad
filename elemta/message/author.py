"""A message's authors, and their domains: who its From says it is of (RFC 7489 §6.6.1).

It is read as programs that show mail read it, not as strictly as the grammar: what cannot be read
must not pass for the address of somebody else.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from elemta.protocol import domain_to_ascii, parse_mailbox

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from elemta.message.header import HeaderScanner
    from elemta.protocol import Mailbox

#: Authors of one message that are looked at.
MOST: Final = 10
_LONGEST: Final = 16 * 1024
#: A route before an address (RFC 5322 §4.4): domains only, so no program takes one of these for
#: the address itself.
_ROUTE: Final = re.compile(r"@[^@:,\s\"\\]++(?:\s*+,\s*+@[^@:,\s\"\\]++)*+:\s*+")
#: What headers are made of. Where there is nothing else, no name of a field has anything hidden.
_USUAL: Final = bytes(range(0x20, 0x7F)) + b"\t\r\n"
#: The name of a From field, for whoever leaves out what cannot be in one: a NUL, a byte order mark.
_JUNK: Final = rb"[^!-~\r\n]*+"
_FROM: Final = re.compile(
    rb"^(?![ \t])" + _JUNK.join([b"", b"F", b"r", b"o", b"m", b":"]), re.IGNORECASE | re.MULTILINE
)
#: What means something by itself between mailboxes, and within quotes and brackets.
_MARK: Final = re.compile(r'["(<,;:]')
_MARK_WITHIN: Final = re.compile(r'[\\">]')


class AuthorError(Exception):
    """Nobody could say whose message that is; `str` says why, for operators."""


def hidden_author(header: HeaderScanner) -> str:
    """Why some program may find another From field in a header than we do; empty: none does.

    Args:
        header: all of it.
    """
    octets = header.header
    if octets[:1] in (b" ", b"\t"):
        return "a line before the first field"
    if octets.translate(None, _USUAL) and len(_FROM.findall(octets)) != len(header.named(b"from")):
        return "a line is nearly a From field"
    return ""


def author_domains(fields: Iterable[bytes]) -> tuple[str, ...]:
    """The domains of all addresses in all From fields: A-labels in lower case, none twice.

    Args:
        fields: the values of the From fields, unfolded.

    Raises:
        AuthorError: there is no From field, one address has no domain, or there are too many.
    """
    found: dict[str, None] = {}
    fields = list(fields)
    if not fields:
        raise AuthorError("no From field")
    for value in fields:
        if len(value) > _LONGEST:
            raise AuthorError("a From field that is too long")
        _check_whole(value)
        addresses = list(_addresses(value.decode("utf-8", "replace")))
        if not addresses:
            raise AuthorError("a From field without an address")
        for address in addresses:
            found[_domain(address)] = None
            if len(found) > MOST:
                raise AuthorError(f"more than {MOST} authors")
    return tuple(found)


def author_mailboxes(value: bytes) -> tuple[Mailbox, ...]:
    """Everybody whom a From field names, or whom some program would take for the author.

    That is more than `author_domains` finds: an address that stands before one in angle brackets,
    without quotes, counts too, since it is what some programs show.

    Args:
        value: of the From field, or of another that names mailboxes, unfolded.

    Raises:
        AuthorError: there is none, one address cannot be read, or there are too many. `str` may be
            told to who sent that.
    """
    if len(value) > _LONGEST:
        raise AuthorError("it is too long")
    _check_whole(value)
    found: dict[Mailbox, None] = {}
    for plain, bracketed in _parts(value.decode("utf-8", "replace")):
        found |= dict.fromkeys(map(_read, _mailbox(plain, bracketed)))
        if bracketed:
            found |= dict.fromkeys(_named(plain))
    if not found:
        raise AuthorError("there is no address in it")
    if len(found) > MOST:
        raise AuthorError(f"there are more than {MOST} addresses in it")
    return tuple(found)


def _check_whole(value: bytes) -> None:
    """Some programs take a NUL for the end: they would show what stands before it."""
    if b"\0" in value:
        raise AuthorError("there is a NUL in it")


def _read(address: str) -> Mailbox:
    text = address.strip().removesuffix(".")
    if "\N{REPLACEMENT CHARACTER}" in text:
        raise AuthorError(f"{text!r} is no address: it is no UTF-8")
    try:
        return parse_mailbox(text)
    except ValueError as error:
        raise AuthorError(f"{address.strip()!r} is no address: {error}") from None


def _named(plain: str) -> Iterator[Mailbox]:
    """Addresses in a name, outside of quotes, where no @ may stand (RFC 5322 §3.2.5).

    Some programs leave out spaces, comments and what should not be there: so what has a domain must
    be an address. ``Alice @ home`` has none that anybody has mail from.
    """
    words = " ".join(" ".join(_outside(plain)).split())
    for word in words.replace(" @", "@").replace("@ ", "@").split():
        bare = word.strip("'.:[]")
        if "." in bare.partition("@")[2]:
            yield _read(bare)


def _domain(address: str) -> str:
    local, at, domain = address.rpartition("@")
    domain = domain.strip().removesuffix(".")
    if not (local and at):
        raise AuthorError("an author without a domain")
    if _has_at(local):
        raise AuthorError("an author with two domains")
    try:
        return domain_to_ascii(domain)
    except ValueError:
        raise AuthorError("an author whose domain is none") from None


def _has_at(local: str) -> bool:
    """Outside of quotes: programs differ in which of two domains they show."""
    return any("@" in each for each in _outside(local))


def _outside(text: str) -> list[str]:
    """What stands outside of quotes."""
    return text.replace("\\\\", "").replace('\\"', "").split('"')[::2]


def _addresses(text: str) -> Iterator[str]:
    """What stands between the angle brackets of each mailbox, or the mailbox where it has none."""
    for plain, bracketed in _parts(text):
        yield from _mailbox(plain, bracketed)


def _parts(text: str) -> Iterator[tuple[str, list[str]]]:
    """Of each mailbox what stands outside of angle brackets, and what in each pair of them."""
    plain: list[str] = []
    bracketed: list[str] = []
    at = False  # so what is plain is an address
    place, size = 0, len(text)
    while place < size:
        char = text[place]
        if char == '"':
            end = _behind(text, place, '"')
            plain.append(text[place:end])
            place = end
        elif char == "(":
            place = _behind_comment(text, place)
            plain.append(" ")
        elif char == "<":
            end = _behind(text, place, ">")
            bracketed.append(text[place + 1 : end - 1])
            place = end
        elif char in ",;":
            yield "".join(plain), bracketed
            plain, bracketed, at = [], [], False
            place += 1
        elif char == ":" and not (bracketed or at):
            plain = []  # the name of a group
            place += 1
        else:
            mark = _MARK.search(text, place + 1)
            run = text[place : size if mark is None else mark.start()]
            plain.append(run)
            at |= "@" in run
            place += len(run)
    yield "".join(plain), bracketed


def _mailbox(plain: str, bracketed: list[str]) -> Iterable[str]:
    if bracketed:
        # Two pairs of brackets: programs differ in which they show, so both must hold.
        for each in bracketed:
            route = _ROUTE.match(each)
            yield each if route is None else each[route.end() :]
        return
    if text := plain.strip():
        yield text


def _behind(text: str, place: int, end: str) -> int:
    place += 1
    while (mark := _MARK_WITHIN.search(text, place)) is not None:
        place = mark.start()
        if text[place] == "\\":
            place += 1
        elif text[place] == '"' and end == ">":
            place = _behind(text, place, '"') - 1
        elif text[place] == end:
            return place + 1
        place += 1
    raise AuthorError("it does not end: a quote, a bracket or a comment is left open")


def _behind_comment(text: str, place: int) -> int:
    depth = 0
    while place < len(text):
        char = text[place]
        place += 2 if char == "\\" else 1
        depth += (char == "(") - (char == ")")
        if not depth:
            return place
    raise AuthorError("it does not end: a quote, a bracket or a comment is left open")
