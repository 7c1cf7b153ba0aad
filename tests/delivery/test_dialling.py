"""Delivery over sockets of this machine."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import trio

from elemta.config import load
from elemta.net.transport import SocketTransport
from elemta.queue import State
from tests.delivery.world import BODY, CONFIG, Host, world

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

import pytest


@pytest.fixture
def port() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


async def test_mail_goes_out_by_tcp_and_fails_over_from_a_closed_port(
    port: socket.socket, tmp_path: Path, nursery: trio.Nursery
) -> None:
    host = Host()

    callers: list[str] = []

    async def accept() -> None:
        while True:
            await trio.lowlevel.wait_readable(port)
            accepted, (caller, _) = port.accept()
            callers.append(caller)
            nursery.start_soon(host.serve, SocketTransport(accepted))

    nursery.start_soon(accept)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        refusing = closed.getsockname()[1]
    config = load(
        CONFIG.replace("192.0.2.101:2600", f"127.0.0.1:{refusing}")
        .replace("192.0.2.102:2601", f"127.0.0.1:{port.getsockname()[1]}")
        .replace("match: routed.example", "match: routed.example, source: [127.0.0.2]")
    )
    async with world(tmp_path, config=config, clock=time.time, tcp=True) as here:
        with here.queue.events.subscribe() as events, trio.fail_after(60):
            id_ = await here.send("bob@routed.example")
            while here.states(id_) != [State.DELIVERED]:
                await anext(events)
    assert [taken.content for taken in host.taken] == [BODY]
    assert callers == ["127.0.0.2"]
    nursery.cancel_scope.cancel()
