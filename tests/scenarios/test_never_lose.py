"""Twenty senders, and SIGKILL at random moments: whatever was answered 250 is still somewhere."""

from __future__ import annotations

import collections
import random
import smtplib
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.scenarios import messages, ports
from tests.scenarios.sink import Sink

if TYPE_CHECKING:
    from tests.scenarios.conftest import MakeDaemon
    from tests.scenarios.daemon import Daemon

pytestmark = pytest.mark.scenario

SENDERS = 20
KILLS = 22
#: Messages of which a kill can make a duplicate: those being delivered at that moment, to the
#: sink or to a Maildir.
IN_FLIGHT = 40


class Senders:
    """Threads that send numbered messages until told to stop, and remember what was promised.

    A message that was not answered is not sent again: the next one has a new number. So whatever
    arrives twice was delivered twice.
    """

    def __init__(self, daemon: Daemon, seed: int) -> None:
        self._daemon = daemon
        self._over = threading.Event()
        self._lock = threading.Lock()
        self.promised: set[str] = set()
        self.refused: collections.Counter[int] = collections.Counter()
        self._threads = [
            threading.Thread(target=self._run, args=(number, random.Random(f"{seed}/{number}")))
            for number in range(SENDERS)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30.0)

    def _run(self, number: int, chance: random.Random) -> None:
        count = 0
        while not self._over.is_set():
            try:
                with smtplib.SMTP("127.0.0.1", self._daemon.port, "c.example", 20.0) as client:
                    for _ in range(chance.randint(1, 20)):
                        count += 1
                        self._send(client, f"{number}-{count}", chance)
                        if self._over.is_set():
                            return
            except (OSError, smtplib.SMTPException):
                time.sleep(0.05)  # it is down just now

    def _send(self, client: smtplib.SMTP, name: str, chance: random.Random) -> None:
        # A third stays here, in a Maildir; some are too large for the database.
        recipient = "bob@example.org" if chance.random() < 0.33 else "carol@sink.example"
        size = 400_000 if chance.random() < 0.02 else chance.choice([500, 4_000, 20_000])
        try:
            client.sendmail("<>", [recipient], messages.numbered(name, size))
        except smtplib.SMTPResponseException as error:
            self.refused[error.smtp_code] += 1
            if error.smtp_code == 421:
                raise
            return
        with self._lock:
            self.promised.add(name)


def test_what_was_promised_is_never_lost(make_elemta: MakeDaemon) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    with Sink() as sink:
        daemon = make_elemta(
            {
                "routes": [{"match": "sink.example", "via": [f"smtp://127.0.0.1:{sink.port}"]}],
                "log": {"format": "json", "level": "warning"},
            }
        )
        daemon.start()
        senders = Senders(daemon, seed)
        senders.start()
        try:
            for _ in range(KILLS):
                time.sleep(chance.uniform(0.05, 0.8))
                daemon.kill()
                daemon.start()
            time.sleep(0.5)
        finally:
            senders.stop()

        def where() -> collections.Counter[str]:
            here = (messages.scenario_id(m) for m in daemon.maildir("bob@example.org"))
            return sink.ids + collections.Counter(here)

        def queued() -> int:
            stats = daemon.ask("queue", "stats")
            assert isinstance(stats, dict)
            return int(stats["messages"])

        ports.eventually(lambda: queued() == 0, within=40.0, what="an empty queue")
        arrived = where()
        lost = senders.promised - arrived.keys()
        twice = sum(count - 1 for count in arrived.values())
        unpromised = arrived.keys() - senders.promised
        print(
            f"messages {len(senders.promised)}, kills {KILLS}, lost {len(lost)}, "
            f"duplicates {twice}, arrived though not answered {len(unpromised)}, "
            f"refused {dict(senders.refused)}"
        )
        assert not lost
        assert twice <= KILLS * IN_FLIGHT
        assert len(senders.promised) > KILLS * 10
