"""What every transport promises: the in-memory one is held to what the real one does."""

from __future__ import annotations

import errno
import math
import socket
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked
from typing_extensions import override

from elemta.net.memory import memory_transport_pair
from elemta.net.transport import (
    MOST,
    Endpoint,
    SocketTransport,
    _connect,
    connect,
    connect_unix,
    endpoint,
)
from tests.net.links import fill

if TYPE_CHECKING:
    from pathlib import Path

    from elemta.net.transport import Transport
    from tests.net.links import Link


class TimedOutError(Exception):
    pass


async def receive_exactly(transport: Transport, count: int) -> bytes:
    got = b""
    while len(got) < count:
        some = await transport.receive()
        assert some, f"the end came after {len(got)} of {count} octets"
        assert len(some) <= MOST
        got += some
    return got


async def wait_until_waiting(transport: Transport) -> None:
    while not transport.waiting:
        await trio.lowlevel.checkpoint()
    await wait_all_tasks_blocked()


async def test_what_is_sent_arrives(link: Link) -> None:
    await link.one.send_all(b"EHLO a.example\r\n")
    await link.one.send_all(b"")
    await link.one.send_all(b"NOOP\r\n")
    assert await receive_exactly(link.two, 22) == b"EHLO a.example\r\nNOOP\r\n"
    await link.two.send_all(b"250 OK\r\n")
    assert await receive_exactly(link.one, 8) == b"250 OK\r\n"


async def test_more_than_any_buffer_holds_arrives(link: Link, nursery: trio.Nursery) -> None:
    octets = bytes(range(256)) * 16384
    nursery.start_soon(link.one.send_all, octets)
    assert await receive_exactly(link.two, len(octets)) == octets


async def test_who_receives_waits_for_octets(link: Link, nursery: trio.Nursery) -> None:
    got: list[bytes] = []

    async def receive() -> None:
        got.append(await link.two.receive())

    nursery.start_soon(receive)
    await wait_until_waiting(link.two)
    assert got == []
    await link.one.send_all(b"x")
    await wait_all_tasks_blocked(0.01)
    assert got == [b"x"]
    assert not link.two.waiting


async def test_what_is_there_can_be_had_without_waiting(link: Link) -> None:
    assert link.two.receive_nowait() is None
    await link.one.send_all(b"x")
    await wait_all_tasks_blocked(0.01)
    assert link.two.receive_nowait() == b"x"
    link.one.close()
    await wait_all_tasks_blocked(0.01)
    assert link.two.receive_nowait() == b""
    link.two.close()
    with pytest.raises(trio.ClosedResourceError):
        link.two.receive_nowait()


async def test_a_peer_that_does_not_read_makes_us_wait(link: Link, nursery: trio.Nursery) -> None:
    octets = b"x" * 2**23

    async def send() -> None:
        await link.one.send_all(octets)
        link.one.close()

    nursery.start_soon(send)
    await wait_until_waiting(link.one)
    assert await receive_exactly(link.two, len(octets)) == octets
    assert await link.two.receive() == b""


async def test_what_was_sent_before_closing_arrives(link: Link) -> None:
    await link.one.send_all(b"221 bye\r\n")
    link.one.close()
    assert await link.two.receive() == b"221 bye\r\n"
    assert await link.two.receive() == b""
    assert await link.two.receive() == b""


async def test_who_waits_learns_that_the_peer_closed(link: Link, nursery: trio.Nursery) -> None:
    got: list[bytes] = []

    async def receive() -> None:
        got.append(await link.two.receive())

    nursery.start_soon(receive)
    await wait_until_waiting(link.two)
    link.one.close()
    await wait_all_tasks_blocked(0.01)
    assert got == [b""]


async def test_writing_to_a_peer_that_closed_fails_sooner_or_later(link: Link) -> None:
    async def write_on() -> None:
        while True:
            await link.one.send_all(b"x")

    link.two.close()
    with trio.fail_after(60), pytest.raises(trio.BrokenResourceError):
        await write_on()


async def test_reading_from_a_peer_that_broke_fails(link: Link) -> None:
    link.reset()
    with pytest.raises(trio.BrokenResourceError):
        await link.one.receive()


async def test_who_waits_to_read_learns_of_a_break(link: Link, nursery: trio.Nursery) -> None:
    broken = trio.Event()

    async def receive() -> None:
        with pytest.raises(trio.BrokenResourceError):
            await link.one.receive()
        broken.set()

    nursery.start_soon(receive)
    await wait_until_waiting(link.one)
    link.reset()
    await broken.wait()


async def test_who_waits_to_write_learns_of_a_break(link: Link, nursery: trio.Nursery) -> None:
    broken = trio.Event()

    async def send() -> None:
        with pytest.raises(trio.BrokenResourceError):
            await link.one.send_all(b"x" * 2**23)
        broken.set()

    nursery.start_soon(send)
    await wait_until_waiting(link.one)
    link.reset()
    await broken.wait()


