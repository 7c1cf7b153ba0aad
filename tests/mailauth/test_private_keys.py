from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from elemta.mailauth import (
    KeyFileError,
    generate_key,
    key_record,
    parse_private_key,
    read_private_key,
    zone_entry,
)
from elemta.mailauth.keys import key_of
from tests.mailauth.signing import ed25519_key, rsa_key

if TYPE_CHECKING:
    from pathlib import Path

OTHER = ec.generate_private_key(ec.SECP256R1())


def test_keys_are_read_as_programs_write_them() -> None:
    found = parse_private_key(rsa_key()[0])  # PKCS#1
    assert (found.kind, found.bits, key_record(found)) == ("rsa", 1024, rsa_key()[1])
    assert key_record(parse_private_key(found.pem)) == rsa_key()[1]  # PKCS#8
    bare = parse_private_key(ed25519_key()[0] + b"\n")  # as dknewkey writes it
    assert (bare.kind, bare.bits, key_record(bare)) == ("ed25519", 256, ed25519_key()[1])
    assert key_record(parse_private_key(bare.pem)) == ed25519_key()[1]


@pytest.mark.parametrize(
    ("octets", "problem"),
    [
        (b"", "neither PEM nor"),
        (b"hello", "neither PEM nor"),
        (base64.b64encode(b"x" * 31), "neither PEM nor"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "can be read"),
        (
            OTHER.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            "a kind that DKIM does not have",
        ),
        (
            OTHER.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")),
            "encrypted",
        ),
        (
            OTHER.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "the public part",
        ),
    ],
    ids=range(7),
)
def test_what_is_no_key_is_told_without_its_content(octets: bytes, problem: str) -> None:
    with pytest.raises(KeyFileError, match=problem) as raised:
        parse_private_key(octets)
    assert octets.decode()[:20] not in str(raised.value) or not octets


@pytest.mark.parametrize(("fewest", "most"), [(1025, 4096), (512, 1023)])
def test_a_key_that_others_will_not_take_is_none(
    fewest: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("elemta.mailauth.private_keys.FEWEST_BITS", fewest)
    monkeypatch.setattr("elemta.mailauth.private_keys.MOST_BITS", most)
    with pytest.raises(KeyFileError, match=f"1024 bits, where {fewest} to {most} can be verified"):
        parse_private_key(rsa_key()[0])


def test_a_file_that_others_may_read_is_none_unless_that_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(rsa_key()[0])
    for mode in (0o640, 0o604, 0o620):
        path.chmod(mode)
        with pytest.raises(KeyFileError, match=rf"\(mode {mode:04o}\): chmod 0600"):
            read_private_key(path)
        assert read_private_key(path, insecure=True).bits == 1024
    path.chmod(0o600)
    assert read_private_key(path).bits == 1024


def test_who_may_not_read_it_is_told_whose_it_must_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> int:  # whom root runs the tests as may read all
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", forbidden)
    with pytest.raises(KeyFileError, match="denied: whom the server runs as must own it"):
        read_private_key(tmp_path / "key")


def test_what_is_no_file_is_none(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="No such file"):
        read_private_key(tmp_path / "nothing")
    with pytest.raises(KeyFileError, match="no file"):
        read_private_key(tmp_path)
    large = tmp_path / "large"
    large.touch(0o600)
    large.write_bytes(b"x" * 20_000)
    with pytest.raises(KeyFileError, match="more than 16384 octets"):
        read_private_key(large)


def test_a_key_shows_itself_nowhere() -> None:
    key = generate_key("rsa")
    assert repr(key) == "PrivateKey(rsa, 2048 bits)"
    assert repr(generate_key("ed25519")) == "PrivateKey(ed25519, 256 bits)"


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_the_record_is_one_that_verifies(kind: str) -> None:
    key = generate_key("rsa" if kind == "rsa" else "ed25519")
    public = key_of(key_record(key).encode())
    assert public.verifies(key.sign(b"x" * 32), b"x" * 32)
    assert not public.verifies(key.sign(b"x" * 32), b"y" * 32)


def test_a_record_stands_in_a_zone_in_strings_that_the_dns_can_take() -> None:
    assert zone_entry("a.b", "v=DKIM1") == 'a.b. IN TXT "v=DKIM1"'
    text = "x" * 255 + "y" * 45
    assert zone_entry("a.b", text).split('"')[1::2] == ["x" * 255, "y" * 45]
    assert zone_entry("a.b", text).endswith("\n)")
