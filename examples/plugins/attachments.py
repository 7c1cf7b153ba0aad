from email import message_from_bytes, policy
from pathlib import PurePath

from typing_extensions import override

from elemta.config import Table
from elemta.plugins import CONTINUE, Content, PluginWith, Quarantine, Transaction, Verdict


class Settings(Table, frozen=True):
    #: How names of files must not end.
    endings: tuple[str, ...] = (".exe", ".js", ".scr", ".vbs")


class Attachments(PluginWith[Settings]):
    """Holds mail with programs in it, for somebody to look at."""

    name = "attachments"

    @override
    async def on_message(self, transaction: Transaction, content: Content) -> Verdict:
        octets = await content.read()
        for name in await self.tools.in_thread(lambda: _names(octets)):
            if PurePath(name).suffix.lower() in self.settings.endings:
                return Quarantine(f"there is a program in it: {name!r}")
        return CONTINUE


def _names(octets: bytes) -> list[str]:
    parts = message_from_bytes(octets, policy=policy.default).walk()
    return [name for part in parts if (name := part.get_filename())]
