"""What is counted and timed while mail goes through.

A `Distribution` here takes 0.4 µs where prometheus-client's `Histogram` takes 2.9, most of that for
a lock: ours belong to one thread each. What the queue's events count already is not counted again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Upper bounds of what takes milliseconds when all is well, in seconds.
LATENCY: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
#: Of what may take days, in seconds.
AGE: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 15, 60),
    *(300, 900, 3600, 14400, 86400, 432000),
)
#: Of a conversation, in seconds.
CONVERSATION: Final = (0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600)
#: Of the size of a message, in octets.
OCTETS: Final = (1024, 4096, 16384, 65536, 262144, 2**20, 4 * 2**20, 16 * 2**20, 64 * 2**20)
#: Of how many there are in a group.
GROUP: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
#: Of how late the loop comes to what is due, in seconds.
LAG: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)

#: What limits by rate count.
RATES: Final = (
    *("requests", "whitelist_hits", "blacklist_hits"),
    *("connections_hit", "messages_hit", "recipients_hit", "volume_hit"),
)


class Distribution:
    """How often what was measured lay where: a histogram of Prometheus. Belongs to one thread.

    Args:
        bounds: the most that each bucket takes, in order; one more takes the rest.

    Attributes:
        counts: of each bucket by itself.
        total: the sum of all that was measured.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """One more was measured."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def add(self, other: Distribution) -> None:
        """All that was measured there, with the same bounds, is part of this, too."""
        for place, count in enumerate(other.counts):
            self.counts[place] += count
        self.total += other.total


class Distributions(dict[str, Distribution]):
    """Distributions by a word of which there are few; made as they are asked for."""

    def __init__(self, bounds: Sequence[float]) -> None:
        super().__init__()
        self._bounds = bounds

    def __missing__(self, key: str) -> Distribution:
        found = self[key] = Distribution(self._bounds)
        return found


class Meters:
    """What one server has counted since its start. All times are in seconds.

    Attributes:
        connections: of clients, by listener; those that were shed, too.
        connection_errors: those that did not end well, by reason.
        conversations: how long clients stayed.
        refusals: what clients were refused, by reason.
        logins: how often clients said who they are, by ``tried``, ``granted``, ``refused`` and
            ``locked``.
        mechanisms: what exchanges came to, by mechanism and result.
        accepts: from MAIL to the 250 after the content.
        octets: of the messages that came in.
        commits: how long a transaction took; of the writer's thread.
        groups: how many operations a transaction had; of the writer's thread.
        waits: from a message's 250 to its first attempt.
        stays: from a message's 250 to its end.
        attempts: how long they took, by transport.
        hosts: connections to hosts, by what came of them.
        tls: connections to hosts that were encrypted, by version.
        maps: how look-ups in maps were answered, by map and result.
        map_seconds: how long maps took to answer, by map.
        tls_failures: handshakes with hosts that failed.
        tls_in: connections of clients that were encrypted, by version.
        tls_in_failures: handshakes with clients that failed.
        tls_verified: connections to hosts that have proved who they are.
        host_logins: logins of ours with hosts, by ``granted`` and ``refused``.
        lags: how late the loop came to what was due.
        scans: of ClamAV, by what came of them.
        scan_seconds: how long they took.
        checks: of rspamd, by what it wanted done.
        check_seconds: how long they took.
        authentication: what mail authentication found, by method and result.
        signatures: messages that were to be signed, by what came of that.
        seals: likewise those that were to be sealed.
        sending: messages of accounts with limits, by what became of them.
        sending_stops: how often an account was stopped.
        sending_stopped: accounts that are.
    """

    def __init__(self) -> None:
        self.connections = Counter[str]()
        self.connection_errors = Counter[str]()
        self.conversations = Distribution(CONVERSATION)
        self.refusals = Counter[str]()
        self.logins = Counter[str]()
        self.mechanisms = Counter[tuple[str, str]]()
        self.accepts = Distribution(LATENCY)
        self.octets = Distribution(OCTETS)
        self.commits = Distribution(LATENCY)
        self.groups = Distribution(GROUP)
        self.waits = Distribution(AGE)
        self.stays = Distribution(AGE)
        self.attempts = Distributions(LATENCY)
        self.hosts = Counter[str]()
        self.tls = Counter[str]()
        self.maps = Counter[tuple[str, str]]()
        self.map_seconds = Distributions(LATENCY)
        self.tls_failures = 0
        self.tls_in = Counter[str]()
        self.tls_in_failures = 0
        self.tls_verified = 0
        self.host_logins = Counter[str]()
        self.lags = Distribution(LAG)
        self.scans = Counter[str]()
        self.scan_seconds = Distribution(LATENCY)
        self.checks = Counter[str]()
        self.check_seconds = Distribution(LATENCY)
        self.authentication = Counter[tuple[str, str]]()
        self.signatures = Counter[str]()
        self.seals = Counter[str]()
        self.greylisting = Counter[str]()
        self.greylisted = Counter[str]()
        self.greylisting_clients = 0
        self.rate_limits = Counter[str]()
        self.sending = Counter[str]()
        self.sending_stops = 0
        self.sending_stopped = 0
