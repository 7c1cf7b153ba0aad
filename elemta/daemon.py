"""The nursery tree: what runs, what it rests on, and in what order it starts and stops."""

from __future__ import annotations

import signal
import sqlite3
import time
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from elemta import __version__, systemd
from elemta import log as logs
from elemta.config import ConfigError
from elemta.control.interface import ControlError
from elemta.control.node import Node
from elemta.control.server import ControlServer
from elemta.delivery.routing import Router
from elemta.log import logger
from elemta.metrics.meters import Meters
from elemta.parts import Outside, Parts
from elemta.privileges import StartError, open_files
from elemta.queue import (
    HistoryLimits,
    Reserve,
    SpoolError,
    StoreReader,
    Tuning,
    open_queue,
)
from elemta.readings import watch_loop
from elemta.supervision import Supervision

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
    from pathlib import Path

    from elemta.api.opening import Api
    from elemta.config import Config
    from elemta.ledger import Exchange
    from elemta.listener.sockets import BoundListener
    from elemta.net.certificates import Certificates
    from elemta.net.transport import Endpoint

log = logger(__name__)

_STOP: Final = (signal.SIGTERM, signal.SIGINT)
_RELOAD: Final = signal.SIGHUP


async def run(
    config: Config,
    bound: Sequence[BoundListener],
    *,
    api: Api | None = None,
    reread: Callable[[], Config] | None = None,
    file: str = "",
    queue_dir: Path | None = None,
    until: Callable[[], Awaitable[None]] = trio.sleep_forever,
    clock: Callable[[], float] = time.time,
    certificates: Certificates | None = None,
    exchange: Exchange | None = None,
    ready: Callable[[list[Endpoint]], None] = lambda addresses: None,
) -> None:
    """Run the server until SIGTERM or SIGINT.

    ::

        run
        └── queue                       closed last: what was answered is written
        exchange                    with other nodes, if there are some
        plugins                     live as long as all below
            └── ground                  cancelled when all above is over, or at a second signal
                ├── signals, log, reaper, control, lag, certificates, what systemd is told
                └── api                 shows to the end what goes on; then cut off
                    └── delivery        begins nothing more; what it has begun it may finish
                        └── sessions    the idle are sent away; who is in a message may finish it
                            └── accepting   stopped first: no new clients

    What is opened first is closed last: nothing outlives what it rests on. A part that fails is
    started again (`Supervision`); but for the heeding of signals, which ends all.

    Args:
        config: what to run.
        bound: its listening sockets.
        api: the server over HTTP; None: there is none.
        reread: gives the configuration anew, to reload; None: it has no file.
        file: what that is called.
        queue_dir: where the queue lies; None: in `data_dir`.
        until: the server stops when this returns, too.
        clock: seconds since the epoch.
        certificates: of this configuration, read already; None: they are read.
        exchange: with the other nodes of this server; None: there are none.
        ready: told where clients find us, once mail can be taken.

    Raises:
        StartError: the queue cannot be opened.
        ConfigError: a plugin cannot be loaded, or cannot start.

    Resource handling:
        Takes the sockets over.
    """
    router = Router(config)
    folder = queue_dir or config.data_dir / "queue"
    wanted = config.delivery.max_connections
    meters = Meters()
    files = open_files(config.limits.connections, wanted)
    if files.deliveries < wanted:
        log.warning("deliveries.limited", wanted=wanted, places=files.deliveries, files=files.limit)
    supervision = Supervision()
    try:
        async with open_queue(
            folder,
            router.policy,
            lane=router.lane,
            limits=router.limits,
            clock=clock,
            tuning=Tuning(workers=files.deliveries),
            history=HistoryLimits(age=config.queue.history.age, count=config.queue.history.count),
            reserve=Reserve(
                octets=config.queue.disk_reserve,
                largest=max(each.message_size for each in config.listeners),
            ),
            keep=supervision.keep,
            meters=meters,
        ) as queue:
            with StoreReader(folder) as reader:
                parts = Parts(
                    config,
                    bound,
                    queue,
                    reader,
                    router,
                    supervision,
                    files,
                    reread=reread,
                    clock=clock,
                    file=file,
                    meters=meters,
                    folder=folder.parent / "plugins",
                    certificates=certificates,
                    outside=Outside(exchange=exchange),
                )
                node = Node(parts, reader, folder, clock)
                tree = _Tree(parts, supervision, node, api, meters)
                async with (
                    _exchanging(exchange, supervision, partial(tree.stop_after, until)),
                    parts.plugins_living(),
                ):
                    await tree.run(ready)
    except (SpoolError, sqlite3.Error, OSError) as error:
        # What goes wrong later comes in a group: it has passed a nursery.
        raise StartError(f"the queue in {folder} cannot be opened: {error}") from error
    finally:
        for each in bound:
            each.socket.close()
        if api is not None:
            api.close()


