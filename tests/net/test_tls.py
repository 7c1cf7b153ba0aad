"""What TLS adds to a transport; tests/net/test_transport.py has what it must not take away."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trio
import trustme
from trio.testing import wait_all_tasks_blocked

from elemta.net.memory import memory_transport_pair
from elemta.net.tls import TlsError, TlsTransport, start_tls, unverified_client
from tests.net.certificates import old_server_context, server_context

if TYPE_CHECKING:
    from elemta.net.transport import Transport


async def talk(
    client: Transport,
    server: Transport,
    context: ssl.SSLContext,
    name: str | None = None,
) -> tuple[TlsTransport, TlsTransport]:
    """The client's end and the server's."""
    served: list[TlsTransport] = []

    async def serve() -> None:
        with suppress(TlsError):
            served.append(await start_tls(server, context, server_side=True))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        encrypted = await start_tls(client, unverified_client(), server_name=name)
    return encrypted, served[0]


async def test_what_is_said_is_encrypted_and_how_is_known() -> None:
    ours, theirs = memory_transport_pair()
    client, _ = await talk(ours, theirs, server_context())
    assert (client.version, client.cipher) == ("TLSv1.3", "TLS_AES_256_GCM_SHA384")
    await client.send_all(b"MAIL FROM:<ann@a.example>\r\n")
    wire = await theirs.receive()
    assert wire
    assert b"ann" not in wire


async def test_the_server_learns_whom_the_client_wants() -> None:
    wanted: list[str | None] = []
    context = server_context("sni.example")

    def note(_socket: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        wanted.append(name)

    context.sni_callback = note  # type: ignore[assignment]  # typeshed wants SSLSocket here
    await talk(*memory_transport_pair(), context, "mx.b.example")
    await talk(*memory_transport_pair(), context)
    assert wanted == ["mx.b.example", None]


@pytest.mark.parametrize("name", ["x" * 64 + ".example", "a..b", ".a"])
async def test_a_name_that_cannot_be_asked_for_is_a_failed_handshake(name: str) -> None:
    ours, _ = memory_transport_pair()
    with pytest.raises(TlsError, match="cannot be asked for"):
        await start_tls(ours, unverified_client(), server_name=name)


async def test_a_server_that_knows_only_old_versions_is_refused() -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(TlsError, match="alert protocol version")):
        await talk(*memory_transport_pair(), old_server_context())


@pytest.mark.parametrize(
    ("said", "why"),
    [(b"220 what?\r\n", "wrong version number"), (b"", "hung up in the middle")],
)
async def test_who_speaks_no_tls_fails_the_handshake(
    said: bytes, why: str, nursery: trio.Nursery
) -> None:
    ours, theirs = memory_transport_pair()

    async def answer() -> None:
        await theirs.receive()
        await theirs.send_all(said)
        theirs.close()

    nursery.start_soon(answer)
    with pytest.raises(TlsError, match=why):
        await start_tls(ours, unverified_client())


async def test_a_connection_that_breaks_in_the_handshake_is_broken() -> None:
    ours, theirs = memory_transport_pair()
    theirs.reset()
    with pytest.raises(trio.BrokenResourceError):
        await start_tls(ours, unverified_client())


async def test_octets_that_somebody_changed_break_the_connection() -> None:
    ours, theirs = memory_transport_pair()
    client, _ = await talk(ours, theirs, server_context())
    await theirs.send_all(b"\x17\x03\x03\x00\x20" + b"x" * 32)
    with pytest.raises(trio.BrokenResourceError, match="decryption failed or bad record mac"):
        await client.receive()


async def test_a_peer_that_signs_the_end_has_ended() -> None:
    ours, theirs = memory_transport_pair()
    client, server = await talk(ours, theirs, server_context())
    with pytest.raises(ssl.SSLWantReadError):
        server.tls.unwrap()
    await server.send_all(b"")
    assert await client.receive() == b""
    assert await client.receive() == b""


class Counted:
    """A transport that knows how often it was written to."""

    def __init__(self, below: Transport) -> None:
        self._below = below
        self.deadline = below.deadline
        self.peer, self.local = below.peer, below.local
        self.waiting = False
        self.writes = 0
        self.receive, self.receive_nowait = below.receive, below.receive_nowait
        self.interrupt, self.close = below.interrupt, below.close

    async def send_all(self, octets: bytes) -> None:
        self.writes += 1
        await self._below.send_all(octets)


async def test_a_ticket_goes_with_what_the_server_says_first() -> None:
    ours, theirs = memory_transport_pair()
    counted = Counted(theirs)
    client, server = await talk(ours, counted, server_context())
    assert counted.writes == 1
    await server.send_all(b"220 mx.example ESMTP\r\n")
    assert counted.writes == 2
    assert await client.receive() == b"220 mx.example ESMTP\r\n"
    assert client.tls.session is not None
    assert client.tls.session.has_ticket


async def test_in_tls_1_2_the_server_says_itself_that_the_handshake_is_over() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    trustme.CA().issue_cert("mx.example").configure_cert(context)
    client, server = await talk(*memory_transport_pair(), context)
    assert client.version == server.version == "TLSv1.2"
    await client.send_all(b"EHLO a.example\r\n")
    assert await server.receive() == b"EHLO a.example\r\n"


async def test_what_comes_with_the_end_of_the_handshake_is_heard(nursery: trio.Nursery) -> None:
    ours, theirs = memory_transport_pair()
    heard: list[bytes | None] = []

    async def serve() -> None:
        server = await start_tls(theirs, server_context(), server_side=True)
        heard.extend([server.receive_nowait(), await server.receive(), server.receive_nowait()])

    nursery.start_soon(serve)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = unverified_client().wrap_bio(incoming, outgoing)
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    await ours.send_all(outgoing.read())
    incoming.write(await ours.receive())
    client.do_handshake()
    client.write(b"EHLO a.example\r\n")
    client.write(b"NOOP\r\n")
    await ours.send_all(outgoing.read())
    await wait_all_tasks_blocked()
    assert heard == [b"EHLO a.example\r\n", b"NOOP\r\n", None]


async def test_half_a_record_is_waited_for(nursery: trio.Nursery) -> None:
    ours, theirs = memory_transport_pair()
    client, server = await talk(ours, theirs, server_context(tickets=0))
    await client.send_all(b"NOOP\r\n")
    record = await theirs.receive()
    heard: list[bytes] = []

    async def receive() -> None:
        heard.append(await server.receive())

    await ours.send_all(record[:9])
    assert server.receive_nowait() is None
    nursery.start_soon(receive)
    await wait_all_tasks_blocked()
    assert heard == []
    await ours.send_all(record[9:])
    await wait_all_tasks_blocked()
    assert heard == [b"NOOP\r\n"]
