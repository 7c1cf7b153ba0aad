"""The parts of a running server, introduced to each other: how they are, and how they change."""

from __future__ import annotations

import os
import random
import re
import sqlite3
from collections.abc import Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import trio
from msgspec import Struct
from msgspec.structs import asdict

from elemta import __version__, systemd
from elemta import log as logs
from elemta.config import ConfigError, applicable, changes, shown
from elemta.control.crew import plugin_status
from elemta.control.facts import Configuration, PluginStatus, Submitted
from elemta.control.interface import (
    ListenerStatus,
    RequestError,
    Status,
    UnavailableError,
    UnknownError,
)
from elemta.delivery.carrier import Dial
from elemta.delivery.keyring import Keyring
from elemta.delivery.local import Mailboxes
from elemta.delivery.notices import Notices
from elemta.delivery.routing import Router
from elemta.delivery.worker import Delivery
from elemta.explaining.hypothesis import explain
from elemta.explaining.waiting import why
from elemta.ledger import Exchange
from elemta.listener.accept import Listeners
from elemta.listener.reception import House
from elemta.listener.submission import NotTakenError, hand_in
from elemta.log import logger
from elemta.metrics.meters import Meters
from elemta.net.certificates import renew
from elemta.net.dns import DnsResolver
from elemta.net.reaper import Reaper
from elemta.net.services import Connects, connect_service
from elemta.plugins import Chain, Choosing, Lives, Loaded, Store, Tools, Watching
from elemta.plugins.crew import briefly
from elemta.plugins.watching import Hand
from elemta.protocol import Mailbox
from elemta.queue import Addressee, KeyReusedError, StoreUnavailable
from elemta.readings import Readings
from elemta.threads import InThread, in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    from elemta.config import Change, Config
    from elemta.control.facts import Explanation, Hypothesis, Metric, Submission
    from elemta.control.measuring import Stored
    from elemta.listener.sockets import BoundListener
    from elemta.net.certificates import Certificates
    from elemta.privileges import Files
    from elemta.queue import MakesReports, Queue, StoreReader, Timeline
    from elemta.supervision import Supervision

log = logger(__name__)

#: What the folder of a plugin is not called by.
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_-]")
#: What reports are counted as, beside events.
_REPORTS: Final = {
    "failure": "FailureReported",
    "delay": "DelayReported",
    "success": "SuccessReported",
    "relayed": "RelayReported",
    "double_bounced": "DoubleBounced",
    "dropped": "ReportDropped",
}


class Outside(Struct, frozen=True, kw_only=True):
    """What a server meets outside of its process; most of it for tests, which have another world.

    Attributes:
        resolver: asks the DNS; None: as the configuration says.
        dial: connects to a host; None: by TCP.
        mailboxes: where ``maildir`` leads; None: below `data_dir`.
        in_thread, briefly: what runs for plugins what blocks, and what computes.
        connect: connects plugins to services.
        random: what is chance to plugins: from 0 up to 1.
        loaded: plugins that are there already, for entries of their name and settings.
        exchange: with the other nodes of this server; None: there are none.
    """

    resolver: DnsResolver | None = None
    dial: Dial | None = None
    mailboxes: Mailboxes | None = None
    in_thread: InThread = in_thread
    briefly: InThread = briefly
    connect: Connects = connect_service
    random: Callable[[], float] = random.random
    loaded: tuple[Loaded, ...] = ()
    exchange: Exchange | None = None


