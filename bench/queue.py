"""What the queue alone costs, with real fsync: ``python -m bench.queue [--folder DIR]``.

Three measures: 20 producers who each wait until their message is durable; the same while workers
claim and settle everything; and how long it takes to start with 100,000 messages waiting. CPU is
that of the whole process, the writer's thread included.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from elemta.protocol import Mailbox, reply
from elemta.queue import (
    Addressee,
    Attempt,
    Claim,
    Destined,
    Envelope,
    Origin,
    Queue,
    Result,
    RetryPolicy,
    Tuning,
    open_queue,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from elemta.protocol import ReversePath

PRODUCERS: Final = 20
SIZES: Final = {"4 KB": (4096, 20_000), "100 KB": (100_000, 3000), "1 MB": (1_000_000, 500)}
QUEUED: Final = 100_000
OK: Final = reply(250, 2, 0, "queued as 4XyZ1234567")


def envelope(number: int) -> Envelope:
    """Somebody writes to somebody."""
    return Envelope(
        sender=Mailbox("sender", "relay.example"),
        recipients=(Addressee(address=Mailbox(f"user{number % 1000}", "sink.example")),),
        origin=Origin(
            address="192.0.2.1",
            helo="relay.example",
            session="01J",
            listener="mx",
            protocol="ESMTP",
        ),
        hops=1,
    )


def smarthost(recipient: Destined, _sender: ReversePath) -> str:
    """All mail goes to one place."""
    return "smtp:[127.0.0.1]:2600"


@asynccontextmanager
async def opened(folder: Path, tuning: Tuning) -> AsyncIterator[Queue]:
    """A queue in this folder."""
    async with open_queue(folder, RetryPolicy(), lane=smarthost, tuning=tuning) as queue:
        yield queue


async def produce(queue: Queue, content: bytes, numbers: list[int], took: list[float]) -> None:
    """Take mail in until `numbers` are used up."""
    while numbers:
        started = time.perf_counter()
        await queue.accept(envelope(numbers.pop()), content)
        took.append(time.perf_counter() - started)


async def work(claim: Claim, queue: Queue) -> None:
    """Deliver all that comes."""
    with claim:
        while (some := claim.take() or await claim.wait(5)) is not None:
            with some:
                body = await some.body()
                assert body.size
                now = time.time()
                attempts = [
                    Attempt(
                        number=each.number,
                        started=now,
                        ended=now,
                        result=Result.DELIVERED,
                        destination=claim.lane,
                        host="[127.0.0.1]:2600",
                        reply=OK,
                        remote=True,
                    )
                    for each in some.recipients
                ]
                await trio.lowlevel.checkpoint()
                await queue.settle(some, attempts)
                claim.succeeded()


async def deliver(queue: Queue) -> None:
    """Claim for ever."""
    async with trio.open_nursery() as workers:
        while True:
            workers.start_soon(work, await queue.claim(), queue)


async def measure(folder: Path, size: int, count: int, tuning: Tuning, *, settle: bool) -> str:
    """Messages a second, CPU a message, and how long an accept takes."""
    content = b"x" * 70 + b"\r\n"
    content = (content * (size // len(content) + 1))[:size]
    numbers, took = list(range(count)), list[float]()
    async with opened(folder, tuning) as queue, trio.open_nursery() as outer:
        if settle:
            outer.start_soon(deliver, queue)
        started, cpu = time.perf_counter(), time.process_time()
        async with trio.open_nursery() as producers:
            for _ in range(PRODUCERS):
                producers.start_soon(produce, queue, content, numbers, took)
        accepted = time.perf_counter() - started
        if settle:
            while queue.waiting:  # noqa: ASYNC110 # an event would be part of what is measured
                await trio.sleep(0.001)
        elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu
        outer.cancel_scope.cancel()
    took.sort()
    return (
        f"{count / elapsed:8,.0f} msg/s   CPU {cpu / count * 1e6:7.1f} µs   "
        f"accept alone {count / accepted:8,.0f}/s, "
        f"p50 {took[len(took) // 2] * 1e3:6.2f} ms, p99 {took[len(took) * 99 // 100] * 1e3:6.2f} ms"
    )


async def fill(folder: Path, count: int) -> None:
    """Put so many messages into a queue."""
    numbers = list(range(count))
    async with opened(folder, Tuning()) as queue, trio.open_nursery() as producers:
        for _ in range(250):
            producers.start_soon(produce, queue, b"small\r\n", numbers, [])


async def measure_start(folder: Path) -> str:
    """Seconds until a queue is open, and until the first message is handed out."""
    started = time.perf_counter()
    async with opened(folder, Tuning()) as queue:
        is_open = time.perf_counter() - started
        with await queue.claim() as claim:
            first = claim.take()
            assert first is not None
            with first:
                handed = time.perf_counter() - started
    return f"open after {is_open:.3f} s, first message handed out after {handed:.3f} s"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured")
    parser.add_argument("--gather", type=float, default=Tuning().gather, help="seconds")
    parser.add_argument("--linger", type=float, default=Tuning().linger, help="seconds")
    parser.add_argument("--sizes", nargs="*", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--queued", type=int, default=QUEUED)
    given = parser.parse_args()
    tuning = Tuning(gather=given.gather, linger=given.linger)
    with tempfile.TemporaryDirectory(dir=given.folder) as temporary:
        folder = Path(temporary)
        for name in given.sizes:
            size, count = SIZES[name]
            for what, settle in (("accept", False), ("accept + settle", True)):
                spool = folder / f"{size}-{settle}"
                figures = trio.run(partial(measure, spool, size, count, tuning, settle=settle))
                print(f"{name:>6}  {what:15} {figures}", flush=True)
        if given.queued:
            trio.run(fill, folder / "start", given.queued)
            print(f"start with {given.queued:,}: {trio.run(measure_start, folder / 'start')}")


if __name__ == "__main__":
    main()
