"""A message on its way in is looked at, and what stands at its top is replaced."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest
import trio
from msgspec.structs import replace

from elemta.queue import (
    Addressee,
    Holder,
    Note,
    Queue,
    Reserve,
    State,
    StoreReader,
    StoreUnavailable,
    open_queue,
)
from elemta.queue.bodies import TRIP, BodyFile
from elemta.queue.schema import INLINE
from tests.queue.mail import EPOCH, POLICY, address, by_domain, envelope, virtual_queue

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from elemta.queue import MessageId
    from elemta.queue.incoming import Incoming

#: In memory; just in a file; in several trips to one.
SIZES = [0, 1, 5000, INLINE, INLINE + 1, 2 * TRIP + 17]


def files(folder: Path) -> list[str]:
    return sorted(os.listdir(folder / "queue" / "bodies"))


def stored(folder: Path, id: MessageId) -> tuple[bytes, int, bool]:  # noqa: A002 # the word of people
    with StoreReader(folder / "queue") as reader:
        body, timeline = reader.body(id), reader.timeline(id)
    assert body is not None
    assert timeline is not None
    return body, timeline.message.size, timeline.message.eight_bit


async def read(incoming: Incoming) -> bytes:
    return b"".join([piece async for piece in incoming.pieces()])


async def write(incoming: Incoming, content: bytes) -> None:
    for start in range(0, len(content), 100_000):
        await incoming.write(content[start : start + 100_000])


@pytest.mark.parametrize("size", SIZES)
async def test_what_was_written_can_be_read_and_written_to(
    size: int, tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = os.urandom(size)
    async with virtual_queue(tmp_path / "queue") as queue:
        async with queue.receive(envelope()) as incoming:
            await write(incoming, content)
            assert await read(incoming) == await read(incoming) == content
            await write(incoming, b"more")
            assert await read(incoming) == content + b"more"
            queued = await incoming.commit()
        assert stored(tmp_path, queued)[:2] == (content + b"more", size + 4)


async def test_several_may_read_side_by_side(tmp_path: Path) -> None:
    content = os.urandom(3 * TRIP)
    reserve = Reserve(octets=0, share=0, inodes=0)
    async with (
        open_queue(tmp_path / "queue", POLICY, lane=by_domain, reserve=reserve) as queue,
        queue.receive(envelope()) as incoming,
    ):
        await write(incoming, content)
        await write(incoming, b"not on the disk yet")
        found: list[bytes] = []

        async def look() -> None:
            found.append(await read(incoming))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(look)
        assert found == [content + b"not on the disk yet"] * 5


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("head", [b"", b"new head: ", b"x" * 200_000], ids=["no", "short", "long"])
@pytest.mark.parametrize("more", [b"", b" and more"], ids=["as it is", "with more"])
async def test_a_head_is_replaced_and_not_an_octet_else(
    size: int, head: bytes, more: bytes, tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = b"old head: " + os.urandom(size)
    async with virtual_queue(tmp_path / "queue") as queue:
        async with queue.receive(envelope()) as incoming:
            await write(incoming, content)
            await incoming.replace_head(10, head)
            wanted = head + content[10:]
            assert incoming.size == len(wanted)
            assert await read(incoming) == wanted
            await write(incoming, more)
            queued = await incoming.commit()
        assert stored(tmp_path, queued)[:2] == (wanted + more, len(wanted + more))
        assert files(tmp_path) in ([queued], [])


async def test_a_head_is_replaced_twice(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        async with queue.receive(envelope()) as incoming:
            await write(incoming, b"a" * (INLINE + 1))
            await incoming.replace_head(1, b"bb")
            await incoming.replace_head(2, b"c")
            queued = await incoming.commit()
        assert stored(tmp_path, queued)[0] == b"c" + b"a" * INLINE
        assert files(tmp_path) == [queued]


@pytest.mark.parametrize(("head", "eight_bit"), [(b"ascii", False), (b"\xc3\xa9", True)])
@pytest.mark.parametrize("size", [10, INLINE + 1])
async def test_a_head_beyond_ascii_is_known_as_such(
    head: bytes, eight_bit: bool, size: int, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        async with queue.receive(envelope()) as incoming:
            await write(incoming, b"x" * size)
            await incoming.replace_head(1, head)
            queued = await incoming.commit()
        assert stored(tmp_path, queued)[2] is eight_bit


async def test_leaving_after_a_head_was_replaced_leaves_no_trace(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        async with queue.receive(envelope()) as incoming:
            await write(incoming, b"x" * (INLINE + 1))
            await incoming.replace_head(1, b"head")
        assert files(tmp_path) == []


async def refused(queue: Queue, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """A disk that fails when the head is replaced."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with queue.receive(envelope()) as incoming:
        await write(incoming, b"x" * (INLINE + 1))
        with monkeypatch.context() as patched:
            patched.setattr(where, full)
            with pytest.raises(StoreUnavailable, match="No space left"):
                await incoming.replace_head(1, b"head")
        with pytest.raises(StoreUnavailable, match="could not be written"):
            await incoming.commit()


