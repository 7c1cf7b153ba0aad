"""How a command learns that its server is elsewhere; tests/scenarios has it done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

from elemta.cli import codes, main, remotely
from elemta.cli.options import at_server

if TYPE_CHECKING:
    from pathlib import Path

    from elemta.config import Config
    from elemta.control.remote import Remote

URL = "http://127.0.0.1:8025"


def told(*arguments: str, stdin: str = "", **environment: str) -> tuple[Remote | None, str]:
    """Which server these arguments mean, and what is said beside."""
    found: list[Remote | None] = []

    @click.command()
    @at_server
    def command(config: Config) -> None:
        found.append(remotely.chosen())

    env: dict[str, str | None] = {
        "ELEMTA_API": None, "ELEMTA_TOKEN": None, "ELEMTA_CONFIG": None, **environment,
    }  # fmt: skip
    done = CliRunner().invoke(command, arguments, input=stdin, env=env)
    return (found[0] if found else None), done.output


def test_a_command_is_for_this_machine_if_nothing_else_is_said() -> None:
    assert told() == (None, "")
    assert told("--sandbox") == (None, "")


def test_a_server_elsewhere_is_named_by_options_or_by_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-a-file\n")
    for arguments, environment, token in (
        (("--api", URL, "--token", "typed"), {}, "typed"),
        (("--api", URL, "--token-file", str(file)), {}, "from-a-file"),
        (("--api", URL, "--token-file", "-"), {}, "from-stdin"),
        (("--api", URL), {"ELEMTA_TOKEN": "set"}, "set"),
        ((), {"ELEMTA_API": URL, "ELEMTA_TOKEN": "set"}, "set"),
        (("--token", "typed"), {"ELEMTA_API": URL, "ELEMTA_TOKEN": "set"}, "typed"),
    ):
        server, said = told(*arguments, stdin="from-stdin\n", **environment)
        assert server is not None, said
        assert (str(server), server.token, said) == (URL, token, "")


def test_what_the_command_line_says_counts_for_more_than_the_environment() -> None:
    assert told("--sandbox", ELEMTA_API=URL, ELEMTA_TOKEN="x") == (None, "")


def test_what_can_be_read_on_the_way_is_warned_of() -> None:
    server, said = told("--api", "http://mx.example.org:8025", "--token", "x")
    assert server is not None
    assert said == (
        "elemta: http://mx.example.org:8025 is not encrypted, so others may read the token\n"
    )
    assert told("--api", "https://mx.example.org", "--token", "x")[1] == ""


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--api", URL), "--api takes a token"),
        (("--api", URL, "--token", "x", "--sandbox"), "another server than --config"),
        (("--api", URL, "--token", "x", "--config", "y"), "another server than --config"),
        (("--api", URL, "--token", "x", "--token-file", "y"), "are two tokens"),
        (("--api", URL, "--token-file", "/nowhere/token"), "No such file"),
        (("--api", "127.0.0.1", "--token", "x"), "expected http://HOST:PORT"),
        (("--token", "x"), "--token is for a server that --api names"),
        (("--token-file", "x"), "--token-file is for a server that --api names"),
        (("--ca", "x"), "--ca is for a server that --api names"),
    ],
)
def test_a_server_that_is_said_wrongly_is_told(arguments: tuple[str, ...], text: str) -> None:
    server, said = told(*arguments)
    assert server is None
    assert text in said


def test_a_server_that_is_not_there_has_its_exit_code_and_no_store_is_read_instead() -> None:
    arguments = ("--api", "http://127.0.0.1:1", "--token", "x")
    for command in (("queue", "list"), ("queue", "stats"), ("status",), ("reload",)):
        done = CliRunner().invoke(main, [*command, *arguments])
        assert done.exit_code == codes.UNAVAILABLE
        assert done.output == "elemta: nobody listens at http://127.0.0.1:1\n"
