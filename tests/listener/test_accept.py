"""Real sockets on loopback, and therefore real time: nothing in here waits for it to pass."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio
import trio.testing

from elemta.config import Config, Limits, Listener, load
from elemta.listener.accept import Listeners
from elemta.listener.reception import House
from elemta.listener.sockets import BindError, BoundListener, bind, passed_on
from elemta.net.reaper import Reaper
from elemta.units import Octets
from tests.dialogue import CONFIG
from tests.fakes import FakeQueue

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

#: Seconds after which a test has failed.
PATIENCE = 20


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def configured(*tables: Listener, connections: int = 2000) -> Config:
    return msgspec.structs.replace(
        load(CONFIG), listeners=list(tables), limits=Limits(connections=connections)
    )


@pytest.fixture
def sockets() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


class Client:
    """A client on a real socket."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._heard = b""

    async def line(self) -> str:
        while b"\r\n" not in self._heard:
            octets = await self.stream.receive_some()
            if not octets:
                return ""
            self._heard += bytes(octets)
        line, self._heard = self._heard.split(b"\r\n", 1)
        return line.decode()

    async def say(self, line: str) -> str:
        await self.stream.send_all(line.encode() + b"\r\n")
        while (answer := await self.line())[3:4] == "-":
            pass
        return answer


class Host:
    """Listeners, and their clients."""

    def __init__(self, listeners: Listeners, house: House) -> None:
        self.listeners = listeners
        self.house = house
        self._clients: list[Client] = []

    async def call(self, number: int = 0) -> Client:
        address = self.listeners.addresses[number]
        return await self.call_at(address.host, address.port)

    async def call_at(self, host: str, port: int) -> Client:
        client = Client(await trio.open_tcp_stream(host, port))
        self._clients.append(client)
        return client

    def hang_up(self) -> None:
        for client in self._clients:
            client.stream.socket.close()


@asynccontextmanager
async def serving(config: Config) -> AsyncGenerator[Host]:
    """Listeners and all that they need; drained at the end."""
    reaper = Reaper()
    house = House.of(config, queue=FakeQueue(), reaper=reaper)
    host = Host(Listeners(bind(config, {}), house), house)
    try:
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as below:
                below.start_soon(reaper.run)
                async with trio.open_nursery() as sessions:
                    await sessions.start(host.listeners.run, sessions)
                    yield host
                    host.listeners.stop()
                    host.listeners.drain()
                    sessions.cancel_scope.deadline = trio.current_time() + 5
                below.cancel_scope.cancel()
    finally:
        host.hang_up()


async def test_a_message_comes_in_over_tcp() -> None:
    config = configured(Listener(name="mx", address="127.0.0.1:0"))
    async with serving(config) as host:
        client = await host.call()
        assert await client.line() == "220 mx.example ESMTP"
        for command, code in {
            "EHLO client.example": "250",
            "MAIL FROM:<a@b.example>": "250",
            "RCPT TO:<alice@here.example>": "250",
            "DATA": "354",
            "Subject: x\r\n\r\nhello\r\n.": "250",
            "QUIT": "221",
        }.items():
            assert (await client.say(command)).startswith(code)
        assert await client.line() == ""


async def test_one_listener_has_many_addresses() -> None:
    addresses = ["127.0.0.1:0", "127.0.0.2:0", "localhost:0"]
    config = configured(
        Listener(name="mx", address=addresses),
        Listener(name="in", address="127.0.0.3:0", kind="lmtp"),
    )
    async with serving(config) as host:
        assert len(host.listeners.addresses) >= 4
        for number, (address, _) in enumerate(host.listeners.addresses):
            client = await host.call(number)
            protocol = "LMTP" if address == "127.0.0.3" else "ESMTP"
            assert await client.line() == f"220 mx.example {protocol}"


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")
async def test_a_client_of_either_kind_is_told_by_its_own_address() -> None:
    config = configured(Listener(name="mx", address=":0"))
    async with serving(config) as host:
        (four, six) = host.listeners.addresses
        assert four.port == six.port
        for address in ("127.0.0.1", "::1"):
            client = await host.call_at(address, four.port)
            assert (await client.line()).startswith("220")
            assert await client.say("EHLO x.example") == "250 LIMITS RCPTMAX=1000 MAILMAX=100"