@pytest.mark.parametrize("where", ["elemta.queue.bodies._write", "os.read", "pathlib.Path.replace"])
async def test_a_disk_that_fails_refuses_the_message_and_leaves_nothing(
    where: str, tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        await refused(queue, monkeypatch, where)
        assert files(tmp_path) == []
        assert queue.waiting == 0


async def test_a_body_that_shrinks_or_cannot_be_read_refuses_the_message(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with virtual_queue(tmp_path / "queue") as queue:
        async with queue.receive(envelope()) as incoming:
            await write(incoming, b"x" * (INLINE + 1))
            os.truncate(tmp_path / "queue" / "bodies" / incoming.id, 10)
            with pytest.raises(StoreUnavailable, match="shorter"):
                await read(incoming)
        async with queue.receive(envelope()) as incoming:
            await write(incoming, b"x" * (INLINE + 1))

            def broken(*_: object) -> bytes:
                raise OSError(errno.EIO, "Input/output error")

            with monkeypatch.context() as patched:
                patched.setattr(BodyFile, "read", broken)
                with pytest.raises(StoreUnavailable, match="Input/output error"):
                    await read(incoming)
            with pytest.raises(StoreUnavailable):
                await incoming.commit()
        assert files(tmp_path) == []


# What was done to a message on its way in.


@pytest.mark.parametrize("size", [10, INLINE + 1])
@pytest.mark.parametrize("key", ["", "k"])
async def test_what_was_done_on_its_way_in_is_the_first_of_its_timeline(
    size: int, key: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    notes = (
        Note(at=EPOCH, who="plugin:a", action="found", recipients=(), reason="spf=pass"),
        Note(at=EPOCH, who="plugin:b", action="add header X", recipients=()),
    )
    wanted = replace(envelope(), notes=notes)
    async with virtual_queue(tmp_path / "queue") as queue:
        ids = [await queue.accept(wanted, b"x" * size, key=key, digest=b"d") for _ in range(2)]
        async with queue.receive(wanted) as incoming:
            await write(incoming, b"x" * size)
            ids.append(await incoming.commit())
        with StoreReader(tmp_path / "queue") as reader:
            timelines = [reader.timeline(each) for each in ids]
    assert [each.notes for each in timelines if each] == [notes] * 3
    assert len(set(ids)) == (2 if key else 3)


async def test_one_recipient_may_be_held_while_another_is_tried(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    holder = Holder(owner="plugin:a", reason="odd", since=EPOCH)
    held = Addressee(address=address("a@x"), holder=holder)
    free = Addressee(address=address("b@x"))
    async with virtual_queue(tmp_path / "queue") as queue:
        queued = await queue.accept(replace(envelope(), recipients=(held, free)), b"x")
        with StoreReader(tmp_path / "queue") as reader:
            timeline = reader.timeline(queued)
            assert timeline is not None
            first, second = timeline.message.recipients
        assert (first.state, first.holder, first.due) == (State.HELD, holder, 0.0)
        assert (second.state, second.holder) == (State.READY, None)
        with await queue.claim() as claim:
            work = claim.take()
        assert work is not None
        assert [str(each.address) for each in work.recipients] == ["b@x"]
        # Who holds the message holds all of it.
        other = Holder(owner="plugin:b", reason="odder", since=EPOCH)
        both = replace(envelope(), recipients=(held, free), holder=other)
        queued = await queue.accept(both, b"x")
        with StoreReader(tmp_path / "queue") as reader:
            timeline = reader.timeline(queued)
        assert timeline is not None
        assert {each.holder for each in timeline.message.recipients} == {other}
