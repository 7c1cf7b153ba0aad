from contextlib import suppress

from typing_extensions import override

from elemta.config import Table
from elemta.plugins import PluginWith, Steers
from elemta.queue import Deferred, QueueEvent
from elemta.units import Seconds


class Settings(Table, frozen=True):
    #: How long a mailbox that is full is left alone.
    patience: Seconds = Seconds(6 * 3600)


class FullMailboxes(PluginWith[Settings]):
    """Tries those seldom whose mailbox is full: that is not mended in minutes."""

    name = "full-mailboxes"

    @override
    async def on_event(self, event: QueueEvent, queue: Steers) -> None:
        if isinstance(event, Deferred) and event.reply.status == (2, 2):
            due = event.at + self.settings.patience
            with suppress(ValueError):  # it is given up before
                await queue.reschedule(event.id, due, "the mailbox is full")
