"""A plugin that watches deliveries, and a world that has it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from typing_extensions import override

from elemta.plugins import CONTINUE, Attempted, Chain, Letter, Loaded, Plugin, Verdict
from tests.delivery.world import World, world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from elemta.queue import Result

ONE = "198.51.100.1"


class Watches(Plugin):
    """Says what it was told to say of a recipient, and remembers what it was asked and told.

    Attributes:
        says: by local part; what is no verdict is raised.
    """

    name = "watches"

    def __init__(self, **says: Verdict | Exception) -> None:
        self.says = says
        self.asked: list[tuple[str, int]] = []
        self.told: list[tuple[str, Result, str, str]] = []
        self.content = b""

    @override
    async def on_attempt(self, letter: Letter) -> Verdict:
        local = letter.recipient.address.local_part
        self.asked.append((local, letter.number))
        self.content = b"".join([each async for each in letter.body.chunks()])
        said = self.says.get(local, CONTINUE)
        if isinstance(said, Exception):
            raise said
        return said

    @override
    async def on_attempted(self, letter: Letter, attempted: Attempted) -> None:
        local = letter.recipient.address.local_part
        self.told.append((local, attempted.result, str(attempted.reply), attempted.host))


def chain(*plugins: Plugin, timeout: float = 30) -> Chain:
    return Chain([Loaded(each, timeout) for each in plugins])


@asynccontextmanager
async def with_plugins(path: Path, *plugins: Plugin, seconds: float = 30) -> AsyncIterator[World]:
    """A world with one exchanger for b.example, and these plugins."""
    asked = chain(*plugins, timeout=seconds)
    async with world(path, plugins=lambda: asked) as made:
        made.domain("b.example", ("mx.b.example", ONE))
        yield made
    assert asked.users.count == 0
