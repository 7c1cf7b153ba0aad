from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import argon2
import pytest
import yaml

from elemta.login import (
    App,
    ScramVerifier,
    Usage,
    User,
    UserFile,
    UserFileError,
    hash_app_password,
)

if TYPE_CHECKING:
    from pathlib import Path

HASH = argon2.PasswordHasher(1, 64, 1).hash("correct horse")
SCRAM = str(ScramVerifier.of("correct horse", iterations=4096))


@pytest.fixture
def file(tmp_path: Path) -> UserFile:
    return UserFile(tmp_path / "users.yaml")


def write(file: UserFile, text: str, mode: int = 0o600) -> None:
    file.path.write_text(text)
    file.path.chmod(mode)


def test_what_is_written_is_read_again_whatever_it_is_called(file: UserFile) -> None:
    users = {
        name: User(
            password=HASH,
            scram=SCRAM,
            addresses=["@example.org", "*"],
            apps={"yes": App(password=hash_app_password("x"), created=17.5)},
            disabled=True,
        )
        for name in ("bob@example.org", "no", "12:30", "0x1f", "~", "1e3", "2026-01-01", "jörg")
    }
    file.change(lambda known: known.update(users), make=True)
    assert file.read() == users
    assert list(file.read()) == list(users)
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in file.path.parent.iterdir()] == ["users.yaml"]


def test_two_users_may_have_the_same(file: UserFile) -> None:
    one = User(addresses=["@example.org"])
    file.change(lambda known: known.update(ann=one, bob=one), make=True)
    assert "&id" not in file.path.read_text()
    assert file.read() == {"ann": one, "bob": one}


def test_mode_comments_at_the_top_and_a_link_stay(file: UserFile, tmp_path: Path) -> None:
    write(file, "# Ours.\n\n# All of us.\nusers:\n  ann: {}\n", 0o640)
    link = UserFile(tmp_path / "link.yaml")
    link.path.symlink_to(file.path)
    link.change(lambda known: known.update(bob=User()))
    assert link.path.is_symlink()
    assert file.path.read_text().startswith("# Ours.\n\n# All of us.\nusers:\n")
    assert list(file.read()) == ["ann", "bob"]
    assert file.path.stat().st_mode & 0o777 == 0o640


def test_a_change_that_fails_changes_nothing(file: UserFile) -> None:
    write(file, "users:\n  ann: {}\n")

    def fail(known: dict[str, User]) -> None:
        known.clear()
        raise LookupError("nobody")

    with pytest.raises(LookupError):
        file.change(fail)
    assert list(file.read()) == ["ann"]


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o602, 0o604])
def test_a_file_that_others_may_read_or_write_is_refused(file: UserFile, mode: int) -> None:
    write(file, "users: {}\n", mode)
    with pytest.raises(UserFileError, match=f"its mode is {mode:04o}.*expected 0600 or 0640"):
        file.read()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("users:\n  bob:\n    password: horse\n", ":2:3: users.bob: expected a hash"),
        ("users:\n  bob: {scram: SCRAM-SHA-1$x}\n", "expected SCRAM-SHA-256"),
        ("users:\n  bob:\n    addresses: [bob]\n", "expected ADDRESS"),
        ("users:\n  bob:\n    pasword: x\n", ":3:5: users.bob.pasword: there is no such key"),
        ("users:\n  bob:\n    apps:\n      a/b: {password: x}\n", "expected sha256:"),
        ("users:\n  Bob: {}\n", ":2:3: users[\"Bob\"]: is looked up as 'bob'"),
        ("users:\n  b b: {}\n", ':2:3: users["b b"]: a name has neither spaces'),
        ("users:\n  bob: {}\n  bob: {}\n", ":3:3: "),
        ("users: [bob\n", ":2:1: no YAML"),
        ("users: {bob: {disabled: 17}}\n", "expected true or false"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_without_secrets(
    file: UserFile, text: str, told: str
) -> None:
    write(file, text)
    with pytest.raises(UserFileError) as refused:
        file.read()
    assert str(refused.value).startswith(str(file.path))
    assert told in str(refused.value)
    assert "horse" not in str(refused.value)


def test_what_is_shown_of_a_user_has_no_secret() -> None:
    user = User(password=HASH, scram=SCRAM, apps={"phone": App(password=hash_app_password("x"))})
    shown = repr(user) + repr(user.apps)
    assert HASH not in shown
    assert "SCRAM" not in shown
    assert "sha256" not in shown


def test_a_file_that_is_not_there_is_said_to_be_so(file: UserFile) -> None:
    with pytest.raises(UserFileError, match=r"users\.yaml: No such file"):
        file.read()
    with pytest.raises(UserFileError, match=r"users\.yaml: No such file"):
        file.change(lambda known: None)


def test_uses_are_added_to_those_that_were_written_down(tmp_path: Path) -> None:
    usage = Usage(tmp_path / "usage.json")
    assert usage.read() == {}
    usage.add({"bob": {"": 10.0, "phone": 5.0}})
    usage.add({"bob": {"": 9.0, "phone": 7.0}, "ann": {"": 1.0}})
    assert usage.read() == {"bob": {"": 10.0, "phone": 7.0}, "ann": {"": 1.0}}
    usage.path.write_text("{")
    assert usage.read() == {}


def test_two_who_change_it_at_a_time_lose_nothing(file: UserFile) -> None:
    file.change(lambda known: None, make=True)

    def add(number: int) -> None:
        UserFile(file.path).change(lambda known: known.update({f"user{number}": User()}))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(24)))
    assert len(file.read()) == 24
    assert [each.name for each in file.path.parent.iterdir()] == ["users.yaml"]


def test_a_group_may_read_a_new_file_and_no_more(tmp_path: Path) -> None:
    file = UserFile(tmp_path / "users.yaml", os.getegid())
    file.change(lambda known: known.update(bob=User()), make=True)
    assert file.path.stat().st_mode & 0o777 == 0o640
    assert list(file.read()) == ["bob"]


@pytest.mark.parametrize("quick", [True, False], ids=["libyaml", "python"])
def test_it_reads_the_same_whether_or_not_there_is_libyaml(
    file: UserFile, monkeypatch: pytest.MonkeyPatch, quick: bool
) -> None:
    monkeypatch.setattr(yaml, "__with_libyaml__", quick)
    one = User(password=HASH, addresses=["@example.org"])
    file.change(lambda known: known.update(ann=one, no=one), make=True)
    assert "&id" not in file.path.read_text()
    assert file.read() == {"ann": one, "no": one}
    write(file, "users:\n  12:30: {disabled: yes}\n")
    with pytest.raises(UserFileError, match=r":2:21: users.*expected true or false"):
        file.read()
