"""`elemta.login.scram`."""

import base64

import pytest

from elemta.login import ScramVerifier

#: RFC 7677 §3: user "user", password "pencil".
SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")


def test_a_verifier_is_that_of_rfc_7677() -> None:
    import hashlib
    import hmac

    made = ScramVerifier.of("pencil", salt=SALT, iterations=4096)

    first = "n=user,r=rOprNGfwEbeRWgbNEkqO"
    server = (
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    said = f"{first},{server},{last}".encode()
    signature = hmac.digest(made.stored_key, said, "sha256")
    proof = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
    assert hashlib.sha256(client_key).digest() == made.stored_key
    assert hmac.digest(made.server_key, said, "sha256") == base64.b64decode(
        "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    )


def test_it_is_read_as_it_is_written() -> None:
    made = ScramVerifier.of("pencil", iterations=4096)
    assert ScramVerifier.parse(str(made)) == made
    assert made != ScramVerifier.of("pencil", iterations=4096), "each has a salt of its own"


def test_it_does_not_show_its_keys() -> None:
    assert repr(ScramVerifier.of("pencil", iterations=4096)) == "ScramVerifier(4096 iterations)"


GOOD = str(ScramVerifier.of("pencil", salt=SALT, iterations=4096))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pencil",
        GOOD.replace("SHA-256", "SHA-1"),
        GOOD.replace("4096", "-4096"),
        GOOD.replace("4096", "٤٠٩٦"),
        GOOD.replace("4096", "1"),
        GOOD.replace("4096", "99999999"),
        GOOD.replace("4096:W22ZaJ0SNY7soEsUEjb6gQ==", "4096:"),
        GOOD + "$",
        GOOD[:-1],
        GOOD.rpartition(":")[0] + ":AAAA",
    ],
)
def test_what_is_none_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="SCRAM") as refused:
        ScramVerifier.parse(text)
    assert "gQ==" not in str(refused.value)