async def test_who_waits_to_read_can_be_interrupted(link: Link, nursery: trio.Nursery) -> None:
    interrupted = trio.Event()

    async def receive() -> None:
        with pytest.raises(TimedOutError):
            await link.two.receive()
        interrupted.set()

    nursery.start_soon(receive)
    await wait_until_waiting(link.two)
    link.two.interrupt(TimedOutError())
    await interrupted.wait()
    # And the goodbye is still written, and what the client says still read.
    await link.two.send_all(b"421 timed out\r\n")
    assert await link.one.receive() == b"421 timed out\r\n"
    await link.one.send_all(b"QUIT\r\n")
    assert await receive_exactly(link.two, 6) == b"QUIT\r\n"


async def test_who_waits_to_write_can_be_interrupted(link: Link, nursery: trio.Nursery) -> None:
    interrupted = trio.Event()

    async def send() -> None:
        with pytest.raises(TimedOutError):
            await link.one.send_all(b"x" * 2**23)
        interrupted.set()

    nursery.start_soon(send)
    await wait_until_waiting(link.one)
    link.one.interrupt(TimedOutError())
    await interrupted.wait()
    assert not link.one.waiting


async def test_an_interruption_waits_for_the_next_receive_that_would_wait(link: Link) -> None:
    link.two.interrupt(TimedOutError())
    link.two.interrupt(ValueError())
    await link.one.send_all(b"NOOP\r\n")
    await link.two.send_all(b"250 OK\r\n")
    assert await receive_exactly(link.two, 6) == b"NOOP\r\n"
    with pytest.raises(TimedOutError):
        await link.two.receive()
    with trio.move_on_after(0.01) as scope:
        await link.two.receive()
    assert scope.cancelled_caught


async def test_an_interruption_for_the_next_receive_stops_no_writer(
    link: Link, nursery: trio.Nursery
) -> None:
    octets = b"x" * 2**23
    link.one.interrupt(TimedOutError())
    nursery.start_soon(link.one.send_all, octets)
    assert await receive_exactly(link.two, len(octets)) == octets
    with pytest.raises(TimedOutError):
        await link.one.receive()


async def test_a_second_interruption_reaches_a_writer_all_the_same(
    link: Link, nursery: trio.Nursery
) -> None:
    interrupted = trio.Event()

    async def send() -> None:
        with pytest.raises(TimedOutError):
            await link.one.send_all(b"x" * 2**23)
        interrupted.set()

    link.one.interrupt(TimedOutError())
    nursery.start_soon(send)
    await wait_until_waiting(link.one)
    link.one.interrupt(ValueError())
    await interrupted.wait()


async def test_an_interruption_meets_who_is_about_to_be_woken(
    link: Link, nursery: trio.Nursery
) -> None:
    got: list[bytes] = []
    interrupted = trio.Event()

    async def receive() -> None:
        while True:
            got.append(await link.two.receive())

    async def be_interrupted() -> None:
        with pytest.raises(TimedOutError):
            await receive()
        interrupted.set()

    nursery.start_soon(be_interrupted)
    await wait_until_waiting(link.two)
    await link.one.send_all(b"x")
    link.two.interrupt(TimedOutError())
    await interrupted.wait()
    assert b"".join(got) in {b"", b"x"}


async def test_an_interrupted_writer_stops_though_the_peer_reads_on(
    link: Link, nursery: trio.Nursery
) -> None:
    interrupted = trio.Event()

    async def send() -> None:
        with pytest.raises(TimedOutError):
            await link.one.send_all(b"x" * 2**25)
        interrupted.set()

    nursery.start_soon(send)
    await wait_until_waiting(link.one)
    for _ in range(8):
        await link.two.receive()
    link.one.interrupt(TimedOutError())
    await interrupted.wait()


async def test_closing_is_repeatable_and_ends_all_use(link: Link) -> None:
    link.one.close()
    link.one.close()
    with pytest.raises(trio.ClosedResourceError):
        await link.one.receive()
    with pytest.raises(trio.ClosedResourceError):
        await link.one.send_all(b"x")


async def test_closing_wakes_who_waits_to_read(link: Link, nursery: trio.Nursery) -> None:
    woken = trio.Event()

    async def receive() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await link.one.receive()
        woken.set()

    nursery.start_soon(receive)
    await wait_until_waiting(link.one)
    link.one.close()
    await woken.wait()


async def test_closing_wakes_who_waits_to_write(link: Link, nursery: trio.Nursery) -> None:
    woken = trio.Event()

    async def send() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await link.one.send_all(b"x" * 2**23)
        woken.set()

    nursery.start_soon(send)
    await wait_until_waiting(link.one)
    link.one.close()
    await woken.wait()


