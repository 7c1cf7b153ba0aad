from __future__ import annotations

import pytest

from elemta.login import ScramVerifier
from elemta.protocol import Credentials, Token
from elemta.protocol.bearer import OAuthBearer, XOAuth2
from elemta.protocol.sasl import Needs, Proof
from elemta.protocol.sasl_client import (
    LoginExchange,
    PlainExchange,
    ScramExchange,
    TokenExchange,
    best_exchange,
)
from elemta.protocol.scram import Scram

BOB = Credentials("bob", "sécret")
#: RFC 7677 §3.
PENCIL = Credentials("user", "pencil")
NONCE = "rOprNGfwEbeRWgbNEkqO"
SERVER_NONCE = NONCE + "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
SALT = "W22ZaJ0SNY7soEsUEjb6gQ=="
SERVER_FIRST = f"r={SERVER_NONCE},s={SALT},i=4096".encode()
CLIENT_FINAL = f"c=biws,r={SERVER_NONCE},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=".encode()
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_the_best_that_is_offered_is_taken() -> None:
    def best(*offered: str) -> str | None:
        found = best_exchange(frozenset(offered), BOB, NONCE)
        return found and found.name

    assert best("LOGIN", "PLAIN", "SCRAM-SHA-256", "CRAM-MD5") == "SCRAM-SHA-256"
    assert best("LOGIN", "PLAIN", "SCRAM-SHA-1") == "PLAIN"
    assert best("LOGIN", "XOAUTH2") == "LOGIN"
    assert best("GSSAPI") is None
    assert best() is None


def test_plain_is_said_at_once_and_never_more() -> None:
    plain = PlainExchange(BOB)
    assert plain.initial == "\0bob\0sécret".encode()
    assert plain.proven
    with pytest.raises(ValueError, match="told everything"):
        plain.respond(b"")


def test_login_is_a_word_for_each_challenge_and_no_third() -> None:
    login = LoginExchange(BOB)
    assert login.initial is None
    assert login.respond(b"Username:") == b"bob"
    assert login.respond(b"whatever") == "sécret".encode()
    assert login.proven
    with pytest.raises(ValueError, match="more than a name and a password"):
        login.respond(b"Shoe size:")


def test_scram_says_what_the_rfc_has_it_say() -> None:
    scram = ScramExchange(PENCIL, NONCE)
    assert scram.initial == b"n,,n=user,r=" + NONCE.encode()
    assert scram.respond(SERVER_FIRST) == CLIENT_FINAL
    assert not scram.proven
    assert scram.respond(SERVER_FINAL) == b""
    assert scram.proven
    with pytest.raises(ValueError, match="more than SCRAM has"):
        scram.respond(b"")


def test_scram_writes_names_so_that_they_can_be_told_from_what_is_around_them() -> None:
    scram = ScramExchange(Credentials("a=b,c", "x"), "n")
    assert scram.initial == b"n,,n=a=3Db=2Cc,r=n"


