"""What the commands show that ask a running server about itself."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from elemta.cli import answers, codes, insight, main
from elemta.control import plain
from elemta.control.facts import Configuration, PluginStatus

ROOT = Path(__file__).parent.parent


def test_plugins_are_a_line_each() -> None:
    found = [
        PluginStatus(
            name="recipient-limit", about="", enabled=True, hooks=("on_rcpt",), timeout=30.0,
            asked=1204,
        ),
        PluginStatus(
            name="a", about="", enabled=False, hooks=("on_mail", "on_data"), timeout=0.25, failed=3
        ),
    ]  # fmt: skip
    assert list(answers.plugin_lines(found)) == [
        "NAME             STATE     ASKED  FAILED  TIMEOUT  HOOKS",
        "recipient-limit  on         1204       0     30 s  on_rcpt",
        "a                off           0       3   250 ms  on_mail on_data",
    ]
    assert list(answers.plugin_lines([])) == ["the configuration has no plugins"]
    told = json.loads(json.dumps(plain.plugin(found[1])))
    assert (told["hooks"], told["enabled"], told["failed"]) == (["on_mail", "on_data"], False, 3)


def test_json_of_a_configuration_is_what_its_file_would_be() -> None:
    found = Configuration(file="/etc/elemta/elemta.yaml", values={"limits": {"memory": "1 MiB"}})
    assert plain.configuration(found) == {
        "file": "/etc/elemta/elemta.yaml",
        "values": {"limits": {"memory": "1 MiB"}},
    }


def test_who_switches_a_plugin_says_which() -> None:
    told = CliRunner().invoke(main, ["plugins", "disable", "--sandbox"])
    assert told.exit_code == codes.USAGE
    assert "disable which?" in told.output


def test_every_command_is_documented() -> None:
    text = (ROOT / "docs" / "explain.md").read_text()
    for command in (insight.config_, insight.plugins):
        assert f"`elemta {command.name}" in text