@asynccontextmanager
async def _exchanging(
    exchange: Exchange | None,
    supervision: Supervision,
    end: Callable[[trio.CancelScope], Awaitable[None]],
) -> AsyncGenerator[None]:
    """As long as this is entered, other nodes hear what plugins and logins remember.

    Args:
        exchange: with them, if there are some.
        supervision: keeps it.
        end: given what this cancels, so that nobody goes on to start for a server that has ended.
    """
    mistake: ConfigError | None = None
    async with trio.open_nursery() as nursery:
        if exchange is not None:
            nursery.start_soon(supervision.keep, "exchange", exchange.run)
        nursery.start_soon(end, nursery.cancel_scope)
        try:
            yield
        except ConfigError as error:  # of who cannot start: people are told it, and not in a group
            mistake = error
        nursery.cancel_scope.cancel()
    if mistake is not None:
        raise mistake


class _Tree:
    """Starts all parts, and stops them in the opposite order."""

    def __init__(
        self,
        parts: Parts,
        supervision: Supervision,
        node: Node,
        api: Api | None,
        meters: Meters,
    ) -> None:
        self._parts = parts
        self._node = node
        self._meters = meters
        self._api = api
        if api is not None:
            parts.urls = api.urls
        self._keep = supervision.keep
        config = parts.config
        self._control = ControlServer(config.control_socket, config.control.group, node.steered_by)
        self._stop = trio.Event()
        self._begun = False

    async def run(self, ready: Callable[[list[Endpoint]], None]) -> None:
        """See `run` above."""
        parts, keep = self._parts, self._keep
        self._begun = True
        async with trio.open_nursery() as ground:
            await ground.start(self._heed_signals, ground)
            ground.start_soon(keep, "log", logs.run)
            ground.start_soon(keep, "reaper", parts.reaper.run)
            ground.start_soon(keep, "control", self._control.run)
            ground.start_soon(keep, "lag", partial(watch_loop, self._meters))
            ground.start_soon(keep, "certificates", parts.renew_certificates)
            api = self._api
            async with nullcontext() if api is None else api.serving(keep, self._node.steered_by):
                await self._serve_mail(ground, ready)
            ground.cancel_scope.cancel()
        log.info("daemon.stopped")

    async def _serve_mail(
        self, ground: trio.Nursery, ready: Callable[[list[Endpoint]], None]
    ) -> None:
        """Take mail in and send it out, until we are to stop and what was begun has ended."""
        parts = self._parts
        async with trio.open_nursery() as delivery:
            delivery.start_soon(self._keep, "delivery", parts.delivery.run)
            async with trio.open_nursery() as sessions:
                addresses = await sessions.start(parts.listeners.run, sessions)
                log.info("daemon.ready", version=__version__, hostname=parts.config.hostname)
                ready(addresses)
                systemd.notify("READY=1")
                ground.start_soon(self._keep, "systemd", self._report)
                await self._stop.wait()
                log.info("daemon.stopping")
                systemd.notify("STOPPING=1")
                parts.drain()
                deadline = trio.current_time() + parts.config.shutdown_grace
                sessions.cancel_scope.deadline = deadline
                delivery.cancel_scope.deadline = deadline

    async def stop_after(
        self, end: Callable[[], Awaitable[None]], starting: trio.CancelScope
    ) -> None:
        """Stop once `end` returns; cancel all, if what comes before `run` is not over by then."""
        await end()
        self._stop.set()
        if not self._begun:
            starting.cancel()

    async def _report(self) -> None:
        """Tell systemd how we are. Its watchdog is fed while the loop turns and the disk writes."""
        parts = self._parts
        await systemd.report(parts.summary, parts.queue.answers, within=systemd.watchdog())

    async def _reload(self) -> None:
        try:
            await self._parts.reload()
        except (ConfigError, ControlError):
            pass  # the log has it
        except Exception:  # a fault of ours in what is new: what was goes on
            log.exception("config.reload_failed")

    async def _heed_signals(
        self, ground: trio.Nursery, *, task_status: trio.TaskStatus[None]
    ) -> None:
        with trio.open_signal_receiver(*_STOP, _RELOAD) as signals:
            task_status.started()
            async for number in signals:
                log.info("signal.received", name=signal.Signals(number).name)
                if number == _RELOAD:
                    # A plugin may take its time to start; who is to stop must not wait for it.
                    ground.start_soon(self._reload)
                elif self._stop.is_set():
                    log.warning("daemon.stopping_at_once")
                    ground.cancel_scope.cancel()
                else:
                    self._stop.set()
