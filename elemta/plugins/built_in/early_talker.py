"""Lets strangers wait before the greeting: who speaks meanwhile is no mail server (RFC 5321 §3.1).

The plugin merely waits: whoever has said something by the time of its greeting is refused by the
listener itself (554), with or without this plugin, and who has hung up costs nothing more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Final

import trio
from msgspec import Meta
from typing_extensions import override

from elemta.config import Table
from elemta.ledger import Book, Row, short
from elemta.net.limits import network
from elemta.plugins import CONTINUE, PluginWith, Session
from elemta.plugins.remembering import Remembering
from elemta.units import Seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from elemta.ledger import Ledger
    from elemta.plugins import Verdict

#: Seconds to wait at most: a hook that outlives its deadline has failed.
LONGEST: Final = 20.0


class Settings(Table, frozen=True):
    """The ``settings`` of ``early-talker``."""

    #: How long a stranger waits for the greeting, at most 20 s; real clients wait for minutes.
    wait: Seconds = Seconds(3)
    #: How long a client that waited need not do so again, from its last connection on; 0: always.
    remember: Seconds = Seconds(86400)
    #: Clients that are remembered; some 250 octets each.
    clients: Annotated[int, Meta(ge=1000, le=10_000_000)] = 100_000

    def __post_init__(self) -> None:
        if not 0 < self.wait <= LONGEST:
            raise ValueError(f"wait must be more than none and at most {LONGEST:.0f} s")


class EarlyTalker(Remembering, PluginWith[Settings]):
    """Lets strangers wait a little before the greeting; who speaks meanwhile is refused."""

    name = "early-talker"
    # Nothing is found out by a failure of ours.
    on_error: ClassVar[Verdict | Mapping[str, Verdict]] = CONTINUE

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._patient: Book[Row]

    @override
    async def remember(self, ledger: Ledger) -> None:
        self._patient = await ledger.book("patient", Book(Row, self.settings.clients), common=True)

    @override
    async def on_connect(self, session: Session) -> Verdict:
        if session.exempt or not session.address:
            return CONTINUE
        known = self._patient.get(_key(session))
        # If it is known for longer than it can be, the clock was set back.
        if known and 0 < known.until - self.tools.clock() <= self.settings.remember:
            self.tools.count("known")
            return CONTINUE
        self.tools.count("waited")
        await trio.sleep(self.settings.wait)
        return CONTINUE

    @override
    async def on_hello(self, session: Session, name: str) -> Verdict:
        # Whoever gets here was greeted, so it has waited for that.
        if self.settings.remember and not session.exempt and session.address:
            key, now = _key(session), self.tools.clock()
            known = self._patient.get(key)
            until = now + self.settings.remember
            if known is None or abs(until - known.until) > self.settings.remember / 10:
                self._patient.put(key, Row(until))
        return CONTINUE


def _key(session: Session) -> bytes:
    return short(network(session.address))
