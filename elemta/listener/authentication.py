"""A client says who it is (RFC 4954): SASL goes to and fro, and plugins judge what it comes to.

A client learns from our answer whether it may, and from nothing else what was wrong: not from our
words, and not from the time that these take, unless a plugin takes more than `DELAY`.
"""

from __future__ import annotations

import math
import os
from base64 import b64encode
from typing import TYPE_CHECKING, Final, assert_never

import trio

from elemta.listener import replies
from elemta.log import logger
from elemta.net.limits import network
from elemta.plugins import Defer, Granted, Known, Reject
from elemta.protocol import (
    MECHANISMS,
    Auth,
    AuthResponse,
    Binding,
    Credentials,
    Needs,
    Proof,
    Token,
    Unproved,
    begin,
    challenge,
)

if TYPE_CHECKING:
    from collections.abc import Container

    from elemta.config import Listener
    from elemta.listener.reception import Reception
    from elemta.plugins import Chain, Session
    from elemta.protocol import Mechanism, Reply

log = logger(__name__)

#: How often a client may be wrong in one session.
FAILURES: Final = 3
#: Seconds from what is wrong to our answer.
DELAY: Final = 5.0
#: Letters of a name that are logged of who was not let in: it may be anything.
SHOWN: Final = 80


def mechanisms(
    table: Listener,
    chain: Chain,
    wanted: Container[str],
    *,
    encrypted: bool,
) -> tuple[str, ...]:
    """What is offered to a client, the strongest first; none: it cannot log in.

    Args:
        table: its listener.
        chain: the plugins there.
        wanted: what the configuration lets be offered.
        encrypted: whether nobody else hears what it says. Not by every certificate can a connection
            be told, which is what SCRAM-SHA-256-PLUS needs: see `Reception.offer_to`.
    """
    if not (table.logins == "always" or (table.logins == "tls" and encrypted)):
        return ()
    judged = {
        "SCRAM-SHA-256-PLUS": bool(chain.verifier) and encrypted,
        "SCRAM-SHA-256": bool(chain.verifier),
        "OAUTHBEARER": bool(chain.token),
        "XOAUTH2": bool(chain.token),
        "PLAIN": bool(chain.authenticate),
        "LOGIN": bool(chain.authenticate),
    }
    return tuple(each for each in MECHANISMS if each in wanted and judged[each])


def _nonce() -> str:
    return b64encode(os.urandom(18)).decode()