class Parts:
    """What a running server is made of.

    Args:
        config: what to run.
        bound: its listening sockets.
        queue: its mail.
        reader: of the queue's files.
        router: made of the same configuration; the queue's lanes are its lanes.
        supervision: of all parts.
        files: how many may be open, and what for.
        reread: gives the configuration anew; None: it has no file.
        clock: seconds since the epoch.
        file: of the configuration; empty: it has none.
        meters: what the queue counts in, too.
        outside: what it meets there; None: the world.
        folder: where plugins may keep files; None: in `data_dir`. Each node has its own.
        certificates: of this configuration, read already; None: they are read.

    Attributes:
        config: what runs.
        file: where that is from.
        stopping: no more mail is taken.
        dialogues: what is said, in and out.
        urls: where the API is.

    Raises:
        ConfigError: a plugin cannot be loaded.
    """

    def __init__(
        self,
        config: Config,
        bound: Sequence[BoundListener],
        queue: Queue,
        reader: StoreReader,
        router: Router,
        supervision: Supervision,
        files: Files,
        *,
        reread: Callable[[], Config] | None,
        clock: Callable[[], float],
        file: str = "",
        meters: Meters | None = None,
        outside: Outside | None = None,
        folder: Path | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        meters, outside = meters or Meters(), outside or Outside()
        self._folder = folder or config.data_dir / "plugins"
        self._shared: dict[str, Store] = {}
        self.config = config
        self.file = file
        self.stopping = False
        self.urls: tuple[str, ...] = ()
        self.queue = queue
        self.reaper = Reaper()
        self._house = House.of(
            config,
            queue=queue,
            reaper=self.reaper,
            clock=clock,
            meters=meters,
            loaded=outside.loaded,
            certificates=certificates,
            connect=outside.connect,
            in_thread=None if outside.in_thread is in_thread else outside.in_thread,
        )
        self.listeners = Listeners(bound, self._house, keep=supervision.keep)
        self.dialogues = self._house.dialogues
        resolver = outside.resolver or _resolver(config)
        self.delivery = Delivery(
            config,
            router,
            queue,
            resolver,
            dial=outside.dial,
            clock=clock,
            dialogues=self.dialogues,
            meters=meters,
            plugins=lambda: self._house.plugins,
            mailboxes=outside.mailboxes,
            srs=self._house.srs,
        )
        self._notices = Notices(
            queue,
            hostname=lambda: self.config.hostname,
            postmaster=self._postmaster,
            clock=clock,
            plugins=lambda: self._house.plugins,
        )
        self._router = router
        router.maps = self._house.maps
        self._choosing = Choosing()
        self._watching = Watching(queue, self.report)
        self._outside = outside
        self._resolver = resolver
        self._meters = meters
        self._reloading = trio.Lock()
        self._lives = Lives(self._tools, keep=supervision.keep)
        self._bound = tuple(bound)
        self._reader = reader
        self._supervision = supervision
        self._files = files
        self._reread = reread
        self._clock = clock
        self._started_at = clock()
        self._readings = Readings(
            meters,
            queue,
            self.listeners,
            lambda: self._house,
            self.delivery.reporter,
            resolver,
            supervision,
            files,
            troubles=self.troubles,
            nodes=config.nodes,
            clock=clock,
        )
        self._found = self._count()

    @property
    def house(self) -> House:
        """What sessions share that begin now."""
        return self._house

    async def renew_certificates(self) -> None:
        """Show clients new certificates once there are some, for ever; complain of old ones."""

        def show(found: Certificates) -> None:
            self._house = self._house.showing(found)
            self.listeners.reconfigure(self._house)

        in_thread = self._outside.in_thread
        await renew(lambda: self._house.certificates, show, self._clock, in_thread)

    @property
    def report(self) -> MakesReports:
        """Writes to senders whose mail an operator gives up."""
        return self.delivery.reporter.failure

    def drain(self) -> None:
        """Take no more mail and begin nothing more; what was begun may be finished."""
        self.stopping = True
        self._supervision.stop()
        self.listeners.stop()
        self.listeners.drain()
        self.delivery.drain()

    @asynccontextmanager
    async def plugins_living(self) -> AsyncGenerator[None]:
        """As long as this is entered the plugins live: before mail comes, and after it has ended.

        Raises:
            ConfigError: one of them cannot start.
        """
        keep, files = self._supervision.keep, self._outside.in_thread
        exchange = self._outside.exchange
        async with (
            self._house.guesses.living(self._folder.parent, self.config.data_dir, files, exchange),
            self._lives.living(self._house.plugins),
            trio.open_nursery() as nursery,
        ):
            try:
                if self._heed(self._house.plugins):
                    self._sort()  # it was opened when there was nobody to ask yet
                nursery.start_soon(keep, "routes", partial(self._choosing.run, self._sort))
                nursery.start_soon(keep, "events", self._watching.run)
                nursery.start_soon(keep, "logins", self._house.guesses.run)
                yield
            finally:
                self._heed(Chain())
                self._house.maps.close()
                nursery.cancel_scope.cancel()

    def _heed(self, chain: Chain) -> bool:
        """From now on these plugins, which live, route and hear of events.

        Returns:
            Whether others have routed until now.
        """
        before, self._choosing.chain = self._choosing.chain.route, chain
        self._router.choose = self._choosing if chain.route else None
        self._watching.use(chain)
        return [each.plugin for each in before] != [each.plugin for each in chain.route]

    def _sort(self) -> None:
        """Let all that waits stand where it goes by now."""
        self.queue.retune(lane=self._router.lane)

    def _tools(self, loaded: Loaded) -> Tools:
        """What a plugin gets to work with."""

        def folder() -> Path:
            path = self._folder / _UNSAFE.sub("_", loaded.name)
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            return path

        return Tools(
            name=loaded.name,
            hostname=self.config.hostname,
            ours=lambda domain: self._house.recipients.is_ours(Mailbox("postmaster", domain)),
            resolver=self._resolver,
            make_folder=folder,
            random=self._outside.random,
            clock=self._clock,
            in_thread=self._outside.in_thread,
            briefly=self._outside.briefly,
            connect=self._outside.connect,
            shared=self._shared.setdefault(loaded.name, Store()),
            routes_changed=self._choosing.changed,
            queue=Hand(self.queue, self.report, loaded.name),
            tell_postmaster=partial(self._notices.tell, f"plugin:{loaded.name}"),
            exchange=self._outside.exchange,
            counts=loaded.counts.events,
            meters=self._meters,
        )

    def _postmaster(self) -> tuple[Mailbox, Sequence[Addressee]]:
        """Our own, and whom the address leads to: himself, if it leads nowhere."""
        domains = self.config.domains
        home = Mailbox("postmaster", domains[0].name if domains else self.config.hostname)
        found = self._house.recipients.decide(home, client="", login="postmaster")
        return home, found if isinstance(found, tuple) else (Addressee(address=home),)

    # How they are.

    def summary(self) -> str:
        """How the server is, in a line."""
        if troubles := self.troubles():
            return "; ".join(troubles)
        counts = self.queue.events.counts
        queued = self._found + counts["Queued"] - counts["Finished"]
        active = sum(each.workers for each in self.queue.destinations())
        stopping = "stopping; " if self.stopping else ""
        return f"{stopping}{queued} queued, {active} active, {len(self._house.roster)} clients"

    def troubles(self) -> list[str]:
        """What is wrong, a line each."""
        found: list[str] = []
        if self.queue.why is not None:
            found.append(f"no mail is taken, as the queue cannot be written: {self.queue.why}")
        elif not self.queue.room():
            found.append(f"no mail is taken, as the disk of {self.config.data_dir} is nearly full")
        now = self._clock()
        found += [
            f"the certificate of {each.name} has run out"
            for each in self._house.certificates.known
            if each.ends <= now
        ]
        if refused := self._house.certificates.refused:
            found.append(f"new certificates are not shown: {refused}")
        found += [
            f"{part.name} failed: {part.failure}"
            for part in self._supervision.parts
            if part.failure is not None
        ]
        found += self._house.maps.troubles
        return found

    def status(self) -> Status:
        """How the server is, but for what must be read from the disk."""
        roster = self._house.roster
        return Status(
            version=__version__,
            hostname=self.config.hostname,
            pid=os.getpid(),
            started_at=self._started_at,
            asked_at=self._clock(),
            stopping=self.stopping,
            troubles=tuple(self.troubles()),
            listeners=tuple(self._listener_statuses()),
            sessions=len(roster),
            places=roster.places,
            deliveries=self._files.deliveries,
            files=self._files.limit,
            in_memory=self.queue.waiting,
            queue=None,
            counts={
                **self.queue.events.counts,
                **{
                    _REPORTS[kind]: count
                    for kind, count in asdict(self.delivery.reporter.counts).items()
                    if count
                },
            },
            parts=self._supervision.parts,
            api=self.urls,
            event=self.queue.events.number,
        )

    def configuration(self) -> Configuration:
        """See `Control.configuration`."""
        return Configuration(file=self.file, values=shown(self.config))

    def plugins(self) -> list[PluginStatus]:
        """See `Control.plugins`."""
        return [plugin_status(each) for each in self._house.plugins.plugins]

    def metrics(self, stored: Stored) -> list[Metric]:
        """See `elemta.control.node.Server`."""
        return self._readings.metrics(stored)

    async def explain(self, hypothesis: Hypothesis) -> Explanation:
        """See `Control.explain`.

        Raises:
            RequestError: there is no such listener.
        """
        return await explain(
            hypothesis,
            config=self.config,
            house=self._house,
            listeners=self.listeners,
            delivery=self.delivery,
            queue=self.queue,
            now=self._clock(),
        )

    def why(self, timeline: Timeline) -> Explanation:
        """See `Control.why`: of a message of which this is known on disk."""
        return why(timeline, self.queue, self._clock())

    def _listener_statuses(self) -> list[ListenerStatus]:
        addresses: dict[str, list[str]] = {}
        kinds: dict[str, str] = {}
        for each in zip(self._bound, self.listeners.addresses, strict=True):
            bound, address = each
            addresses.setdefault(bound.table.name, []).append(str(address))
            kinds[bound.table.name] = bound.table.kind
        return [
            ListenerStatus(
                name=name,
                kind=kinds[name],
                addresses=tuple(found),
                connections=self.listeners.connections(name),
            )
            for name, found in addresses.items()
        ]

    def _count(self) -> int:
        """Messages that are not finished, before anything happens."""
        try:
            return self._reader.stats().messages
        except sqlite3.Error:  # it is for people: whoever writes will say what is wrong
            return 0

    # What they do.

    async def submit(self, submission: Submission, who: str) -> Submitted:
        """See `Control.submit`: what `who` hands in.

        Raises:
            RequestError: it is refused.
            UnavailableError: it is refused for now.
        """
        try:
            id_, again = await hand_in(submission, who, self._house)
        except NotTakenError as refused:
            if refused.reply.code < 500:
                raise UnavailableError(str(refused.reply)) from None
            raise RequestError(str(refused.reply), refused.place) from None
        except KeyReusedError as error:
            raise RequestError(str(error), "key") from None
        except StoreUnavailable as error:
            raise UnavailableError(str(error)) from None
        return Submitted(id=id_, again=again)

    # How they change.

    def switch_plugin(self, name: str, *, enabled: bool) -> None:
        """See `Control.switch_plugin`: sessions that go on ask whom they have asked so far.

        Raises:
            UnknownError: there is none of this name.
        """
        try:
            house = self._house.switched(name, enabled=enabled)
        except LookupError:
            raise UnknownError(f"there is no plugin {name!r} in the configuration") from None
        self._house = house
        self.listeners.reconfigure(house)
        if self._heed(house.plugins):
            self._sort()

    async def reload(self, *, dry_run: bool = False) -> tuple[Change, ...]:
        """Take over what the configuration says now; nothing of it, if there is a mistake.

        Returns:
            What differs from what runs.

        Raises:
            RequestError: there is no file.
            ConfigError: there is a mistake in it.
        """
        if self._reread is None:
            log.warning("config.no_file")
            raise RequestError("the sandbox has no configuration file")
        if dry_run:
            wanted = self._reread()
            config = applicable(self.config, wanted)
            _, certificates = await self._read_files(config)
            self._house.reconfigured(config, certificates)
            return self._differences(wanted, certificates)
        systemd.reloading()
        try:
            async with self._reloading:
                told = await self._take_over(self._reread())
        except ConfigError as error:
            _log_refusal(error)
            raise
        finally:
            systemd.notify("READY=1")
        _log_changes(told)
        return told

    async def _read_files(self, config: Config) -> tuple[Keyring, Certificates]:
        """What takes some tenths of a second to read, and more where there is much of it.

        Raises:
            ConfigError: one of the files is of no use.
        """
        shown = self._house.certificates
        return await self._outside.in_thread(lambda: (Keyring(config), shown.anew(config.tls)))

    def _differences(self, wanted: Config, certificates: Certificates) -> tuple[Change, ...]:
        renewed = certificates.since(self._house.certificates)
        return (*changes(self.config, wanted), *renewed)

    async def _take_over(self, wanted: Config) -> tuple[Change, ...]:
        config = applicable(self.config, wanted)
        keyring, certificates = await self._read_files(config)
        house = self._house.reconfigured(config, certificates)
        await self._lives.begin(house.plugins)
        # Nothing fails from here on.
        house.settle()
        told = self._differences(wanted, certificates)
        if config.log != self.config.log:
            logs.configure(config.log.format, config.log.level)
        logs.set_level(None)  # somebody may have set another for a while
        router = Router(config, maps=house.maps)
        self.config, self._house, self._router = config, house, router
        self._heed(house.plugins)
        self.listeners.reconfigure(house)
        self.delivery.configure(config, router, keyring, house.srs)
        self.queue.retune(policy=router.policy, limits=router.limits, lane=router.lane)
        return told


def _log_refusal(error: ConfigError) -> None:
    for mistake in error.mistakes:
        log.error(
            "config.refused",
            file=error.where,
            line=mistake.line,
            place=mistake.place,
            problem=mistake.problem,
        )


def _log_changes(told: Sequence[Change]) -> None:
    for change in told:
        log.info(
            "config.changed",
            place=change.place,
            before=change.before,
            after=change.after,
            holds="after a restart" if change.needs_restart else "now",
        )
    log.info("config.reloaded", changes=len(told))


def _resolver(config: Config) -> DnsResolver:
    """Who is asked for MX and addresses.

    A machine without name servers can still take mail in, and deliver what needs no DNS; the rest
    is deferred.
    """
    timeout = config.dns.timeout
    try:
        return DnsResolver(config.dns.nameservers, timeout=timeout)
    except ValueError as error:
        log.warning("dns.no_nameservers", problem=str(error))
        return DnsResolver(["127.0.0.1"], timeout=timeout)
