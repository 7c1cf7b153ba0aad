from __future__ import annotations

import pytest

from elemta.protocol import prepare
from elemta.protocol.saslprep import read_saslname


@pytest.mark.parametrize(
    ("name", "prepared"),
    [
        # RFC 4013 §3.
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        # Others.
        ("a b", "a b"),
        ("a\u00a0b", "a b"),
        ("bücher", "bücher"),
        ("bu\u0308cher", "bücher"),
        ("\u0627\u0628", "\u0627\u0628"),
        ("\U0001f600", "\U0001f600"),  # younger than Unicode 3.2
    ],
)
def test_names_are_made_alike(name: str, prepared: str) -> None:
    assert prepare(name) == prepared
    assert prepare(prepared) == prepared


@pytest.mark.parametrize(
    "name",
    [
        "",
        "\u00ad",
        "\u0007",
        "a\nb",
        "\u0627\u0031",
        "a\u0627",
        "\u0627a\u0628",
        "\ue000",
        "\ufffd",
    ],
)
def test_what_is_in_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        prepare(name)


def test_a_comma_and_an_equals_sign_are_written_otherwise() -> None:
    assert read_saslname("a=2Cb=3Dc") == "a,b=c"
    assert read_saslname("=3D2C") == "=2C"
    for name in ("a=", "a=2c", "a=41", "=", "a=2", "a\0", "a=3Dé\0"):
        with pytest.raises(ValueError, match=r"."):
            read_saslname(name)
