"""Each file of tests/dialogues is one conversation; its first comment says what it is about."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.dialogue import Server, client_of, settings_of

if TYPE_CHECKING:
    import trio
    from trio.testing import MockClock

FOLDER = Path(__file__).parents[1] / "dialogues"
DIALOGUES = {path.stem: path.read_text("utf-8") for path in sorted(FOLDER.glob("*.smtp"))}


@pytest.mark.parametrize("name", DIALOGUES)
async def test_dialogue(name: str, autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    script = DIALOGUES[name]
    assert script.startswith("# "), "it does not say what it is about"
    server = Server(client=client_of(script), **settings_of(script))
    nursery.start_soon(server.run)
    await server.play(script)


def test_there_are_dialogues() -> None:
    assert len(DIALOGUES) > 25
