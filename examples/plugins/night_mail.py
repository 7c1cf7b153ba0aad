from datetime import UTC, datetime

from typing_extensions import override

from elemta.config import Table
from elemta.plugins import CONTINUE, Attempted, Defer, Letter, PluginWith, Verdict


class Settings(Table, frozen=True):
    #: What is to go by night has this tag.
    tag: str = "bulk"
    #: When the night begins and ends: hours of UTC.
    begins: int = 20
    ends: int = 6


class NightMail(PluginWith[Settings]):
    """Sends by night what has time."""

    name = "night-mail"

    @override
    async def on_attempt(self, letter: Letter) -> Verdict:
        hour = datetime.fromtimestamp(self.tools.clock(), UTC).hour
        by_day = self.settings.ends <= hour < self.settings.begins
        if by_day and self.settings.tag in letter.message.tags:
            return Defer((4, 5), "it goes by night")
        return CONTINUE

    @override
    async def on_attempted(self, letter: Letter, attempted: Attempted) -> None:
        if self.settings.tag in letter.message.tags:
            self.tools.count(attempted.result.value)