async def test_one_client_may_not_take_all_places() -> None:
    config = configured(Listener(name="mx", address="127.0.0.1:0", connections_per_client=2))
    async with serving(config) as host:
        clients = [await host.call() for _ in range(2)]
        for client in clients:
            assert (await client.line()).startswith("220")
        third = await host.call()
        assert await third.line() == "421 4.7.0 too many connections from your network"
        assert await third.line() == ""
        assert host.house.meters.connections == {"mx": 3}
        assert host.house.meters.connection_errors == {"too_many_of_client": 1}
        assert (await clients[0].say("QUIT")).startswith("221")
        assert await clients[0].line() == ""
        await trio.testing.wait_all_tasks_blocked()
        assert (await (await host.call()).line()).startswith("220")


async def test_beyond_the_last_place_clients_are_told_to_come_again() -> None:
    config = configured(Listener(name="mx", address="127.0.0.1:0"), connections=2)
    async with serving(config) as host:
        clients = [await host.call() for _ in range(2)]
        for client in clients:
            assert (await client.line()).startswith("220")
        assert await (await host.call()).line() == ("421 4.3.2 too many connections, come again")
        assert (await clients[0].say("NOOP")).startswith("250")


async def test_many_at_once_are_each_answered() -> None:
    config = configured(
        Listener(name="mx", address="127.0.0.1:0", connections_per_client=300), connections=250
    )
    async with serving(config) as host:
        answers: list[str] = []

        async def call() -> None:
            answers.append((await (await host.call()).line())[:3])

        async with trio.open_nursery() as clients:
            for _ in range(300):
                clients.start_soon(call)
        assert answers.count("220") == 250
        assert answers.count("421") == 50


async def test_when_stopped_clients_are_refused_by_the_kernel_and_the_idle_sent_away() -> None:
    config = configured(Listener(name="mx", address="127.0.0.1:0"))
    async with serving(config) as host:
        address = host.listeners.addresses[0]
        idle, busy = await host.call(), await host.call()
        for client in (idle, busy):
            assert (await client.line()).startswith("220")
        for command in ("EHLO x.example", "MAIL FROM:<>", "RCPT TO:<alice@here.example>", "DATA"):
            await busy.say(command)
        host.listeners.stop()
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream(*address)
        host.listeners.drain()
        assert await idle.line() == "421 4.3.2 shutting down, come again"
        assert await idle.line() == ""
        assert (await busy.say("hello\r\n.")).startswith("250 2.0.0 OK: queued as")
        assert await busy.line() == "421 4.3.2 shutting down, come again"


async def test_a_session_that_begins_later_has_the_new_configuration() -> None:
    config = configured(Listener(name="mx", address="127.0.0.1:0"))
    async with serving(config) as host:
        house = host.house
        before = await host.call()
        assert await before.line() == "220 mx.example ESMTP"
        table = Listener(name="mx", address="127.0.0.1:0", recipients=100)
        changed = msgspec.structs.replace(
            config,
            hostname="new.example",
            listeners=[table],
            limits=Limits(connections=2, memory=Octets(2**20)),
        )
        changed_house = house.reconfigured(changed)
        assert house.roster.places != 2
        changed_house.settle()
        host.listeners.reconfigure(changed_house)
        assert house.roster.places == 2
        assert house.budget.free == house.budget.total == 2**20
        after = await host.call()
        assert await after.line() == "220 new.example ESMTP"
        assert (await after.say("EHLO x.example")).endswith("RCPTMAX=100 MAILMAX=100")
        assert (await before.say("EHLO x.example")).endswith("RCPTMAX=1000 MAILMAX=100")
        assert (await (await host.call()).line()).startswith("421")


