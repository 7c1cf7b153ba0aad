"""What greylisting knows: who tried when, who came back, and who always does. Pure, told the time.

A triplet is (client's network, sender, recipient). First attempts, those that came back, and
clients each have a book of their own, so that of whatever comes in masses nothing else is lost.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from typing_extensions import override

from elemta.ledger import Book, Row, short

if TYPE_CHECKING:
    from elemta.protocol import Mailbox, ReversePath

#: What is found out about an attempt.
#: ``greylisted``: it is the first one; ``early``: it came again, too soon; ``passed``: it came
#: again in time; ``known``: it did so before.
Finding: TypeAlias = Literal["greylisted", "early", "passed", "known"]

#: First attempts that are remembered of one client's network, however many there are of others.
SOME: Final = 16
#: How much of what is still free one network may take: with less and less for each, something is
#: free for newcomers until there are thousands of networks that take all they can.
SHARE: Final = 8
#: Seconds by which a use must put off the end of something to be worth writing down.
WORTH: Final = 6 * 3600.0

#: What changes with each message or each day in addresses that tell a bounce's message: SRS (a
#: hash and a day, rewritten by forwarders), BATV and its kin (a hash and a day).
_SRS0: Final = re.compile(r"srs0[=+-][^=]*=[^=]*=")
_SRS1: Final = re.compile(r"srs1[=+-][^=]*=([^=]*)=[=+-][^=]*=[^=]*=")
_BATV: Final = re.compile(r"([a-z]*prvs\d?)=[^=]*=|(btv1)==[^=]*==")
#: A word with a digit in it: a number, a date, a hash, an id.
_NUMBERED: Final = re.compile(r"[^\W_]*\d[^\W_]*")
_NUMBERS: Final = re.compile(r"#(?:[^\w#]*_*#)+")


def normal(sender: ReversePath) -> str:
    """A sender without what differs from one of its messages to the next.

    Lists and bulk senders write the number of a message or a recipient into the return path
    (VERP), so that each message would be a first one. Case is ignored; of SRS and BATV the hash and
    the day are; then each word with a digit is, neighbours together:
    ``bounces+8812-8d7f-ann=us.example`` becomes ``bounces+#-ann=us.example``.
    """
    if sender is None:
        return "<>"
    local = sender.local_part.lower()
    if local.startswith("srs"):
        local = _SRS0.sub("srs=#=", local, count=1)
        local = _SRS1.sub(r"srs=#=\1=#=", local, count=1)
    else:
        local = _BATV.sub("prvs=#=", local, count=1)
    local = _NUMBERS.sub("#", _NUMBERED.sub("#", local))
    return f"{local}@{sender.domain}"


def triplet(client: str, sender: ReversePath, recipient: Mailbox) -> bytes:
    """The key of a triplet; of bounded length, whatever somebody calls himself."""
    return short(client, normal(sender), str(recipient).lower())


class Terms(NamedTuple):
    """When who passes; all but `passes` in seconds.

    Attributes:
        delay: a first attempt must be so old.
        window: and no older than this.
        lifetime: how long somebody who passed is known, from his last message on.
        passes: so many make a client trusted; 0: it never is.
    """

    delay: float
    window: float
    lifetime: float
    passes: int


class Attempt(Row, array_like=True):
    """A first attempt."""

    first: float
    client: str


def _earlier(before: Attempt | None, here: Attempt, there: Attempt) -> Attempt:
    """Of two first attempts that two nodes saw at once, the first."""
    return here if here.first <= there.first else there


class Attempts(Book[Attempt]):
    """First attempts.

    Attributes:
        clients: how many there are of each network.
        given_up: nobody came back for so many of them.
    """

    def __init__(self, most: int) -> None:
        super().__init__(Attempt, most, _earlier)
        self.clients = Counter[str]()
        self.given_up = 0

    def has_room(self, client: str) -> bool:
        """Whether one more of this network is remembered.

        Those that it has already are not dropped for it: of a network that tries without end at
        least those come through that were early.
        """
        return self.clients[client] < max(SOME, (self.most - len(self.rows)) // SHARE)

    @override
    def entered(self, row: Attempt) -> None:
        self.clients[row.client] += 1

    @override
    def left(self, row: Attempt) -> None:
        self.clients[row.client] -= 1
        if not self.clients[row.client]:
            del self.clients[row.client]

    @override
    def expired(self, row: Attempt) -> None:
        self.given_up += 1


class Passes(Row, array_like=True):
    """How often a client came back, that is not trusted yet."""

    count: int

    @staticmethod
    def joined(before: Passes | None, here: Passes, there: Passes) -> Passes:
        """What it comes to if it came back to two nodes at once."""
        gained = here.count - (0 if before is None else before.count)
        return Passes(max(here.until, there.until), there.count + max(0, gained))


class Triplets:
    """All that is known.

    Args:
        attempts: first ones.
        passed: triplets that came back.
        passes: clients, or domains, some of whose triplets did.
        clients: those that are trusted to.
    """

    def __init__(
        self, attempts: Attempts, passed: Book[Row], passes: Book[Passes], clients: Book[Row]
    ) -> None:
        self.attempts = attempts
        self.passed = passed
        self.passes = passes
        self.clients = clients

    def look(self, key: bytes, client: str, now: float, terms: Terms) -> tuple[Finding, float]:
        """Somebody tries.

        Returns:
            What is found, and the seconds that are left until he may come.
        """
        if self._used(self.passed, key, now, terms):
            return "known", 0.0
        attempts = self.attempts
        found = attempts.get(key)
        if found is not None and found.until <= now:
            attempts.drop(key)
            attempts.given_up += 1
            found = None
        if found is None or found.first > now:  # or the clock was set back
            if found is not None or attempts.has_room(client):
                attempts.put(key, Attempt(now + terms.window, now, client))
            return "greylisted", terms.delay
        left = found.first + terms.delay - now
        if left > 0:
            return "early", left
        attempts.drop(key)
        self.passed.put(key, Row(now + terms.lifetime))
        return "passed", 0.0

    def trusts(self, who: bytes, now: float, terms: Terms) -> bool:
        """Whether a client, or a domain, has come back often enough."""
        return terms.passes > 0 and self._used(self.clients, who, now, terms)

    def came_back(self, who: bytes, now: float, terms: Terms) -> None:
        """A client, or a domain, has come back once more."""
        if not terms.passes:
            return
        known = self.passes.get(who)
        count = 1 + (known.count if known is not None and known.until > now else 0)
        if count < terms.passes:
            self.passes.put(who, Passes(now + terms.lifetime, count))
        else:
            self.passes.drop(who)
            self.clients.put(who, Row(now + terms.lifetime))

    def _used(self, book: Book[Row], key: bytes, now: float, terms: Terms) -> bool:
        """Whether something is there; if so its life begins anew."""
        found = book.get(key)
        if found is None or found.until <= now:
            return False
        until = now + terms.lifetime
        if abs(until - found.until) > min(WORTH, terms.lifetime / 10):
            book.put(key, Row(until))
        return True
