from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from elemta.net.memory import MemoryTransport, memory_transport_pair
from elemta.net.reaper import Reaper

if TYPE_CHECKING:
    from trio.testing import MockClock


async def test_who_waits_beyond_the_deadline_is_interrupted(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    reaper = Reaper()
    _client, server = memory_transport_pair()
    reaper.watch(server)
    nursery.start_soon(reaper.run)
    server.deadline = trio.current_time() + 300
    with pytest.raises(trio.TooSlowError):
        await server.receive()
    assert 300 <= trio.current_time() <= 301
    nursery.cancel_scope.cancel()


async def test_a_writer_whose_peer_does_not_read_is_interrupted_again_and_again(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    reaper = Reaper()
    _client, server = memory_transport_pair(buffer=1)
    reaper.watch(server)
    nursery.start_soon(reaper.run)
    server.deadline = trio.current_time() + 10
    for goodbye in (b"250 OK\r\n", b"421 bye\r\n"):
        with pytest.raises(trio.TooSlowError):
            await server.send_all(goodbye)
    assert trio.current_time() <= 12
    nursery.cancel_scope.cancel()


async def test_who_is_in_time_or_has_no_deadline_is_let_be(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    reaper = Reaper()
    client, server = memory_transport_pair()
    got: list[bytes] = []

    async def serve(deadline: float) -> None:
        server.deadline = deadline
        got.append(await server.receive())

    reaper.watch(server)
    nursery.start_soon(reaper.run, 0.5)
    for deadline in (trio.current_time() + 100, math.inf):
        nursery.start_soon(serve, deadline)
        await trio.sleep(99)
        await client.send_all(b"x")
        await wait_all_tasks_blocked()
    assert got == [b"x", b"x"]
    nursery.cancel_scope.cancel()


async def test_who_is_overdue_for_a_reason_of_our_own_is_let_be(autojump_clock: MockClock) -> None:
    reaper = Reaper()
    client, server = memory_transport_pair()
    reaper.watch(server)
    server.deadline = trio.current_time() + 10
    await trio.sleep(60)  # a slow disk, say
    reaper.look()
    server.deadline = trio.current_time() + 10
    with trio.move_on_after(5) as scope:
        await server.receive()
    assert scope.cancelled_caught
    await client.send_all(b"x")
    assert await server.receive() == b"x"


async def test_who_is_forgotten_is_let_be(nursery: trio.Nursery) -> None:
    reaper = Reaper()
    client, server = memory_transport_pair()
    reaper.watch(server)
    reaper.forget(server)
    reaper.forget(server)
    server.deadline = trio.current_time() - 1
    nursery.start_soon(server.receive)
    await wait_all_tasks_blocked()
    reaper.look()
    await wait_all_tasks_blocked()
    assert server.waiting
    await client.send_all(b"x")


async def test_a_goodbye_can_be_written_after_the_deadline(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    reaper = Reaper()
    client, server = memory_transport_pair()
    reaper.watch(server)
    nursery.start_soon(reaper.run)
    server.deadline = trio.current_time() + 1
    with pytest.raises(trio.TooSlowError):
        await server.receive()
    await server.send_all(b"421 too slow\r\n")
    assert await client.receive() == b"421 too slow\r\n"
    nursery.cancel_scope.cancel()


async def test_looking_at_thousands_takes_no_time() -> None:
    reaper = Reaper()
    ends: list[MemoryTransport] = []
    for _ in range(5000):
        ends += memory_transport_pair()
    for end in ends:
        reaper.watch(end)
    best = math.inf
    for _ in range(5):
        start = time.process_time()
        reaper.look()
        best = min(best, time.process_time() - start)
    # Ten times what it takes: this finds a search that is no longer linear, not a busy machine.
    assert best < 0.02
