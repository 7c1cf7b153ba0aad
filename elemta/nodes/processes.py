"""The first process of a server with several nodes: it takes no mail, and keeps its nodes running.

::

    run
    └── ground                  ends when all nodes have
        ├── signals             SIGTERM and SIGHUP are passed on
        ├── log
        ├── hear                what a node says of itself, in the words of sd_notify; one for each
        ├── report              how all of them are, to systemd
        ├── exchange            what all nodes remember in common, and its files
        └── api                 shows to the end what goes on; then cut off
            └── kept            the process of a node, started again if it ends; one for each

All nodes accept from the same sockets, and the kernel gives a connection to whoever is free. They
share nothing else but the Maildirs, and what they remember of clients and accounts, each with a
copy of it (`elemta.ledger.exchange`): no node waits for another, and one that fails harms none.

A node is a program of its own, not a fork: it is started in the same way whether it is the first
time or after a crash, and nothing of this process is left in it.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import time
from contextlib import ExitStack, asynccontextmanager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from elemta import __version__, systemd
from elemta import log as logs
from elemta.config import ConfigError
from elemta.control.client import connect
from elemta.control.interface import Status
from elemta.control.place import listening
from elemta.control.server import ControlServer
from elemta.ledger import Keeper
from elemta.log import logger
from elemta.nodes.cluster import Cluster
from elemta.nodes.place import environment, exchange_socket
from elemta.nodes.running import Running
from elemta.privileges import StartError
from elemta.queue import first_number
from elemta.supervision import Supervision

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
    from pathlib import Path

    from elemta.api.opening import Api
    from elemta.config import Config
    from elemta.control.interface import Control
    from elemta.listener.sockets import BoundListener
    from elemta.nodes.place import Place

log = logger(__name__)

#: Seconds beyond its own deadline that a node gets to end.
PATIENCE: Final = 10.0
#: Octets of one datagram of sd_notify.
_NOTICE: Final = 4096

_STOP: Final = (signal.SIGTERM, signal.SIGINT)
_RELOAD: Final = signal.SIGHUP


class NodeEndedError(Exception):
    """The process of a node has ended, and nobody had asked it to."""


async def run(
    config: Config,
    bound: Sequence[BoundListener],
    places: Sequence[Place],
    *,
    command: Sequence[str],
    file: Path,
    api: Api | None = None,
    clock: Callable[[], float] = time.time,
) -> None:
    """Run all nodes until SIGTERM or SIGINT.

    Args:
        config: of the whole server.
        bound: its listening sockets.
        places: which nodes there are to be.
        command: starts a node; which one, its environment says.
        file: of the configuration.
        api: the server over HTTP, all nodes as one; None: there is none.
        clock: seconds since the epoch.

    Raises:
        StartError: a node ended before it was ready for the first time.

    Resource handling:
        Takes the sockets over.
    """
    # Nobody but this process holds the writing end: when it is gone, nodes see that, and end.
    lifeline, ours = os.pipe()
    try:
        with ExitStack() as held:
            nodes: list[Node] = []
            for place in places:
                node = Node(place, config.data_dir)
                held.callback(node.close)
                nodes.append(node)
            running = Running(config, file)
            await _Nodes(running, nodes, bound, command, lifeline, api, clock).run()
    finally:
        for each in bound:
            each.socket.close()
        if api is not None:
            api.close()
        os.close(lifeline)
        os.close(ours)


class Node:
    """One node, as the first process sees it.

    Attributes:
        ready: it takes mail.
        status: how it is, in its own words.
        heard: when it last said that it is alive (Trio time).
        process: None while there is none.
        news: unparked whenever it says something.

    Raises:
        StartError: its socket cannot be made.

    Resource handling:
        `close` it.
    """

    def __init__(self, place: Place, data_dir: Path) -> None:
        self.place = place
        self.news = trio.lowlevel.ParkingLot()
        self.ready = False
        self.status = "starting"
        self.heard = trio.current_time()
        self.process: trio.Process | None = None
        self.path = place.folder(data_dir) / "notify"
        plain = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.unlink(missing_ok=True)
            plain.bind(os.fspath(self.path))
        except OSError as error:
            plain.close()
            raise StartError(f"{self.path} cannot be made: {error.strerror or error}") from error
        self._socket = trio.socket.from_stdlib_socket(plain)
        self._control = place.folder(data_dir) / "control.sock"

    def close(self) -> None:
        """Close its socket."""
        self._socket.close()
        with suppress(OSError):
            self.path.unlink()

    async def hear(self) -> None:
        """Take in what it says of itself, for ever."""
        while True:
            self.take(await self._socket.recv(_NOTICE))
            self.news.unpark_all()

    def take(self, notice: bytes) -> None:
        """One datagram of sd_notify(3): assignments, a line each."""
        for line in notice.decode(errors="replace").splitlines():
            name, _, value = line.partition("=")
            match name, value:
                case ("READY", "1"):
                    self.ready, self.heard = True, trio.current_time()
                case ("WATCHDOG", "1"):
                    self.heard = trio.current_time()
                case ("STATUS", _):
                    self.status = value
                case _:
                    pass

    @asynccontextmanager
    async def reach(self, who: str) -> AsyncGenerator[Control]:
        """See `Reach`."""
        async with connect(self._control) as client:
            await client.speak_for(who)
            yield client

    def signal(self, number: signal.Signals) -> None:
        """Send its process a signal, if it has one."""
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)


class _Nodes:
    def __init__(
        self,
        running: Running,
        nodes: Sequence[Node],
        bound: Sequence[BoundListener],
        command: Sequence[str],
        lifeline: int,
        api: Api | None,
        clock: Callable[[], float],
    ) -> None:
        self._running = running
        self._nodes = nodes
        self._bound = bound
        self._command = command
        self._lifeline = lifeline
        self._api = api
        self._clock = clock
        self._started_at = clock()
        self._cluster = cluster = Cluster(
            [node.reach for node in nodes],
            self.status,
            running,
            first=first_number(self._started_at),
        )
        config = running.config
        self._control = ControlServer(
            config.control_socket, config.control.group, cluster.steered_by
        )
        self._keeper = Keeper(config.data_dir, clock)
        self._supervision = Supervision()
        self._watchdog = systemd.watchdog()
        self._stop = trio.Event()
        self._started = False
        self._failed: StartError | None = None

    async def run(self) -> None:
        """See `run` above."""
        async with trio.open_nursery() as ground:
            await ground.start(self._heed_signals)
            ground.start_soon(logs.run)
            ground.start_soon(self._supervision.keep, "control", self._control.run)
            ground.start_soon(self._supervision.keep, "events", self._cluster.run)
            for node in self._nodes:
                ground.start_soon(node.hear)
            await ground.start(self._keep_books)
            ground.start_soon(
                partial(systemd.report, self._status, self._all_heard, within=self._watchdog)
            )
            if self._watchdog is not None:
                ground.start_soon(self._end_the_silent, self._watchdog)
            api, keep, steered_by = self._api, self._supervision.keep, self._cluster.steered_by
            async with nullcontext() if api is None else api.serving(keep, steered_by):
                await self._keep_nodes(ground)
            ground.cancel_scope.cancel()
        if self._failed is not None:
            raise self._failed
        log.info("nodes.stopped", nodes=len(self._nodes))

    async def _keep_books(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Keep what all nodes remember, until they have ended and we are cancelled."""
        path = exchange_socket(self._running.config.data_dir)

        async def listen() -> None:
            with listening(path) as sock:
                listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
                await trio.serve_listeners(self._exchange, [listener])

        async with self._keeper.living():
            task_status.started()
            await self._supervision.keep("exchange", listen)

    async def _exchange(self, stream: trio.SocketStream) -> None:
        """Serve one node. Whatever happens to it must not end the others."""
        try:
            await self._keeper.serve(stream)
        except Exception:  # a fault of ours, or of a disk; the node comes again
            log.exception("exchange.failed")

    async def _keep_nodes(self, ground: trio.Nursery) -> None:
        """Keep all nodes running until we are to stop, and they have ended."""
        async with trio.open_nursery() as kept:
            for node in self._nodes:
                name = f"node {node.place.number}"
                kept.start_soon(self._supervision.keep, name, partial(self._live, node))
            ground.start_soon(self._tell_ready)
            await self._stop.wait()
            systemd.notify("STOPPING=1")
            grace = self._running.config.shutdown_grace
            self._supervision.stop()
            for node in self._nodes:
                node.signal(signal.SIGTERM)
            kept.cancel_scope.deadline = trio.current_time() + grace + PATIENCE

    async def _live(self, node: Node) -> None:
        """One life of a node: from the start of its process to its end."""
        if self._stop.is_set():
            return
        bound = () if node.place.retired else self._bound
        environ = {
            **os.environ,
            **environment(node.place, bound, self._lifeline),
            "NOTIFY_SOCKET": os.fspath(node.path),
        }
        environ.pop("WATCHDOG_PID", None)  # it is ours; a node has one like it
        node.heard = trio.current_time()
        try:
            node.process = process = await trio.lowlevel.open_process(
                list(self._command),
                env=environ,
                pass_fds=[self._lifeline, *(each.socket.fileno() for each in bound)],
                process_group=0,  # Ctrl-C is for us: a node that hears it too would stop at once
            )
        except OSError as error:
            self._end(f"node {node.place} cannot be started: {self._command[0]}: {error.strerror}")
            return
        log.info("node.started", node=node.place.number, pid=process.pid)
        try:
            if self._stop.is_set():
                node.signal(signal.SIGTERM)
            code = await process.wait()
        except trio.Cancelled:
            process.kill()
            log.warning("node.killed", node=node.place.number, pid=process.pid)
            raise
        finally:
            node.ready, node.status = False, "not running"
        if self._stop.is_set():
            return
        self._end(f"node {node.place} has ended with code {code}")

    def _end(self, why: str) -> None:
        """Give up, if we have only just begun.

        Raises:
            NodeEndedError: else; the node is started anew after a while.
        """
        if self._started:
            raise NodeEndedError(why)
        self._failed = self._failed or StartError(f"{why}: see above")
        self._stop.set()

    async def _tell_ready(self) -> None:
        """Say that we are ready once all nodes are, for the first time."""
        for node in self._nodes:
            while not node.ready:
                await node.news.park()
        self._started = True
        log.info("nodes.ready", nodes=len(self._nodes))
        systemd.notify("READY=1")

    async def _heed_signals(self, *, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(*_STOP, _RELOAD) as signals:
            task_status.started()
            async for number in signals:
                log.info("signal.received", name=signal.Signals(number).name)
                if number == _RELOAD:
                    for node in self._nodes:
                        node.signal(signal.SIGHUP)
                    with suppress(ConfigError):  # the nodes say what is wrong with it
                        self._running.reload()
                elif self._stop.is_set():  # the second one means at once, for each node too
                    for node in self._nodes:
                        node.signal(signal.SIGTERM)
                else:
                    self._stop.set()

    def status(self) -> Status:
        """How this process is; of the others, their control sockets tell."""
        return Status(
            version=__version__,
            hostname=self._running.config.hostname,
            pid=os.getpid(),
            started_at=self._started_at,
            asked_at=self._clock(),
            stopping=self._stop.is_set(),
            troubles=tuple(self._troubles()),
            listeners=(),
            sessions=0,
            places=0,
            deliveries=0,
            files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            in_memory=0,
            queue=None,
            counts={},
            parts=self._supervision.parts,
            api=self._api.urls if self._api is not None else (),
        )

    def _troubles(self) -> Iterator[str]:
        """What is wrong with this process; what is with a node, its own socket tells, or lacks.

        Of one that ends again and again there may be none to tell.
        """
        for part in self._supervision.parts:
            if part.failure is None:
                continue
            if not part.name.startswith("node "):
                yield f"{part.name} failed: {part.failure}"
            elif part.restarts or not part.running:
                yield f"{part.name} was started again {part.restarts} times: {part.failure}"

    def _status(self) -> str:
        """How all of them are: what is the same of several is said once."""
        said: dict[str, list[str]] = {}
        for node in self._nodes:
            said.setdefault(node.status, []).append(str(node.place.number))
        return "; ".join(f"node {', '.join(which)}: {status}" for status, which in said.items())

    async def _all_heard(self) -> None:
        """Return once every node has been heard of lately."""
        assert self._watchdog is not None, "nobody else asks"
        since = trio.current_time() - self._watchdog
        for node in self._nodes:
            while node.heard < since:
                await node.news.park()

    async def _end_the_silent(self, within: float) -> None:
        """End the process of a node that has said nothing for too long: it is started anew.

        Before systemd does, who would end all of them.
        """
        while True:
            await trio.sleep(within / 10)
            for node in self._nodes:
                # While it starts, it has as long as the whole server has for that.
                if node.ready and trio.current_time() - node.heard > within * 0.9:
                    log.error("node.hangs", node=node.place.number)
                    node.ready = False
                    node.signal(signal.SIGKILL)
