"""How `elemta monitor` is called; tests/scenarios has its events over a restart."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from elemta.cli import codes, main
from elemta.cli.monitor.stream import choice_of
from elemta.control.choice import EventChoice
from tests.monitor.world import ID


def test_options_say_what_is_wanted() -> None:
    assert choice_of((), None, None) == EventChoice()
    assert choice_of(("Queued", "Failed"), "Example.NET", ID.lower()) == EventChoice(
        types=frozenset({"Queued", "Failed"}), domain="example.net", id=ID
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--json", "--type", "Lost"), "'Lost' is no event; there are AttemptStarted,"),
        (("--json", "--id", "x"), "'x' is not the id of a message"),
        (("--json", "--once"), "--json has --type, --domain, --id and --since"),
        (("--json", "--filter", "x"), "--json has --type, --domain, --id and --since"),
        (("--type", "Queued"), "are for --json"),
        (("--since", "0"), "are for --json"),
        ((), "there is no terminal to draw on: say --once, or --json"),
    ],
)
def test_what_does_not_go_together_is_told(arguments: tuple[str, ...], text: str) -> None:
    done = CliRunner().invoke(main, ["monitor", "--sandbox", *arguments])
    assert done.exit_code == codes.USAGE
    assert text in done.output
