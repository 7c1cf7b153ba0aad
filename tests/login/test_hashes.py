from __future__ import annotations

import base64
import hashlib
import re

import argon2
import pytest

from elemta.login import (
    check_hash,
    costs,
    decoy,
    hash_app_password,
    hash_password,
    make_app_password,
    verify_password,
)

CHEAP = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)


def scrypt(password: str, logarithm: int = 10, size: int = 8) -> str:
    salt = b"0123456789abcdef"
    told = hashlib.scrypt(password.encode(), salt=salt, n=1 << logarithm, r=size, p=1, dklen=32)
    parts = [base64.b64encode(each).decode().rstrip("=") for each in (salt, told)]
    return f"$scrypt$ln={logarithm},r={size},p=1${parts[0]}${parts[1]}"


def test_a_password_is_told_from_any_other_by_its_hash() -> None:
    kept = hash_password("correct horse")
    assert kept.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert kept != hash_password("correct horse")
    assert check_hash(kept) == kept
    assert verify_password(kept, "correct horse")
    assert not verify_password(kept, "correct house")


def test_a_hash_itself_is_no_password() -> None:
    """Fault 21 of the original: what was stored was taken for what it was made of."""
    for kept in (hash_password("correct horse"), scrypt("correct horse")):
        assert not verify_password(kept, kept)


def test_hashes_of_dovecot_are_taken_with_their_scheme_before_them() -> None:
    kept = CHEAP.hash("correct horse")
    assert check_hash("{ARGON2ID}" + kept) == kept


def test_scrypt_is_taken_too() -> None:
    kept = check_hash(scrypt("correct horse"))
    assert verify_password(kept, "correct horse")
    assert not verify_password(kept, "correct house")


@pytest.mark.parametrize(
    "kept",
    [
        "",
        "correct horse",
        "$2y$10$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234",
        "$6$salt$abcdefgh",
        "{SSHA}c29tZXRoaW5n",
        "{PLAIN}correct horse",
        argon2.PasswordHasher(1, 64, 1, type=argon2.Type.I).hash("x", salt=b"sixteen octets.."),
        "$argon2id$v=19$m=9999999,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$" + "A" * 43,
        "$argon2id$v=19$m=19456,t=99,p=1$c29tZXNhbHRzb21lc2FsdA$" + "A" * 43,
        "$scrypt$ln=9,r=8,p=1$MDEyMzQ1Njc4OWFiY2RlZg$" + "A" * 43,
        "$scrypt$ln=20,r=99,p=1$MDEyMzQ1Njc4OWFiY2RlZg$" + "A" * 43,
        "$scrypt$ln=10,r=8,p=1$MDEyMzQ1Njc4$" + "A" * 45,
    ],
)
def test_other_hashes_are_refused_without_being_said(kept: str) -> None:
    with pytest.raises(ValueError, match=r"expected|may take") as refused:
        check_hash(kept)
    assert not kept or kept not in str(refused.value)


def test_a_decoy_costs_as_much_as_what_it_is_like_and_is_nobodys() -> None:
    for kept in (CHEAP.hash("x"), scrypt("x", 11), hash_password("x")):
        other = check_hash(decoy(kept))
        assert other != kept
        assert costs(other) == costs(kept)
        assert not verify_password(other, "x")
    assert costs(decoy()) == costs(hash_password("x"))


def test_an_app_password_is_known_however_it_is_typed() -> None:
    made = make_app_password()
    assert re.fullmatch(r"([a-z2-9]{4}-){6}[a-z2-9]{4}", made)
    assert made != make_app_password()
    kept = hash_app_password(made)
    assert hash_app_password(made.replace("-", "")) == kept
    assert hash_app_password(made.replace("-", " ").upper()) == kept
    assert hash_app_password(made[:-1]) != kept
    assert made not in kept


def test_a_decoy_of_what_nobody_could_have_made_costs_what_ours_do() -> None:
    impossible = check_hash("$argon2id$v=19$m=4,t=1,p=1$c29tZXNhbHQ$aGFzaGhhc2hoYXNo")
    assert not verify_password(impossible, "x")
    assert costs(decoy(impossible)) == costs(hash_password("x"))
