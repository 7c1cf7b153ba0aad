"""The nursery tree: what runs, what it rests on, and in what order it starts and stops."""

from __future__ import annotations

import signal
import sqlite3
import time
from typing import TYPE_CHECKING, Final

import trio

from elemta import __version__, systemd
from elemta import log as logs
from elemta.config import ConfigError, applicable, changes
from elemta.delivery.routing import Router
from elemta.delivery.worker import Delivery
from elemta.listener.accept import Listeners
from elemta.listener.reception import House
from elemta.log import logger
from elemta.net.dns import DnsResolver
from elemta.net.reaper import Reaper
from elemta.privileges import StartError
from elemta.queue import HistoryLimits, Reserve, RetryPolicy, SpoolError, Tuning, open_queue

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from elemta.config import Change, Config
    from elemta.listener.sockets import BoundListener
    from elemta.net.transport import Endpoint
    from elemta.queue import Queue

log = logger(__name__)

#: Seconds that messages on their way in or out get, once we are told to stop.
GRACE: Final = 30.0
#: Seconds until a part that failed is started again; doubled each time.
PAUSE: Final = 1.0
#: Seconds that pause never exceeds; and after which a part that ran so long counts as sound.
LONGEST_PAUSE: Final = 60.0


_STOP: Final = (signal.SIGTERM, signal.SIGINT)
_RELOAD: Final = signal.SIGHUP


async def run(
    config: Config,
    bound: Sequence[BoundListener],
    *,
    reread: Callable[[], Config] | None = None,
    grace: float = GRACE,
    clock: Callable[[], float] = time.time,
    ready: Callable[[list[Endpoint]], None] = lambda addresses: None,
) -> None:
    """Run the server until SIGTERM or SIGINT, or until a part of it fails.

    ::

        run
        └── queue                       closed last: what was answered is written
            └── ground                  cancelled when all above is over, or at a second signal
                ├── signals, log, reaper
                └── delivery            begins nothing more; what it has begun it may finish
                    └── sessions        the idle are sent away; who is in a message may finish it
                        └── accepting   stopped first: no new clients

    What is opened first is closed last: nothing outlives what it rests on.

    Args:
        config: what to run.
        bound: its listening sockets.
        reread: gives the configuration anew, on SIGHUP; None: it has no file.
        grace: seconds that messages on their way get when we stop.
        clock: seconds since the epoch.
        ready: told where clients find us, once mail can be taken.

    Raises:
        StartError: the queue cannot be opened.
        ConfigError: a plugin cannot be loaded.

    Resource handling:
        Takes the sockets over.
    """
    router = Router(config)
    try:
        async with open_queue(
            config.data_dir / "queue",
            RetryPolicy(schedule=tuple(config.queue.retry), lifetime=config.queue.lifetime),
            lane=router.lane,
            clock=clock,
            tuning=Tuning(workers=config.delivery.max_connections),
            history=HistoryLimits(age=config.queue.history.age, count=config.queue.history.count),
            reserve=Reserve(octets=config.queue.disk_reserve),
        ) as queue:
            node = _Node(config, bound, queue, router, reread=reread, clock=clock)
            await node.run(grace, ready)
    except (SpoolError, sqlite3.Error, OSError) as error:
        # What goes wrong later comes in a group: it has passed a nursery.
        raise StartError(f"the queue in {config.data_dir} cannot be opened: {error}") from error
    finally:
        for each in bound:
            each.socket.close()


class _Node:
    """The parts of a running server, introduced to each other."""

    def __init__(
        self,
        config: Config,
        bound: Sequence[BoundListener],
        queue: Queue,
        router: Router,
        *,
        reread: Callable[[], Config] | None,
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._reread = reread
        self._queue = queue
        self._reaper = Reaper()
        self._house = House.of(config, queue=queue, reaper=self._reaper, clock=clock)
        self._listeners = Listeners(bound, self._house)
        self._delivery = Delivery(config, router, queue, _resolver(config), clock=clock)
        self._stop = trio.Event()

    async def run(self, grace: float, ready: Callable[[list[Endpoint]], None]) -> None:
        """See `run` above."""
        async with trio.open_nursery() as ground:
            await ground.start(self._heed_signals, ground.cancel_scope)
            ground.start_soon(logs.run)
            ground.start_soon(self._reaper.run)
            async with trio.open_nursery() as delivery:
                delivery.start_soon(self._deliver)
                async with trio.open_nursery() as sessions:
                    addresses = await sessions.start(self._listeners.run, sessions)
                    log.info("daemon.ready", version=__version__, hostname=self._config.hostname)
                    ready(addresses)
                    systemd.notify("READY=1")
                    await self._stop.wait()
                    log.info("daemon.stopping")
                    systemd.notify("STOPPING=1")
                    self._listeners.stop()
                    self._listeners.drain()
                    self._delivery.drain()
                    deadline = trio.current_time() + grace
                    sessions.cancel_scope.deadline = deadline
                    delivery.cancel_scope.deadline = deadline
            ground.cancel_scope.cancel()
        log.info("daemon.stopped")

    async def _heed_signals(
        self, everything: trio.CancelScope, *, task_status: trio.TaskStatus[None]
    ) -> None:
        with trio.open_signal_receiver(*_STOP, _RELOAD) as signals:
            task_status.started()
            async for number in signals:
                log.info("signal.received", name=signal.Signals(number).name)
                if number == _RELOAD:
                    self._reload()
                elif self._stop.is_set():
                    log.warning("daemon.stopping_at_once")
                    everything.cancel()
                else:
                    self._stop.set()

    async def _deliver(self) -> None:
        """Deliver. A fault of ours in there must not keep mail from coming in: it begins anew."""
        pause = PAUSE
        while True:
            began = trio.current_time()
            try:
                await self._delivery.run()
            except Exception:
                log.exception("delivery.failed", pause=pause)
            else:
                return
            if trio.current_time() - began > LONGEST_PAUSE:
                pause = PAUSE
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _reload(self) -> None:
        """Take over what the configuration says now; nothing of it, if there is a mistake."""
        if self._reread is None:
            log.warning("config.no_file")
            return
        systemd.notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            wanted = self._reread()
            config = applicable(self._config, wanted)
            house = self._house.reconfigured(config)
        except ConfigError as error:
            _log_refusal(error)
        else:
            told = changes(self._config, wanted)
            if config.log != self._config.log:
                logs.configure(config.log.format, config.log.level)
            router = Router(config)
            self._config, self._house = config, house
            self._listeners.reconfigure(house)
            self._delivery.configure(config, router)
            self._queue.reroute(router.lane)
            _log_changes(told)
        systemd.notify("READY=1")


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
