"""Telling a host who we are (RFC 4954), where it wants to know."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from elemta.delivery.replies import made
from elemta.delivery.unusable import HostUnusable, LoginRefused
from elemta.protocol import AuthAnswer, best_exchange

if TYPE_CHECKING:
    from elemta.delivery.conversation import Conversation
    from elemta.protocol import Credentials, Exchange, Token

#: Octets of a nonce (RFC 5802 §5.1), before base64.
NONCE: Final = 18

_IN_CLEAR: Final = made(451, 7, 4, "not encrypted: nobody is told our password in clear")


async def log_in(
    talk: Conversation, credentials: Credentials | Token, seconds: float, *, in_clear: bool
) -> None:
    """Log in by the best mechanism that the host offers.

    Args:
        talk: greeted, and encrypted.
        credentials: who we are.
        seconds: that each answer may take.
        in_clear: it need not be encrypted, as nobody is on the way.

    Raises:
        LoginRefused: it does not let us in, or cannot prove that it is who we think.
        HostUnusable: not now.
        ConversationOverError: it is gone.
    """
    if not (talk.secret or in_clear):
        raise HostUnusable(_IN_CLEAR, remote=False)
    offered = talk.smtp.extensions.auth
    exchange = best_exchange(offered, credentials, secrets.token_urlsafe(NONCE))
    if exchange is None:
        there = " ".join(sorted(offered)) or "none at all"
        why = f"a login is wanted here, and of ways to log in the host offers {there}"
        raise LoginRefused(made(451, 7, 4, why), remote=False)
    answer = await _converse(talk, exchange, seconds)
    if answer.reply.code >= 500:
        raise LoginRefused(answer.reply, remote=True)
    if answer.reply.code >= 400:
        raise HostUnusable(answer.reply, remote=True)
    if not exchange.proven:
        why = "the host lets us in without a proof that it knows our password"
        raise LoginRefused(made(451, 7, 8, why), remote=False)


async def _converse(talk: Conversation, exchange: Exchange, seconds: float) -> AuthAnswer:
    """All that is said until the host says yes or no."""
    smtp = talk.smtp
    said = smtp.auth(exchange.name, exchange.initial)
    while True:
        with talk.within(seconds, "the answer to AUTH"):
            talk.say(said)
            answer = await talk.answer()
            assert isinstance(answer, AuthAnswer), "it answers what was said"
            if answer.challenge is None:
                return answer
            try:
                said = smtp.auth_response(exchange.respond(answer.challenge))
            except ValueError as error:
                talk.say(smtp.auth_response(None))
                await talk.answer()
                why = made(451, 7, 8, f"the login failed, as the host {error}")
                raise LoginRefused(why, remote=False) from error
