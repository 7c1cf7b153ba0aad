"""The packets of the milter protocol, both ways, and how they stand on the wire. No I/O.

A packet is a length (of what follows it), a letter that says what it is, and what that needs:
mostly strings that a zero ends. Both directions are here, so that each can be held against the
other.
"""

from __future__ import annotations

import enum
from typing import ClassVar, Final, Self, TypeAlias, TypeVar

import msgspec
from msgspec import Struct
from typing_extensions import override

K = TypeVar("K")

#: The version that we speak.
VERSION: Final = 6
#: Octets of a packet that comes: more than the longest field that anybody would add.
MOST: Final = 128 * 1024
#: Octets of a body that one packet may bring.
CHUNK: Final = 65535


class MilterError(Exception):
    """The other side does not keep to the protocol, or is gone."""


class Actions(enum.IntFlag):
    """What a milter may change (``SMFIF_*``)."""

    ADD_FIELDS = 0x01
    CHANGE_BODY = 0x02
    ADD_RECIPIENTS = 0x04
    REMOVE_RECIPIENTS = 0x08
    CHANGE_FIELDS = 0x10
    QUARANTINE = 0x20
    CHANGE_SENDER = 0x40
    ADD_RECIPIENTS_WITH = 0x80
    CHOOSE_MACROS = 0x100


class Steps(enum.IntFlag):
    """What a milter need not hear, or does not answer, and other customs (``SMFIP_*``)."""

    NO_CONNECT = 0x01
    NO_HELO = 0x02
    NO_MAIL = 0x04
    NO_RCPT = 0x08
    NO_BODY = 0x10
    NO_FIELDS = 0x20
    NO_END_OF_HEADER = 0x40
    MUTE_FIELDS = 0x80
    NO_UNKNOWN = 0x100
    NO_DATA = 0x200
    SKIP = 0x400
    REJECTED_RCPT = 0x800
    MUTE_CONNECT = 0x1000
    MUTE_HELO = 0x2000
    MUTE_MAIL = 0x4000
    MUTE_RCPT = 0x8000
    MUTE_DATA = 0x10000
    MUTE_UNKNOWN = 0x20000
    MUTE_END_OF_HEADER = 0x40000
    MUTE_BODY = 0x80000
    LEADING_SPACE = 0x100000


class Packet(Struct, frozen=True):
    """One packet; this one has nothing but its letter."""

    LETTER: ClassVar[bytes] = b""

    @property
    def payload(self) -> bytes:
        """What stands behind the letter."""
        return b""

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        """The packet that has this behind its letter.

        Raises:
            MilterError: it cannot have.
        """
        # Some say more than they must: libraries disagree on what an empty packet has.
        return cls()

    def __bytes__(self) -> bytes:
        """As it stands on the wire."""
        payload = self.payload
        return (len(payload) + 1).to_bytes(4, "big") + self.LETTER + payload


