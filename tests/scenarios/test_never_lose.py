"""Twenty senders, and SIGKILL at random moments: whatever was answered 250 is still somewhere."""

from __future__ import annotations

import collections
import random
import time
from typing import TYPE_CHECKING

import pytest

from tests.scenarios import messages, ports
from tests.scenarios.senders import Senders
from tests.scenarios.sink import Sink

if TYPE_CHECKING:
    from tests.scenarios.conftest import MakeDaemon

pytestmark = pytest.mark.scenario

KILLS = 22
#: Messages of which a kill can make a duplicate: those being delivered at that moment, to the
#: sink or to a Maildir.
IN_FLIGHT = 40


def compose(name: str, chance: random.Random) -> tuple[str, str, bytes]:
    # A third stays here, in a Maildir; some are too large for the database.
    recipient = "bob@example.org" if chance.random() < 0.33 else "carol@sink.example"
    size = 400_000 if chance.random() < 0.02 else chance.choice([500, 4_000, 20_000])
    return "<>", recipient, messages.numbered(name, size)


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
        senders = Senders(daemon, seed, compose)
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

        ports.eventually(lambda: daemon.waiting() == 0, what="an empty queue")
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
