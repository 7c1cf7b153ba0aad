"""Parts to a message (RFC 5322, MIME): the same parts always to the same octets.

Date and Message-ID are left to who takes the message in, so that what is handed in twice is twice
the same. Nothing in a part can become a field, a line or a border of the message.
"""

from __future__ import annotations

import base64
import hashlib
import quopri
import re
from email.charset import QP, Charset
from email.header import Header
from email.utils import encode_rfc2231, quote
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from elemta.protocol import Mailbox, domain_to_ascii, parse_mailbox

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Characters of a line at most, if that can be (RFC 5322 §2.1.1).
LINE: Final = 78
#: Characters of a word that is not cut: far below what a line may have (RFC 5322 §2.1.1).
LONGEST_WORD: Final = 900

_PERSON: Final = re.compile(r"\s*(?P<name>.*?)\s*<(?P<address>[^<>]*)>\s*")
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')
_WORDS: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]+")
#: What readers agree on between quotes.
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9 ._+-]{1,60}")
_CHARSET: Final = Charset("utf-8")
_CHARSET.header_encoding = QP


class Person(Struct, frozen=True):
    """Somebody, as header fields have them.

    Attributes:
        name: printable; empty if it is not known.
    """

    name: str
    address: Mailbox


class Part(Struct, frozen=True):
    """A file that goes with a message.

    Attributes:
        name: printable; empty if it has none.
        type: a media type, neither of a message nor of many parts.
    """

    name: str
    type: str
    content: bytes


class Letter(Struct, frozen=True, kw_only=True):
    """What a message is made of.

    Attributes:
        author: who wrote it.
        to, cc: who gets it, and is seen to.
        answers: who gets the answers.
        subject: printable.
        text, html: the body, once or twice.
        fields: further ones: names, and printable values.
        parts: files that go with it.
    """

    author: Person
    to: tuple[Person, ...] = ()
    cc: tuple[Person, ...] = ()
    answers: tuple[Person, ...] = ()
    subject: str = ""
    text: str | None = None
    html: str | None = None
    fields: tuple[tuple[str, str], ...] = ()
    parts: tuple[Part, ...] = ()


def parse_person(text: str) -> Person:
    """Read ``alice@example.net`` or ``Alice <alice@example.net>``.

    Raises:
        ValueError: it is neither, with why.
    """
    if not text.isprintable():
        raise ValueError("an unprintable character")
    found = _PERSON.fullmatch(text)
    if found is None:
        return Person("", parse_mailbox(text.strip()))
    address, name = parse_mailbox(found["address"]), found["name"]
    if quoted := _QUOTED.fullmatch(name):
        name = re.sub(r"\\(.)", r"\1", quoted[1])
    elif "<" in name or ">" in name:
        raise ValueError("more than one pair of angle brackets")
    return Person(name, address)


def compose(letter: Letter) -> bytes:
    """The message, CRLF line ends. Takes a second for 50 MB: call it in a thread."""
    header = [
        *_people("From", (letter.author,)),
        *_people("To", letter.to),
        *_people("Cc", letter.cc),
        *_people("Reply-To", letter.answers),
        *([_unstructured("Subject", letter.subject)] if letter.subject else []),
        *(_unstructured(name, value) for name, value in letter.fields),
        "MIME-Version: 1.0",
    ]
    top = "\r\n".join(header).encode() + b"\r\n"
    return top + _body(letter)


def _body(letter: Letter) -> bytes:
    """The MIME fields of the message, an empty line, and its content."""
    texts = [
        _text(kind, text)
        for kind, text in (("plain", letter.text), ("html", letter.html))
        if text is not None
    ] or [_text("plain", "")]
    whole = texts[0] if len(texts) == 1 else _many("alternative", texts)
    if letter.parts:
        whole = _many("mixed", [whole, *map(_attached, letter.parts)])
    return whole


