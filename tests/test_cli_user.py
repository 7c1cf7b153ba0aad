from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from elemta.cli import codes, main
from elemta.login import (
    ScramVerifier,
    Usage,
    UserFile,
    hash_app_password,
    usage_name,
    verify_password,
)

if TYPE_CHECKING:
    from pathlib import Path


class Place:
    """A server that does not run, with users."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "elemta.yaml"
        self.file = UserFile(folder / "users.yaml")
        self.data = folder / "data"
        self.write([self.file.path])

    def write(self, files: list[Path]) -> None:
        entries = [{"name": "users-file", "settings": {"file": str(each)}} for each in files]
        self.config.write_text(
            "hostname: mx.example.org\ndata_dir: data\n"
            f'listeners: [{{name: mx, address: "127.0.0.1:0"}}]\nplugins: {json.dumps(entries)}\n'
        )

    def run(self, *arguments: str, typed: str | None = None) -> Result:
        told = ["user", *arguments, "--config", str(self.config)]
        return CliRunner().invoke(main, told, input=typed)

    def add(self, name: str = "bob@example.org", *more: str) -> None:
        done = self.run("add", name, "--password-stdin", *more, typed="correct horse\n")
        assert done.exit_code == 0, done.output


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_who_is_added_is_in_the_file_with_hashes_of_his_password(place: Place) -> None:
    place.add("Bob@Example.org", "--address", "@example.net", "--address", "*")
    ((name, user),) = place.file.read().items()
    assert (name, user.addresses, user.apps) == ("bob@example.org", ["@example.net", "*"], {})
    assert user.password is not None
    assert verify_password(user.password, "correct horse")
    assert user.scram is not None
    verifier = ScramVerifier.parse(user.scram)
    again = ScramVerifier.of("correct horse", salt=verifier.salt, iterations=verifier.iterations)
    assert verifier == again
    assert "horse" not in place.file.path.read_text()
    assert place.file.path.stat().st_mode & 0o077 == 0


def test_nobody_is_added_twice_or_with_what_is_no_address(place: Place) -> None:
    place.add()
    again = place.run("add", "bob@example.org", "--password-stdin", typed="another\n")
    assert (again.exit_code, again.stderr) == (
        codes.USAGE,
        "elemta: there is a user 'bob@example.org' already\n",
    )
    for wrong in (["a b"], ["ann", "--address", "ann"]):
        done = place.run("add", *wrong, "--password-stdin", typed="x\n")
        assert done.exit_code == codes.USAGE
    assert list(place.file.read()) == ["bob@example.org"]


@pytest.mark.parametrize("typed", ["\n", "", "a\0b\n", "x" * 2000 + "\n"])
def test_what_is_no_password_is_not_taken(place: Place, typed: str) -> None:
    done = place.run("add", "bob", "--password-stdin", typed=typed)
    assert done.exit_code == codes.USAGE
    assert "a password" in done.stderr
    assert not place.file.path.exists()


def test_without_a_terminal_a_password_is_read_only_if_that_is_said(place: Place) -> None:
    done = place.run("add", "bob", typed="correct horse\n")
    assert done.exit_code == codes.USAGE
    assert "--password-stdin" in done.stderr


def test_a_password_is_the_same_however_it_is_typed(place: Place) -> None:
    done = place.run("add", "bob", "--password-stdin", typed="nai\u0308ve\u00a0one\n")
    assert done.exit_code == 0, done.output
    kept = place.file.read()["bob"].password
    assert kept is not None
    assert verify_password(kept, "na\u00efve one")


def test_another_password_leaves_all_else_as_it_is(place: Place) -> None:
    place.add("bob", "--address", "@example.net")
    place.run("app", "add", "bob", "phone")
    before = place.file.read()["bob"]
    done = place.run("passwd", "BOB", "--password-stdin", typed="another\n")
    assert (done.exit_code, done.stdout) == (0, "changed the password of bob\n")
    after = place.file.read()["bob"]
    assert after.password is not None
    assert verify_password(after.password, "another")
    assert after.scram != before.scram
    assert (after.addresses, after.apps) == (before.addresses, before.apps)


def test_an_app_password_is_printed_once(place: Place) -> None:
    place.add("bob")
    done = place.run("app", "add", "bob", "Bob's".replace("'", "") + " phone")
    assert done.exit_code == 0, done.output
    password = done.stdout.strip()
    app = place.file.read()["bob"].apps["Bobs phone"]
    assert app.password == hash_app_password(password)
    listed = place.run("app", "list", "bob")
    assert listed.stdout.startswith("Bobs phone  made 2")
    assert listed.stdout.endswith(", never used\n")
    assert password not in listed.stdout + place.file.path.read_text()
    assert place.run("app", "add", "bob", "Bobs phone").exit_code == codes.USAGE
    assert place.run("app", "add", "bob", "a/b").exit_code == codes.USAGE
    assert place.run("app", "remove", "bob", "Bobs phone").stdout == "removed Bobs phone of bob\n"
    assert place.run("app", "list", "bob").stdout == "bob has no app passwords\n"
    assert place.run("app", "remove", "bob", "Bobs phone").exit_code == codes.NOT_FOUND


def test_users_are_listed_with_when_they_were_here_at_any_node(place: Place) -> None:
    place.add("bob", "--address", "@example.net")
    place.run("app", "add", "bob", "phone")
    place.add("ann")
    for folder, used in (
        ("plugins", {"bob": {"": 10.0, "phone": 20.0}}),
        ("nodes/2/plugins", {"bob": {"phone": 30.0}}),
    ):
        kept = place.data / folder / "users-file"
        kept.mkdir(parents=True)
        Usage(kept / usage_name(place.file.path)).add(used)
    bob, ann = json.loads(place.run("list", "--json").stdout)
    assert (bob["name"], bob["addresses"], bob["used"]) == ("bob", ["@example.net"], 10.0)
    assert (bob["password"], bob["scram"], bob["disabled"]) == (True, True, False)
    assert [(each["name"], each["used"]) for each in bob["apps"]] == [("phone", 30.0)]
    assert (ann["used"], ann["apps"]) == (None, [])
    told = place.run("list").stdout.splitlines()
    assert told[0].startswith("bob  used ")
    assert told[0].endswith("d ago, 1 app password, also @example.net")
    assert told[1] == "ann  never used"


def test_users_are_disabled_enabled_and_removed(place: Place) -> None:
    place.add("bob")
    assert place.run("disable", "bob").stdout == "disabled bob\n"
    assert place.file.read()["bob"].disabled
    assert "bob  disabled, never used" in place.run("list").stdout
    assert json.loads(place.run("enable", "bob", "--json").stdout)["disabled"] is False
    assert place.run("remove", "bob").stdout == "removed bob\n"
    assert place.run("list").stdout == "there are no users\n"
    for command in (["remove"], ["disable"], ["passwd", "--password-stdin"], ["app", "list"]):
        done = place.run(*command, "bob", typed="x\n")
        assert (done.exit_code, done.stderr) == (
            codes.NOT_FOUND,
            "elemta: there is no user 'bob'\n",
        )


def test_a_user_may_have_no_password_of_his_own(place: Place) -> None:
    assert place.run("add", "bob", "--no-password").exit_code == 0
    assert place.file.read()["bob"].password is None
    assert "no password of his own" in place.run("list").stdout


def test_the_file_is_that_of_the_plugin_unless_another_is_named(place: Place) -> None:
    other = place.file.path.with_name("other.yaml")
    place.write([])
    done = place.run("list")
    assert done.exit_code == codes.MISCONFIGURED
    assert "no plugin users-file" in done.stderr
    place.write([place.file.path, other])
    assert place.run("list").exit_code == codes.USAGE
    place.add("bob", "--file", str(other))
    assert list(UserFile(other).read()) == ["bob"]
    alone = CliRunner().invoke(main, ["user", "list", "--file", str(other)])
    assert alone.stdout == "bob  never used\n"


def test_a_file_that_cannot_be_used_is_said_to_be_so(place: Place) -> None:
    assert place.run("list").exit_code == codes.UNREADABLE
    place.add("bob")
    place.file.path.chmod(0o644)
    done = place.run("passwd", "bob", "--password-stdin", typed="x\n")
    assert done.exit_code == codes.UNREADABLE
    assert "its mode is 0644" in done.stderr


def test_check_tells_of_a_mistake_in_the_file_with_its_line(place: Place) -> None:
    def check() -> Result:
        return CliRunner().invoke(main, ["check", "--config", str(place.config)])

    place.add("bob")
    assert check().exit_code == 0, check().output
    place.file.path.write_text("users:\n  bob: {password: horse}\n")
    done = check()
    assert done.exit_code == codes.MISCONFIGURED
    assert f"{place.file.path}:2:8: users.bob: expected a hash" in done.stderr
    assert "plugins[0].settings.file" in done.stderr
    assert "horse" not in done.output
