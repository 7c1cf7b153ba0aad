"""Lines of the control socket: octets to lines, lines to requests and answers, and back."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from elemta.control.interface import RequestError
from elemta.control.messages import Answer, Request

#: Octets of a request at most; a filter may name some thousand ids.
MAX_REQUEST: Final = 2**18
#: The same of one that hands in a message of 64 MiB: for our own processes, and root.
MAX_SUBMISSION: Final = 96 * 2**20
#: Octets of an answer at most: a message with a hundred thousand recipients.
MAX_ANSWER: Final = 2**26

_COMPLAINT: Final = re.compile(r"(.*?)(?: - at (?:`key` in )?`\$\.?(.*)`)?", re.DOTALL)

_encode: Final = msgspec.json.Encoder().encode
# What msgspec declares knows no unions: the annotations say what it makes of them.
_request: Final[msgspec.json.Decoder[Request]] = msgspec.json.Decoder(Request)
_answer: Final[msgspec.json.Decoder[Answer]] = msgspec.json.Decoder(Answer)


class Lines:
    """Cuts a stream into lines.

    Args:
        longest: octets; what is longer is thrown away up to its end.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._parts: list[bytes] = []
        self._size = 0

    def receive(self, octets: bytes) -> list[bytes | None]:
        """The lines that are whole now, without their ends; None for one that was too long."""
        lines: list[bytes | None] = []
        *whole, rest = octets.split(b"\n")
        for part in whole:
            self._append(part)
            lines.append(b"".join(self._parts) if self._size <= self._longest else None)
            self._parts, self._size = [], 0
        self._append(rest)
        return lines

    @property
    def pending(self) -> int:
        """Octets in memory of a line that goes on."""
        return self._size if self._size <= self._longest else 0

    def _append(self, part: bytes) -> None:
        self._size += len(part)
        if self._size <= self._longest:
            self._parts.append(part)
        else:
            self._parts = []


def encode(line: Request | Answer) -> bytes:
    """A line, with its end."""
    return _encode(line) + b"\n"


def decode_request(line: bytes | None, longest: int = MAX_REQUEST) -> Request:
    """What a client asks.

    Args:
        line: None: it had more than `longest` octets.
        longest: that a line may have.

    Raises:
        RequestError: nobody can tell.
    """
    if line is None:
        raise RequestError(f"expected at most {longest} octets in a line")
    try:
        return _request.decode(line)
    except msgspec.ValidationError as error:
        found = _COMPLAINT.fullmatch(str(error))
        assert found is not None, "the expression matches any text"
        raise RequestError(found[1], found[2] or "") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"expected a line of JSON: {error}") from None


def decode_answer(line: bytes) -> Answer:
    """What a server answers.

    Raises:
        msgspec.DecodeError: it is none that we know; perhaps of another version.
    """
    return _answer.decode(line)
