"""Takes what is due from the queue, delivers it, and tells the queue what became of it.

::

    Delivery.run
    └── a worker for each place in a lane's window: one destination, one connection

A worker holds its claim, its work and its connection by `with`; what it does not settle, whatever
happened to it, is ready again. It opens no nursery and no cancel scope of its own for a message.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

import trio
from msgspec.structs import replace

from elemta.delivery.asking import Asking
from elemta.delivery.carrier import Carrier, Tried, Welcome
from elemta.delivery.forwarding import Forwarding
from elemta.delivery.hosts import Hosts
from elemta.delivery.keyring import Keyring
from elemta.delivery.local import Local
from elemta.delivery.outlook import Outlook, meet
from elemta.delivery.reports import Reporter
from elemta.delivery.routes import (
    UNSAID,
    LocalMaildir,
    Nowhere,
    ToHosts,
    ToProgram,
    ToStorage,
    Unsaid,
)
from elemta.delivery.security import Security
from elemta.delivery.session import Timeouts
from elemta.delivery.settlement import Settlement
from elemta.delivery.storing import to_storage
from elemta.delivery.targets import OwnAddresses
from elemta.log import logger
from elemta.metrics.meters import Meters
from elemta.net.dialogues import Dialogue, Dialogues
from elemta.net.transport import connect, connect_unix
from elemta.plugins import Chain, Undecided
from elemta.protocol import reply
from elemta.queue import Result

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from random import Random

    from elemta.config import Config
    from elemta.delivery.carrier import Dial
    from elemta.delivery.hosts import Candidate
    from elemta.delivery.local import Mailboxes
    from elemta.delivery.outlook import Meeting
    from elemta.delivery.routes import Remote, Route
    from elemta.delivery.routing import Router
    from elemta.delivery.transaction import StoredBody
    from elemta.message import Srs
    from elemta.net.dns import Resolver
    from elemta.net.transport import Transport
    from elemta.protocol import Mailbox, ReversePath
    from elemta.queue import Claim, Destined, Queue, Recipient, Work

log = logger(__name__)

#: Seconds before a worker that met a bug of ours goes on.
PAUSE: Final = 1.0
#: Messages that are written to Maildirs with common syncs, and their octets in all.
BATCH: Final = 32
BATCH_OCTETS: Final = 2**20

#: Where a plugin or a map fails that says where mail goes. Which, is not the sender's to know.
NO_ROUTE: Final = reply(451, 4, 4, "where it goes cannot be found out just now")

_LOCAL: Final = LocalMaildir()
LOCAL_LANE: Final = _LOCAL.lane
_NOBODY: Final[Mapping[Work, Asking]] = {}


class Delivery:
    """Everything that goes out.

    Args:
        config: may be changed by `configure`.
        router: made of the same configuration; the queue's lanes are its lanes.
        queue: where mail comes from and reports go.
        resolver: who asks DNS.
        dial: connects to a host; None: by TCP.
        clock: seconds since the epoch.
        random: gives the order among equal hosts.
        dialogues: where conversations are written down; None: in a record of its own.
        meters: count what goes out.
        plugins: those of this moment.
        mailboxes: where ``maildir`` leads; None: as the configuration says.
        srs: rewrites the senders of what is forwarded; None: they stay as they are.

    Attributes:
        reporter: writes what senders are told.

    Raises:
        ConfigError: a file that a route names cannot be read.
    """

    def __init__(
        self,
        config: Config,
        router: Router,
        queue: Queue,
        resolver: Resolver,
        *,
        dial: Dial | None = None,
        clock: Callable[[], float] = time.time,
        random: Random | None = None,
        dialogues: Dialogues | None = None,
        meters: Meters | None = None,
        plugins: Callable[[], Chain] = Chain,
        mailboxes: Mailboxes | None = None,
        srs: Srs | None = None,
    ) -> None:
        self._mailboxes = mailboxes
        self._plugins = plugins
        self._meters = meters or Meters()
        self._queue = queue
        self._resolver = resolver
        self._dial = dial or self._connect
        self._clock = clock
        self._random = random
        self._dialogues = dialogues or Dialogues(config.limits.transcripts, clock)
        self._draining = False
        self._claiming = trio.CancelScope()
        self._resting: set[Claim] = set()
        self.reporter = Reporter(config, queue.new_id, clock, plugins)
        self._settlement = Settlement(queue, self.reporter, clock, self._meters)
        self._security = Security(config.delivery.tls)
        self.configure(config, router, Keyring(config), srs)

    def configure(
        self,
        config: Config,
        router: Router,
        keyring: Keyring | None = None,
        srs: Srs | None = None,
    ) -> None:
        """Deliver by another configuration from the next message on; connections are kept.

        Args:
            config: the other.
            router: made of it.
            keyring: made of it; None: as before.
            srs: made of it; None: senders stay as they are.
        """
        self._forwarding = Forwarding(config, srs)
        delivery = config.delivery
        self._security.configure(delivery.tls, keyring or self._security.keyring)
        self.reporter.configure(config)
        self._hello_name = delivery.hello_name or config.hostname
        self._connect_timeout = delivery.connect_timeout
        self._timeouts = Timeouts(
            greeting=delivery.command_timeout,
            hello=delivery.command_timeout,
            envelope=delivery.command_timeout,
            message=delivery.content_timeout,
        )
        self._idle = delivery.idle_timeout
        self._messages = delivery.messages_per_connection
        self._router = router
        self._hosts = Hosts(
            self._resolver,
            hostname=config.hostname,
            is_own=OwnAddresses(own for each in config.listeners for own in each.bindings),
            port=delivery.port,
            allowed=delivery.allow_targets,
            random=self._random,
        )
        self._local = Local(config, self._mailboxes)

    def sender(
        self, sender: ReversePath, address: Mailbox, original: Mailbox | None
    ) -> ReversePath:
        """Who would be named as the sender to the server of a recipient just now."""
        return self._forwarding.sender(sender, address, original, self._clock())

    async def outlook(self, recipient: Destined, sender: ReversePath) -> Outlook:
        """Where a recipient's mail of a sender would go just now; maps are asked."""
        asked: list[str] = []
        route, entry = await self._router.ask(recipient, sender, asked.append)
        return Outlook(entry=entry, route=route, lane=route.lane, asked=tuple(asked))

    def known(self, recipient: Destined, sender: ReversePath, why: str) -> Outlook:
        """The same, as far as it is known without asking maps; and why they are not."""
        route, entry = self._router.route(recipient, sender), self._router.entry(recipient, sender)
        return Outlook(entry=entry, route=route, lane=route.lane, asked=(why,))

    async def meet(self, route: Remote) -> Meeting:
        """How the hosts of a route would be met just now; DNS is asked, they are not."""
        now = trio.current_time()
        return await meet(route, self._hosts, self._security, self._hello_name, now)

    async def run(self) -> None:
        """Deliver until cancelled, or until `drain`: then until what was begun is finished."""
        async with trio.open_nursery() as workers:
            with trio.CancelScope() as self._claiming:
                while not self._draining:
                    claim = await self._queue.claim()
                    workers.start_soon(self._work, claim)

    def drain(self) -> None:
        """Begin nothing more. `run` returns when what was begun is finished."""
        self._draining = True
        self._claiming.cancel()
        for claim in tuple(self._resting):
            claim.dismiss()

    async def _work(self, claim: Claim) -> None:
        """Be a worker of one lane until nothing more is to do there."""

        def records(host: str) -> Dialogue:
            return Dialogue(self._dialogues, "out", claim.lane, host, os.urandom(6).hex())

        with claim:
            carrier = Carrier(
                self._dial,
                self._hosts,
                self._hello_name,
                self._timeouts,
                self._security,
                messages=self._messages,
                records=records,
                meters=self._meters,
            )
            try:
                work = claim.take()
                while work is not None:
                    await self._try(claim, work, carrier)
                    work = await self._next(claim, carrier)
                await carrier.quit()
            except Exception:
                # Whatever it is, it must not end the other workers. The place stays taken for a
                # moment, so that what is wrong does not happen a thousand times a second.
                log.exception("delivery.worker_failed", lane=claim.lane)
                await trio.sleep(PAUSE)
            finally:
                carrier.close()

    async def _next(self, claim: Claim, carrier: Carrier) -> Work | None:
        """More work for this worker: at once if there is any, else as long as it is worth it."""
        if self._draining or carrier.hosts is not self._hosts:  # another configuration
            return None
        if claim.counted and not carrier.connected:
            return None
        work = claim.take()
        if work is None and (carrier.connected or claim.lane == LOCAL_LANE):
            self._resting.add(claim)
            try:
                work = await claim.wait(self._idle)
            finally:
                self._resting.remove(claim)
        return work

    async def _try(self, claim: Claim, work: Work, carrier: Carrier) -> None:
        """Try to deliver a work, or some at once where that is cheaper, and settle each."""
        if claim.lane != LOCAL_LANE:
            with work:
                await self._send(claim, work, carrier)
            return
        with ExitStack() as held:
            works = [held.enter_context(work)]
            octets = work.message.size
            while octets < BATCH_OCTETS and len(works) < BATCH:
                if (more := claim.take()) is None:
                    break
                octets += more.message.size
                works.append(held.enter_context(more))
            if all(self._route_of(each) == _LOCAL and not each.overdue for each in works):
                await self._post(claim, works)
                return
            for each in works:
                await self._send(claim, each, carrier)

    def _route_of(self, work: Work) -> Route | None:
        """Where all recipients of a work go; None, if routes have changed and they part here."""
        sender = work.message.sender
        route = self._router.route(work.recipients[0], sender)
        for recipient in work.recipients[1:]:
            if self._router.route(recipient, sender) != route:
                return None
        return route

    async def _post(self, claim: Claim, works: Sequence[Work]) -> None:
        """Deliver to Maildirs."""
        started = self._clock()
        bodies = [await self._body(work) for work in works]
        found: list[dict[int, Tried]] = [{} for _ in works]
        with self._asking(works, bodies) as asking:
            try:
                places = [
                    (place, recipient, body)
                    for place, (work, body) in enumerate(zip(works, bodies, strict=True))
                    if body is not None
                    for recipient in await _allowed(work, asking.get(work), found[place])
                ]
                pieces = [(works[place].message, who, body) for place, who, body in places]
                posted = await self._local.to_maildirs(pieces) if pieces else []
                for (place, recipient, _), one in zip(places, posted, strict=True):
                    found[place][recipient.number] = one
                if pieces or not asking:
                    _tell(claim, _welcome(posted), "")
            except Exception:
                # As in `_send`: what is not told to be delivered is tried again.
                log.exception("delivery.attempt_failed", lane=claim.lane)
                _tell(claim, Welcome.TURNED_AWAY, "")
            for work, body, tried in zip(works, bodies, found, strict=True):
                await self._settle(work, tried, body, started)
            for work, tried in zip(works, found, strict=True):
                if work in asking:
                    await asking[work].tell(tried, self._clock() - started)

    async def _send(self, claim: Claim, work: Work, carrier: Carrier) -> None:
        """Deliver to wherever the recipients go: one place, unless routes have just changed."""
        started = self._clock()
        found: dict[int, Tried] = {}
        if self._router.asks and not work.overdue and await self._sort(claim, work):
            return
        body = await self._body(work)
        if work.overdue:
            await self._settlement.settle_overdue(work, body)
            return
        with self._asking([work], [body]) as asking:
            if body is not None:
                try:
                    recipients = await _allowed(work, asking.get(work), found)
                    if recipients:
                        met = await self._deliver(work, recipients, body, carrier, found)
                        if met is not None:
                            _tell(claim, met, carrier.trouble)
                except trio.Cancelled:
                    if known := _delivered(work, found):
                        # The queue has it as soon as it is called, though we may not wait any more.
                        await self._settlement.settle(work, known, found, None, started)
                    raise
                except Exception:
                    # Mail in hand is not lost for a bug of ours.
                    log.exception("delivery.attempt_failed", id=work.message.id, lane=claim.lane)
                    carrier.close()
                    claim.failed()
            await self._settle(work, found, body, started)
            if work in asking:
                await asking[work].tell(found, self._clock() - started)

    async def _sort(self, claim: Claim, work: Work) -> bool:
        """Of what stands where maps are to be asked: ask, and let it stand where it goes then.

        Returns:
            Whether some of it goes elsewhere: then all of it stands anew. Else nobody can say, or
            no map remembers what it has said: so it is tried here and now.
        """
        if not work.lane.startswith(UNSAID):
            return False
        sender, router = work.message.sender, self._router
        for recipient in work.recipients:
            await router.ask(recipient, sender)
        await trio.lowlevel.checkpoint()  # a file in memory answers without one
        if all(router.lane(each, sender) == work.lane for each in work.recipients):
            return False
        claim.succeeded()
        return True

    async def _settle(
        self, work: Work, found: dict[int, Tried], body: StoredBody | None, started: float
    ) -> None:
        """Settle all that is not held by now."""
        recipients: Sequence[Recipient] = work.recipients
        if len(work.open) < len(recipients):
            recipients = [each for each in recipients if each.number in work.open]
        if recipients:
            await self._settlement.settle(work, recipients, found, body, started)

    @contextmanager
    def _asking(
        self, works: Sequence[Work], bodies: Sequence[StoredBody | None]
    ) -> Generator[Mapping[Work, Asking]]:
        """Whom to ask about works before they are tried, and to tell of it after; mostly nobody."""
        chain = self._plugins()
        if not (chain.attempt or chain.attempted):
            yield _NOBODY
            return
        with chain.users:
            yield {
                work: Asking(chain, self._queue, work, body)
                for work, body in zip(works, bodies, strict=True)
                if body is not None
            }

    async def _deliver(
        self,
        work: Work,
        recipients: Sequence[Recipient],
        body: StoredBody,
        carrier: Carrier,
        found: dict[int, Tried],
    ) -> Welcome | None:
        """Deliver to each recipient, wherever that is by now.

        Returns:
            How the destination met us that the work stands for; None: nothing went there.
        """
        sender = work.message.sender
        if len(recipients) == 1 and not self._router.asks:  # nearly always
            route, lane = self._router.way(recipients[0], sender)
            if lane == work.lane:
                return await self._go(route, recipients, work, body, carrier, found)
        groups: dict[Route, list[Recipient]] = {}
        for recipient in recipients:
            if self._router.asks:
                route, _ = await self._router.ask(recipient, sender)
            else:
                route = self._router.route(recipient, sender)
            groups.setdefault(route, []).append(recipient)
        own: list[tuple[Route, list[Recipient]]] = []
        for route, group in groups.items():
            if route.lane == work.lane:
                own.append((route, group))
                continue
            # Routes have changed since it was sorted: what this comes to says nothing of the lane.
            await self._go(route, group, work, body, carrier, found)
            for each in group:
                if (tried := found.get(each.number)) is not None:
                    found[each.number] = replace(tried, lane=route.lane)
        met: Welcome | None = None
        for route, group in own:  # one, but for routes that differ in what no lane's name tells
            here = await self._go(route, group, work, body, carrier, found)
            met = here if met is None or here.value < met.value else met
        return met

    async def _go(
        self,
        route: Route,
        recipients: Sequence[Recipient],
        work: Work,
        body: StoredBody,
        carrier: Carrier,
        found: dict[int, Tried],
    ) -> Welcome:
        """Deliver to the recipients that go by one route. Returns how we were met there."""
        message = work.message
        match route:
            case LocalMaildir():
                pieces = [(message, who, body) for who in recipients]
                posted = await self._local.to_maildirs(pieces)
                found.update(zip((who.number for who in recipients), posted, strict=True))
                return _welcome(posted)
            case ToProgram(pipe):
                return await self._local.to_program(pipe, message, recipients, body, found)
            case ToStorage(plugin):
                return await to_storage(self._plugins(), plugin, work, recipients, body, found)
            case Nowhere():
                found.update(self._local.to_nobody(message, recipients))
            case Unsaid():
                unsaid = Tried(Result.DEFERRED, NO_ROUTE)
                found.update({who.number: unsaid for who in recipients})
            case Undecided(plugin):
                undecided = Tried(Result.DEFERRED, NO_ROUTE, host=f"plugin:{plugin}")
                found.update({who.number: undecided for who in recipients})
            case _:
                if isinstance(route, ToHosts) and route.lmtp:  # that is no forwarding
                    await carrier.deliver(route, message, recipients, body, found)
                    return carrier.welcome
                met = Welcome.SILENT
                for told, group in self._forwarding.parted(message, recipients, self._clock()):
                    await carrier.deliver(route, told, group, body, found)
                    met = min(met, carrier.welcome, key=lambda each: each.value)
                return met
        return Welcome.HEARD

    async def _body(self, work: Work) -> StoredBody | None:
        """The content; None if it cannot be read just now."""
        try:
            return await work.body()
        except Exception:  # whatever keeps us from reading it may pass; the mail waits for that
            log.exception("delivery.body_unreadable", id=work.message.id)
            return None

    async def _connect(self, candidate: Candidate) -> Transport:
        limit = self._connect_timeout
        if not candidate.port:
            return await connect_unix(candidate.address, timeout=limit)
        return await connect(
            candidate.address, candidate.port, source=candidate.source, timeout=limit
        )


async def _allowed(
    work: Work, asking: Asking | None, found: dict[int, Tried]
) -> Sequence[Recipient]:
    """Who of a work may be tried; of the others it is noted in `found` what becomes of them."""
    return work.recipients if asking is None else await asking.ask(found)


def _welcome(posted: Sequence[Tried]) -> Welcome:
    """What became of letters says how the disk is: well, if any could be written."""
    well = any(tried.result is not Result.DEFERRED for tried in posted)
    return Welcome.HEARD if well else Welcome.TURNED_AWAY


def _delivered(work: Work, found: dict[int, Tried]) -> list[Recipient]:
    """Those recipients who must not get it again."""
    return [
        recipient
        for recipient in work.recipients
        if (tried := found.get(recipient.number)) and tried.result is Result.DELIVERED
    ]


def _tell(claim: Claim, welcome: Welcome, trouble: str) -> None:
    """What a destination's welcome means for those who come next."""
    match welcome:
        case Welcome.HEARD:
            claim.succeeded()
        case Welcome.TURNED_AWAY:
            claim.failed(reason=trouble)
        case Welcome.SILENT:
            claim.failed(park=True, reason=trouble)