class Authentication:
    """What one client does to log in.

    Args:
        view: its session; written once it has logged in.
        reception: who knows people, who was wrong, and who counts.
    """

    __slots__ = (
        *("_began", "_chain", "_exchange", "_failures", "_guesses", "_known", "_mechanism"),
        *("_meters", "_proving", "_reception", "_since", "_until", "_view"),
    )

    def __init__(self, view: Session, reception: Reception) -> None:
        self._view = view
        self._reception = reception
        self._chain = reception.plugins
        self._meters = reception.house.meters
        self._guesses = reception.house.guesses
        self._failures = 0
        self._mechanism = ""
        self._exchange: Mechanism | None = None
        self._known: Known | None = None  # whose proof is awaited
        self._proving = ""  # who he says he is
        self._began = 0.0  # when the client said what is judged now (Trio time)
        #: When it has logged in (Trio time); at first when it came, as a plugin may recognise it.
        self._since = trio.current_time()
        self._until = math.inf  # when that is over, seconds since the epoch

    async def answer(self, event: Auth | AuthResponse) -> Reply:
        """The answer to AUTH, or to what the client says next; the end of all, if it is a 421.

        Args:
            event: none comes once somebody has logged in, nor while a message comes in.
        """
        exchange = self._exchange
        if isinstance(event, Auth):
            if self._failures >= FAILURES:
                return replies.TOO_MANY_LOGINS
            exchange, response = self._begin(event.mechanism), event.initial
        else:
            response = event.response
            if response is None:
                self._count("broken")
                return replies.LOGIN_CANCELLED
        assert exchange is not None, "the engine lets no response come before AUTH"
        self._began = trio.current_time()
        if self._proving and (locked := await self._turned_away(self._proving)) is not None:
            return locked  # before he learns whether his proof is right
        try:
            found = exchange.respond(response)
        except ValueError:
            self._count("broken")
            return replies.LOGIN_NONSENSE
        match found:
            case bytes():
                return challenge(found)
            case Credentials():
                return await self._judge_credentials(found)
            case Needs(user=user):
                return await self._look_up(exchange, user)
            case Proof():
                return await self._judge_proof(found)
            case Token():
                return await self._judge_token(exchange, found)
            case Unproved():
                return replies.LOGIN_REFUSED  # was counted, and was waited for, when it was told
            case _:
                assert_never(found)

    def _begin(self, mechanism: str) -> Mechanism:
        self._mechanism, self._known, self._proving = mechanism, None, ""
        encryption = self._view.encryption
        octets = b"" if encryption is None else encryption.server_end_point
        binding = Binding("tls-server-end-point", octets) if octets else None
        offered = self._reception.offer_to(encryption).mechanisms
        exchange = begin(mechanism, _nonce, binding, offered)
        self._exchange = exchange
        return exchange

    async def over(self) -> Reply | None:
        """The answer to who has logged in, and wants to send on, if his login holds no more.

        A postmaster who takes a login away wants that to end what goes on by it. The end of all, if
        it is a 421.
        """
        house = self._reception.house
        again = house.config.login.again
        why = ""
        if house.clock() >= self._until:
            why = "expired"
        elif again and trio.current_time() - self._since >= again:
            why = "too long ago"
        elif self._chain.account:
            found = await self._chain.on_account(self._view)
            if isinstance(found, Reject):
                why = found.note or "refused"
            elif found.reply is not None:
                return found.reply
        if not why:
            return None
        self._log("client.login_over", self._view.login or "", why=why)
        return replies.LOGIN_OVER

    # What an exchange comes to.

    async def _judge_credentials(self, said: Credentials) -> Reply:
        if (locked := await self._locked(said.user)) is not None:
            return locked
        found = await self._chain.on_authenticate(self._view, said)
        return await self._conclude(found, said.user, said.acting_as, said.password)

    async def _judge_token(self, exchange: Mechanism, shown: Token) -> Reply:
        if (locked := await self._locked(shown.user)) is not None:
            return locked
        found = await self._chain.on_token(self._view, shown)
        answer = await self._conclude(found, shown.user, "", shown.token)
        if answer is replies.LOGIN_REFUSED and (told := exchange.refuse()) is not None:
            return challenge(told)
        return answer

    async def _look_up(self, exchange: Mechanism, user: str) -> Reply:
        """Go on with what is kept of a password; of who has none, with what looks like it."""
        if (locked := await self._locked(user)) is not None:
            return locked
        found = await self._chain.on_verifier(self._view, user)
        if isinstance(found, Defer):
            self._count("deferred")
            return replies.LOGIN_LATER
        self._known, self._proving = found if isinstance(found, Known) else None, user
        kept = self._guesses.pretended(user) if self._known is None else self._known.verifier
        return challenge(exchange.give(kept))

    async def _judge_proof(self, proof: Proof) -> Reply:
        known, found = self._known, None
        if known is not None:
            found = Reject((7, 8), "", note=proof.fault) if proof.fault else known.granted
        return await self._conclude(found, proof.user, proof.acting_as)

    async def _locked(self, user: str) -> Reply | None:
        """The answer to who has to wait; None: he has not."""
        self._meters.logins["tried"] += 1
        return await self._turned_away(user)

    async def _turned_away(self, user: str) -> Reply | None:
        """The same, of whom it was asked before: others may have been wrong meanwhile.

        Else all who ask at once would be judged, however many they are.
        """
        found = self._guesses.locked(self._view.address, user)
        if found is None:
            return None
        self._count("locked")
        self._meters.logins["locked"] += 1
        self._log("client.login_locked", user, why=found.why)
        await trio.sleep_until(self._began + DELAY)
        return replies.LOGIN_LOCKED

    async def _conclude(
        self,
        found: Granted | Defer | Reject | None,
        user: str,
        acting_as: str,
        said: str = "",
    ) -> Reply:
        """What it came to.

        Args:
            found: what plugins say; None: nobody knows him.
            user: who the client says it is.
            acting_as: whom it wants to act as; empty: nobody else.
            said: the password or the token; empty: it was not said.
        """
        view, meters, guesses = self._view, self._meters, self._guesses
        if not isinstance(found, Defer) and (locked := await self._turned_away(user)) is not None:
            return locked
        match found:
            case Granted(login=login) as granted if acting_as in ("", user, login):
                meters.logins["granted"] += 1
                self._count("granted")
                guesses.right(view.address, user)
                view.login, view.trusted = login, True
                view.addresses, view.app = granted.addresses, granted.app
                self._since, self._until = trio.current_time(), granted.until
                log.info(
                    "client.authenticated",
                    session=view.id,
                    listener=view.listener,
                    client=view.address,
                    login=login,
                    mechanism=self._mechanism,
                    **({"app": granted.app} if granted.app else {}),
                )
                return replies.LOGGED_IN
            case Defer():
                self._count("deferred")
                return replies.LOGIN_LATER
            case Granted():
                why = "acts as another"  # which nobody is let do unasked
            case Reject(note=note):
                why = note or "refused"
            case None:
                why = "unknown"
            case _:
                assert_never(found)
        meters.logins["refused"] += 1
        self._count("refused")
        self._failures += 1
        guesses.wrong(view.address, user, said)
        self._log("client.login_refused", user, why=why)
        await trio.sleep_until(self._began + DELAY)
        return replies.LOGIN_REFUSED

    # What is said of it.

    def _count(self, result: str) -> None:
        self._meters.mechanisms[self._mechanism, result] += 1

    def _log(self, event: str, user: str, *, why: str) -> None:
        view = self._view
        log.info(
            event,
            session=view.id,
            listener=view.listener,
            client=view.address,
            network=network(view.address),
            login=user[:SHOWN],
            mechanism=self._mechanism,
            why=why,
        )
