from __future__ import annotations

import random
import re
import time
import tracemalloc

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from elemta.plugins.built_in.patterns import MOST_STATES, Pattern


def _wrapped(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    quantifiers = st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{,2}", "{1,}", "*?", ""])
    return st.one_of(
        st.lists(inner, max_size=3).map("".join),
        st.lists(inner, min_size=2, max_size=3).map("|".join).map(lambda each: f"({each})"),
        st.tuples(inner, quantifiers).map(lambda each: f"(?:{each[0]}){each[1]}"),
    )


ATOMS = ["a", "b", "K", r"\w", r"\W", ".", "[^a]", "[]a-]", r"\.", r"\x62", "^", "$", r"\b", r"\B"]
WRITTEN = st.recursive(st.sampled_from(ATOMS), _wrapped, max_leaves=6)
#: ſ and the sign of Kelvin are small letters of s and k, but not by `str.lower`.
TEXTS = st.text(st.sampled_from("abAB .-]kK\u212a\u017f\u00e9"), max_size=8)


@given(WRITTEN, TEXTS, st.booleans())
def test_it_finds_what_re_finds(written: str, text: str, case: bool) -> None:
    assume(text or r"\B" not in written)  # of which versions of Python think differently
    flags = re.DOTALL if case else re.DOTALL | re.IGNORECASE
    pattern = Pattern(written, case=case)
    want = re.search(written, text, flags) is not None
    assert pattern.search(text) == want
    assert pattern.search(text) == want, "and so when it remembers"


@pytest.mark.parametrize(
    ("written", "text", "found"),
    [
        (r"\bviagra\b", "buy Viagra now", True),
        (r"\bviagra\b", "viagrant", False),
        (r"\.(exe|scr)$", "invoice.pdf.EXE", True),
        ("^re:", "Re: hello", True),
        ("^$", "", True),
        ("a{x", "a{x", True),
        ("[[]b", "[b", True),
        ("a|", "", True),
    ],
)
def test_what_people_write(written: str, text: str, found: bool) -> None:
    assert Pattern(written).search(text) is found


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        (r"(a)\1", "not known here"),
        ("(?=a)", "not known here"),
        ("(?P<name>a)", "not known here"),
        ("a++", "no need"),
        ("a**", "nothing to repeat"),
        ("*a", "nothing to repeat"),
        ("^*", "nothing to repeat"),
        ("(a", "a ( without its )"),
        ("a)", "a ) without its ("),
        ("[a", "a [ without its ]"),
        ("a{3,2}", "at least more than at most"),
        ("a\\", "not known here"),
        (r"\q", "bad escape"),
        ("[z-a]", "bad character range"),
        ("a" * (MOST_STATES + 1), "states"),
        ("(a{99}){99}", "states"),
        ("(){9999}", "repeats too much"),
        ("(" * 30 + ")" * 30, "groups within each other"),
    ],
)
def test_what_cannot_be_had_is_refused(written: str, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        Pattern(written)


def test_no_text_takes_long() -> None:
    began = time.process_time()
    for written in ("(a+)+$", "(a|a?)+b", "(a|aa)*(a+)+c", ".*.*.*.*=x"):
        assert not Pattern(written).search("a" * 5000 + "!")
    assert time.process_time() - began < 5, "hours, for one that goes back"


def test_what_it_remembers_is_bounded_and_forgotten_in_time() -> None:
    pattern, chance = Pattern("x..y|z.{4}y"), random.Random(1)
    tracemalloc.start()
    try:
        for _ in range(4):
            text = "".join(
                chr(chance.randrange(200, 50_000)) + chance.choice("xz") for _ in range(4000)
            )
            assert not pattern.search(text)
        assert tracemalloc.get_traced_memory()[0] < 8e6
    finally:
        tracemalloc.stop()
    assert pattern.search("x12y")
