"""What is measured, one server at a time: each function gives numbers by the name of a row."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct

from bench import load, peers
from bench.load import Load, Sink
from bench.spool import Spool

if TYPE_CHECKING:
    from pathlib import Path

Numbers: TypeAlias = dict[str, float]

#: Recipients in a domain of this name are accepted and wait; others are delivered to the sink.
_WAITS = "somebody@far.example"
_LEAVES = "somebody@near.example"
_WARM_UP = 300
_IDLE_CONNECTIONS = 1000
#: What one message and its place in the file system may take to become durable.
_SYNCS = "fsync,fdatasync,sync_file_range,syncfs,sync,msync"


class Scale(Struct, frozen=True, kw_only=True):
    """How many messages a measurement sends."""

    accept: int = 8000
    accept_100k: int = 1000
    accept_1m: int = 150
    relay: int = 4000
    traced: int = 1000
    queued: int = 100_000


QUICK = Scale(accept=3000, accept_100k=500, accept_1m=80, relay=1500, traced=500, queued=20_000)


class Place(Struct, frozen=True):
    """Where a measurement happens."""

    spool: Spool
    sink: Sink
    scale: Scale


Measure: TypeAlias = Callable[[peers.Peer, Place], Numbers]


def accept_4k(peer: peers.Peer, place: Place) -> Numbers:
    """Accept and keep: 4 KB, 20 sessions, one message a session."""
    return _accept(peer, place, "accept_4k", Load(count=place.scale.accept, recipient=_WAITS))


def accept_kept(peer: peers.Peer, place: Place) -> Numbers:
    """The same, all messages of a session on one connection."""
    burst = Load(count=place.scale.accept, recipient=_WAITS, keep=True)
    return _accept(peer, place, "accept_kept", burst)


def accept_100k(peer: peers.Peer, place: Place) -> Numbers:
    """100 KB, one message a session."""
    burst = Load(count=place.scale.accept_100k, size=100_000, recipient=_WAITS)
    return _accept(peer, place, "accept_100k", burst)


def accept_1m(peer: peers.Peer, place: Place) -> Numbers:
    """1 MB, one message a session."""
    burst = Load(count=place.scale.accept_1m, size=1_000_000, recipient=_WAITS)
    return _accept(peer, place, "accept_1m", burst)


def relay(peer: peers.Peer, place: Place) -> Numbers:
    """4 KB from first send until the sink has counted all of them."""
    if not peer.relays:
        return {}
    return _timed_relay(peer, place, "relay", _to_one)


def relay_200(peer: peers.Peer, place: Place) -> Numbers:
    """The same to 200 domains, each a destination of its own for the server; one sink takes all."""
    if not peer.relays:
        return {}
    return _timed_relay(peer, place, "relay_200", _to_many)


def syncs(peer: peers.Peer, place: Place) -> Numbers:
    """Calls that ask for durability per 1,000 messages, counted by strace: an untimed run."""
    folder = _fresh(peer, place)
    trace = folder.parent / "syncs.txt"
    trace.write_text("")
    under = [load.program("strace"), "-f", "--seccomp-bpf", "-qq", "-e", "signal=none",
             "-e", f"trace={_SYNCS}", "-o", str(trace)]  # fmt: skip
    count = place.scale.traced
    numbers: Numbers = {}
    with peer.run(folder, under=under) as server:
        Load(count=20, recipient=_WAITS).send(server.accept)
        for name, keep in (("accept_4k_syncs", False), ("accept_kept_syncs", True)):
            before = _calls(trace)
            Load(count=count, recipient=_WAITS, keep=keep).send(server.accept)
            numbers[name] = (_calls(trace) - before) * 1000 / count
        if peer.relays:
            before = _calls(trace)
            _relay(server, place, count, _to_one)
            time.sleep(0.5)  # as above: what it syncs behind the last arrival counts
            numbers["relay_syncs"] = (_calls(trace) - before) * 1000 / count
    return numbers


def memory(peer: peers.Peer, place: Place) -> Numbers:
    """KiB for each of 1,000 connections that said EHLO and wait (proportional set size)."""
    folder = _fresh(peer, place)
    with peer.run(folder) as server:
        before = server.memory()
        with load.idle_connections(server.accept, _IDLE_CONNECTIONS):
            idle = (server.memory() - before) / _IDLE_CONNECTIONS
    return {"memory_base": before / 2**20, "memory_idle": idle / 1024}


def start_up(peer: peers.Peer, place: Place) -> Numbers:
    """Seconds from exec to the first 220, with a queue full of mail that waits for delivery."""
    if not peer.relays:
        return {}
    folder = _fresh(peer, place)
    queued = Load(count=place.scale.queued, size=1024, recipient=_WAITS, keep=True)
    with peer.run(folder) as server:
        empty = server.started
        queued.send(server.accept)
    peer.requeue(folder)
    with peer.run(folder) as server:
        full = server.started
        base = server.memory() / 2**20
    return {"start_empty": empty, "start_queued": full, "memory_queued": base}


EVERY_ROUND: tuple[Measure, ...] = (
    accept_4k, accept_kept, accept_100k, accept_1m, relay, relay_200, memory,
)  # fmt: skip
ONCE: tuple[Measure, ...] = (syncs, start_up)


def _accept(peer: peers.Peer, place: Place, name: str, burst: Load) -> Numbers:
    folder = _fresh(peer, place)
    with peer.run(folder) as server:
        Load(count=_WARM_UP, recipient=_WAITS).send(server.accept)
        cpu, flushes = server.cpu_seconds(), place.spool.flushes()
        delivered = place.sink.messages
        seconds = burst.send(server.accept)
        numbers = {
            name: burst.count / seconds,
            f"{name}_cpu": (server.cpu_seconds() - cpu) * 1000 / burst.count,
        }
        if flushes is not None:
            numbers[f"{name}_flushes"] = (
                ((place.spool.flushes() or 0) - flushes) * 1000 / burst.count
            )
        if place.sink.messages != delivered:
            raise RuntimeError(f"{peer.name} delivered what it was to keep")
    return numbers


def _timed_relay(
    peer: peers.Peer, place: Place, name: str, send: Callable[[peers.Running, int], None]
) -> Numbers:
    folder = _fresh(peer, place)
    count = place.scale.relay
    with peer.run(folder) as server:
        _relay(server, place, _WARM_UP, send)
        cpu, flushes, begun = server.cpu_seconds(), place.spool.flushes(), time.perf_counter()
        arrived = _relay(server, place, count, send)
        time.sleep(0.5)  # what it does behind the last arrival is part of the work
        numbers = {
            name: count / (arrived - begun),
            f"{name}_cpu": (server.cpu_seconds() - cpu) * 1000 / count,
        }
        if flushes is not None:
            numbers[f"{name}_flushes"] = ((place.spool.flushes() or 0) - flushes) * 1000 / count
    return numbers


def _relay(
    server: peers.Running,
    place: Place,
    count: int,
    send: Callable[[peers.Running, int], None],
) -> float:
    """Send so many; returns when (`perf_counter`) the sink had them all."""
    wanted = place.sink.messages + count
    send(server, count)
    return place.sink.wait_for(wanted, 120.0)


def _to_one(server: peers.Running, count: int) -> None:
    Load(count=count, recipient=_LEAVES).send(server.relay)


def _to_many(server: peers.Running, count: int) -> None:
    bursts = [
        Load(count=share, sessions=1, recipient=f"somebody@{domain}")
        for domain, share in zip(peers.MANY, load.shares(count, len(peers.MANY)), strict=True)
        if share
    ]
    load.send_all(bursts, server.relay)


def _fresh(peer: peers.Peer, place: Place) -> Path:
    folder = place.spool.folder / peer.name.lower()
    peers.clear(folder)
    peer.prepare(folder, place.sink.port)
    return folder


def _calls(trace: Path) -> int:
    # A call that another one interrupts is written twice: begun, and resumed.
    return len(re.findall(r"^\d+ +\w+\(", trace.read_text(errors="replace"), re.MULTILINE))
