from __future__ import annotations

import pytest

from elemta.plugins import AddHeader, rewritten


def test_a_field_is_added_with_the_folds_that_it_has() -> None:
    change = AddHeader("X-Sig", " v=1;\r\n\tb=abc\r\n  def", verbatim=True)
    assert change.octets() == b"X-Sig: v=1;\r\n\tb=abc\r\n  def\r\n"
    assert rewritten(b"A: b\r\n", [change]) == change.octets() + b"A: b\r\n"


def test_octets_that_are_no_text_stay_what_they_are() -> None:
    value = b" caf\xe9".decode("utf-8", "surrogateescape")
    assert AddHeader("X", value, verbatim=True).octets(utf8=True) == b"X: caf\xe9\r\n"


@pytest.mark.parametrize(
    "value",
    [
        *("a\r\nBcc: x", "a\nb", "a\n b", "a\rb", "a\0b", "a\r\n", "a\r\n \r\n b", "a\r\n\t"),
        "x" * 1000,
        "x\r\n " * 30_000 + "x",
    ],
)
def test_no_value_becomes_another_field_or_a_line_that_nobody_reads(value: str) -> None:
    with pytest.raises(ValueError, match="the field X"):
        AddHeader("X", value, verbatim=True)
