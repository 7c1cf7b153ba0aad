from typing_extensions import override

from elemta.plugins import CONTINUE, Plugin, Reject, Transaction, Verdict


class NoForgery(Plugin):
    """Lets nobody send as one of us who is not."""

    name = "no-forgery"

    @override
    async def on_mail(self, transaction: Transaction) -> Verdict:
        sender = transaction.sender
        if transaction.session.trusted or sender is None:
            return CONTINUE
        if self.tools.ours(sender.domain.lower()):
            return Reject((7, 1), "log in to send from this address")
        return CONTINUE
