from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from elemta.api import tokens
from elemta.api.tokens import TokenFile
from elemta.api.visit import Scope
from elemta.cli import codes, main
from elemta.cli.token import SCOPES, token

ROOT = Path(__file__).parent.parent


class Place:
    """A server that does not run, with an API."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "elemta.yaml"
        self.file = TokenFile(folder / "data")
        self.write("api: {}")

    def write(self, api: str) -> None:
        self.config.write_text(
            "hostname: mx.example.org\ndata_dir: data\n"
            f'listeners: [{{name: mx, address: "127.0.0.1:0"}}]\n{api}\n'
        )

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, ["token", *arguments, "--config", str(self.config)])


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_token_is_printed_once_and_known_from_then_on(place: Place) -> None:
    done = place.run("create", "ci", "--scope", "submit", "--scope", "read", "--expires", "30d")
    assert done.exit_code == 0, done.output
    text = tokens.parse(done.stdout.strip())
    assert text is not None
    (known,) = place.file.read().tokens
    assert (known.id, known.name, known.scopes) == (text.id, "ci", (Scope.READ, Scope.SUBMIT))
    assert known.expires == pytest.approx(known.created + 30 * 86400)
    assert tokens.verify(known.hash, text.secret)
    assert place.file.path.parent.stat().st_mode & 0o777 == 0o700
    listed = place.run("list")
    assert re.fullmatch(
        rf"{known.id}  ci  read,submit  until \S+ \S+ \S+, never used\n", listed.output
    )
    assert text.secret not in listed.output


def test_programs_are_told_in_json(place: Place) -> None:
    made = json.loads(place.run("create", "ci", "--scope", "admin", "--json").stdout)
    assert tokens.parse(made.pop("token")) is not None
    assert json.loads(place.run("list", "--json").output) == [made]
    assert made["scopes"] == ["admin"]
    assert json.loads(place.run("revoke", "ci", "--json").output) == made
    assert json.loads(place.run("list", "--json").output) == []


def test_a_token_is_revoked_by_id_or_name(place: Place) -> None:
    place.run("create", "a", "--scope", "read")
    made = json.loads(place.run("create", "b", "--scope", "read", "--json").stdout)
    assert place.run("revoke", "a").output.endswith(" a\n")
    assert place.run("revoke", made["id"]).output == f"revoked {made['id']} b\n"
    gone = place.run("revoke", "a")
    assert (gone.exit_code, gone.output) == (
        codes.NOT_FOUND,
        "elemta: there is no token 'a'\n",
    )
    assert place.run("list").output == "there are no tokens\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "a"),
        ("create", "a", "--scope", "root"),
        ("create", "a b", "--scope", "read"),
        ("create", "a", "--scope", "read", "--expires", "soon"),
    ],
)
def test_what_makes_no_sense_is_refused(place: Place, arguments: tuple[str, ...]) -> None:
    assert place.run(*arguments).exit_code == codes.USAGE
    assert not place.file.path.exists()


def test_a_name_that_is_taken_is_refused(place: Place) -> None:
    place.run("create", "a", "--scope", "read")
    done = place.run("create", "a", "--scope", "read")
    assert done.exit_code == codes.USAGE
    assert "there is a token named 'a' already" in done.output


def test_a_damaged_file_is_told(place: Place) -> None:
    place.run("create", "a", "--scope", "read")
    place.file.path.write_text("{")
    done = place.run("list")
    assert done.exit_code == codes.UNREADABLE
    assert "tokens.json is damaged" in done.output


def test_a_link_names_where_the_api_is(place: Place) -> None:
    done = place.run("link")
    assert done.output.startswith("http://127.0.0.1:8025/login#once=once_")
    place.write("api: {address: ':443', certificate: a.pem, key: b.pem}")
    told = json.loads(place.run("link", "--json").output)
    assert told["url"].startswith("https://mx.example.org:443/login#once=once_")
    assert told["expires_in"] == 3600.0


def test_a_link_leads_nowhere_without_an_api(place: Place) -> None:
    place.write("")
    done = place.run("link")
    assert done.exit_code == codes.MISCONFIGURED
    assert "the configuration has no `api`" in done.output


def test_help_explains_every_scope() -> None:
    assert list(SCOPES) == [scope.value for scope in Scope]
    text = (ROOT / "docs" / "api-access.md").read_text()
    for scope in SCOPES:
        assert f"`{scope}`" in text
    for command in token.commands:
        assert f"elemta token {command}" in text
