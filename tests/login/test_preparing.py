from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta.login import prepare_name, prepare_password


@pytest.mark.parametrize(
    ("typed", "compared"),
    [
        ("correct horse", "correct horse"),
        ("Case and  spaces stay ", "Case and  spaces stay "),
        ("nai\u0308ve", "na\u00efve"),
        ("no\u00a0break\u3000wide", "no break wide"),
        ("\uff21 stays wide", "\uff21 stays wide"),
        ("\U0001f511 key", "\U0001f511 key"),
    ],
)
def test_a_password_is_the_same_however_a_keyboard_writes_it(typed: str, compared: str) -> None:
    assert prepare_password(typed) == compared
    assert prepare_password(unicodedata.normalize("NFD", typed)) == compared


@pytest.mark.parametrize("typed", ["", "a\0b", "a\nb", "a\x7fb", "\x85", "x" * 1025, "\udc80"])
def test_what_is_no_password_is_refused_without_being_said(typed: str) -> None:
    with pytest.raises(ValueError, match="a password") as refused:
        prepare_password(typed)
    assert not typed or typed not in str(refused.value)


@pytest.mark.parametrize(
    ("typed", "compared"),
    [
        ("Bob@Example.ORG", "bob@example.org"),
        ("\uff22ob", "bob"),
        ("JO\u0308RG", "j\u00f6rg"),
        ("\ufb01ona", "fiona"),
        ("\u1e9e", "\u00df"),
        ("bob+tag", "bob+tag"),
    ],
)
def test_a_name_is_looked_up_in_small_letters_and_without_ligatures(
    typed: str, compared: str
) -> None:
    assert prepare_name(typed) == compared == prepare_name(compared)


@pytest.mark.parametrize("typed", ["", "a b", "a\u00a0b", "a\tb", "a\0", "x" * 256, "\u202ebob"])
def test_what_is_no_name_is_refused(typed: str) -> None:
    with pytest.raises(ValueError, match="a name"):
        prepare_name(typed)


@given(st.text(max_size=20))
def test_to_prepare_again_changes_nothing(typed: str) -> None:
    for prepare in (prepare_name, prepare_password):
        try:
            once = prepare(typed)
        except ValueError:
            continue
        assert prepare(once) == once
