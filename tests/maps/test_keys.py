from __future__ import annotations

import pytest

from elemta.maps import domain_keys, keys_of
from elemta.protocol import Mailbox


@pytest.mark.parametrize(
    ("local_part", "domain", "keys"),
    [
        ("Bob", "a.b.example", ["bob@a.b.example", "a.b.example", ".b.example", ".example"]),
        ("bob", "example", ["bob@example", "example"]),
        ("bob+Tag", "b.example", ["bob+tag@b.example", "bob@b.example", "b.example", ".example"]),
        ("+tag", "b.example", ["+tag@b.example", "b.example", ".example"]),
        ("a b", "[192.0.2.1]", ['"a b"@[192.0.2.1]', "[192.0.2.1]"]),
        ("Postmaster", "", ["postmaster"]),
    ],
)
def test_the_nearest_comes_first(local_part: str, domain: str, keys: list[str]) -> None:
    assert [*keys_of(Mailbox(local_part, domain), domain, "+")] == keys


def test_a_long_name_leaves_out_what_is_near_and_never_a_part_of_a_label() -> None:
    keys = [*domain_keys(f"{'a.' * 50}b.example")]
    assert len(keys) == 11
    assert keys[-2:] == [".b.example", ".example"]
    assert all(key.startswith(".a.") for key in keys[1:-2])
