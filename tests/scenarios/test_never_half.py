"""SIGKILL while mail bounces, and while an operator deletes or bounces it: all or nothing.

A message's end, and the report that tells of it, are one transaction.
"""

from __future__ import annotations

import collections
import random
import time
from typing import TYPE_CHECKING, Final

import pytest
import trio

from elemta.protocol import Mailbox
from elemta.queue import Addressee, Envelope, RetryPolicy, State, StoreReader, open_queue
from tests.scenarios import messages, ports
from tests.scenarios.senders import Senders
from tests.scenarios.sink import Sink, Step

if TYPE_CHECKING:
    from elemta.queue import MessageId
    from tests.scenarios.conftest import MakeDaemon
    from tests.scenarios.daemon import Daemon

pytestmark = pytest.mark.scenario

KILLS: Final = 10
#: Reports that a kill can double: those on their way by SMTP at that moment, a connection each.
IN_FLIGHT: Final = 20
#: Messages that an operator does something with, and how often that is interrupted.
MANY: Final = 2000
STEPS: Final = 4


def compose(name: str, chance: random.Random) -> tuple[str, str, bytes]:
    """Half of the senders live here, half are told by SMTP."""
    sender = "alice@example.org" if chance.random() < 0.5 else "alice@reports.example"
    return sender, "nobody@refuses.example", messages.numbered(name)


def test_a_kill_while_bouncing_loses_no_report(make_elemta: MakeDaemon) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    with Sink() as refuses, Sink() as told:
        refuses.answer(Step.RCPT, "550 5.1.1 no such user")
        daemon = make_elemta(
            {
                "routes": [
                    {"match": "refuses.example", "via": [f"smtp://127.0.0.1:{refuses.port}"]},
                    {"match": "reports.example", "via": [f"smtp://127.0.0.1:{told.port}"]},
                ],
                "log": {"format": "json", "level": "warning"},
            }
        )
        daemon.start()
        senders = Senders(daemon, seed, compose, threads=10)
        senders.start()
        try:
            for _ in range(KILLS):
                time.sleep(chance.uniform(0.05, 0.5))
                daemon.kill()
                daemon.start()
            time.sleep(0.3)
        finally:
            senders.stop()
        ports.eventually(lambda: daemon.waiting() == 0, within=60.0, what="an empty queue")

        here = collections.Counter(map(messages.scenario_id, daemon.maildir("alice@example.org")))
        there = told.ids
        lost = senders.promised - here.keys() - there.keys()
        twice = sum(there.values()) - len(there)
        print(f"messages {len(senders.promised)}, kills {KILLS}, lost {len(lost)}, twice {twice}")
        assert not lost
        assert not here.keys() & there.keys()
        # A Maildir file has the same name when it is written again.
        assert set(here.values()) == {1}
        assert max(there.values()) <= 1 + KILLS
        assert twice <= KILLS * IN_FLIGHT
        assert len(senders.promised) > KILLS * 10


class Stuck:
    """A daemon whose queue is full of mail for a destination that is down."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.port = ports.free_port()
        daemon.settings["routes"] = [
            {"match": "down.example", "via": [f"smtp://127.0.0.1:{self.port}"]}
        ]
        self.names: dict[MessageId, str] = {}
        trio.run(self._fill)
        daemon.start()

    async def _fill(self) -> None:
        """Past SMTP, as that would take long."""
        envelope = Envelope(
            sender=Mailbox("alice", "example.org"),
            recipients=tuple(
                Addressee(address=Mailbox(name, "down.example")) for name in ("carol", "dave")
            ),
        )
        left = [f"n{number}" for number in range(MANY)]

        async def accept() -> None:
            while left:
                name = left.pop()
                self.names[await queue.accept(envelope, messages.numbered(name))] = name

        folder = self.daemon.data / "queue"
        async with (
            open_queue(folder, RetryPolicy(), lane=lambda to, _: to.address.domain) as queue,
            trio.open_nursery() as nursery,
        ):
            for _ in range(100):
                nursery.start_soon(accept)

    def interrupt(self, chance: random.Random, *command: str) -> None:
        """Begin an operator's command, kill the daemon in its midst, and start it again."""
        before = self.waiting()
        asked = self.daemon.begin("queue", *command)
        ports.eventually(
            lambda: self.waiting() < before or asked.poll() is not None, what="a beginning"
        )
        time.sleep(chance.uniform(0.0, 0.05))
        self.daemon.kill()
        asked.communicate(timeout=60.0)
        self.daemon.start()

    def waiting(self) -> int:
        """How many wait in all."""
        with StoreReader(self.daemon.data / "queue") as reader:
            return reader.stats().messages

    def ended(self, state: State) -> set[str]:
        """The names of those that ended like this; all others wait, for both recipients."""
        found = set()
        with StoreReader(self.daemon.data / "queue") as reader:
            for id_, name in self.names.items():
                timeline = reader.timeline(id_)
                assert timeline is not None, f"{name} is gone without a trace"
                states = {each.state for each in timeline.message.recipients}
                if timeline.finished_at is None:
                    assert states <= {State.READY, State.DEFERRED}, f"{name}: {states}"
                else:
                    assert states == {state}, f"{name}: {states}"
                    found.add(name)
        return found

    def deliver_the_rest(self) -> collections.Counter[str]:
        """Bring the destination up, and let it have what waits; gives what came there."""
        with Sink(port=self.port) as sink:
            self.daemon.flush()
            ports.eventually(lambda: self.waiting() == 0, within=60.0, what="an empty queue")
            return sink.ids


def test_a_kill_while_deleting_leaves_each_message_whole_or_deletes_it(
    make_elemta: MakeDaemon,
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    stuck = Stuck(make_elemta())
    deleted: set[str] = set()
    counts = []

    for _ in range(STEPS):
        stuck.interrupt(chance, "delete", "--domain", "down.example", "--yes")
        now = stuck.ended(State.DELETED)
        print(f"deleted {len(now)} of {MANY}")
        assert now >= deleted, "what is deleted stays deleted"
        deleted = now
        counts.append(len(now))

    assert any(0 < count < MANY for count in counts), "no kill came in the midst of it"
    arrived = stuck.deliver_the_rest()
    assert arrived == dict.fromkeys(set(stuck.names.values()) - deleted, 1)
    assert not stuck.daemon.maildir("alice@example.org")  # nobody is told of what is deleted


def test_a_kill_while_an_operator_bounces_loses_and_doubles_no_report(
    make_elemta: MakeDaemon,
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    stuck = Stuck(make_elemta())
    bounced: set[str] = set()
    counts = []

    for _ in range(STEPS):
        stuck.interrupt(chance, "bounce", "--domain", "down.example", "--yes")
        now = stuck.ended(State.FAILED)
        print(f"bounced {len(now)} of {MANY}")
        assert now >= bounced
        bounced = now
        counts.append(len(now))

    assert any(0 < count < MANY for count in counts), "no kill came in the midst of it"
    arrived = stuck.deliver_the_rest()
    assert arrived == dict.fromkeys(set(stuck.names.values()) - bounced, 1)
    reports = collections.Counter(
        map(messages.scenario_id, stuck.daemon.maildir("alice@example.org"))
    )
    assert reports == dict.fromkeys(bounced, 1)