def _many(kind: str, parts: list[bytes]) -> bytes:
    """Parts as one. The border depends on all of them, so none of them can have it in it."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    border = f"=_{digest.hexdigest()[:40]}"
    line = f"--{border}".encode()
    top = f'Content-Type: multipart/{kind};\r\n boundary="{border}"\r\n\r\n'.encode()
    inner = b"".join(line + b"\r\n" + part + b"\r\n" for part in parts)
    return top + inner + line + b"--\r\n"


def _text(kind: str, text: str) -> bytes:
    """A text, so that no server has to know more than RFC 5321 asks for."""
    lines = re.sub(r"\r\n?", "\n", text)
    top = f"Content-Type: text/{kind}; charset=utf-8\r\nContent-Transfer-Encoding: "
    octets = lines.encode("utf-8", "replace")
    plain = lines.isascii() and all(len(line) <= 990 for line in octets.split(b"\n"))
    if plain and not re.search(rb"[^\t\n -~]", octets):
        return f"{top}7bit\r\n\r\n".encode() + octets.replace(b"\n", b"\r\n")
    if re.search(rb"[\x00-\x08\x0b-\x1f\x7f]", octets):
        return f"{top}base64\r\n\r\n".encode() + _base64(octets.replace(b"\n", b"\r\n"))
    return f"{top}quoted-printable\r\n\r\n".encode() + quopri.encodestring(octets).replace(
        b"\n", b"\r\n"
    )


def _attached(part: Part) -> bytes:
    parameter = _parameter(part.name)
    top = f"Content-Type: {part.type}\r\nContent-Transfer-Encoding: base64\r\n"
    top += f"Content-Disposition: attachment{parameter}\r\n\r\n"
    return top.encode() + _base64(part.content)


def _base64(octets: bytes) -> bytes:
    return base64.encodebytes(octets).replace(b"\n", b"\r\n")


def _parameter(name: str) -> str:
    """The name of a file as a parameter (RFC 2183 §2.3, RFC 2231 §3 and §4)."""
    if not name:
        return ""
    if _FILE_NAME.fullmatch(name):
        return f';\r\n filename="{name}"'
    encoded = encode_rfc2231(name, "utf-8")
    pieces = re.findall(r"(?:%[0-9A-F]{2}|[^%]){1,50}", encoded)
    return "".join(f";\r\n filename*{n}*={piece}" for n, piece in enumerate(pieces))


# Header fields.


def _people(name: str, people: tuple[Person, ...]) -> Iterator[str]:
    """The field, a line for each of them; none if there are none."""
    if people:
        yield f"{name}: " + ",\r\n ".join(map(_person, people))


def _person(person: Person) -> str:
    address = _address(person.address)
    name = person.name
    if not name:
        return address
    if not name.isascii() or len(name) > LINE // 2 or _looks_encoded(name):
        name = _encoded(name, len("Reply-To: "))
    elif not _WORDS.fullmatch(name) or name != name.strip():
        name = f'"{quote(name)}"'
    fold = "\r\n" if len(name) + len(address) > LINE // 2 else ""
    return f"{name}{fold} <{address}>"


def _address(address: Mailbox) -> str:
    """An address that all servers understand, if it can be written so."""
    if address.local_part.isascii() and not address.domain.isascii():
        try:
            return str(Mailbox(address.local_part, domain_to_ascii(address.domain)))
        except ValueError:  # no name for the DNS: those who know SMTPUTF8 understand it
            pass
    return str(address)


def _unstructured(name: str, value: str) -> str:
    """A field of free text, folded (RFC 5322 §2.2.3) and encoded (RFC 2047) where it must be."""
    words = value.split(" ")
    plain = value.isascii() and not _looks_encoded(value)
    if not plain or "" in words or any(len(word) > LONGEST_WORD for word in words):
        return f"{name}: {_encoded(value, len(name) + 2)}"
    first, *rest = words
    lines = [f"{name}: {first}"]
    for word in rest:
        if len(lines[-1]) + 1 + len(word) > LINE:
            lines.append("")
        lines[-1] += f" {word}"
    return "\r\n".join(lines)


def _looks_encoded(text: str) -> bool:
    """Whether a reader would take it for an encoded word."""
    return "=?" in text


def _encoded(text: str, taken: int = 0) -> str:
    """Encoded words, folded."""
    header = Header(text, _CHARSET, maxlinelen=LINE - 2, continuation_ws=" ")
    return header.encode(linesep="\r\n", maxlinelen=LINE - max(2, taken))
