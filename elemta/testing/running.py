"""A whole Elemta in memory, on virtual time: its own sessions, plugins, queue and delivery.

Nothing of it is a stand-in but what lies outside: the DNS, the network, the mailboxes, threads and
the clock. So what a test sees here is what a server would do.
"""

from __future__ import annotations

import re
import tempfile
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio
import trio.testing
from msgspec.structs import replace

from elemta import log as logs
from elemta.config import Config, ConfigError, PluginEntry, load
from elemta.control.facts import Submission
from elemta.delivery.mailbox import Letter
from elemta.delivery.routing import Router
from elemta.listener.reception import Reception
from elemta.listener.session import Session
from elemta.message import delivered_to, return_path
from elemta.metrics.meters import Meters
from elemta.net.dns import DnsResolver
from elemta.net.limits import Limit
from elemta.net.memory import memory_transport_pair
from elemta.net.transport import Endpoint
from elemta.parts import Outside, Parts
from elemta.plugins import Loaded
from elemta.plugins.loader import check_hooks
from elemta.privileges import Files
from elemta.protocol import parse_mailbox
from elemta.queue import Filter, Release, Reserve, StoreReader, View, open_queue
from elemta.supervision import Supervision
from elemta.testing.hosts import Internet, Taken
from elemta.testing.stand_ins import EPOCH, FakeDns, at_once, nobody
from elemta.testing.talking import Client, octets_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence

    from elemta.delivery.transaction import StoredBody
    from elemta.log import Entry
    from elemta.net.services import Connects
    from elemta.plugins import Plugin
    from elemta.plugins.loader import Counts
    from elemta.protocol import Reply
    from elemta.queue import Message, MessageId, Queue, Recipient, Timeline
    from elemta.testing.hosts import Host
    from elemta.testing.talking import Mail

#: What runs unless a test says otherwise: it takes mail for any mailbox of one domain, and lets log
#: in whom a plugin knows.
CONFIG: Final = """
hostname: mx.us.example
listeners: [{name: mx, address: "203.0.113.25:25", auth: always}]
domains: [{name: us.example, mailboxes: ["*"]}]
relay: {networks: [10.0.0.0/8]}
"""
#: A client that may send to our domains alone, and one that may send to any.
STRANGER: Final = "192.0.2.1"
TRUSTED: Final = "10.0.0.1"

MAIL: Final = "From: ann@sender.example\nSubject: hello\n\nHello.\n"

_QUEUED: Final = re.compile(r"queued as (\w+)")
_FILES: Final = Files(limit=-1, connections=1000, deliveries=100)


class PluginFailedError(AssertionError):
    """Something raised, or took too long, that no test has asked for."""


