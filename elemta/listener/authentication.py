"""A client says who it is (RFC 4954): SASL goes to and fro, and plugins judge what it comes to.

A client learns from our answer whether it may, and from nothing else what was wrong: not from our
words, and not from the time that these take, unless a plugin takes more than `DELAY`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from elemta.listener import replies
from elemta.log import logger
from elemta.plugins import Defer, Granted, Reject
from elemta.protocol import MECHANISMS, Auth, AuthResponse, Credentials, challenge

if TYPE_CHECKING:
    from elemta.config import Listener
    from elemta.metrics.meters import Meters
    from elemta.plugins import Chain, Session
    from elemta.protocol import Mechanism, Reply

log = logger(__name__)

#: How often a client may be wrong in one session.
FAILURES: Final = 3
#: Seconds from what is wrong to our answer.
DELAY: Final = 5.0


def mechanisms(table: Listener, chain: Chain, *, encrypted: bool) -> tuple[str, ...]:
    """What is offered to a client; none: it cannot log in.

    Args:
        table: its listener.
        chain: the plugins there.
        encrypted: whether nobody else hears what it says.
    """
    offered = table.logins == "always" or (table.logins == "tls" and encrypted)
    return tuple(MECHANISMS) if offered and chain.authenticate else ()


class Authentication:
    """What one client does to log in.

    Args:
        view: its session; written once it has logged in.
        chain: who knows people.
        meters: count how often.
    """

    __slots__ = ("_chain", "_exchange", "_failures", "_meters", "_view")

    def __init__(self, view: Session, chain: Chain, meters: Meters) -> None:
        self._view = view
        self._chain = chain
        self._meters = meters
        self._failures = 0
        self._exchange: Mechanism | None = None

    async def answer(self, event: Auth | AuthResponse) -> Reply:
        """The answer to AUTH, or to what the client says next; the end of all, if it is a 421.

        Args:
            event: none comes once somebody has logged in, nor while a message comes in.
        """
        exchange = self._exchange
        if isinstance(event, Auth):
            if self._failures >= FAILURES:
                return replies.TOO_MANY_LOGINS
            exchange, response = MECHANISMS[event.mechanism](), event.initial
            self._exchange = exchange
        else:
            response = event.response
            if response is None:
                return replies.LOGIN_CANCELLED
        assert exchange is not None, "the engine lets no response come before AUTH"
        try:
            found = exchange.respond(response)
        except ValueError:
            return replies.LOGIN_NONSENSE
        return await self._judge(found) if isinstance(found, Credentials) else challenge(found)

    async def _judge(self, credentials: Credentials) -> Reply:
        """What it came to."""
        view, meters = self._view, self._meters
        meters.logins["tried"] += 1
        began = trio.current_time()
        match await self._chain.on_authenticate(view, credentials):
            case Granted(login=login) as granted if credentials.acting_as in (
                *("", credentials.user, login),
            ):
                meters.logins["granted"] += 1
                view.login, view.trusted = login, True
                view.addresses, view.app = granted.addresses, granted.app
                log.info(
                    "client.authenticated",
                    session=view.id,
                    listener=view.listener,
                    client=view.address,
                    login=login,
                    **({"app": granted.app} if granted.app else {}),
                )
                return replies.LOGGED_IN
            case Defer():
                return replies.LOGIN_LATER
            case Granted() | Reject() | None:  # nobody is let act as somebody else unasked
                meters.logins["refused"] += 1
                self._failures += 1
                await trio.sleep_until(began + DELAY)
                return replies.LOGIN_REFUSED
