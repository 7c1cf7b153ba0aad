from __future__ import annotations

import random
import re
import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from elemta.plugins.built_in.patterns import Pattern


def _wrapped(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    quantifiers = st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{1,}", "*?", ""])
    return st.one_of(
        st.lists(inner, max_size=3).map("".join),
        st.lists(inner, min_size=2, max_size=3).map("|".join).map(lambda each: f"({each})"),
        st.tuples(inner, quantifiers).map(lambda each: f"(?:{each[0]}){each[1]}"),
    )


def _patterns(*atoms: str) -> st.SearchStrategy[str]:
    return st.recursive(st.sampled_from(atoms), _wrapped, max_leaves=6)


ATOMS = ("a", "b", "K", "é", ".", "[^a]", "[]a-]", r"\.", r"\x62", "^", "$")
#: ſ and the sign of Kelvin are small letters of s and k, but not by `str.lower`.
TEXTS = st.text(st.sampled_from("abAB .-]kK\n\u212a\u017f\u00e9\u00c9\U0001f600"), max_size=8)


def _agrees(written: str, text: str, *, case: bool) -> None:
    # To `re`, $ is before a line end at the end, too.
    flags = re.DOTALL if case else re.DOTALL | re.IGNORECASE
    want = re.search(written.replace("$", r"\Z"), text, flags) is not None
    assert Pattern(written, case=case).search(text) == want


@given(_patterns(*ATOMS), TEXTS, st.booleans())
def test_it_finds_what_re_finds(written: str, text: str, case: bool) -> None:
    _agrees(written, text, case=case)


@given(
    _patterns(*ATOMS, r"\w", r"\W", r"\d", r"\s", r"\b", r"\B"),
    st.text(st.sampled_from("abAB .-]kK_0\t\n"), max_size=8),
    st.booleans(),
)
def test_words_are_of_ascii(written: str, text: str, case: bool) -> None:
    assume(text or r"\B" not in written)  # of which versions of Python think differently
    _agrees(written, text, case=case)


@pytest.mark.parametrize(
    ("written", "text", "found"),
    [
        (r"\bviagra\b", "buy Viagra now", True),
        (r"\bviagra\b", "viagrant", False),
        (r"\.(exe|scr)$", "invoice.pdf.EXE", True),
        (r"\.(exe|scr)\z", "invoice.pdf.exe\n", False),
        ("^re:", "Re: hello", True),
        ("^$", "", True),
        ("a.b", "a\nb", True),
        ("a{x", "a{x", True),
        ("[[]b", "[b", True),
        ("a|", "", True),
        ("ÉTÉ", "cet été", True),
        (r"\x{e9}t", "été", True),
        (r"^\pL+$", "Привет", True),
        (r"\w", "Привет", False),
        (r"^\p{Cyrillic}", "Привет", True),
        ("^(?-i:A)b$", "AB", True),
        ("^(?-i:A)b$", "ab", False),
        ("^..$", "\U0001f600\ufffd", True),
        ("^a.b$", "a\udc80b", True),  # half of a pair
        ("a\0b", "a\0B", True),
    ],
)
def test_what_people_write(written: str, text: str, found: bool) -> None:
    assert Pattern(written).search(text) is found


def test_case_counts_where_it_is_wanted() -> None:
    assert Pattern("Straße", case=True).search("die Straße")
    assert not Pattern("Straße", case=True).search("die STRAßE")
    assert Pattern("Straße").search("die STRAẞE")


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        (r"(a)\1", r"invalid escape sequence: \1 (says RE2)"),
        ("(?=a)", "invalid perl operator: (?="),
        ("(?<!a)b", "invalid"),
        (r"a\Z", r"invalid escape sequence: \Z"),
        ("a++", "bad repetition operator: ++"),
        ("a**", "bad repetition operator: **"),
        ("*a", "no argument for repetition operator: *"),
        ("(a", "missing ): (a"),
        ("a)", "unexpected ): a)"),
        ("[a", "missing ]: [a"),
        ("a{3,2}", "invalid repetition size: {3,2}"),
        ("a\\", "trailing \\"),
        (r"\é", r"invalid escape sequence: \é"),
        ("[z-a]", "invalid character class range: z-a"),
        ("(a{99}){99}", "invalid repetition size: {99}"),
        ("(){9999}", "invalid repetition size: {9999}"),
        ("a\ud800", "half of a surrogate pair"),
        (r"(\pL.){100}", "pattern too large"),
        ("a" * 100_000, "pattern too large"),
        ("(?:a?){1000}" * 3, "pattern too large: 6004 steps, and at most 4000 are taken"),
        ("(a" * 100_000, "missing ): (a(a"),
    ],
)
def test_what_cannot_be_had_is_refused(
    written: str, problem: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)) as refused:
        Pattern(written)
    assert not isinstance(refused.value, UnicodeError)
    assert capfd.readouterr() == ("", ""), "the caller alone says so"


@pytest.mark.parametrize(
    "written",
    [
        "(a+)+$",
        "(a|a?)+b",
        "(a|aa)*(a+)+c",
        ".*.*.*.*=x",
        "(x+x+)+y",
        "(?:a|x)*a(?:a|x){200}c",
        "(a?){1000}z",
    ],
)
def test_no_text_takes_long(written: str, capfd: pytest.CaptureFixture[str]) -> None:
    pattern, chance = Pattern(written), random.Random(1)
    began = time.process_time()
    for letters in ("a", "ax"):
        text = "".join(chance.choice(letters) for _ in range(10_000))
        assert not pattern.search(text + "!")
    assert time.process_time() - began < 5, "hours, for one that goes back"
    assert capfd.readouterr() == ("", ""), "also if it runs out of its memory meanwhile"


def test_what_it_remembers_is_bounded() -> None:
    pattern, chance = Pattern("x[^a].{4}y"), random.Random(1)
    _search_strange(pattern, chance)
    before = _resident()
    _search_strange(pattern, chance)
    assert _resident() - before < 4e6
    assert pattern.search("xb1234y")


def _search_strange(pattern: Pattern, chance: random.Random) -> None:
    for _ in range(300):
        text = "".join(chr(chance.randrange(200, 50_000)) + chance.choice("xz") for _ in range(500))
        assert not pattern.search(text)


def _resident() -> int:
    """Octets of this process that are in memory."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * 4096
