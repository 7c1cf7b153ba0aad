"""ASN.1's BER as LDAP has it (RFC 4511 §5.1): lengths are definite, tags have one octet. No I/O."""

from __future__ import annotations

from typing import Final

BOOLEAN: Final = 0x01
INTEGER: Final = 0x02
OCTETS: Final = 0x04
ENUMERATED: Final = 0x0A
SEQUENCE: Final = 0x30
SET: Final = 0x31


def encode(tag: int, *contents: bytes) -> bytes:
    """One element."""
    content = b"".join(contents)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(length))) + length + content


def number(value: int, tag: int = INTEGER) -> bytes:
    """An integer, or with another tag one of an enumeration."""
    return encode(tag, value.to_bytes((value + (value < 0)).bit_length() // 8 + 1, signed=True))


def text(value: str | bytes, tag: int = OCTETS) -> bytes:
    """A string of octets; text is UTF-8."""
    return encode(tag, value.encode() if isinstance(value, str) else value)


class Elements:
    """What is in an element, one after the other.

    Args:
        octets: its content.
    """

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._octets)

    @property
    def tag(self) -> int:
        """Of the next one.

        Raises:
            ValueError: there is none.
        """
        if not self:
            raise ValueError("an element is missing")
        return self._octets[self._at]

    def take(self, tag: int) -> bytes:
        """The content of the next one.

        Raises:
            ValueError: it is another, or not whole.
        """
        if self.tag != tag:
            raise ValueError(f"expected an element 0x{tag:02x}, not 0x{self.tag:02x}")
        found = measure(self._octets, self._at)
        if found is None or found[1] > len(self._octets):
            raise ValueError("an element that is not whole")
        begin, end = found
        self._at = end
        return self._octets[begin:end]

    def take_number(self, tag: int = INTEGER) -> int:
        """See `take`."""
        content = self.take(tag)
        if not 0 < len(content) <= 8:
            raise ValueError("a number of no octets, or of too many")
        return int.from_bytes(content, signed=True)

    def take_text(self, tag: int = OCTETS) -> str:
        """See `take`; what is no UTF-8 is replaced, as it is only shown."""
        return self.take(tag).decode("utf-8", "replace")


def measure(octets: bytes | bytearray, at: int = 0) -> tuple[int, int] | None:
    """Where the content of an element begins and ends; None: more octets are needed to say.

    Raises:
        ValueError: there is no such length in LDAP.
    """
    if len(octets) < at + 2:
        return None
    first = octets[at + 1]
    if first < 0x80:
        return at + 2, at + 2 + first
    size = first & 0x7F
    if not 1 <= size <= 4:
        raise ValueError("a length of no form that LDAP has")
    begin = at + 2 + size
    if len(octets) < begin:
        return None
    return begin, begin + int.from_bytes(octets[at + 2 : begin])
