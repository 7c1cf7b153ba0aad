"""What a monitor may see."""

from __future__ import annotations

from elemta.control.interface import Status
from elemta.protocol import parse_mailbox, reply
from elemta.queue import Delivered, Destination, Finished, Queued, State, Stats

NOW = 1_790_000_000.0
ID = "01M82Q28V6DAVJCKE0E9HMK3Q1"
BOB = parse_mailbox("bob@example.net")


def status(at: float = NOW, **counts: int) -> Status:
    return Status(
        version="1.2", hostname="mx.example", pid=1, started_at=NOW - 7200, asked_at=at,
        stopping=False, troubles=(), listeners=(), sessions=3, places=100, deliveries=1, files=1,
        in_memory=0, counts=counts, parts=(), event=5,
        queue=Stats(
            messages=7, recipients={State.READY: 1, State.DEFERRED: 5, State.HELD: 2},
            oldest=at - 90, history=0,
        ),
    )  # fmt: skip


def destination(name: str, **values: object) -> Destination:
    known = {
        "ready": 0, "on_disk": 0, "workers": 0, "window": 1, "parked_until": None, "parks": 0,
        "suspended": None, "throttled_until": None, "error": "",
    }  # fmt: skip
    return Destination(name=name, **{**known, **values})


def queued(number: int) -> Queued:
    return Queued(number, NOW, ID, None, (BOB,), 10)


def delivered(number: int, text: str = "ok") -> Delivered:
    return Delivered(number, NOW, ID, BOB, "mx:example.net", "mx", reply(250, 2, 0, text))


def finished(number: int) -> Finished:
    return Finished(number, NOW, ID)
