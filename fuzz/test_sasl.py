"""SASL, the server's side: whatever a client says, and whatever somebody makes of what it says."""

from __future__ import annotations

import binascii
import hashlib
import hmac
from functools import lru_cache
from typing import Final

import hypothesis.strategies as st
from hypothesis import assume, example, given
from msgspec import Struct

from elemta.protocol import (
    MECHANISMS,
    Binding,
    Credentials,
    Needs,
    Proof,
    Token,
    Unproved,
    begin,
    prepare,
)
from elemta.protocol.sasl_client import ScramExchange
from fuzz.profiles import examples

BINDING: Final = Binding("tls-server-end-point", b"the hash of a certificate")
NONCE: Final = "rOprNGfwEbeRWgbNEkqO"


@lru_cache(maxsize=8)
def _salted(password: str, salt: bytes, iterations: int) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)


class Kept(Struct, frozen=True):
    """What is kept of a password."""

    password: str
    salt: bytes = b"a salt of ours.."
    iterations: int = 4096

    @property
    def _salted(self) -> bytes:
        return _salted(self.password, self.salt, self.iterations)

    @property
    def stored_key(self) -> bytes:
        return hashlib.sha256(hmac.digest(self._salted, b"Client Key", "sha256")).digest()

    @property
    def server_key(self) -> bytes:
        return hmac.digest(self._salted, b"Server Key", "sha256")


OURS: Final = Kept("secret")

#: What has something to do with one mechanism or another, and what has not.
PIECES: Final = st.one_of(
    st.sampled_from(
        [
            *(b"n,,", b"y,,", b"n,a=ann,", b"p=tls-server-end-point,,", b"n=user", b"r=abc", b","),
            *(b"c=biws", b"p=", b"m=", b"=2C", b"=3D", b"\1", b"\0", b"auth=Bearer abc", b"user=a"),
            *(b"n,,n=user,r=abc", b"n,a=a,\1auth=Bearer abc\1\1", b"user=a\1auth=Bearer abc\1\1"),
            *(b"n,,\1auth=Bearer a b\1\1", b"\r\n"),
            *(b"\0ann\0secret", b"ann", b"", b"c=biws,r=abc" + NONCE.encode() + b",p="),
        ]
    ),
    st.binary(max_size=40),
    st.text(max_size=20).map(lambda text: text.encode("utf-8", "surrogatepass")),
)
RESPONSES: Final = st.lists(PIECES, max_size=6).map(b"".join)


# a wide letter, which is a name's plain one
@example("SCRAM-SHA-256", ["n,,n=\uff41nn,r=abc".encode()], False)  # in order
@examples(300)
@given(st.sampled_from(MECHANISMS), st.lists(RESPONSES, min_size=1, max_size=5), st.booleans())
def test_whatever_a_client_says_is_a_step_or_no_exchange(
    name: str, responses: list[bytes], waits: bool
) -> None:
    mechanism = begin(name, lambda: NONCE, BINDING, MECHANISMS)
    for response in [None, *responses] if waits else responses:
        try:
            step = mechanism.respond(response)
        except ValueError:
            return
        match step:
            case bytes():
                assert len(step) < 12288 // 2
            case Needs(user=user):
                assert prepare(user) == user
                mechanism.give(OURS)
            case Token(token=token):
                assert token.isascii()
                assert token.isprintable()
                assert " " not in token
                if mechanism.refuse() is None:
                    return
            case Credentials(user=user, password=password):
                assert user
                assert password
                return
            case Proof(fault=fault):
                assert fault, "nobody proves anything by chance"
                return
            case Unproved():
                return


names = st.text(min_size=1, max_size=40).filter(lambda name: "\0" not in name)


def prepared(name: str) -> str | None:
    try:
        return prepare(name)
    except ValueError:
        return None


@examples(100)
@given(names)
def test_a_name_that_is_prepared_is_so_prepared_again(name: str) -> None:
    found = prepared(name)
    assume(found is not None)
    assert found is not None
    assert prepare(found) == found


@examples(30)
@given(names, st.just(OURS.password) | st.text(max_size=20))
def test_who_knows_the_password_is_let_in_and_nobody_else(name: str, password: str) -> None:
    assume(prepared(name) is not None)
    client = ScramExchange(Credentials(name, password), "abc")
    server = begin("SCRAM-SHA-256", lambda: NONCE, None, ())
    needed = server.respond(client.initial)
    assert needed == Needs(prepare(name))
    found = server.respond(client.respond(server.give(OURS)))
    if password != OURS.password:
        assert found == Proof(prepare(name), "", "wrong proof")
        return
    assert isinstance(found, bytes)
    assert server.respond(client.respond(found)) == Proof(prepare(name))
    assert client.proven


@examples(100)
@given(st.sampled_from(["first", "challenge", "final"]), st.data())
def test_nobody_changes_anything_on_its_way(which: str, data: st.DataObject) -> None:
    """Somebody between the two changes one message: then the proof is wrong, or there is none."""

    def changed(said: bytes, name: str) -> bytes:
        if name != which:
            return said
        if name == "first" and data.draw(st.booleans()):
            return data.draw(st.sampled_from([b"y,,", b"n,a=ann,"])) + said[3:]
        place = data.draw(st.integers(0, len(said) - 1))
        octet = data.draw(st.integers(0, 127).map(lambda octet: bytes((octet,))))
        new = said[:place] + octet + said[place + data.draw(st.integers(0, 1)) :]
        assume(new != said)
        return new

    client = ScramExchange(Credentials("user", OURS.password), "abc")
    server = begin("SCRAM-SHA-256", lambda: NONCE, None, ())
    try:
        needed = server.respond(changed(client.initial, "first"))
        assert isinstance(needed, Needs)
        final = client.respond(changed(server.give(OURS), "challenge"))
        found = server.respond(changed(final, "final"))
    except (ValueError, binascii.Error):
        return
    assert isinstance(found, Proof)
    assert found.fault
