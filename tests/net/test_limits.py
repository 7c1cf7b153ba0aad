from __future__ import annotations

from contextlib import ExitStack

import pytest

from elemta.net.limits import Limit, TooManyError, network


def test_each_key_has_its_own_places() -> None:
    limit = Limit(per_key=2, total=10)
    with limit.hold("192.0.2.1"), limit.hold("192.0.2.1"), limit.hold("192.0.2.2"):
        with (
            pytest.raises(TooManyError, match=r"^2 of 192\.0\.2\.1$") as caught,
            limit.hold("192.0.2.1"),
        ):
            pytest.fail("there was no place")
        assert caught.value.key == "192.0.2.1"
        assert caught.value.limit == 2
        assert limit.count("192.0.2.1") == 2
        assert limit.count("192.0.2.2") == 1
        assert limit.held == 3


def test_all_together_have_so_many_places() -> None:
    limit = Limit(per_key=2, total=3)
    with ExitStack() as stack:
        for key in "abc":
            stack.enter_context(limit.hold(key))
        with pytest.raises(TooManyError, match=r"^3 in all$") as caught, limit.hold("d"):
            pytest.fail("there was no place")
        assert caught.value.key is None
        assert limit.count("d") == 0


def test_a_place_is_given_back_whatever_happens() -> None:
    limit = Limit(per_key=1, total=1)
    for _ in range(3):
        with pytest.raises(RuntimeError), limit.hold("a"):
            raise RuntimeError
    assert limit.held == 0
    assert limit.count("a") == 0


def test_who_holds_nothing_takes_no_memory() -> None:
    limit = Limit(per_key=1, total=1000)
    for number in range(1000):
        with limit.hold(str(number)):
            assert limit.keys == 1
    assert limit.keys == 0


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("", ""),
        ("no:address", "no:address"),
    ],
)
def test_a_client_is_its_network(address: str, key: str) -> None:
    assert network(address) == key


@pytest.mark.parametrize(
    ("address", "bits", "key"),
    [
        ("192.0.2.77", (24, 64), "192.0.2.0/24"),
        ("192.0.2.77", (8, 64), "192.0.0.0/8"),
        ("192.0.2.77", (32, 64), "192.0.2.77"),
        ("2001:db8:1:2:3::4", (24, 48), "2001:db8:1::/48"),
        ("2001:db8:1:2:3::4", (24, 128), "2001:db8:1:2:3::4/128"),
        ("", (24, 48), ""),
        ("no:address", (24, 48), "no:address"),
        ("no address\0", (24, 48), "no address\0"),
    ],
)
def test_a_client_can_be_as_large_a_network_as_one_likes(
    address: str, bits: tuple[int, int], key: str
) -> None:
    assert network(address, *bits) == key
