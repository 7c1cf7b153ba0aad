from __future__ import annotations

import pytest

from elemta.protocol import (
    MECHANISMS,
    Credentials,
    Mechanism,
    begin,
    challenge,
    login_responses,
    plain_response,
)
from elemta.protocol.bearer import OAuthBearer, XOAuth2
from elemta.protocol.sasl import Login, Plain, decode_base64, encode_base64
from elemta.protocol.scram import Scram
from tests.protocol.test_scram import Kept

BOB = Credentials("bob", "sécret", "alice")


def test_plain_is_one_response_initial_or_not() -> None:
    assert Plain().respond(plain_response(BOB)) == BOB
    plain = Plain()
    assert plain.respond(None) == b""
    assert plain.respond(b"\0tim\0tanstaaftanstaaf") == Credentials("tim", "tanstaaftanstaaf")


def test_login_is_two_responses() -> None:
    login = Login()
    assert login.respond(None) == b"Username:"
    user, password = login_responses(BOB)
    assert login.respond(user) == b"Password:"
    assert login.respond(password) == Credentials("bob", "sécret")


def test_login_takes_the_user_as_initial_response() -> None:
    login = Login()
    assert login.respond(b"bob") == b"Password:"


@pytest.mark.parametrize(
    ("mechanism", "response"),
    [
        (Plain(), b""),
        (Plain(), b"bob"),
        (Plain(), b"a\0b\0c\0d"),
        (Plain(), b"\0\0secret"),
        (Plain(), b"\0bob\0"),
        (Plain(), b"\0bob\0\xff"),
        (Plain(), b"\0bob\0" + b"x" * 256),
        (Login(), b""),
        (Login(), b"bo\0b"),
        (Login(), b"\xff"),
        (Login(), b"x" * 256),
    ],
)
def test_what_no_client_says_is_refused(mechanism: Mechanism, response: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        mechanism.respond(response)


def test_a_mechanism_is_found_by_its_name() -> None:
    made = {name: type(begin(name, lambda: "nonce", None, ())) for name in MECHANISMS}
    assert made == {
        "SCRAM-SHA-256-PLUS": Scram,
        "SCRAM-SHA-256": Scram,
        "OAUTHBEARER": OAuthBearer,
        "XOAUTH2": XOAuth2,
        "PLAIN": Plain,
        "LOGIN": Login,
    }


def test_who_says_a_password_hears_nothing_but_our_answer() -> None:
    for mechanism in (Plain(), Login()):
        assert mechanism.refuse() is None
        with pytest.raises(NotImplementedError):
            mechanism.give(Kept())


def test_names_are_prepared_and_passwords_are_not() -> None:
    said = plain_response(Credentials("\u2168", "\u2168", "\uff41"))
    assert Plain().respond(said) == Credentials("IX", "\u2168", "a")
    login = Login()
    login.respond("\u2168".encode())
    assert login.respond("\u2168".encode()) == Credentials("IX", "\u2168")


def test_a_password_is_not_shown() -> None:
    assert "sécret" not in repr(BOB)
    assert "bob" in repr(BOB)


def test_base64_is_read_strictly() -> None:
    assert decode_base64(encode_base64(b"\x00\xff")) == b"\x00\xff"
    assert decode_base64(b"") == b""
    for text in (b"YQ", b"YQ=", b"Y Q==", b"YQ==YQ==", b"Y!Q==", b"=", b"\xff\xff\xff\xff"):
        assert decode_base64(text) is None


def test_a_challenge_is_a_reply() -> None:
    assert bytes(challenge(b"Username:")) == b"334 VXNlcm5hbWU6\r\n"
    assert bytes(challenge(b"")) == b"334 \r\n"
