"""Inbound mail with SPF, DKIM, DMARC and greylisting: ``python -m bench.inbound``.

Some hundred domains send, each its own message of 4 KB, signed with RSA-2048; one in ten was
altered on its way and fails SPF, so that its domain's DMARC policy has it refused. Greylisting is
on everywhere, with its clients known already: before the clock runs each domain's message was sent,
deferred, and sent again until it was taken, on all servers alike.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final

import trio
from msgspec import Struct

from bench import filtering, letters, load, names, peers
from bench.spool import spool
from bench.table import Row
from bench.turns import Measured, chosen, turns, turns_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.filtering import Filter
    from bench.letters import Letter

_RECIPIENT: Final = "somebody@far.example"

ROWS: Final = (
    Row("inbound", "inbound, 4 KB, SPF, DKIM, DMARC, greylisting (msg/s)", target=2.0),
    Row("inbound_cpu", "… CPU per message, all processes (ms)", 2, 0.5),
    Row("inbound_p50", "… from MAIL to the last answer, at 20 a second, p50 (ms)", 1),
    Row("inbound_p99", "… p99 (ms)", 1),
    Row("inbound_refused", "… refused by DMARC per 1,000"),
    Row("inbound_memory", "… memory of all processes (MiB)"),
)


class Scale(Struct, frozen=True):
    """How much is sent.

    Attributes:
        each: messages of each domain, as fast as they are taken.
        rate: messages a second while latency is measured.
        seconds: for so long.
    """

    each: int = 25
    rate: float = 20.0
    seconds: float = 30.0


QUICK: Final = Scale(each=5, seconds=6.0)


def measure(server: Filter, folder: Path, of: Sequence[Letter], scale: Scale) -> dict[str, float]:
    """One run of one server, on an empty spool."""
    peers.clear(folder)
    server.prepare(folder)
    with server.run(folder) as running:
        trio.run(make_known, running.accept, of)
        burst(running.accept, of, 3)  # so that each node has asked the DNS
        cpu, begun = running.cpu_seconds(), time.perf_counter()
        refused = burst(running.accept, of, scale.each)
        seconds = time.perf_counter() - begun
        cpu = running.cpu_seconds() - cpu
        sent = len(of) * scale.each
        expected = sum(each.forged for each in of) * scale.each
        if refused != expected:
            raise RuntimeError(f"{server.name} refused {refused} of {sent}, not {expected}")
        took = sorted(trio.run(at_rate, running.accept, of, scale))
        return {
            "inbound": sent / seconds,
            "inbound_cpu": cpu * 1000 / sent,
            "inbound_p50": took[len(took) // 2] * 1000,
            "inbound_p99": took[len(took) * 99 // 100] * 1000,
            "inbound_refused": refused * 1000 / sent,
            "inbound_memory": running.memory() / 2**20,
        }


# As fast as it goes: smtp-source, as for all else.


def burst(port: int, of: Sequence[Letter], count: int) -> int:
    """Send each letter so often, 20 domains at a time; returns how many were refused for good.

    Raises:
        RuntimeError: something else than the end of a message was refused, or for a while only.
    """

    def send(letter: Letter) -> int:
        command = [
            load.program("smtp-source"), "-4", "-A", "-M", "client.example", "-f", letter.sender,
            "-t", _RECIPIENT, "-s", "1", "-m", str(count), "-F", str(letter.file),
            f"127.0.0.1:{port}",
        ]  # fmt: skip
        result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        complaints = result.stderr.splitlines()
        refused = sum(bool(re.search(r"end of data .*: 5|5\d\d 5\.7", each)) for each in complaints)
        if result.returncode or refused != len(complaints):
            raise RuntimeError(f"{' '.join(command)}: {result.stderr.strip()}")
        return refused

    with ThreadPoolExecutor(load.SESSIONS) as pool:
        return sum(pool.map(send, of))


# One after the other, and each reply looked at.


async def make_known(port: int, of: Sequence[Letter]) -> None:
    """Send every letter until greylisting knows it.

    Raises:
        RuntimeError: none was deferred, or some still are after a while.
    """
    unknown = await _deferred(port, of)
    if len(unknown) < len(of) // 2:
        raise RuntimeError("greylisting is not on")
    for _ in range(10):
        await trio.sleep(filtering.DELAY + 0.2)
        unknown = await _deferred(port, unknown)
        if not unknown:
            return
    raise RuntimeError(f"still deferred: {[each.sender for each in unknown]}")


async def _deferred(port: int, of: Sequence[Letter]) -> list[Letter]:
    """Send each once, `SESSIONS` at a time; those that shall come again."""
    deferred: list[Letter] = []
    waiting = list(of)

    async def work() -> None:
        while waiting:
            letter = waiting.pop()
            if 400 <= (await post(port, letter))[0] < 500:
                deferred.append(letter)

    async with trio.open_nursery() as nursery:
        for _ in range(load.SESSIONS):
            nursery.start_soon(work)
    return deferred


async def at_rate(port: int, of: Sequence[Letter], scale: Scale) -> list[float]:
    """Send so many a second, however long others take; seconds that each took.

    A load that waited for answers would send less just when the server is slow, and not see it.
    """
    took: list[float] = []

    async def one(letter: Letter) -> None:
        code, seconds = await post(port, letter)
        if code != (550 if letter.forged else 250):
            raise RuntimeError(f"{letter.sender} was answered {code}")
        took.append(seconds)

    async with trio.open_nursery() as nursery:
        begun = trio.current_time()
        for number in range(round(scale.rate * scale.seconds)):
            await trio.sleep_until(begun + number / scale.rate)
            nursery.start_soon(one, of[number % len(of)])
    return took


async def post(port: int, letter: Letter) -> tuple[int, float]:
    """Send one; the last answer's code, or that of the first one that is no good.

    Returns:
        Beside it seconds from MAIL to that answer.
    """
    # No line begins with a dot.
    content = letter.octets + b".\r\n"
    lines = {
        f"MAIL FROM:<{letter.sender}>\r\n".encode(): 250,
        f"RCPT TO:<{_RECIPIENT}>\r\n".encode(): 250,
        b"DATA\r\n": 354,
        content: 250,
    }
    with trio.fail_after(60):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await _heard(stream)
            await stream.send_all(b"EHLO client.example\r\n")
            await _heard(stream)
            begun, code = time.perf_counter(), 0
            for line, wanted in lines.items():
                await stream.send_all(line)
                code = await _heard(stream)
                if code != wanted:
                    break
            seconds = time.perf_counter() - begun
            await stream.send_all(b"QUIT\r\n")
            await _heard(stream)
    return code, seconds


async def _heard(stream: trio.SocketStream) -> int:
    """The code of a whole reply."""
    reply = b""
    while not re.search(rb"(?:^|\n)\d{3}(?: [^\n]*)?\r\n$", reply):
        octets = await stream.receive_some()
        if not octets:
            raise RuntimeError(f"the server hung up after {reply!r}")
        reply += octets
    return int(reply[:3])


def main() -> int:
    """Print the table; 0 if all could be measured."""
    given = turns_of("bench.inbound", __doc__, "elemta", "postfix").parse_args()
    scale = QUICK if given.quick else Scale()
    of_all: list[Filter] = [filtering.FilteringElemta(), filtering.FilteringPostfix()]
    servers = chosen(of_all, given)
    measured = Measured(servers)
    with spool(given.work.resolve(), image=given.spool == "image") as place:
        of, records = letters.letters(place.folder / "letters")
        with names.served(place.folder / "names", letters.ZONE, records):
            for number in turns(given):
                for server in servers:
                    folder = place.folder / server.name.lower()
                    measured.turn(number, server, partial(measure, server, folder, of, scale))
    return measured.report(ROWS)


if __name__ == "__main__":
    sys.exit(main())
