"""Text beyond ASCII in fields of ASCII."""

from __future__ import annotations

import re
from email.header import decode_header

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from elemta.message import encoded, fold
from elemta.message.words import LONGEST


def decoded(text: str) -> str:
    """As a reader shows it; spaces between encoded words are none (RFC 2047 §6.2)."""
    word = r"=\?utf-8\?[qb]\?[^ ?]+\?="
    text = re.sub(rf"({word}) +(?={word})", r"\1", text)
    return re.sub(word, lambda found: decode_header(found[0])[0][0].decode(), text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("plain  text", "plain  text"),
        ("[SPAM] Grüße", "[SPAM] =?utf-8?q?Gr=C3=BC=C3=9Fe?="),
        ("Grüße aus Köln", "=?utf-8?q?Gr=C3=BC=C3=9Fe?= aus =?utf-8?q?K=C3=B6ln?="),
        ("Zoë  Müller", "=?utf-8?q?Zo=C3=AB__M=C3=BCller?="),
        ("你好", "=?utf-8?b?5L2g5aW9?="),
        (" é ", " =?utf-8?b?w6k=?= "),
        ("a\té", "a =?utf-8?b?w6k=?="),
    ],
)
def test_words_that_are_not_ascii_are_encoded_and_no_others(text: str, wanted: str) -> None:
    assert encoded(text) == wanted


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
@example("ä" * 200)
@example("x" * 500 + "ä")
@example("\U0001f600" * 40)
def test_what_is_encoded_is_what_was_said(text: str) -> None:
    said = encoded(text)
    assert said.isascii()
    if text.isascii():
        assert said == text
        return
    words = re.findall(r"=\?utf-8\?[qb]\?[^ ?]*\?=", said)
    assert max(map(len, words)) <= LONGEST
    if "=?" not in text:  # else the reader cannot know what the author meant
        assert decoded(said) == re.sub(r"[\x00-\x1f\x7f]", " ", text)


def test_a_lone_surrogate_is_no_character_and_harms_nobody() -> None:
    assert encoded("a\udc80") == "=?utf-8?q?a=3F?="


def test_a_long_text_is_encoded_at_once_and_folded_within_the_lines() -> None:
    field = fold("Subject", encoded("ü" * 64_000))
    assert max(map(len, field.split(b"\r\n"))) <= 90
    assert encoded("x" * 64_000 + "ü").endswith("?=")
