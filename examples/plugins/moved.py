from typing_extensions import override

from elemta.config import Table
from elemta.plugins import CONTINUE, PluginWith, Reject, Transaction, Verdict
from elemta.protocol import Mailbox


class Settings(Table, frozen=True):
    #: Addresses that were, in lower case, and what they are now.
    mailboxes: dict[str, str]


class Moved(PluginWith[Settings]):
    """Says where somebody is found who was here."""

    name = "moved"
    dry = True

    @override
    async def on_rcpt(self, transaction: Transaction, recipient: Mailbox) -> Verdict:
        new = self.settings.mailboxes.get(str(recipient).lower())
        if new is None:
            return CONTINUE
        return Reject((1, 6), f"the address is {new} now", code=551)
