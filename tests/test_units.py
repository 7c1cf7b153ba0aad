from __future__ import annotations

import pytest

from elemta.units import Frequency, Octets, Seconds


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


@pytest.mark.parametrize(
    ("text", "count", "seconds"),
    [("100/h", 100, 3600), ("100/1 h", 100, 3600), ("5 / 10 s", 5, 10), ("1/1.5 d", 1, 129600)],
)
def test_a_frequency_is_so_many_in_a_time(text: str, count: int, seconds: float) -> None:
    frequency = Frequency.parse(text)
    assert (frequency.count, frequency.seconds) == (count, seconds)
    assert Frequency.parse(str(frequency)) == frequency
    assert hash(Frequency.parse(str(frequency))) == hash(frequency)


def test_frequencies_differ_in_count_or_time() -> None:
    assert Frequency(1, Seconds(2)) != Frequency(2, Seconds(2))
    assert Frequency(1, Seconds(2)) != Frequency(1, Seconds(1))
    assert Frequency(1, Seconds(2)) != "1/2 s"
    assert repr(Frequency(1, Seconds(2))) == "Frequency(1, 2.0)"


@pytest.mark.parametrize(
    "text", ["", "5", "5/", "/h", "5 per h", "0/h", "5/0 s", "5/m", "5/1 m", "-1/h", "1.5/h"]
)
def test_anything_else_is_no_frequency(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        Frequency.parse(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("0 s", 0), ("90 s", 90), ("5 min", 300), ("4 h", 14400), ("36 h", 129600)),
        *(("5 d", 432000), ("250 ms", 0.25), ("0.00012 s", 0.00012)),
    ],
)
def test_a_duration_is_written_as_people_write_it(text: str, seconds: float) -> None:
    assert Seconds(seconds).written == text
    assert Seconds.parse(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "octets"),
    [("0 B", 0), ("500 B", 500), ("64 KiB", 65536), ("1025 KiB", 1049600), ("2 GiB", 2**31)],
)
def test_a_size_is_written_as_people_write_it(text: str, octets: int) -> None:
    assert Octets(octets).written == text
    assert Octets.parse(text) == octets


def test_a_frequency_is_written_as_people_write_it() -> None:
    assert Frequency(100, Seconds(3600)).written == "100/1 h"
