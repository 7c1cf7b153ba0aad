"""What the commands show that ask a running server about itself."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from elemta.cli import answers, codes, insight, main
from elemta.control import plain
from elemta.control.facts import Configuration, Explanation, Hypothesis, PluginStatus, Step
from elemta.protocol import parse_mailbox

ROOT = Path(__file__).parent.parent


def test_plugins_are_listed_and_then_the_order_in_which_each_hook_asks() -> None:
    found = [
        PluginStatus(
            name="recipient-limit", about="Makes it split.", enabled=True, hooks=("on_rcpt",),
            timeout=30.0, asked=1204, objected=2, kinds=("rcpt",), on_failure={"on_rcpt": "defer"},
        ),
        PluginStatus(
            name="a", about="", enabled=False, hooks=("on_mail", "on_data"), timeout=0.25, failed=3,
            kinds=("mail", "data"), listeners=("mx", "api"),
            on_failure={"on_mail": "defer", "on_data": "continue"},
        ),
        PluginStatus(name="b", about="", enabled=True, hooks=("on_event",), timeout=1.0),
        PluginStatus(
            name="c", about="", enabled=True, hooks=("on_rcpt", "on_inspect"), timeout=1.0
        ),
        PluginStatus(name="d", about="", enabled=True, hooks=("on_inspect",), timeout=1.0),
    ]  # fmt: skip
    assert list(answers.plugin_lines(found)) == [
        "NAME             STATE     ASKED  OBJECTED  FAILED  TIMEOUT  KINDS",
        "recipient-limit  on         1204         2       0     30 s  rcpt",
        "    Makes it split.",
        "    if it fails: defer",
        "a                off           0         0       3   250 ms  mail data",
        "    for clients of mx, api alone",
        "    if it fails: defer (on_mail), continue (on_data)",
        "b                on            0         0       0      1 s  -",
        "c                on            0         0       0      1 s  -",
        "d                on            0         0       0      1 s  -",
        "",
        "HOOK        ASKS, FIRST TO LAST",
        "on_rcpt     recipient-limit, c",
        "on_inspect  c, d  (side by side)",
        "on_event    b",
    ]
    assert list(answers.plugin_lines([])) == ["the configuration has no plugins"]
    whole = json.loads(json.dumps(plain.plugins(found)))
    assert whole["order"]["on_inspect"] == ["c", "d"]
    assert list(whole["order"]) == ["on_rcpt", "on_inspect", "on_event"]
    told = whole["plugins"][1]
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


EXPLANATION = Explanation(
    summary="It would be refused (recipient): 550 5.1.1 no such mailbox",
    steps=(
        Step(question="client", answer="192.0.2.1 is a stranger"),
        Step(question="sender", answer="<> is taken", good=True),
        Step(
            question="recipient",
            answer="nobody@us.example gets no mail here",
            good=False,
            reply="550 5.1.1 no such mailbox",
            details=("one", "two\x1b[2J"),
        ),
    ),
    next_at=60.0,
)


def test_an_explanation_is_a_line_a_step_and_what_it_rests_on() -> None:
    assert list(answers.explanation_lines(EXPLANATION)) == [
        "It would be refused (recipient): 550 5.1.1 no such mailbox",
        "",
        "  client: 192.0.2.1 is a stranger",
        "+ sender: <> is taken",
        "- recipient: nobody@us.example gets no mail here  (550 5.1.1 no such mailbox)",
        "    one",
        "    two\x1b[2J",
    ]


def test_a_reply_that_is_in_the_answer_is_not_told_twice() -> None:
    step = Step(question="hosts", answer="nobody: 550 5.1.2 no", reply="550 5.1.2 no")
    (*_, line) = answers.explanation_lines(Explanation(summary="", steps=(step,)))
    assert line == "  hosts: nobody: 550 5.1.2 no"


def test_json_of_an_explanation_has_all_of_it() -> None:
    told = json.loads(json.dumps(plain.explanation(EXPLANATION)))
    assert told["next_at"] == 60.0
    assert told["steps"][0] == {
        "question": "client",
        "answer": "192.0.2.1 is a stranger",
        "good": None,
        "reply": "",
        "details": [],
    }


def test_options_become_a_hypothesis() -> None:
    said = {"client": "192.0.2.1", "helo": None, "login": "jane", "listener": None}
    asked = answers.hypothesis("a@b.example", "", 5, said)
    assert asked == Hypothesis(
        recipient=parse_mailbox("a@b.example"), client="192.0.2.1", login="jane", size=5
    )
    assert answers.hypothesis("a@b.example", "c@d.example", 0, {}).sender == parse_mailbox(
        "c@d.example"
    )
    with pytest.raises(click.UsageError, match="--to: 'nonsense' is no address"):
        answers.hypothesis("nonsense", None, 0, {})


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--from", "a@b.example"),
        ("01M82Q28V6DAVJCKE0E9HMK3Q1", "--to", "a@b.example"),
        ("01M82Q28V6DAVJCKE0E9HMK3Q1", "--client", "192.0.2.1"),
        ("--to", "a@b.example", "--size", "large"),
        ("--to", "a b"),
    ],
)
def test_who_asks_nothing_or_two_things_is_told(arguments: tuple[str, ...]) -> None:
    told = CliRunner().invoke(main, ["explain", *arguments, "--sandbox"])
    assert told.exit_code == codes.USAGE


#: What each command has that asks a server.
USUAL = ("--config", "--sandbox", "--json", "--api", "--token", "--token-file", "--ca")


def test_every_command_is_documented() -> None:
    text = (ROOT / "docs" / "explain.md").read_text()
    for command in (insight.explain, insight.config_, insight.plugins):
        assert f"`elemta {command.name}" in text
        for option in command.params:
            for flag in (each for each in option.opts if each.startswith("--")):
                assert flag in USUAL or f"`{flag}" in text, flag