class Elemta:
    """What a test has of a server in memory; made by `running`.

    Attributes:
        dns: the name servers. Answers are remembered, as they are in earnest: for five minutes.
        network: hosts that can be reached.
        delivered: what left us, in order: into mailboxes of ours, or to hosts.
        log: events, as they are written.
        errors: those of them that a server should not have. If there are any at the end, the test
            fails; who provokes one looks at it here, and takes it out.
        queue: the queue itself.
    """

    def __init__(
        self,
        parts: Parts,
        file: _File,
        nursery: trio.Nursery,
        reader: StoreReader,
        dns: FakeDns,
        network: Internet,
    ) -> None:
        self.dns = dns
        self.network = network
        self.delivered: list[Taken] = []
        self.log: list[Entry] = []
        self.errors: list[Entry] = []
        self.queue: Queue = parts.queue
        self._parts = parts
        self._file = file
        self._nursery = nursery
        self._reader = reader

    @property
    def config(self) -> Config:
        """What runs."""
        return self._parts.config

    def clock(self) -> float:
        """Virtual time, seconds since the epoch."""
        return _clock()

    # Mail in.

    async def send(
        self,
        sender: str,
        recipients: str | Sequence[str],
        content: Mail = MAIL,
        *,
        client: str = STRANGER,
        helo: str = "client.example",
        listener: str = "",
    ) -> Reply:
        """Hand in a message by SMTP. What can be delivered at once has been when this returns.

        Args:
            sender: empty for the null sender.
            recipients: one or several.
            content: header and all.
            client: its IP address.
            helo: what it calls itself.
            listener: which it comes to; empty: the first.

        Returns:
            The answer to its end, or the one after which there was no going on: of recipients, the
            last refusal if none is taken.
        """
        named = [recipients] if isinstance(recipients, str) else recipients
        async with self.client(client, listener=listener) as conversation:
            reply = await _hand_in(conversation, helo, sender, named, content)
        await self.settled()
        return reply

    async def submit(
        self, sender: str, recipients: str | Sequence[str], content: Mail = MAIL
    ) -> MessageId:
        """Hand in a message as the API does, at the listener ``api``; its id.

        Raises:
            RequestError: it is refused.
            UnavailableError: it is refused for now.
        """
        named = [recipients] if isinstance(recipients, str) else recipients
        submission = Submission(
            sender=parse_mailbox(sender) if sender else None,
            recipients=tuple(parse_mailbox(each) for each in named),
            content=octets_of(content),
        )
        submitted = await self._parts.submit(submission, "test")
        await self.settled()
        return submitted.id

    @asynccontextmanager
    async def client(
        self, address: str = STRANGER, *, listener: str = "", early: bytes = b""
    ) -> AsyncGenerator[Client]:
        """A conversation, from the greeting on; at the end the client hangs up.

        Args:
            address: the client's.
            listener: which it comes to; empty: the first.
            early: what it says before it is greeted.
        """
        tables = self.config.listeners
        table = next(each for each in tables if listener in ("", each.name))
        ours, theirs = memory_transport_pair(client=Endpoint(address, 49152))
        places = Limit(table.connections_per_client, self.config.limits.connections)
        session = Session(theirs, Reception.of(self._parts.house, table, places))
        self._nursery.start_soon(session.run)
        client, looks = Client(ours), trio.CancelScope()
        self._nursery.start_soon(self._look, looks)
        try:
            if early:
                await client.write(early)
            client.greeting = await client.hear()
            yield client
        finally:
            client.hang_up()
            looks.cancel()

    async def _look(self, scope: trio.CancelScope) -> None:
        """Look at deadlines while there is a client: days without one shall pass quickly."""
        with scope:
            await self._parts.reaper.run()

    # Mail that is here.

    def queued(self) -> list[Message]:
        """What is not finished, the oldest first."""
        return self._reader.search(Filter(), now=self.clock())

    def held(self) -> list[Message]:
        """What waits for an operator."""
        return self._reader.search(Filter(views=(View.HOLD,)), now=self.clock())

    def timeline(self, of: Reply | MessageId) -> Timeline:
        """What happened to a message so far.

        Args:
            of: its id, or the reply that has it.

        Raises:
            LookupError: there is no such message.
        """
        timeline = self._reader.timeline(_id(of))
        if timeline is None:
            raise LookupError(f"there is no message {_id(of)}")
        return timeline

    def notes(self, of: Reply | MessageId) -> list[str]:
        """What people and plugins did with a message, as its timeline has it.

        E.g. ``plugin:lists: tag bulk``, or ``plugin:lists: quarantine: too loud``.
        """
        return [
            ": ".join(filter(None, (each.who, each.action, each.reason)))
            for each in self.timeline(of).notes
        ]

    async def release(self, of: Reply | MessageId) -> None:
        """Let a held message go, as an operator does."""
        await self.queue.act(Release(), Filter(ids=(_id(of),)), who="test")
        await self.settled()

    # Mail out.

    def host(self, domain: str) -> Host:
        """A host that takes mail for a domain, and its records in the DNS."""
        address = f"198.51.100.{len(self.network.hosts) + 1}"
        self.dns.add(domain, "MX", f"10 mx.{domain}.")
        self.dns.add(f"mx.{domain}", "A", address)
        return self.network.host(address)

    # Time.

    async def advance(
        self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0
    ) -> None:
        """Let time pass, and everything happen that happens in it."""
        await trio.sleep(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
        await self.settled()

    async def settled(self) -> None:
        """Wait until nothing goes on any more before time passes."""
        await trio.testing.wait_all_tasks_blocked()

    # What runs.

    async def reload(self, config: str | Config) -> None:
        """Take another configuration over; conversations go on. Plugins that were given stay.

        Raises:
            ConfigError: there is a mistake in it, or a plugin cannot start; what was goes on.
        """
        self._file.write(config)
        await self._parts.reload()

    def counts(self, plugin: str) -> Counts:
        """How often a plugin was asked, objected and failed, and what it has counted itself.

        Raises:
            LookupError: there is none of this name.
        """
        for each in self._parts.house.plugins.plugins:
            if each.name == plugin:
                return each.counts
        raise LookupError(f"there is no plugin {plugin}")

    def hear(self, entry: Entry) -> None:
        """Remember an event of the log."""
        self.log.append(entry)
        if entry.level >= logs.Level.ERROR:
            self.errors.append(entry)

    def check(self) -> None:
        """See that there was no error.

        Raises:
            PluginFailedError: there was; what it was it says.
        """
        if self.errors:
            raise PluginFailedError(self.troubles())

    def troubles(self) -> str:
        """What the log has of errors, for people."""
        told = (logs.console(e.at, "error", e.event, e.fields) for e in self.errors)
        return "\n".join(["the log of the server has errors:", *told])


class _File:
    """What stands in for the file of the configuration.

    Args:
        folder: where queue and plugins have their files.
        plugins: that are there already.
    """

    def __init__(self, config: str | Config, folder: Path, plugins: Sequence[Plugin]) -> None:
        self._folder = folder
        self._plugins = plugins
        self.write(config)

    def write(self, config: str | Config) -> None:
        """Have another configuration, with entries for the plugins that are there."""
        entries = [PluginEntry(name=each.name) for each in self._plugins]
        if isinstance(config, str):
            wanted = load(config, plugins=entries)
        else:
            wanted = replace(config, plugins=[*config.plugins, *entries])
        self.config = replace(wanted, data_dir=self._folder)

    def read(self) -> Config:
        """What it says."""
        return self.config


class _Mailboxes:
    """See `elemta.delivery.local.Mailboxes`."""

    def __init__(self, told: Callable[[Taken], None]) -> None:
        self._told = told
        self._senders: dict[str, str] = {}

    def letter(self, message: Message, recipient: Recipient, body: StoredBody) -> Letter:
        name = f"{message.id}_{recipient.number}"
        self._senders[name] = str(message.sender or "")
        head = return_path(message.sender) + delivered_to(recipient.address, recipient.original)
        return Letter(mailbox=recipient.address, name=name, head=head, body=body)

    async def deliver(self, letters: Sequence[Letter]) -> list[OSError | None]:
        for each in letters:
            content = b"".join([each.head, *[chunk async for chunk in each.body.chunks()]])
            sender = self._senders.pop(each.name)
            self._told(Taken(sender, (str(each.mailbox),), content, "maildir"))
        return [None] * len(letters)


@asynccontextmanager
async def running(
    config: str | Config = CONFIG,
    plugins: Sequence[Plugin] = (),
    *,
    folder: Path | None = None,
    dns: FakeDns | None = None,
    connect: Connects = nobody,
    random: float = 0.5,
) -> AsyncGenerator[Elemta]:
    """A server that runs until this is left.

    It needs virtual time, which passes when all wait: `pytest` gives it by the fixtures of
    `elemta.testing.fixtures`, anything else by ``run=on_virtual_time``, or by
    ``trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))``.

    Args:
        config: as in the file, or made of it. Programs that it names (``pipe:``) do run.
        plugins: these are asked after those of `config`.
        folder: where queue and plugins have their files; None: one for the time being.
        dns: what its name servers know; None: nothing.
        connect: connects plugins to services; None is there unless a test has some.
        random: what is chance to plugins.

    Raises:
        ConfigError: there is a mistake in the configuration, or a plugin cannot start.
        PluginFailedError: at the end: a plugin has failed, or the server; see `Elemta.errors`.
        RuntimeError: time is real.
    """
    if not isinstance(trio.lowlevel.current_clock(), trio.testing.MockClock):
        raise RuntimeError("a server in memory needs virtual time: see elemta.testing.running")  # noqa: TRY004
    with tempfile.TemporaryDirectory(prefix="elemta-") as temporary:
        file = _File(config, folder or Path(temporary), plugins)
        for each in plugins:
            check_hooks(type(each), f"the plugin {type(each).__qualname__}")
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            try:
                async with _serving(file, plugins, nursery, dns, connect, random) as elemta:
                    try:
                        yield elemta
                        elemta.check()
                    except Exception as error:  # raised below: nurseries would wrap it up
                        if elemta.errors and not isinstance(error, PluginFailedError):
                            error.add_note(elemta.troubles())
                        failure = error
            except ConfigError as error:
                failure = error
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure


@asynccontextmanager
async def _serving(
    file: _File,
    plugins: Sequence[Plugin],
    nursery: trio.Nursery,
    dns: FakeDns | None,
    connect: Connects,
    random: float,
) -> AsyncGenerator[Elemta]:
    config, dns, network = file.config, dns or FakeDns(), Internet(nursery)
    supervision, meters, router = Supervision(), Meters(), Router(config)
    folder = config.data_dir / "queue"
    taken: list[Taken] = []
    network.told = taken.append
    outside = Outside(
        resolver=DnsResolver(backend=dns),
        dial=network.dial,
        mailboxes=_Mailboxes(taken.append),
        in_thread=at_once,
        briefly=at_once,
        connect=connect,
        random=lambda: random,
        loaded=tuple(Loaded(each, entry=each.name) for each in plugins),
    )
    async with open_queue(
        folder,
        router.policy,
        lane=router.lane,
        limits=router.limits,
        clock=_clock,
        reserve=Reserve(octets=0, share=0, inodes=0),
        inline=True,
        keep=supervision.keep,
        meters=meters,
    ) as queue:
        with StoreReader(folder) as reader:
            parts = Parts(
                config,
                (),
                queue,
                reader,
                router,
                supervision,
                _FILES,
                reread=file.read,
                clock=_clock,
                meters=meters,
                outside=outside,
            )
            elemta = Elemta(parts, file, nursery, reader, dns, network)
            elemta.delivered = taken
            with logs.listening(elemta.hear), _told():
                async with parts.plugins_living(), trio.open_nursery() as serving:
                    serving.start_soon(parts.delivery.run)
                    yield elemta
                    serving.cancel_scope.cancel()


@contextmanager
def _told() -> Generator[None]:
    """The log has all that a server says usually, whatever level somebody has left."""
    former = logs.level()
    logs.set_level(min(former, logs.Level.INFO))
    try:
        yield
    finally:
        logs.set_level(former)


def on_virtual_time(
    main: Callable[[], Awaitable[None]],
    *,
    clock: trio.abc.Clock | None,
    instruments: Sequence[trio.abc.Instrument],
) -> None:
    """For ``pytest.mark.trio(run=on_virtual_time)``: time jumps when all sleep."""
    clock = clock or trio.testing.MockClock(autojump_threshold=0)
    trio.run(main, clock=clock, instruments=instruments)


async def _hand_in(
    client: Client, helo: str, sender: str, recipients: Sequence[str], content: Mail
) -> Reply:
    reply = client.greeting
    if reply.code != 220:
        return reply
    for line in (f"EHLO {helo}", f"MAIL FROM:<{sender}>"):
        reply = await client.say(line)
        if reply.code != 250:
            return reply
    replies = [await client.say(f"RCPT TO:<{each}>") for each in recipients]
    if all(each.code >= 400 for each in replies):
        return replies[-1]
    reply = await client.send(content)
    await client.say("QUIT")
    return reply


def _id(of: Reply | MessageId) -> MessageId:
    if isinstance(of, str):
        return of
    found = _QUEUED.search(of.text)
    if found is None:
        raise LookupError(f"this reply names no message: {of}")
    return found[1]


def _clock() -> float:
    return EPOCH + trio.current_time()
