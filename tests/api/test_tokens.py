from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING

import pytest

from elemta.api import tokens
from elemta.api.tokens import Known, TokenFile, TokenFileError
from elemta.api.visit import Scope

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_800_000_000.0


@pytest.fixture
def file(tmp_path: Path) -> TokenFile:
    return TokenFile(tmp_path)


def issue(file: TokenFile, name: str = "monitoring", expires: float | None = None) -> str:
    _, text = tokens.issue(file, name, [Scope.READ], now=NOW, expires=expires)
    return text


def test_a_token_is_known_by_its_hash_alone(file: TokenFile) -> None:
    token, whole = tokens.issue(file, "a", [Scope.OPERATE, Scope.READ], now=NOW, expires=None)
    text = tokens.parse(whole)
    assert text is not None
    assert (text.once, text.id) == (False, token.id)
    assert token.scopes == (Scope.READ, Scope.OPERATE)
    assert tokens.verify(token.hash, text.secret)
    assert not tokens.verify(token.hash, text.secret[:-1] + "?")
    assert text.secret not in file.path.read_text()
    assert token.hash.startswith("$argon2id$")


def test_a_hash_that_was_read_is_no_secret(file: TokenFile) -> None:
    """The original took a stored hash for the password."""
    issue(file)
    (token,) = file.read().tokens
    assert not tokens.verify(token.hash, token.hash)
    assert tokens.parse(f"elemta_{token.id}_{token.hash}") is None


def test_a_secret_without_a_hash_is_never_right() -> None:
    assert not tokens.verify(None, "x" * 43)
    assert not tokens.verify("", "x" * 43)
    assert not tokens.verify("x" * 43, "x" * 43)


@pytest.mark.parametrize(
    "text", ["", "elemta", "elemta_a_b", "elemta_" + "a" * 12 + "_" + "x" * 42, "x" * 100, "é" * 60]
)
def test_what_is_no_token_is_told_from_one(text: str) -> None:
    assert tokens.parse(text) is None


def test_the_file_is_for_its_owner_alone(file: TokenFile) -> None:
    issue(file)
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert (file.path.parent / "tokens.lock").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can do this")
def test_what_root_writes_belongs_to_whom_the_folder_belongs_to(file: TokenFile) -> None:
    os.chown(file.path.parent, 12345, 23456)
    issue(file)
    for path in (file.path, file.path.parent / "tokens.lock"):
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 23456)


def test_two_who_write_at_once_lose_nothing(file: TokenFile) -> None:
    threads = [threading.Thread(target=issue, args=(file, f"name-{number}")) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {token.name for token in file.read().tokens} == {f"name-{number}" for number in range(8)}
    assert sorted(path.name for path in file.path.parent.iterdir()) == [
        "tokens.json",
        "tokens.lock",
    ]


def test_a_file_that_cannot_be_written_stays_as_it_is(file: TokenFile) -> None:
    issue(file)
    before = file.path.read_text()

    def alter(known: Known) -> tuple[Known, None]:
        raise LookupError

    with pytest.raises(LookupError):
        file.change(alter)
    assert file.path.read_text() == before


def test_a_damaged_file_is_told_and_not_overwritten(file: TokenFile) -> None:
    file.path.write_text('{"tokens": [{"id": 7}]}')
    with pytest.raises(TokenFileError, match=r"tokens\.json is damaged: .*tokens\[0\]\.id"):
        issue(file)
    assert json.loads(file.path.read_text()) == {"tokens": [{"id": 7}]}


@pytest.mark.parametrize(
    "octets", [b"", b'{"tokens": [', b'{"tokens": [{"id": "\xff"}]}', b"[]", b"\0" * 9]
)
def test_a_file_that_is_no_json_is_told_by_its_name(file: TokenFile, octets: bytes) -> None:
    file.path.write_bytes(octets)
    with pytest.raises(TokenFileError, match=r"tokens\.json is damaged: "):
        file.read()


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    file = TokenFile(tmp_path / "nowhere")
    assert file.read() == Known()
    with pytest.raises(TokenFileError, match=r"nowhere/tokens\.lock: No such file or directory"):
        issue(file)


def test_a_name_stands_for_one_token(file: TokenFile) -> None:
    issue(file)
    with pytest.raises(ValueError, match="there is a token named 'monitoring' already"):
        issue(file)


def test_the_name_of_a_token_that_has_expired_is_free(file: TokenFile) -> None:
    tokens.issue(file, "a", [Scope.READ], now=NOW - 10, expires=NOW - 1)
    tokens.issue(file, "a", [Scope.READ], now=NOW, expires=None)
    (token,) = file.read().tokens
    assert token.expires is None


def test_a_token_that_is_revoked_is_gone(file: TokenFile) -> None:
    issue(file)
    (token,) = file.read().tokens
    assert tokens.revoke(file, token.id) == token
    assert file.read().tokens == ()
    with pytest.raises(LookupError, match=f"there is no token '{token.id}'"):
        tokens.revoke(file, token.id)


def test_the_file_is_there_once_something_was_written_down(file: TokenFile) -> None:
    assert not file.exists()
    issue(file)
    assert file.exists()


def redeem(file: TokenFile, whole: str, now: float = NOW) -> bool:
    text = tokens.parse(whole)
    assert text is not None
    return tokens.redeem(file, text, now=now)


def test_a_link_works_once(file: TokenFile) -> None:
    link = tokens.invite(file, now=NOW)
    assert redeem(file, link)
    assert not redeem(file, link)


def test_a_link_works_once_however_many_try_at_once(file: TokenFile) -> None:
    link = tokens.invite(file, now=NOW)
    found: list[bool] = []
    threads = [threading.Thread(target=lambda: found.append(redeem(file, link))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [False] * 5 + [True]


def test_a_link_works_for_an_hour(file: TokenFile) -> None:
    first, second = tokens.invite(file, now=NOW), tokens.invite(file, now=NOW)
    assert not redeem(file, first, NOW + tokens.LINK_LIFETIME)
    assert redeem(file, second, NOW + tokens.LINK_LIFETIME - 1)


def test_a_link_is_no_token_and_a_token_no_link(file: TokenFile) -> None:
    whole = issue(file)
    assert not redeem(file, whole)
    assert not redeem(file, "once" + whole.removeprefix("elemta"))
    link = tokens.invite(file, now=NOW)
    assert not redeem(file, "elemta" + link.removeprefix("once"))
    assert redeem(file, link)


def test_old_links_make_room(file: TokenFile) -> None:
    links = [tokens.invite(file, now=NOW) for _ in range(tokens.LINKS + 1)]
    assert len(file.read().links) == tokens.LINKS
    assert not redeem(file, links[0])
    assert redeem(file, links[1])


def test_a_secret_in_a_text_is_masked(file: TokenFile) -> None:
    whole, link = issue(file), tokens.invite(file, now=NOW)
    told = tokens.masked(f'{{"token":"{whole}","once":"{link}"}}')
    for text in (whole, link):
        assert text not in told
        found = tokens.parse(text)
        assert found is not None
        assert found.secret not in told
        assert found.id in told
