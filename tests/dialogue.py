r"""Plays written SMTP dialogues against a session.

Each line of a dialogue begins with who acts::

    C: the client says a line
    O: the client sends octets: \r \n \x00 stand for what they do, and no CRLF is added
    S: the server must answer this line; "S: 250 ..." any reply of that code, however many lines
    E: the server must hang up
    W: 30        the client does nothing for so many seconds
    Q: 2         the queue must have so many messages by now
    L: kind: lmtp         a setting of the listener; before all others
    A: 198.51.100.7       the client's address; likewise
    # a comment

What consecutive ``C`` and ``O`` lines say is sent in one piece, so pipelining is the default.
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

import msgspec
import trio
import yaml

from elemta.config import Config, load
from elemta.listener.reception import House, Reception
from elemta.listener.session import Session
from elemta.net.limits import Limit
from elemta.net.memory import memory_transport_pair
from elemta.net.reaper import Reaper
from elemta.net.transport import Endpoint
from elemta.plugins import Chain, Loaded
from tests.fakes import FakeQueue

if TYPE_CHECKING:
    from elemta.plugins import Plugin

CONFIG = """
hostname: mx.example
listeners:
  - name: mx
    address: 127.0.0.1:0
relay:
  networks: [198.51.100.0/24, "2001:db8:1::/48"]
  domains: [backup.example, "*.backup.example"]
domains:
  - name: here.example
    mailboxes: [alice, bob, carol, o'brien, no-reply, "a b"]
    aliases:
      team: [alice, bob]
      bob: [bob, carol]
      away: [someone@elsewhere.example]
  - name: any.example
    mailboxes: ["*"]
"""

#: 2026-11-22 00:00:00 UTC.
NOW = 1795305600.0

#: Seconds in which a dialogue must come to its end: a hanging one fails, at once on a test's clock.
PATIENCE = 4000

STRANGER = "192.0.2.1"
TRUSTED = "198.51.100.7"


class Server:
    """A session, and the client's end of its line."""

    def __init__(
        self,
        *plugins: Plugin,
        client: str = STRANGER,
        queue: FakeQueue | None = None,
        config: Config | None = None,
        house: House | None = None,
        buffer: int = 65536,
        **settings: object,
    ) -> None:
        if house is None:
            config = config or load(CONFIG)
            table = msgspec.convert(
                {"name": "mx", "address": "127.0.0.1:0", **settings},
                type(config.listeners[0]),
                dec_hook=_decode,
            )
            house = House.of(config, queue=queue or FakeQueue(), reaper=Reaper(), clock=lambda: NOW)
            # Later, as there are not all of its plugins until here.
            house = msgspec.structs.replace(
                house, config=msgspec.structs.replace(config, listeners=[table])
            )
            if plugins:
                chain = Chain([Loaded(plugin) for plugin in plugins])
                house = msgspec.structs.replace(house, plugins=chain)
        self.house = house
        self.queue = house.queue if isinstance(house.queue, FakeQueue) else FakeQueue()
        self.client, server = memory_transport_pair(client=Endpoint(client, 49152), buffer=buffer)
        self.transport = server
        self.session = Session(
            server, Reception.of(house, house.config.listeners[0], Limit(20, 100))
        )
        self._heard = b""

    async def run(self) -> None:
        """Serve, with somebody who looks at the deadlines."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.house.reaper.run)
            await self.session.run()
            nursery.cancel_scope.cancel()

    async def line(self) -> str:
        """The next line that the server says; empty if it has hung up."""
        with trio.fail_after(PATIENCE):
            while b"\r\n" not in self._heard:
                octets = await self.client.receive()
                if not octets:
                    assert not self._heard, f"half a line: {self._heard!r}"
                    return ""
                self._heard += octets
        line, self._heard = self._heard.split(b"\r\n", 1)
        assert line, "an empty line"
        return line.decode()

    async def expect(self, want: str) -> None:
        """The server must say this next."""
        if not want.endswith(" ..."):
            line = await self.line()
            assert line == want, f"the server says {line!r}"
            return
        code = want.removesuffix(" ...")
        while (line := await self.line())[3:4] == "-":
            assert line.startswith(code), f"the server says {line!r}"
        assert line.startswith(f"{code} "), f"the server says {line!r}"

    async def expect_end(self) -> None:
        """The server must have nothing more to say, and hang up."""
        line = await self.line()
        assert line == "", f"the server says {line!r}"

    async def play(self, script: str) -> None:
        """Run a dialogue."""
        said = b""
        for number, line in enumerate(script.strip().splitlines(), 1):
            who, _, text = line.strip().partition(": ")
            if who in ("C", "C:"):
                said += text.encode() + b"\r\n"
                continue
            if who == "O":
                said += codecs.escape_decode(text.encode())[0]
                continue
            if said:
                await self.client.send_all(said)
                said = b""
            try:
                await self._act(who.removesuffix(":"), text)
            except AssertionError as error:
                raise AssertionError(f"line {number}: {line.strip()}: {error}") from error
        if said:
            await self.client.send_all(said)

    async def _act(self, who: str, text: str) -> None:
        match who:
            case "S":
                await self.expect(text)
            case "E":
                await self.expect_end()
            case "W":
                await trio.sleep(float(text))
            case "Q":
                assert len(self.queue.kept) == int(text), f"{len(self.queue.kept)} are kept"
            case "" | "L" | "A":
                pass
            case _:
                assert who.startswith("#"), "who says this?"


def settings_of(script: str) -> dict[str, object]:
    """What the ``L`` lines of a dialogue ask for."""
    lines = [line[3:] for line in script.splitlines() if line.startswith("L: ")]
    return yaml.safe_load("\n".join(lines)) or {}


def client_of(script: str) -> str:
    """What the ``A`` line of a dialogue says."""
    return next((line[3:] for line in script.splitlines() if line.startswith("A: ")), STRANGER)


def _decode(kind: type, value: object) -> object:
    parse = getattr(kind, "parse", None)
    if parse is None or not isinstance(value, str):
        return value
    return parse(value)