async def test_cancelling_who_waits_leaves_the_transport_usable(link: Link) -> None:
    with trio.move_on_after(0.01) as scope:
        await link.one.receive()
    assert scope.cancelled_caught
    assert not link.one.waiting
    await link.two.send_all(b"x")
    assert await link.one.receive() == b"x"


async def test_a_peer_that_never_lets_us_wait_does_not_own_the_loop(
    link: Link, nursery: trio.Nursery
) -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    nursery.start_soon(other)
    for _ in range(100):
        await link.one.send_all(b"x")
        await link.two.receive()
    assert turns >= 5
    nursery.cancel_scope.cancel()


async def test_a_busy_transport_can_be_cancelled(link: Link) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        for _ in range(100):
            await link.one.send_all(b"x")
            await link.two.receive()
    assert scope.cancelled_caught


async def test_nothing_is_lost_when_a_busy_receive_is_cancelled(link: Link) -> None:
    got = 0
    for _ in range(100):
        await link.one.send_all(b"x")
        with trio.CancelScope() as scope:
            scope.cancel()
            got += len(await link.two.receive())
        if scope.cancelled_caught:
            got += len(await link.two.receive())
    assert got == 100


async def test_a_deadline_is_none_at_first_and_is_not_looked_at(link: Link) -> None:
    assert link.one.deadline == math.inf
    link.one.deadline = trio.current_time() - 1
    await link.two.send_all(b"x")
    assert await link.one.receive() == b"x"


async def test_each_end_knows_both_ends(link: Link) -> None:
    assert link.one.peer == link.two.local
    assert link.one.local == link.two.peer
    assert link.one.peer.port > 0


async def test_a_small_memory_buffer_lets_a_writer_wait(nursery: trio.Nursery) -> None:
    one, two = memory_transport_pair(buffer=4)
    nursery.start_soon(one.send_all, b"abcdefg")
    await wait_all_tasks_blocked()
    assert one.waiting
    assert await two.receive() == b"abcd"
    await wait_all_tasks_blocked()
    assert await two.receive() == b"efg"


async def test_memory_ends_are_called_what_the_test_wants() -> None:
    client, server = memory_transport_pair(client=Endpoint("2001:db8::1", 999))
    assert server.peer == ("2001:db8::1", 999)
    assert client.peer.port == 25


@pytest.mark.parametrize(
    ("address", "want", "text"),
    [
        (("192.0.2.1", 25), ("192.0.2.1", 25), "192.0.2.1:25"),
        (("2001:db8::1", 25, 0, 0), ("2001:db8::1", 25), "[2001:db8::1]:25"),
        (("::ffff:192.0.2.1", 25, 0, 0), ("192.0.2.1", 25), "192.0.2.1:25"),
        (("::ffff:0:0", 25, 0, 0), ("::ffff:0:0", 25), "[::ffff:0:0]:25"),
        (("fe80::1%eth0", 25, 0, 2), ("fe80::1", 25), "[fe80::1]:25"),
        ("/run/elemta.sock", ("", 0), ":0"),
        (b"\0abstract", ("", 0), ":0"),
    ],
)
def test_an_endpoint_is_written_in_one_way(
    address: tuple[str, int] | str, want: tuple[str, int], text: str
) -> None:
    assert endpoint(address) == want
    assert str(endpoint(address)) == text


async def test_a_mapped_client_is_an_ipv4_client() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        client = await connect("127.0.0.1", listener.getsockname()[1])
        accepted, address = listener.accept()
    server = SocketTransport(accepted, address)
    assert server.peer == client.local
    assert server.local == client.peer
    assert server.peer.host == "127.0.0.1"
    client.close()
    server.close()


async def test_a_unix_socket_has_no_address(tmp_path: Path) -> None:
    one, two = socket.socketpair()
    transport = SocketTransport(one)
    assert transport.peer == transport.local == ("", 0)
    two.sendall(b"LHLO a.example\r\n")
    assert await transport.receive() == b"LHLO a.example\r\n"
    transport.close()
    two.close()


async def test_small_writes_are_not_held_back() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = socket.create_connection(listener.getsockname())
        transport = SocketTransport(sock)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        transport.close()


class CountedSocket(socket.socket):
    """Knows how often it was read from."""

    reads = 0

    @override
    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        self.reads += 1
        return super().recv(bufsize, flags)


async def test_a_peer_that_takes_turns_with_us_is_not_read_from_in_vain(
    nursery: trio.Nursery,
) -> None:
    one, two = socket.socketpair()
    counted = CountedSocket(fileno=two.detach())
    peer, transport = SocketTransport(one), SocketTransport(counted)
    for turn in range(1, 4):
        nursery.start_soon(receive_exactly, transport, 6)
        await wait_until_waiting(transport)
        await peer.send_all(b"NOOP\r\n")
        await wait_all_tasks_blocked(0.01)
        assert counted.reads == turn
    peer.close()
    transport.close()


