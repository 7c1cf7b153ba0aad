"""Mail to an LMTP server, over TCP and a Unix socket."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import pytest
import trio

from elemta.config import HostPort, load
from elemta.delivery.routes import ToHosts
from elemta.net.transport import SocketTransport
from elemta.queue import Result, State
from tests.delivery.test_carrier import FIRST, Bench
from tests.delivery.world import BODY, CONFIG, Host, on_virtual_time, world

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCAL = "192.0.2.101"
LMTP = ToHosts((HostPort(LOCAL, 24),), lmtp=True)
DELIVERED, DEFERRED, FAILED = State.DELIVERED, State.DEFERRED, State.FAILED
CONFIGURED = CONFIG.replace('mailboxes: ["*"]}', f'mailboxes: ["*"], deliver: "lmtp://{LOCAL}"}}')


@pytest.fixture
def bench(nursery: trio.Nursery) -> Bench:
    return Bench(nursery)


@pytest.mark.trio(run=on_virtual_time)
async def test_fault_1_only_mail_for_our_domains_goes_to_the_lmtp_server(tmp_path: Path) -> None:
    # Everything went there, mail of clients that relay included.
    async with world(tmp_path, config=load(CONFIGURED)) as here:
        here.domain("b.example", ("mx.b.example", FIRST))
        lmtp, exchanger = here.net.host(LOCAL), here.net.host(FIRST)
        id_ = await here.send("bob@us.example", "carol@b.example")
        await trio.sleep(1)
        assert here.states(id_) == [DELIVERED, DELIVERED]
        assert [taken.recipients for taken in lmtp.taken] == [("bob@us.example",)]
        assert [taken.recipients for taken in exchanger.taken] == [("carol@b.example",)]
        assert lmtp.heard[0].startswith("LHLO ")
        assert exchanger.heard[0].startswith("EHLO ")


@pytest.mark.trio(run=on_virtual_time)
async def test_fault_3_a_restart_of_the_lmtp_server_loses_no_mail(tmp_path: Path) -> None:
    # "Connection refused" was permanent.
    async with world(tmp_path, config=load(CONFIGURED)) as here:
        id_ = await here.send("bob@us.example")
        await trio.sleep(60)
        assert here.states(id_) == [DEFERRED]
        assert here.replies(id_) == [
            f"451 4.4.1 cannot connect to {LOCAL}[{LOCAL}]:24: Connection refused"
        ]
        lmtp = here.net.host(LOCAL)
        await trio.sleep(900)
        assert here.states(id_) == [DELIVERED]
        assert len(lmtp.taken) == 1


@pytest.mark.trio(run=on_virtual_time)
async def test_fault_5_a_partial_failure_is_one_of_the_failed_alone(tmp_path: Path) -> None:
    # The message was sent to all again, or lost for those who had failed.
    async with world(tmp_path, config=load(CONFIGURED)) as here:
        lmtp = here.net.host(
            LOCAL,
            **{
                ". full@us.example": "452 4.2.2 over quota",
                ". gone@us.example": "550 5.2.1 disabled",
                "RCPT nobody@us.example": "550 5.1.1 no such user",
            },
        )
        here.domain("sender.example", ("mx.sender.example", FIRST))
        home = here.net.host(FIRST)
        names = ("bob", "full", "gone", "nobody", "eve")
        id_ = await here.send(*(f"{name}@us.example" for name in names))
        await trio.sleep(1)
        assert here.states(id_) == [DELIVERED, DEFERRED, FAILED, FAILED, DELIVERED]
        lmtp.says[". full@us.example"] = "250 2.0.0 there is room again"
        await trio.sleep(400)
        assert here.states(id_) == [DELIVERED, DELIVERED, FAILED, FAILED, DELIVERED]
        had = [name for taken in lmtp.taken for name in taken.recipients]
        assert sorted(had) == ["bob@us.example", "eve@us.example", "full@us.example"]
        [report] = home.taken
        assert b"550 5.2.1 disabled" in report.content
        assert b"550 5.1.1 no such user" in report.content


@pytest.mark.trio(run=on_virtual_time)
async def test_fault_6_no_line_of_a_message_is_taken_for_a_command(tmp_path: Path) -> None:
    # Dots were not stuffed: the message ended at a dot, and what followed was commands.
    body = b"Subject: hi\r\n\r\n.\r\nMAIL FROM:<evil@x.example>\r\n..\r\n.x\r\n"
    async with world(tmp_path, config=load(CONFIGURED)) as here:
        lmtp = here.net.host(LOCAL)
        id_ = await here.send("bob@us.example", body=body)
        await trio.sleep(1)
        assert here.states(id_) == [DELIVERED]
        assert [(taken.sender, taken.content) for taken in lmtp.taken] == [
            ("ann@sender.example", body)
        ]


@pytest.mark.trio(run=on_virtual_time)
async def test_who_had_an_answer_before_the_server_died_keeps_it(bench: Bench) -> None:
    host = bench.net.host(LOCAL, **{". eve@b.example": None})
    tried = await bench.deliver("bob", "eve", "cid", route=LMTP)
    assert [one.result for one in tried] == [
        *(Result.DELIVERED, Result.DEFERRED, Result.DEFERRED),
    ]
    assert host.sessions == 1, "the others may have it: they are not tried again at once"


@pytest.mark.trio(run=on_virtual_time)
async def test_lmtp_hosts_are_tried_in_their_order(bench: Bench) -> None:
    second = bench.net.host("192.0.2.102")
    route = ToHosts((HostPort(LOCAL, 24), HostPort("192.0.2.102", 24)), lmtp=True)
    [tried] = await bench.deliver(route=route)
    assert tried.result is Result.DELIVERED
    assert len(second.taken) == 1
    assert bench.net.dialled == [LOCAL, "192.0.2.102"]


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "lmtp"))
        sock.listen()
        sock.setblocking(False)
        yield sock


async def test_mail_goes_out_over_a_unix_socket(
    listening: socket.socket, tmp_path: Path, nursery: trio.Nursery
) -> None:
    host = Host()

    async def accept() -> None:
        await trio.lowlevel.wait_readable(listening)
        await host.serve(SocketTransport(listening.accept()[0]))

    nursery.start_soon(accept)
    path = tmp_path / "lmtp"
    config = load(CONFIGURED.replace(f"lmtp://{LOCAL}", f"lmtp://{path}"))
    async with world(tmp_path, config=config, clock=time.time, tcp=True) as here:
        with here.queue.events.subscribe() as events, trio.fail_after(60):
            id_ = await here.send("bob@us.example")
            while here.states(id_) != [DELIVERED]:
                await anext(events)
        [attempt] = here.timeline(id_).attempts
    assert (attempt.destination, attempt.host) == (f"lmtp:{path}", str(path))
    assert [taken.content for taken in host.taken] == [BODY]
    nursery.cancel_scope.cancel()
