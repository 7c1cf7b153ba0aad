from typing_extensions import override

from elemta.config import Table
from elemta.net.limits import network
from elemta.plugins import CONTINUE, Defer, PluginWith, Transaction, Verdict
from elemta.protocol import Mailbox
from elemta.units import Seconds


class Settings(Table, frozen=True):
    #: How long somebody new has to wait.
    delay: Seconds = Seconds(60)
    #: How many are remembered.
    most: int = 10_000


class OnceMore(PluginWith[Settings]):
    """Lets those in who come back: most programs that send spam do not."""

    name = "once-more"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._seen: dict[tuple[str, str], float] = {}

    @override
    async def on_greylist(self, transaction: Transaction, recipient: Mailbox) -> Verdict:
        now = self.tools.clock()
        who = (network(transaction.session.address), str(transaction.sender or ""))
        first = self._seen.setdefault(who, now)
        if len(self._seen) > self.settings.most:
            del self._seen[next(iter(self._seen))]
        if transaction.exempt or now - first >= self.settings.delay:
            return CONTINUE
        return Defer((7, 1), "you are new here: please come again in a while")
