from __future__ import annotations

import pytest

from elemta.net.ldap import ber
from elemta.net.ldap.ber import Elements


@pytest.mark.parametrize(
    ("value", "octets"),
    [
        (0, "020100"),
        (127, "02017f"),
        (128, "02020080"),
        (256, "02020100"),
        (-1, "0201ff"),
        (-128, "020180"),
        (-129, "0202ff7f"),
    ],
)
def test_a_number_is_as_short_as_it_can_be(value: int, octets: str) -> None:
    encoded = ber.number(value)  # X.690 §8.3
    assert Elements(encoded).take_number() == value
    assert encoded.hex() == octets


@pytest.mark.parametrize("size", [0, 1, 127, 128, 255, 256, 65535, 65536])
def test_what_is_written_is_read_whatever_its_size(size: int) -> None:
    whole = ber.text(b"x" * size) + ber.number(7)
    elements = Elements(whole)
    assert elements.take(ber.OCTETS) == b"x" * size
    assert elements
    assert elements.take_number() == 7
    assert not elements


def test_a_length_is_known_once_its_octets_are_there() -> None:
    whole = ber.text(b"x" * 300)
    assert [ber.measure(whole[:n]) for n in range(4)] == [None] * 4
    assert ber.measure(whole[:4]) == (4, 304)


@pytest.mark.parametrize(
    "octets",
    ["3080", "30ff", "308500000000", "0403616263"[:-2], "05", "", "0200", "0209" + "00" * 9],
)
def test_what_is_no_element_is_refused(octets: str) -> None:
    elements = Elements(bytes.fromhex(octets))
    tag = int(octets[:2] or "05", 16)
    take = elements.take_number if tag == ber.INTEGER else elements.take
    with pytest.raises(ValueError, match=r"element|length|number"):
        take(tag)


def test_another_element_than_was_expected_is_refused() -> None:
    with pytest.raises(ValueError, match="expected an element 0x02, not 0x04"):
        Elements(ber.text("x")).take_number()
