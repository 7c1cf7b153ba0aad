"""Who watches, and who sends meanwhile: a process each, so that none holds up another.

Who watches has no priority of its own, whatever the bench is run with (`chrt`), and is nice: it
would be on another machine.

``python -m bench.watchers mail PORT RATE SECONDS``, ``… list URL TOKEN`` or ``… listen URL TOKEN
COUNT``. Each says ``ready``, works until its time is over or its standard input ends, and then
prints what it did as one line of JSON.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import threading
import time
from functools import partial
from urllib.parse import urlsplit

import trio
from msgspec import Struct, field
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url

#: Octets of a message.
SIZE = 4096
#: Messages of a page.
PAGE = 500
_CONTENT = b"Subject: watched\r\n\r\n" + (b"x" * 70 + b"\r\n") * (SIZE // 72) + b".\r\n"


class Sent(Struct):
    """What a sender measured.

    Attributes:
        latencies: seconds from MAIL to the 250 after the content, of each message.
        failed: messages that were not taken.
    """

    latencies: list[float] = field(default_factory=list)
    failed: int = 0


class Listed(Struct):
    """What who lists the queue saw.

    Attributes:
        seconds: of each page.
    """

    messages: int = 0
    rounds: int = 0
    seconds: list[float] = field(default_factory=list)


class Heard(Struct):
    """What all listeners together were told.

    Attributes:
        missed: events that came too fast for one of them.
    """

    events: int = 0
    missed: int = 0

    def take(self, told: list[dict[str, object]]) -> None:
        """Not all of this, which is counted already, are events."""
        for each in told:
            if each["type"] in ("Missed", "Hello", "Heartbeat"):
                self.events -= 1
            if each["type"] == "Missed":
                count = each["count"]
                assert isinstance(count, int)
                self.missed += count


async def send(port: int, rate: float, seconds: float) -> Sent:
    """Send so many messages a second, each by a client of its own, however long others take.

    A load that waited for answers would send less just when the server is slow, and not see it.
    """
    sent = Sent()
    async with trio.open_nursery() as nursery:
        begun = trio.current_time()
        for number in range(round(rate * seconds)):
            await trio.sleep_until(begun + number / rate)
            nursery.start_soon(_send_one, port, sent)
    return sent


async def _send_one(port: int, sent: Sent) -> None:
    try:
        with trio.fail_after(60):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            async with stream:
                await _hear(stream, b"220")
                await _say(stream, b"EHLO client.example\r\n", b"250")
                begun = time.perf_counter()
                await _say(stream, b"MAIL FROM:<bench@client.example>\r\n", b"250")
                await _say(stream, b"RCPT TO:<somebody@near.example>\r\n", b"250")
                await _say(stream, b"DATA\r\n", b"354")
                await _say(stream, _CONTENT, b"250")
                sent.latencies.append(time.perf_counter() - begun)
                await _say(stream, b"QUIT\r\n", b"221")
    except (OSError, trio.BrokenResourceError, trio.TooSlowError, ValueError) as error:
        print(f"a message was not taken: {error!r}", file=sys.stderr)
        sent.failed += 1


async def _say(stream: trio.SocketStream, octets: bytes, code: bytes) -> None:
    await stream.send_all(octets)
    await _hear(stream, code)


async def _hear(stream: trio.SocketStream, code: bytes) -> None:
    """Read a whole reply.

    Raises:
        ValueError: it is another one.
    """
    heard = b""
    while True:
        heard += await stream.receive_some()
        *_, last = heard.removesuffix(b"\r\n").split(b"\r\n")
        if heard.endswith(b"\r\n") and last[3:4] == b" ":
            break
        if not heard:
            raise ValueError("hung up")
    if not heard.startswith(code):
        raise ValueError(heard)


def list_pages(url: str, token: str, over: threading.Event) -> Listed:
    """List the whole queue page by page, and again, until it is over."""
    listed = Listed()
    address = urlsplit(url)
    assert address.hostname is not None
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
    cursor: str | None = None
    while not over.is_set():
        query = f"limit={PAGE}" + (f"&cursor={cursor}" if cursor else "")
        begun = time.perf_counter()
        connection.request(
            "GET", f"/v1/queue/messages?{query}", headers={"Authorization": f"Bearer {token}"}
        )
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(content.decode())
        listed.seconds.append(time.perf_counter() - begun)
        page = json.loads(content)
        listed.messages += len(page["messages"])
        cursor = page["next"]
        listed.rounds += cursor is None
    return listed


async def listen(url: str, token: str, count: int, over: threading.Event) -> Heard:
    """Open so many websockets, and take in what they tell until it is over."""
    heard = Heard()
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            await nursery.start(_listen_one, url, token, heard)
        print("ready", flush=True)
        await trio.to_thread.run_sync(over.wait)
        nursery.cancel_scope.cancel()
    return heard


async def _listen_one(
    url: str,
    token: str,
    heard: Heard,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    target = url.replace("http", "ws", 1) + "/v1/events"
    headers = [(b"authorization", f"Bearer {token}".encode())]
    websocket: WebSocketConnection
    async with open_websocket_url(target, extra_headers=headers) as websocket:
        task_status.started()
        try:
            while True:
                text = await websocket.get_message()
                # To read 200 times what happens takes more than a core: it is only counted.
                heard.events += text.count('"type":')
                if '"Missed"' in text or '"Hello"' in text or '"Heartbeat"' in text:
                    heard.take(json.loads(text))
        except ConnectionClosed as error:
            raise RuntimeError(f"a listener was sent away: {error}") from error


def stand_back() -> None:
    """Take what CPU others leave."""
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    os.nice(10)


def main(role: str, *arguments: str) -> None:
    """Play a role, and print what came of it."""
    over = threading.Event()

    def watch_input() -> None:
        while os.read(0, 4096):
            pass
        over.set()

    threading.Thread(target=watch_input, daemon=True).start()
    done: Sent | Listed | Heard
    match role, arguments:
        case "mail", [port, rate, seconds]:
            print("ready", flush=True)
            done = trio.run(send, int(port), float(rate), float(seconds))
        case "list", [url, token]:
            stand_back()
            print("ready", flush=True)
            done = list_pages(url, token, over)
        case "listen", [url, token, count]:
            stand_back()
            done = trio.run(partial(listen, url, token, int(count), over))
        case _:
            raise SystemExit(__doc__)
    print(json.dumps({name: getattr(done, name) for name in done.__struct_fields__}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
