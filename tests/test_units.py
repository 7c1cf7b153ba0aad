from __future__ import annotations

import pytest

from elemta.units import Octets, Seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250 ms", 0.25), ("90 s", 90), ("5 min", 300), ("1.5 h", 5400), ("5d", 432000), ("0 s", 0)],
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert Seconds.parse(text) == seconds


@pytest.mark.parametrize(
    ("text", "octets"), [("512 B", 512), ("64 KiB", 65536), ("1.5 MiB", 1572864), ("2GiB", 2**31)]
)
def test_a_size_is_a_number_and_a_unit(text: str, octets: int) -> None:
    size = Octets.parse(text)
    assert size == octets
    assert isinstance(size, int)


@pytest.mark.parametrize(
    "text", ["", "5", "min", "5 m", "5 MIN", "-5 min", "5  min", "5 min ", "٥ s"]
)
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="expected a number and one of ms, s, min, h, d"):
        Seconds.parse(text)


@pytest.mark.parametrize("text", ["50", "50 MB", "50 mib", "1e3 B", "9" * 400 + " d"])
def test_anything_else_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="expected a number"):
        Octets.parse(text)
