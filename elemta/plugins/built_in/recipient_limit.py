"""Defers recipients beyond a ceiling per message (RFC 5321 §4.5.3.1.8: at least 100)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from msgspec import Meta
from typing_extensions import override

from elemta.config import Table
from elemta.plugins import CONTINUE, Defer, PluginWith, Transaction, Verdict

if TYPE_CHECKING:
    from elemta.protocol import Mailbox


class Settings(Table, frozen=True):
    """The ``settings`` of ``recipient-limit``."""

    #: Recipients of one message. Lower than the listener's own for all clients but the trusted.
    recipients: Annotated[int, Meta(ge=100)] = 1000


class RecipientLimit(PluginWith[Settings]):
    """Makes a stranger split what goes to many; who may relay is not bothered."""

    name = "recipient-limit"
    dry = True

    @override
    async def on_rcpt(self, transaction: Transaction, recipient: Mailbox) -> Verdict:
        if transaction.session.trusted or len(transaction.recipients) < self.settings.recipients:
            return CONTINUE
        return Defer((5, 3), "too many recipients", note=f"over {self.settings.recipients}")