async def test_who_has_filled_a_read_is_asked_at_once(nursery: trio.Nursery) -> None:
    one, two = socket.socketpair()
    counted = CountedSocket(fileno=two.detach())
    peer, transport = SocketTransport(one), SocketTransport(counted)
    await peer.send_all(b"x" * MOST)
    assert await transport.receive() == b"x" * MOST
    assert counted.reads == 1
    nursery.start_soon(receive_exactly, transport, 1)
    await wait_until_waiting(transport)
    assert counted.reads == 2
    await peer.send_all(b"x")
    await wait_all_tasks_blocked(0.01)
    assert counted.reads == 3
    peer.close()
    transport.close()


async def test_a_peer_that_is_gone_before_we_look_is_told_as_such() -> None:
    with socket.socket() as sock, pytest.raises(trio.BrokenResourceError):
        SocketTransport(sock)


async def test_connecting_reaches_who_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = await connect("127.0.0.1", listener.getsockname()[1], timeout=5)
        accepted, _ = listener.accept()
    with accepted:
        await client.send_all(b"x")
        assert accepted.recv(1) == b"x"
    client.close()


async def test_connecting_by_ipv6_and_from_an_address_of_ours() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        client = await connect("::1", listener.getsockname()[1], source="::1")
    assert client.local.host == "::1"
    client.close()


async def test_connecting_from_another_local_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = await connect("127.0.0.1", listener.getsockname()[1], source="127.0.0.2")
    assert client.local.host == "127.0.0.2"
    client.close()


async def test_a_port_where_nobody_listens_refuses() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            await connect("127.0.0.1", sock.getsockname()[1])


async def test_a_source_that_is_not_ours_is_an_os_error() -> None:
    with pytest.raises(OSError, match="assign requested address") as caught:
        await connect("127.0.0.1", 9, source="192.0.2.1")
    assert caught.value.errno == errno.EADDRNOTAVAIL


async def test_an_unreachable_network_is_an_os_error() -> None:
    with pytest.raises(OSError, match=r"."):
        await connect("255.255.255.255", 25, timeout=5)


async def test_connecting_to_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "lmtp")
    with pytest.raises(FileNotFoundError):
        await connect_unix(path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        with pytest.raises(ConnectionRefusedError):
            await connect_unix(path)
        listener.listen(1)
        client = await connect_unix(path)
        accepted, _ = listener.accept()
        with accepted:
            await client.send_all(b"x")
            assert accepted.recv(1) == b"x"
        client.close()


async def test_a_unix_socket_where_too_many_wait_is_waited_for(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    path = str(tmp_path / "lmtp")
    connected = trio.Event()

    async def knock() -> None:
        (await connect_unix(path, timeout=5)).close()
        connected.set()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        (await connect_unix(path)).close()
        with pytest.raises(trio.TooSlowError):
            await connect_unix(path, timeout=0.01)
        nursery.start_soon(knock)
        await wait_all_tasks_blocked()
        listener.accept()[0].close()
        await connected.wait()


@pytest.mark.parametrize(
    ("host", "source"), [("localhost", None), ("", None), ("::1", "127.0.0.1"), ("127.0.0.1", "x")]
)
async def test_only_addresses_are_connected_to(host: str, source: str | None) -> None:
    with pytest.raises(ValueError, match=r"address|reach"):
        await connect(host, 25, source=source)


def full_listener() -> tuple[socket.socket, list[socket.socket]]:
    """A listener whose queue is full: Linux answers no further SYN."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    waiting = []
    for _ in range(4):
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(listener.getsockname())
        waiting.append(sock)
    return listener, waiting


async def test_a_host_that_does_not_answer_is_given_up() -> None:
    listener, waiting = full_listener()
    with pytest.raises(trio.TooSlowError):
        await connect("127.0.0.1", listener.getsockname()[1], timeout=0.05)
    for sock in (listener, *waiting):
        sock.close()


async def test_connecting_can_be_cancelled() -> None:
    listener, waiting = full_listener()
    with trio.move_on_after(0.05) as scope:
        await connect("127.0.0.1", listener.getsockname()[1])
    assert scope.cancelled_caught
    for sock in (listener, *waiting):
        sock.close()


async def test_a_connection_to_oneself_is_refused() -> None:
    # What the kernel does by chance when it chooses a port for us is brought about by a bind.
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            await _connect(sock, sock.getsockname())


async def test_filling_a_transport_can_be_given_up(link: Link) -> None:
    await fill(link.one)
    assert not link.one.waiting
    assert await link.two.receive()
