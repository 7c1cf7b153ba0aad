"""A plugin that looks at each step and never has anything to say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typing_extensions import override

from elemta.plugins import CONTINUE, Plugin

if TYPE_CHECKING:
    from elemta.plugins import Content, Session, Transaction, Verdict
    from elemta.protocol import Mailbox


class Empty(Plugin):
    """Costs what asking a plugin costs, and no more."""

    name = "empty"

    @override
    async def on_connect(self, session: Session) -> Verdict:
        return CONTINUE

    @override
    async def on_hello(self, session: Session, name: str) -> Verdict:
        return CONTINUE

    @override
    async def on_mail(self, transaction: Transaction) -> Verdict:
        return CONTINUE

    @override
    async def on_rcpt(self, transaction: Transaction, recipient: Mailbox) -> Verdict:
        return CONTINUE

    @override
    async def on_data(self, transaction: Transaction) -> Verdict:
        return CONTINUE

    @override
    async def on_message(self, transaction: Transaction, content: Content) -> Verdict:
        return CONTINUE
