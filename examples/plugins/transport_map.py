from collections.abc import Sequence
from pathlib import Path

import trio
from typing_extensions import override

from elemta.config import Table
from elemta.plugins import PluginWith, Via
from elemta.queue import Destined
from elemta.units import Seconds


class Settings(Table, frozen=True):
    #: A line for each domain: its name, and where its mail goes, e.g. ``smtp://192.0.2.1:25``.
    file: Path
    #: How often the file is read.
    every: Seconds = Seconds(60)


class TransportMap(PluginWith[Settings]):
    """Has routes from a file that others write."""

    name = "transport-map"

    @override
    async def start(self) -> None:
        await self._read()

    @override
    async def run(self) -> None:
        while True:
            await trio.sleep(self.settings.every)
            await self._read()
            self.tools.routes_changed()

    @override
    def on_route(self, recipient: Destined) -> Sequence[str] | None:
        return self._targets.get(recipient.address.domain.lower())

    async def _read(self) -> None:
        text = await self.tools.in_thread(self.settings.file.read_text)
        lines = (line.split() for line in text.splitlines())
        found = {domain.lower(): Via(tuple(targets)) for domain, *targets in filter(None, lines)}
        self._targets = {domain: via.targets for domain, via in found.items()}
