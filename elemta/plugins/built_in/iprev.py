"""Looks whether the name of a client's address leads back to it (RFC 8601 §3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field
from typing_extensions import override

from elemta.mailauth import Iprev, check_iprev
from elemta.plugins import CONTINUE, Plugin, Session, Verdict
from elemta.plugins.built_in.asked import Asking

if TYPE_CHECKING:
    from elemta.plugins import Content, Tools, Transaction


class _State(Struct):
    asking: Asking = field(default_factory=Asking)


async def iprev_of(session: Session, tools: Tools) -> Iprev:
    """What the DNS says of a client's address: asked once, and remembered in its results.

    Args:
        session: the client's.
        tools: of the plugin that wants to know.
    """
    async with session.kept.of(_State).asking:
        found = session.results.first(Iprev)
        if found is None:
            found = await check_iprev(session.address, resolver=tools.resolver)
            session.results.add(found, tools.name)
            tools.meters.authentication["iprev", found.result] += 1
    return found


class IprevPlugin(Plugin):
    """Looks whether the name of a client's address leads back to it (RFC 8601 §3)."""

    name = "iprev"

    @override
    async def on_inspect(self, transaction: Transaction, content: Content) -> Verdict:
        # Not on connecting: most of those who connect never bring a message.
        session = transaction.session
        if session.address and not session.trusted:
            await iprev_of(session, self.tools)
        return CONTINUE
