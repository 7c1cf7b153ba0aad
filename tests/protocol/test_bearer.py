from __future__ import annotations

import json

import pytest

from elemta.protocol import Token, Unproved
from elemta.protocol.bearer import OAuthBearer, XOAuth2

KINDS = (OAuthBearer, XOAuth2)
#: RFC 7628 §4.1.
SHOWN = (
    b"n,a=user@example.com,\1host=server.example.com\1port=143\1"
    b"auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\1\1"
)
TOKEN = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="


def test_a_token_is_shown() -> None:
    assert OAuthBearer().respond(SHOWN) == Token("user@example.com", TOKEN)
    shown = f"user=someuser@example.com\1auth=Bearer {TOKEN}\1\1".encode()
    assert XOAuth2().respond(shown) == Token("someuser@example.com", TOKEN)


def test_a_token_is_not_printed() -> None:
    assert TOKEN not in repr(OAuthBearer().respond(SHOWN))


def test_a_token_may_speak_for_itself_and_names_may_be_written_otherwise() -> None:
    assert OAuthBearer().respond(b"n,,\1auth=bearer abc\1\1") == Token("", "abc")
    assert OAuthBearer().respond(b"y,a=a=2Cb,\1auth=BEARER  abc\1\1") == Token("a,b", "abc")


@pytest.mark.parametrize("kind", KINDS)
def test_the_client_may_wait_to_be_asked(kind: type[OAuthBearer | XOAuth2]) -> None:
    assert kind().respond(None) == b""


@pytest.mark.parametrize(
    ("kind", "shown", "status"),
    [
        (OAuthBearer, SHOWN, "invalid_token"),
        (XOAuth2, b"user=a\1auth=Bearer abc\1\1", "401"),
    ],
)
@pytest.mark.parametrize("answer", [b"\1", b"", b"whatever\xff"])
def test_who_is_refused_is_told_why_and_answers_that(
    kind: type[OAuthBearer | XOAuth2], shown: bytes, status: str, answer: bytes
) -> None:
    mechanism = kind()
    assert isinstance(mechanism.respond(shown), Token)
    assert json.loads(mechanism.refuse()) == {"status": status, "schemes": "bearer"}
    assert mechanism.respond(answer) == Unproved()


def test_who_shows_no_token_is_told_what_one_would_be() -> None:
    mechanism = OAuthBearer()
    assert mechanism.respond(b"n,,\1auth=\1\1") == OAuthBearer.challenge
    assert mechanism.respond(b"\1") == Unproved()


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\xff",
        b"n,,\1\1",
        b"n,,\1auth=Bearer abc\1",
        b"n,,\1auth=Bearer abc\1\1\1x",
        b"n,,\1host=x\1\1",
        b"n,,\1auth=Basic abc\1\1",
        b"n,,\1auth=Bearer a b\1\1",
        b"n,,\1auth=Bearer a\r\nb\1\1",
        b"n,,\1auth=Bearer abc\1auth=Bearer abc\1\1",
        b"n,,\1noequals\1auth=Bearer abc\1\1",
        b"p=tls-unique,,\1auth=Bearer abc\1\1",
        b"n,a==,\1auth=Bearer abc\1\1",
        b"n,a=" + b"x" * 256 + b",\1auth=Bearer abc\1\1",
    ],
)
def test_what_no_client_says_is_refused(said: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        OAuthBearer().respond(said)
    with pytest.raises(ValueError, match=r"."):
        XOAuth2().respond(said.replace(b"n,,", b"user=a"))


@pytest.mark.parametrize("said", [b"a\1auth=Bearer abc\1\1", b"user=\1auth=Bearer abc\1\1"])
def test_xoauth2_names_somebody(said: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        XOAuth2().respond(said)