class Strings(Packet, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One that has so many strings, and nothing else."""

    @property
    @override
    def payload(self) -> bytes:
        strings: tuple[bytes, ...] = msgspec.structs.astuple(self)
        return joined(*strings)

    @override
    @classmethod
    def parse(cls, payload: bytes) -> Self:
        try:
            return msgspec.convert(split(payload), cls)
        except msgspec.ValidationError:
            raise MilterError(f"a broken {cls.__name__}: {payload[:100]!r}") from None


class Words(Packet, frozen=True):
    """One that has one string at least: an address, and what else is said of it."""

    address: bytes
    words: tuple[bytes, ...] = ()

    @property
    @override
    def payload(self) -> bytes:
        return joined(self.address, *self.words)

    @override
    @classmethod
    def parse(cls, payload: bytes) -> Self:
        strings = split(payload)
        if not strings:
            raise MilterError(f"a {cls.__name__} without an address")
        return cls(strings[0], tuple(strings[1:]))


class Octets(Packet, frozen=True):
    """One that has octets of a body."""

    octets: bytes = b""

    @property
    @override
    def payload(self) -> bytes:
        return self.octets

    @override
    @classmethod
    def parse(cls, payload: bytes) -> Self:
        return cls(payload)


class Placed(Packet, frozen=True):
    """One that has a field and its number: of all fields from 0, or of its name from 1."""

    number: int
    name: bytes
    value: bytes

    @property
    @override
    def payload(self) -> bytes:
        return self.number.to_bytes(4, "big") + joined(self.name, self.value)

    @override
    @classmethod
    def parse(cls, payload: bytes) -> Self:
        strings = split(payload[4:])
        if len(strings) != 2:
            raise MilterError(f"a broken {cls.__name__}: {payload[:100]!r}")
        return cls(int.from_bytes(payload[:4], "big"), *strings)


# Both sides.


class Negotiate(Packet, frozen=True):
    """What one side offers, and what the other one takes of it (``SMFIC_OPTNEG``)."""

    LETTER: ClassVar[bytes] = b"O"

    version: int
    actions: Actions
    steps: Steps

    @property
    @override
    def payload(self) -> bytes:
        return b"".join(
            int(each).to_bytes(4, "big") for each in (self.version, self.actions, self.steps)
        )

    @override
    @classmethod
    def parse(cls, payload: bytes) -> Self:
        if len(payload) < 12:  # macros may stand behind that
            raise MilterError(f"a broken Negotiate: {payload[:100]!r}")
        version, actions, steps = (int.from_bytes(payload[at : at + 4], "big") for at in (0, 4, 8))
        return cls(version, Actions(actions), Steps(steps))


# What the mail server says.


class Macros(Packet, frozen=True):
    """What is known, said before the packet with the letter `stage`."""

    LETTER: ClassVar[bytes] = b"D"

    stage: bytes
    values: tuple[tuple[bytes, bytes], ...] = ()

    @property
    @override
    def payload(self) -> bytes:
        return self.stage + joined(*(each for pair in self.values for each in pair))

    @override
    @classmethod
    def parse(cls, payload: bytes) -> Self:
        strings = split(payload[1:])
        if not payload or len(strings) % 2:
            raise MilterError(f"broken Macros: {payload[:100]!r}")
        return cls(payload[:1], tuple(zip(strings[::2], strings[1::2], strict=True)))


class Connect(Packet, frozen=True):
    """A client: its name, the kind of its address (``4``, ``6``, ``L``, ``U``), and that."""

    LETTER: ClassVar[bytes] = b"C"

    name: bytes
    family: bytes = b"U"
    port: int = 0
    address: bytes = b""

    @property
    @override
    def payload(self) -> bytes:
        head = joined(self.name) + self.family
        if self.family == b"U":
            return head
        return head + self.port.to_bytes(2, "big") + joined(self.address)

    @override
    @classmethod
    def parse(cls, payload: bytes) -> Self:
        name, _, rest = payload.partition(b"\0")
        family, port, address = rest[:1], rest[1:3], split(rest[3:])
        if family == b"U":
            return cls(name)
        if family not in (b"4", b"6", b"L") or len(address) != 1:
            raise MilterError(f"a broken Connect: {payload[:100]!r}")
        return cls(name, family, int.from_bytes(port, "big"), address[0])


class Helo(Strings, frozen=True):
    """What the client calls itself."""

    LETTER: ClassVar[bytes] = b"H"
    name: bytes


class Mail(Words, frozen=True):
    """MAIL FROM, with its parameters."""

    LETTER: ClassVar[bytes] = b"M"


class Rcpt(Words, frozen=True):
    """RCPT TO, with its parameters."""

    LETTER: ClassVar[bytes] = b"R"


class Data(Packet, frozen=True):
    """DATA."""

    LETTER: ClassVar[bytes] = b"T"


class Field(Strings, frozen=True):
    """A field of the header: line ends within are LF."""

    LETTER: ClassVar[bytes] = b"L"
    name: bytes
    value: bytes


class EndOfHeader(Packet, frozen=True):
    """No field follows."""

    LETTER: ClassVar[bytes] = b"N"


class Body(Octets, frozen=True):
    """A piece of the body, at most `CHUNK` octets."""

    LETTER: ClassVar[bytes] = b"B"


class EndOfBody(Octets, frozen=True):
    """The last piece."""

    LETTER: ClassVar[bytes] = b"E"


class Abort(Packet, frozen=True):
    """This message is over; the connection is not."""

    LETTER: ClassVar[bytes] = b"A"


class Quit(Packet, frozen=True):
    """The connection is over."""

    LETTER: ClassVar[bytes] = b"Q"


class QuitNext(Packet, frozen=True):
    """The client has gone, and another one is about to come by the same connection."""

    LETTER: ClassVar[bytes] = b"K"


class Unknown(Strings, frozen=True):
    """A command that the server does not know."""

    LETTER: ClassVar[bytes] = b"U"
    line: bytes


Command: TypeAlias = (
    Negotiate | Macros | Connect | Helo | Mail | Rcpt | Data | Field | EndOfHeader | Body
    | EndOfBody | Abort | Quit | QuitNext | Unknown
)  # fmt: skip


# What a milter answers.


class Continue(Packet, frozen=True):
    """Go on."""

    LETTER: ClassVar[bytes] = b"c"


class Accept(Packet, frozen=True):
    """No need to ask again: about this message, or before that about this client."""

    LETTER: ClassVar[bytes] = b"a"


class Reject(Packet, frozen=True):
    """550."""

    LETTER: ClassVar[bytes] = b"r"


class TempFail(Packet, frozen=True):
    """451."""

    LETTER: ClassVar[bytes] = b"t"


class Discard(Packet, frozen=True):
    """250, and give it to nobody."""

    LETTER: ClassVar[bytes] = b"d"


class ReplyCode(Strings, frozen=True):
    """A reply in the milter's own words, of one or several lines."""

    LETTER: ClassVar[bytes] = b"y"
    text: bytes


class Progress(Packet, frozen=True):
    """It takes longer."""

    LETTER: ClassVar[bytes] = b"p"


class Skip(Packet, frozen=True):
    """No more of the body, please."""

    LETTER: ClassVar[bytes] = b"s"


class ConnectionFailed(Packet, frozen=True):
    """The milter lost its connection to somebody else."""

    LETTER: ClassVar[bytes] = b"f"


class ShutDown(Packet, frozen=True):
    """421."""

    LETTER: ClassVar[bytes] = b"4"


class AddField(Strings, frozen=True):
    """One more field, at the end."""

    LETTER: ClassVar[bytes] = b"h"
    name: bytes
    value: bytes


class InsertField(Placed, frozen=True):
    """One more field, at a place."""

    LETTER: ClassVar[bytes] = b"i"


class ChangeField(Placed, frozen=True):
    """Another value for a field; none: it goes."""

    LETTER: ClassVar[bytes] = b"m"


class AddRecipient(Strings, frozen=True):
    """One more recipient."""

    LETTER: ClassVar[bytes] = b"+"
    address: bytes


class AddRecipientWith(Words, frozen=True):
    """One more recipient, with parameters."""

    LETTER: ClassVar[bytes] = b"2"


class RemoveRecipient(Strings, frozen=True):
    """One recipient less."""

    LETTER: ClassVar[bytes] = b"-"
    address: bytes


class ReplaceBody(Octets, frozen=True):
    """A piece of another body."""

    LETTER: ClassVar[bytes] = b"b"


class ChangeSender(Words, frozen=True):
    """Another sender."""

    LETTER: ClassVar[bytes] = b"e"


class Quarantine(Strings, frozen=True):
    """Hold it, for a reason."""

    LETTER: ClassVar[bytes] = b"q"
    reason: bytes


Response: TypeAlias = (
    Negotiate | Continue | Accept | Reject | TempFail | Discard | ReplyCode | Progress | Skip
    | ConnectionFailed | ShutDown | AddField | InsertField | ChangeField | AddRecipient
    | AddRecipientWith | RemoveRecipient | ReplaceBody | ChangeSender | Quarantine
)  # fmt: skip

COMMANDS: Final[dict[bytes, type[Command]]] = {
    each.LETTER: each
    for each in (
        *(Negotiate, Macros, Connect, Helo, Mail, Rcpt, Data, Field, EndOfHeader, Body),
        *(EndOfBody, Abort, Quit, QuitNext, Unknown),
    )
}
RESPONSES: Final[dict[bytes, type[Response]]] = {
    each.LETTER: each
    for each in (
        *(Negotiate, Continue, Accept, Reject, TempFail, Discard, ReplyCode, Progress, Skip),
        *(ConnectionFailed, ShutDown, AddField, InsertField, ChangeField, AddRecipient),
        *(AddRecipientWith, RemoveRecipient, ReplaceBody, ChangeSender, Quarantine),
    )
}


class Inbox:
    """Octets that came, and the packets in them.

    Args:
        most: octets of a packet that are too many.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._held = bytearray()

    @property
    def empty(self) -> bool:
        """Whether all that came was read."""
        return not self._held

    def feed(self, octets: bytes) -> None:
        """Some more came."""
        self._held += octets

    def command(self) -> Command | None:
        """The next one that a mail server said; None: there is none yet.

        Raises:
            MilterError: that is none.
        """
        found = self._next()
        return None if found is None else _kind(COMMANDS, found[0]).parse(found[1])

    def response(self) -> Response | None:
        """The next one that a milter said; None: there is none yet.

        Raises:
            MilterError: that is none.
        """
        found = self._next()
        return None if found is None else _kind(RESPONSES, found[0]).parse(found[1])

    def _next(self) -> tuple[bytes, bytes] | None:
        held = self._held
        if len(held) < 4:
            return None
        size = int.from_bytes(held[:4], "big")
        if not 1 <= size <= self._most:
            raise MilterError(f"a packet of {size} octets")
        if len(held) < 4 + size:
            return None
        letter, payload = bytes(held[4:5]), bytes(held[5 : 4 + size])
        del held[: 4 + size]
        return letter, payload


def joined(*strings: bytes) -> bytes:
    """Strings, each with a zero behind it. One within would make two of one: it goes."""
    return b"".join(each.replace(b"\0", b"") + b"\0" for each in strings)


def split(payload: bytes) -> list[bytes]:
    """The strings that a payload is made of.

    Raises:
        MilterError: no zero ends the last.
    """
    *strings, rest = payload.split(b"\0")
    if rest:
        raise MilterError(f"no zero at the end of {payload[:100]!r}")
    return strings


def _kind(known: dict[bytes, type[K]], letter: bytes) -> type[K]:
    found = known.get(letter)
    if found is None:
        raise MilterError(f"no packet has the letter {letter!r}")
    return found