async def test_without_file_descriptors_accepting_pauses_and_goes_on(
    sockets: ExitStack, autojump_clock: trio.testing.MockClock
) -> None:
    class Exhausted(socket.socket):
        """The process has no file descriptor left at first."""

        times = 3

        def accept(self) -> tuple[socket.socket, object]:
            if Exhausted.times:
                Exhausted.times -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    sock = sockets.enter_context(Exhausted(socket.AF_INET, socket.SOCK_STREAM))
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    sock.setblocking(False)
    config = configured(Listener(name="mx", address="127.0.0.1:0"))
    house = House.of(config, queue=FakeQueue(), reaper=Reaper())
    listeners = Listeners([BoundListener(config.listeners[0], sock)], house)
    client = sockets.enter_context(socket.create_connection(sock.getsockname()))
    async with trio.open_nursery() as sessions:
        await sessions.start(listeners.run, sessions)
        await trio.sleep(5)
        assert client.recv(100) == b"220 mx.example ESMTP\r\n"
        sessions.cancel_scope.cancel()


def test_a_port_that_is_taken_is_told_and_nothing_stays_open(sockets: ExitStack) -> None:
    taken = sockets.enter_context(socket.create_server(("127.0.0.1", 0)))
    port = taken.getsockname()[1]
    free = sockets.enter_context(socket.create_server(("127.0.0.1", 0)))
    free_port = free.getsockname()[1]
    free.close()
    config = configured(
        Listener(name="a", address=f"127.0.0.1:{free_port}"),
        Listener(name="b", address=f"127.0.0.1:{port}"),
    )
    with pytest.raises(BindError) as caught:
        bind(config, {})
    assert str(caught.value) == f"listeners[1].address: 127.0.0.1:{port}: Address already in use"
    sockets.enter_context(socket.create_server(("127.0.0.1", free_port)))


def test_a_host_that_is_not_ours_is_told() -> None:
    config = configured(Listener(name="a", address="192.0.2.1:0"))
    with pytest.raises(BindError, match=r"listeners\[0\]\.address: 192\.0\.2\.1:0: Cannot assign"):
        bind(config, {})


def passed(stack: ExitStack, *names: str) -> tuple[dict[str, str], int]:
    """What systemd would tell us of listening sockets with these names."""
    first = 200
    for index in range(len(names)):
        sock = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        os.dup2(sock.fileno(), first + index)
    environ = {
        "LISTEN_PID": str(os.getpid()),
        "LISTEN_FDS": str(len(names)),
        "LISTEN_FDNAMES": ":".join(names),
    }
    return environ, first


def test_sockets_of_systemd_are_taken_by_name(sockets: ExitStack) -> None:
    environ, first = passed(sockets, "smtp", "other", "smtp")
    config = configured(Listener(name="a", address=["systemd:smtp", "127.0.0.1:0"]))
    bound = bind(config, environ, first)
    for each in bound:
        sockets.callback(each.socket.close)
    assert [each.socket.fileno() for each in bound[:2]] == [first, first + 2]
    assert len(bound) == 3
    assert not any(os.get_inheritable(each.socket.fileno()) for each in bound)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(first + 1)  # nobody wants it


def test_a_socket_that_systemd_does_not_pass_on_is_told(sockets: ExitStack) -> None:
    environ, first = passed(sockets, "other")
    config = configured(Listener(name="a", address="systemd:smtp"))
    with pytest.raises(BindError, match="systemd passes on no socket of this name"):
        bind(config, environ, first)


def test_sockets_that_are_meant_for_another_process_are_let_be() -> None:
    assert passed_on({"LISTEN_PID": "1", "LISTEN_FDS": "1"}) == {}
    assert passed_on({}) == {}