def test_scram_prepares_names_and_passwords_where_it_can() -> None:
    # A soft hyphen is nothing, and a letter for private use is nobody's business but theirs.
    scram = ScramExchange(Credentials("u\u00adser", "pen\u00adcil"), NONCE)
    assert scram.initial == b"n,,n=user,r=" + NONCE.encode()
    assert scram.respond(SERVER_FIRST) == CLIENT_FINAL
    assert ScramExchange(Credentials("\ue000", "x"), "n").initial == "n,,n=\ue000,r=n".encode()


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"", "no SCRAM"),
        (b"hello", "no SCRAM"),
        (b"ab=c", "no SCRAM"),
        (SERVER_FIRST + b",i=4096", "no SCRAM"),
        (b"m=x," + SERVER_FIRST, "extension"),
        (SERVER_FIRST.replace(b"r=r", b"r=s"), "a nonce that is not ours"),
        (SERVER_FIRST.replace(SERVER_NONCE.encode(), NONCE.encode()), "a nonce that is not ours"),
        (SERVER_FIRST.replace(SALT.encode(), b""), "s is missing"),
        (SERVER_FIRST.replace(SALT.encode(), b"???"), "s is missing"),
        (SERVER_FIRST.replace(SALT.encode(), "é".encode()), "s is missing"),
        (f"r={SERVER_NONCE},i=4096".encode(), "s is missing"),
        (SERVER_FIRST.replace(b"4096", b"4095"), "4095 iterations"),
        (SERVER_FIRST.replace(b"4096", b"100001"), "100001 iterations"),
        (SERVER_FIRST.replace(b"4096", b"many"), "wants 0 iterations"),
        (SERVER_FIRST.replace(b"4096", b"9" * 5000), "wants 0 iterations"),
        (SERVER_FIRST.replace(b",i=4096", b""), "wants 0 iterations"),
    ],
    ids=str,
)
def test_a_server_that_asks_for_something_odd_learns_nothing(message: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        ScramExchange(PENCIL, NONCE).respond(message)


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"e=invalid-proof", "says no: invalid-proof"),
        (b"e=\r\nevil", "says no: for no known reason"),
        (b"v=" + b"A" * 43 + b"=", "does not know our password"),
        (b"v=", "v is missing"),
        (b"x=y", "v is missing"),
    ],
    ids=str,
)
def test_a_server_that_cannot_prove_that_it_knows_us_is_not_believed(
    message: bytes, why: str
) -> None:
    scram = ScramExchange(PENCIL, NONCE)
    scram.respond(SERVER_FIRST)
    with pytest.raises(ValueError, match=why):
        scram.respond(message)
    assert not scram.proven


@pytest.mark.parametrize("user", ["bob", "a=b,c", "bücher"])
def test_our_own_server_lets_our_own_client_in(user: str) -> None:
    server = Scram("server-nonce-server-nonce")
    client = ScramExchange(Credentials(user, "sécret, =2C"), "client-nonce")
    needed = server.respond(client.initial)
    assert isinstance(needed, Needs)
    assert needed.user == user
    first = server.give(ScramVerifier.of("sécret, =2C", iterations=4096))
    final = server.respond(client.respond(first))
    assert isinstance(final, bytes)
    assert isinstance(server.respond(client.respond(final)), Proof)
    assert client.proven


SHOWN = Token("shop@example.org", "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg==")


def test_a_token_is_shown_where_tokens_are_taken_and_nowhere_else() -> None:
    def best(*offered: str) -> str | None:
        found = best_exchange(frozenset(offered), SHOWN, NONCE)
        return found and found.name

    assert best("PLAIN", "OAUTHBEARER", "XOAUTH2") == "XOAUTH2"
    assert best("PLAIN", "OAUTHBEARER") == "OAUTHBEARER"
    assert best("PLAIN", "LOGIN", "SCRAM-SHA-256") is None


@pytest.mark.parametrize(
    ("name", "server", "said", "answer"),
    [
        ("XOAUTH2", XOAuth2, b"user=shop@example.org\1auth=Bearer %b\1\1", b""),
        ("OAUTHBEARER", OAuthBearer, b"n,a=shop@example.org,\1auth=Bearer %b\1\1", b"\1"),
    ],
)
def test_a_token_is_said_at_once_and_a_server_that_refuses_it_is_answered_once(
    name: str, server: type[OAuthBearer | XOAuth2], said: bytes, answer: bytes
) -> None:
    exchange = TokenExchange(name, SHOWN)
    assert (exchange.name, exchange.proven) == (name, True)
    assert exchange.initial == said % SHOWN.token.encode()
    assert server().respond(exchange.initial) == SHOWN
    assert exchange.respond(b'{"status":"401"}') == answer
    with pytest.raises(ValueError, match="shown a token"):
        exchange.respond(b"")
