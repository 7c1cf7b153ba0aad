"""TLS over a transport, as a transport.

The `ssl` module's own buffers carry the octets, and a `Transport` brings them: so whatever holds
for the one below (its deadline, how it is interrupted, that nothing is lost by a cancelled
`receive`) holds here. `trio.SSLStream` has no way to receive without waiting, and closes only by
waiting.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

import trio
from msgspec import Struct

from elemta.net.transport import MOST

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from elemta.net.transport import Endpoint, Transport


#: For a private key that is encrypted: none, which fails at once. Without it OpenSSL would ask.
_NO_PASSWORD: Final = "-"  # noqa: S105


class TlsError(Exception):
    """The handshake failed; the message is for a log. The transport below can only be closed."""


class Encryption(Struct, frozen=True, kw_only=True):
    """How a client's connection is protected.

    Attributes:
        version: e.g. ``TLSv1.3``.
        cipher: e.g. ``TLS_AES_256_GCM_SHA384``.
        server_name: whom the client wanted (SNI), in small letters; a claim. Empty: it did not say.
        client: the subject of the client's certificate (RFC 4514), which was verified; empty:
            it showed none, or was not asked.
        server_end_point: the hash of the certificate that it was shown, to which a login can be
            bound (RFC 5929 §4); empty: that kind of certificate has none.
    """

    version: str
    cipher: str
    server_name: str = ""
    client: str = ""
    server_end_point: bytes = b""

    @property
    def written(self) -> str:
        """As Received fields have it."""
        return f"version={self.version} cipher={self.cipher}"


class Shown(Protocol):
    """What a server shows its clients, and how it learns afterwards which they were shown."""

    @property
    def context(self) -> ssl.SSLContext:
        """What handshakes begin with."""
        ...

    def encryption(self, tls: ssl.SSLObject, version: str, cipher: str) -> Encryption:
        """What came of one handshake."""
        ...


class TlsTransport:
    """A `Transport` that encrypts. Made by `start_tls`.

    The end of the stream is believed though the peer did not sign it (``close_notify``): mail
    servers often do not, and SMTP itself tells a whole reply from a part of one. We do not sign
    it either, since `close` never waits.

    Attributes:
        deadline: see `Transport`; a reaper has to watch this one from now on.
        version: e.g. ``TLSv1.3``.
        cipher: e.g. ``TLS_AES_256_GCM_SHA384``.
        tls: what the `ssl` module knows of the connection.
    """

    def __init__(
        self,
        transport: Transport,
        tls: ssl.SSLObject,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
    ) -> None:
        self.deadline = transport.deadline
        self.version = ""
        self.cipher = ""
        self._transport = transport
        self.tls = tls
        self._incoming = incoming
        self._outgoing = outgoing
        self._ended = False  # the peer will say no more
        self._closed = False

    @property
    def peer(self) -> Endpoint:
        """See `Transport`."""
        return self._transport.peer

    @property
    def local(self) -> Endpoint:
        """See `Transport`."""
        return self._transport.local

    @property
    def waiting(self) -> bool:
        """See `Transport`."""
        return self._transport.waiting

    async def receive(self) -> bytes:
        """See `Transport`."""
        # To decrypt in vain costs an exception, and with nothing here it would be in vain: what was
        # read last was a whole record, as none has more than `MOST` octets.
        if not (self._incoming.pending or self._ended):
            self._feed(await self._transport.receive())
        while (octets := self._decrypted()) is None:
            await self._flush()
            self._feed(await self._transport.receive())
        return octets

    def receive_nowait(self) -> bytes | None:
        """See `Transport`."""
        octets = self._decrypted() if self._incoming.pending or self._ended else None
        while octets is None:
            if (some := self._transport.receive_nowait()) is None:
                return None
            self._feed(some)
            octets = self._decrypted()
        return octets

    async def send_all(self, octets: bytes) -> None:
        """See `Transport`."""
        if octets:
            try:
                self.tls.write(octets)
            except ssl.SSLError as error:
                raise trio.BrokenResourceError(_why(error)) from error
        # In one piece, however large: an interruption between two would go unnoticed.
        await self._transport.send_all(self._outgoing.read())

    def interrupt(self, reason: Exception) -> None:
        """See `Transport`."""
        self._transport.interrupt(reason)

    def close(self) -> None:
        """See `Transport`."""
        self._closed = True
        self._transport.close()

    async def shake_hands(self) -> None:
        """Agree on keys with the peer; `start_tls` does.

        Raises:
            TlsError: we cannot.
            trio.BrokenResourceError: the connection is gone.
        """
        serving = self.tls.server_side
        try:
            if serving:  # it is the client who begins
                self._feed(await self._transport.receive())
            while not self._has(self.tls.do_handshake):
                await self._flush()
                self._feed(await self._transport.receive())
        except ssl.SSLError as error:
            # What we have to say of it is written, if the peer still hears it.
            with suppress(trio.BrokenResourceError):
                await self._flush()
            raise TlsError(_why(error)) from error
        self.version = self.tls.version() or ""
        if not (serving and self.version == "TLSv1.3"):
            await self._flush()
        # Else there is nothing but a ticket for the client's next session (RFC 8446 §4.6.1), which
        # goes with whatever we say first: a packet less.
        self.cipher = (self.tls.cipher() or ("", "", 0))[0]

    def _has(self, act: Callable[[], None]) -> bool:
        """Do something; false: it takes more octets of the peer."""
        try:
            act()
        except ssl.SSLWantReadError:
            return False
        return True

    def _decrypted(self) -> bytes | None:
        """What can be read of what came; None: not a whole record."""
        if self._closed:
            raise trio.ClosedResourceError("this transport was closed")
        try:
            octets = self.tls.read(MOST)
        except ssl.SSLWantReadError:
            return None
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            octets = b""
        except ssl.SSLError as error:
            raise trio.BrokenResourceError(_why(error)) from error
        if not octets:
            self._ended = True
        return octets

    def _feed(self, octets: bytes) -> None:
        if octets:
            self._incoming.write(octets)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        """Write what the protocol itself has to say."""
        if octets := self._outgoing.read():
            await self._transport.send_all(octets)


async def start_tls(
    transport: Transport,
    context: ssl.SSLContext,
    *,
    server_name: str | None = None,
    server_side: bool = False,
) -> TlsTransport:
    """Go on in TLS.

    Args:
        transport: nothing of it may be buffered anywhere. Closing what comes of it closes it.
        context: what is demanded of the peer.
        server_name: to tell the server whom we want (SNI, RFC 6066 §3); None: nothing is told.
        server_side: be the server.

    Raises:
        TlsError: the two find no common ground, or the peer speaks no TLS.
        trio.BrokenResourceError: the connection is gone.
        Exception: whatever `Transport.receive` was interrupted with.
    """
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        tls = context.wrap_bio(incoming, outgoing, server_side, server_name)
    except ValueError as error:
        raise TlsError(f"{server_name!r} cannot be asked for: {error}") from error
    encrypted = TlsTransport(transport, tls, incoming, outgoing)
    await encrypted.shake_hands()
    return encrypted


async def serve_tls(transport: Transport, shown: Shown) -> tuple[TlsTransport, Encryption]:
    """Go on in TLS as the server.

    Args:
        transport: as of `start_tls`; its deadline holds for the handshake.
        shown: what the client is shown.

    Raises:
        TlsError, trio.BrokenResourceError, Exception: as `start_tls`.
    """
    encrypted = await start_tls(transport, shown.context, server_side=True)
    return encrypted, shown.encryption(encrypted.tls, encrypted.version, encrypted.cipher)


def unverified_client() -> ssl.SSLContext:
    """For mail that would go in clear otherwise: whoever the server is, from TLS 1.2 on.

    A certificate that is wrong must not make things worse than no TLS at all (RFC 7435 §3).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def client_context(
    *,
    verified: bool,
    authorities: Path | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
) -> ssl.SSLContext:
    """For mail that goes to servers of our choice; from TLS 1.2 on.

    Args:
        verified: the server's certificate has to be good today, to lead to somebody we trust, and
            to have the name that `start_tls` is given.
        authorities: a PEM file with those we trust; None: the system's.
        certificate: ours, for servers that want one: a PEM file with what leads to its root.
        key: its private key, PEM.

    Raises:
        OSError: a file cannot be read, or has something else in it (`ssl.SSLError`).
    """
    context = unverified_client()
    if verified:
        context.verify_mode = ssl.CERT_REQUIRED
        context.check_hostname = True
        if authorities is None:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        else:
            context.load_verify_locations(authorities)
    if certificate is not None:
        # Who has encrypted it has to be asked, and nobody is there to answer.
        context.load_cert_chain(certificate, key, password=_NO_PASSWORD)
    return context


def _why(error: ssl.SSLError) -> str:
    """What OpenSSL says, without where in its source it said so."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not good: {error.verify_message.rstrip('.').lower()}"
    if isinstance(error, ssl.SSLEOFError):
        return "the peer hung up in the middle of the handshake"
    # The attribute is None where the library gave no reason, whatever the type says.
    return error.reason.lower().replace("_", " ") if error.reason else str(error)
