"""One conversation with a directory (RFC 4511): one question after the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import trio
from msgspec import Struct

from elemta.net.ldap import ber

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

#: Octets of one message that are too many.
LARGEST: Final = 2**20
#: Octets that are read at a time.
_SOME: Final = 64 * 1024
#: Entries of one answer that are looked at.
_MOST: Final = 100

# What is said (RFC 4511 §4.2 to §4.14).
_BIND, _BOUND = 0x60, 0x61
_UNBIND: Final = 0x42
_SEARCH, _ENTRY, _DONE, _REFERENCE = 0x63, 0x64, 0x65, 0x73
_EXTENDED, _EXTENDED_DONE = 0x77, 0x78
_SIMPLE: Final = 0x80
_REQUEST_NAME: Final = 0x80
_START_TLS: Final = "1.3.6.1.4.1.1466.20037"

# What came of it (§4.1.9).
_SUCCESS: Final = 0
_TOO_MANY: Final = 4
_NO_SUCH_OBJECT: Final = 32
#: What says that it is his fault who binds: a constraint (he is locked), the wrong kind of proof,
#: wrong credentials, and unwilling (his account is inactive).
_REFUSED: Final = frozenset({19, 48, 49, 53})


class LdapError(Exception):
    """The directory cannot be asked; the message says why, in its words or in ours."""


class Entry(Struct, frozen=True):
    """What a search has found.

    Attributes:
        name: its distinguished name.
        attributes: their values, by their names in small letters; what is no UTF-8 is left out.
    """

    name: str
    attributes: Mapping[str, tuple[str, ...]]


class LdapClient:
    """A conversation. Whoever has it has the deadline.

    Args:
        stream: to the server; `aclose` closes it.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._held = bytearray()
        self._id = 0

    async def aclose(self) -> None:
        """Say good-bye, and close the stream."""
        try:
            await self._send(ber.encode(_UNBIND))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await self._stream.aclose()

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Encrypt all that follows (§4.14).

        Raises:
            LdapError: the server does not, or something came before that could have been anybody's.
        """
        wanted = ber.encode(_EXTENDED, ber.text(_START_TLS, _REQUEST_NAME))
        result, why = _result(await self._ask(wanted, _EXTENDED_DONE))
        if result != _SUCCESS:
            raise LdapError(f"StartTLS is refused: {result} {why}")
        if self._held:
            raise LdapError("the server said something before TLS that it would mean within")
        self._stream = trio.SSLStream(
            self._stream, context, server_hostname=host, https_compatible=True
        )

    async def bind(self, name: str, password: str) -> bool:
        """Prove who we are, by a password (§4.2).

        Args:
            name: a distinguished name.
            password: not empty: servers take that for the wish to be nobody, and grant it
                (RFC 4513 §5.1.2).

        Returns:
            Whether it is the right one.

        Raises:
            LdapError: the server cannot say.
            ValueError: name or password is empty.
        """
        if not name or not password:
            raise ValueError("whoever binds has a name and a password")
        wanted = ber.encode(_BIND, ber.number(3), ber.text(name), ber.text(password, _SIMPLE))
        result, why = _result(await self._ask(wanted, _BOUND))
        if result == _SUCCESS:
            return True
        if result in _REFUSED:
            return False
        raise LdapError(f"the bind is answered {result} {why}")

    async def search(
        self, base: str, wanted: bytes, attributes: Sequence[str], *, seconds: int
    ) -> list[Entry]:
        """All entries at and below a place (§4.5).

        Args:
            base: the distinguished name of the place.
            wanted: see `compile_filter`.
            attributes: those that are wanted.
            seconds: after which the server shall give up.

        Raises:
            LdapError: the server cannot say, or there are more than we look at.
        """
        request = ber.encode(
            _SEARCH,
            ber.text(base),
            ber.number(2, ber.ENUMERATED),  # all of the tree
            ber.number(0, ber.ENUMERATED),  # aliases are not followed
            ber.number(_MOST),
            ber.number(seconds),
            ber.encode(ber.BOOLEAN, b"\0"),
            wanted,
            ber.encode(ber.SEQUENCE, *map(ber.text, attributes or ("1.1",))),  # 1.1: none
        )
        await self._send(request)
        found: list[Entry] = []
        while True:
            tag, content = await self._receive()
            if tag == _ENTRY:
                found.append(_entry(content))
                if len(found) > _MOST:
                    raise LdapError(f"more than {_MOST} entries are found")
            elif tag == _DONE:
                result, why = _result(content)
                if result == _NO_SUCH_OBJECT:
                    raise LdapError(f"there is no base {base!r}")
                if result == _TOO_MANY:
                    raise LdapError("more entries are found than the server tells")
                if result != _SUCCESS:
                    raise LdapError(f"the search is answered {result} {why}")
                return found
            elif tag != _REFERENCE:  # to other servers, which are not asked
                raise LdapError(f"an answer of another kind (0x{tag:02x})")

    async def _ask(self, request: bytes, answered: int) -> bytes:
        await self._send(request)
        tag, content = await self._receive()
        if tag != answered:
            raise LdapError(f"an answer of another kind (0x{tag:02x})")
        return content

    async def _send(self, request: bytes) -> None:
        self._id += 1
        await self._stream.send_all(ber.encode(ber.SEQUENCE, ber.number(self._id), request))

    async def _receive(self) -> tuple[int, bytes]:
        """What the next message has: its tag, and its content."""
        try:
            message = ber.Elements(ber.Elements(await self._message()).take(ber.SEQUENCE))
            number = message.take_number()
            tag = message.tag
            content = message.take(tag)
        except ValueError as error:
            raise LdapError(f"that is no LDAP: {error}") from error
        if number == 0 and tag == _EXTENDED_DONE:  # §4.4.1
            result, why = _result(content)
            raise LdapError(f"the server hangs up: {result} {why}")
        if number != self._id:
            raise LdapError("an answer to another question")
        return tag, content

    async def _message(self) -> bytes:
        held = self._held
        while (found := ber.measure(held)) is None or len(held) < found[1]:
            if found is not None and found[1] > LARGEST:
                raise LdapError(f"a message of more than {LARGEST} octets")
            some = await self._stream.receive_some(_SOME)
            if not some:
                raise LdapError("the connection ended without an answer")
            held += some
        message = bytes(held[: found[1]])
        del held[: found[1]]
        return message


def _result(content: bytes) -> tuple[int, str]:
    """Its code, and what the server says of it."""
    try:
        elements = ber.Elements(content)
        code = elements.take_number(ber.ENUMERATED)
        elements.take(ber.OCTETS)
        return code, repr(elements.take_text()[:200])
    except ValueError as error:
        raise LdapError(f"that is no LDAP: {error}") from error


def _entry(content: bytes) -> Entry:
    found: dict[str, tuple[str, ...]] = {}
    try:
        elements = ber.Elements(content)
        name = elements.take_text()
        attributes = ber.Elements(elements.take(ber.SEQUENCE))
        while attributes:
            attribute = ber.Elements(attributes.take(ber.SEQUENCE))
            kind = attribute.take_text().lower()
            values = ber.Elements(attribute.take(ber.SET))
            told: list[str] = []
            while values:
                octets = values.take(ber.OCTETS)
                try:
                    told.append(octets.decode())
                except UnicodeDecodeError:
                    continue  # a picture
            found[kind] = tuple(told)
    except ValueError as error:
        raise LdapError(f"that is no LDAP: {error}") from error
    return Entry(name, found)
