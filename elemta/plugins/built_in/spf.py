"""Looks whether a client may send mail of its sender's domain (RFC 7208)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal

from msgspec import Struct, field
from typing_extensions import override

from elemta.config import Table
from elemta.mailauth import Spf, check_spf
from elemta.plugins import CONTINUE, Defer, PluginWith, Reject, Transaction, Verdict
from elemta.plugins.built_in.asked import Asking
from elemta.protocol import domain_to_ascii

if TYPE_CHECKING:
    from elemta.plugins import Content, Tools

#: What of a domain's explanation may stand in a reply.
_SAYABLE: Final = re.compile(r"[ -~]{1,200}")


class _State(Struct):
    asking: Asking = field(default_factory=Asking)


async def spf_of(transaction: Transaction, tools: Tools) -> Spf:
    """What SPF says of a message's sender: asked once, and remembered in its results.

    Of the null sender it is the client's HELO that is looked at (RFC 7208 §2.4).

    Args:
        transaction: the message; it need not be here yet.
        tools: of the plugin that wants to know.
    """
    async with transaction.kept.of(_State).asking:
        found = transaction.results.first(Spf)
        if found is None:
            session = transaction.session
            found = await check_spf(
                session.address,
                _sender(transaction),
                session.helo,
                resolver=tools.resolver,
                in_thread=tools.briefly,
                receiver=tools.hostname,
            )
            transaction.results.add(found, tools.name)
            tools.meters.authentication["spf", found.result] += 1
    return found


def _sender(transaction: Transaction) -> str:
    sender = transaction.sender
    if sender is None:
        return ""
    try:
        return f"{sender.local_part}@{domain_to_ascii(sender.domain)}"
    except ValueError:
        return str(sender)  # an address literal has no SPF


class Settings(Table, frozen=True):
    """The ``settings`` of ``spf``."""

    #: When it is asked: with the message, beside DKIM and ARC; or after MAIL, before any of it.
    when: Literal["message", "mail"] = "message"
    #: What becomes of mail whose sender's domain says that this client may not send it.
    fail: Literal["continue", "reject"] = "continue"
    #: What becomes of mail of which the DNS cannot say that just now.
    temperror: Literal["continue", "defer"] = "continue"


class SpfPlugin(PluginWith[Settings]):
    """Looks whether a client may send mail of its sender's domain (RFC 7208)."""

    name = "spf"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        # Who is asked for nothing costs a deadline all the same.
        self.idle = ("on_mail",) if settings.when == "message" else ("on_inspect",)

    @override
    async def on_mail(self, transaction: Transaction) -> Verdict:
        if self.settings.when != "mail":
            return CONTINUE
        return await self._judge(transaction)

    @override
    async def on_inspect(self, transaction: Transaction, content: Content) -> Verdict:
        if self.settings.when != "message":
            return CONTINUE
        return await self._judge(transaction)

    async def _judge(self, transaction: Transaction) -> Verdict:
        session = transaction.session
        if session.trusted or not session.address:
            return CONTINUE  # our own people send from where they are
        found = await spf_of(transaction, self.tools)
        if found.result == "fail" and self.settings.fail == "reject":
            return Reject((7, 23), _refusal(found), note=str(found))
        if found.result == "temperror" and self.settings.temperror == "defer":
            return Defer((4, 3), "the sender's SPF record cannot be read now", note=str(found))
        return CONTINUE


def _refusal(found: Spf) -> str:
    text = "the sender's domain does not let you send its mail"
    if _SAYABLE.fullmatch(found.explanation):
        # Its words, which need not be true (RFC 7208 §6.2).
        return f"{text}; it explains: {found.explanation}"
    return text
