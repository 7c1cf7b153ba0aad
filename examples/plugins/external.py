from typing_extensions import override

from elemta.plugins import CONTINUE, AddHeader, Content, Plugin, Transaction, Verdict, change


class External(Plugin):
    """Marks what comes from outside."""

    name = "external"

    @override
    async def on_message(self, transaction: Transaction, content: Content) -> Verdict:
        if transaction.session.trusted:
            return CONTINUE
        return change(AddHeader("X-External", "yes"))
