from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING

import pytest
import trio

from elemta.queue import Queue, Result, StoreReader, StoreUnavailable, Work, open_queue
from elemta.queue.bodies import PIECE
from elemta.queue.schema import INLINE
from tests.queue.mail import CONTENT, POLICY, attempts, by_domain, envelope, virtual_queue

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock


def bodies(folder: Path) -> list[str]:
    return sorted(os.listdir(folder / "queue" / "bodies"))


async def put(queue: Queue, content: bytes, step: int = 50_000) -> str:
    async with queue.receive(envelope()) as incoming:
        for start in range(0, len(content), step):
            await incoming.write(content[start : start + step])
        assert incoming.size == len(content)
        return await incoming.commit()


async def next_work(queue: Queue) -> Work:
    with await queue.claim() as claim:
        work = claim.take()
        assert work is not None
        return work


@pytest.mark.parametrize("size", [0, 1, INLINE - 1, INLINE])
async def test_a_small_message_is_a_row(
    tmp_path: Path, autojump_clock: MockClock, size: int
) -> None:
    content = os.urandom(size)
    async with virtual_queue(tmp_path / "queue") as queue:
        queued = await put(queue, content)
        assert bodies(tmp_path) == []
        with StoreReader(tmp_path / "queue") as reader:
            assert reader.body(queued) == content


@pytest.mark.parametrize("size", [INLINE + 1, 3 * INLINE, 5_000_001])
async def test_a_large_message_is_a_file_that_goes_with_its_message(
    tmp_path: Path, autojump_clock: MockClock, size: int
) -> None:
    content = os.urandom(size)
    async with virtual_queue(tmp_path / "queue") as queue:
        queued = await put(queue, content)
        assert bodies(tmp_path) == [queued]
        with StoreReader(tmp_path / "queue") as reader:
            assert reader.body(queued) == content
        with await next_work(queue) as work:
            assert work.message.eight_bit
            body = await work.body()
            assert (body.size, body.octets) == (size, None)
            for _ in range(2):
                pieces = [piece async for piece in body.chunks()]
                assert b"".join(pieces) == content
                assert max(map(len, pieces)) == PIECE
            await queue.settle(work, attempts(work, Result.DELIVERED), durable=True)
        assert bodies(tmp_path) == []


async def test_a_large_message_given_whole_is_a_file_too(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        queued = await queue.accept(envelope(), b"x" * (INLINE + 1))
        assert bodies(tmp_path) == [queued]
        with await next_work(queue) as work:
            assert not work.message.eight_bit


async def test_one_piece_is_kept_as_the_very_object_that_came(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        async with queue.receive(envelope()) as incoming:
            await incoming.write(CONTENT)
            await incoming.commit()
        with await next_work(queue) as work:
            assert (await work.body()).octets is CONTENT


async def test_the_envelope_may_be_replaced_at_the_end_and_the_id_is_known_before(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        queued = queue.new_id()
        async with queue.receive(envelope("a@x"), id=queued) as incoming:
            await incoming.write(CONTENT)
            assert await incoming.commit(envelope("b@x")) == queued
        with await next_work(queue) as work:
            assert [str(each.address) for each in work.recipients] == ["b@x"]


@pytest.mark.parametrize("size", [100, 3 * INLINE])
async def test_leaving_without_commit_leaves_no_trace(
    tmp_path: Path, autojump_clock: MockClock, size: int
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        with trio.CancelScope() as scope:
            async with queue.receive(envelope()) as incoming:
                for _ in range(5):
                    await incoming.write(b"x" * size)
                scope.cancel()
                await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        assert bodies(tmp_path) == []
        assert queue.waiting == 0


async def test_a_body_that_cannot_be_written_refuses_the_message(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        (tmp_path / "queue" / "bodies").rmdir()
        async with queue.receive(envelope()) as incoming:
            with pytest.raises(StoreUnavailable, match="cannot write the body"):
                await incoming.write(b"x" * 3 * INLINE)
            await incoming.write(b"the rest")
            with pytest.raises(StoreUnavailable, match="could not be written"):
                await incoming.commit()
        assert queue.waiting == 0
        (tmp_path / "queue" / "bodies").mkdir()


async def test_a_body_that_is_gone_is_no_reason_to_crash(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        queued = await queue.accept(envelope("a@x"), b"x" * (INLINE + 1))
        (tmp_path / "queue" / "bodies" / queued).unlink()
        with await next_work(queue) as work:
            body = await work.body()
            with pytest.raises(StoreUnavailable, match="cannot read the body"):
                await anext(body.chunks())


async def test_a_large_message_never_stands_in_memory_as_a_whole(tmp_path: Path) -> None:
    size = 50 * 2**20
    piece = os.urandom(64 * 1024)
    async with open_queue(tmp_path / "queue", POLICY, lane=by_domain) as queue:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        async with queue.receive(envelope()) as incoming:
            while incoming.size < size:
                await incoming.write(piece)
            await incoming.commit()
        with await next_work(queue) as work:
            read = 0
            async for octets in (await work.body()).chunks():
                read += len(octets)
            assert read == size
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        assert grown < 16 * 2**20
