from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING

import pytest
from msgspec import Struct

from elemta.protocol import Binding, Needs, Proof
from elemta.protocol.scram import Scram

if TYPE_CHECKING:
    from elemta.protocol.sasl import Step

#: RFC 7677 §3.
FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
OURS = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
BOTH = "rOprNGfwEbeRWgbNEkqO" + OURS
SERVER_FIRST = f"r={BOTH},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".encode()
FINAL = f"c=biws,r={BOTH},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=".encode()
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

BINDING = Binding("tls-server-end-point", b"a hash of a certificate")


class Kept(Struct, frozen=True):
    """What is kept of the password of RFC 7677."""

    iterations: int = 4096
    salt: bytes = b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")

    @property
    def salted(self) -> bytes:
        return hashlib.pbkdf2_hmac("sha256", b"pencil", self.salt, self.iterations)

    @property
    def stored_key(self) -> bytes:
        return hashlib.sha256(hmac.digest(self.salted, b"Client Key", "sha256")).digest()

    @property
    def server_key(self) -> bytes:
        return hmac.digest(self.salted, b"Server Key", "sha256")


def talk(
    scram: Scram, header: str = "n,,", *, rest: str = "n=user,r=abc", bound: bytes | None = None
) -> Step:
    """What the proof of a client that knows the password comes to; see RFC 5802 §3."""
    assert isinstance(scram.respond((header + rest).encode()), Needs)
    server_first = scram.give(Kept()).decode()
    nonce = re.match("r=([^,]+)", server_first)
    assert nonce is not None
    seen = b64encode(header.encode() if bound is None else bound).decode()
    without = f"c={seen},r={nonce[1]}"
    said = f"{rest},{server_first},{without}".encode()
    key = hmac.digest(Kept().salted, b"Client Key", "sha256")
    signature = hmac.digest(hashlib.sha256(key).digest(), said, "sha256")
    proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
    return scram.respond(f"{without},p={b64encode(proof).decode()}".encode())


def test_the_example_of_the_rfc() -> None:
    scram = Scram(OURS)
    assert scram.respond(None) == b""
    assert scram.respond(FIRST) == Needs("user")
    assert scram.give(Kept()) == SERVER_FIRST
    assert scram.respond(FINAL) == SERVER_FINAL
    assert scram.respond(b"") == Proof("user")


def test_another_password_proves_nothing() -> None:
    scram = Scram(OURS)
    scram.respond(FIRST)
    scram.give(Kept(4097))
    assert scram.respond(FINAL) == Proof("user", "", "wrong proof")


def test_a_proof_is_good_for_one_exchange() -> None:
    scram = Scram("another")
    scram.respond(FIRST)
    scram.give(Kept())
    with pytest.raises(ValueError, match="nonce"):
        scram.respond(FINAL)


def test_names_are_written_otherwise_and_extensions_passed_over() -> None:
    scram = Scram(OURS)
    assert scram.respond(b"n,a=a=3Db,n=us=2Cer,r=abc,x=y,z=what") == Needs("us,er")
    assert isinstance(talk(Scram(OURS), "n,a=ann,", rest="n=user,r=abc,x=y"), bytes)
    scram = Scram(OURS)
    talk(scram, "n,a=ann,")
    assert scram.respond(b"") == Proof("user", "ann")


def test_nothing_is_said_behind_our_proof() -> None:
    scram = Scram(OURS)
    assert isinstance(talk(scram), bytes)
    with pytest.raises(ValueError, match="nothing"):
        scram.respond(b"x")


# Channel binding.


def test_both_ends_of_a_connection_prove_that_they_are_its_ends() -> None:
    header = "p=tls-server-end-point,,"
    scram = Scram(OURS, BINDING, plus=True, offered=True)
    found = talk(scram, header, bound=header.encode() + BINDING.octets)
    assert isinstance(found, bytes)
    assert scram.respond(b"") == Proof("user")


@pytest.mark.parametrize(
    ("header", "bound", "fault"),
    [
        ("p=tls-server-end-point,,", b"p=tls-server-end-point,,another", "wrong channel binding"),
        ("p=tls-server-end-point,,", b"p=tls-server-end-point,,", "wrong channel binding"),
        ("p=tls-exporter,,", b"p=tls-exporter,,x", "unsupported channel binding"),
    ],
)
def test_who_sees_another_connection_is_not_let_in(header: str, bound: bytes, fault: str) -> None:
    scram = Scram(OURS, BINDING, plus=True, offered=True)
    assert talk(scram, header, bound=bound) == Proof("user", "", fault)


def test_there_may_be_nothing_to_bind() -> None:
    scram = Scram(OURS, plus=True)
    assert talk(scram, "p=tls-server-end-point,,") == Proof(
        "user", "", "unsupported channel binding"
    )


def test_who_was_not_told_that_it_could_bind_has_somebody_in_the_middle() -> None:
    assert talk(Scram(OURS, BINDING, offered=True), "y,,") == Proof("user", "", "downgraded")
    assert isinstance(talk(Scram(OURS, BINDING, offered=True), "n,,"), bytes)
    assert isinstance(talk(Scram(OURS, BINDING), "y,,"), bytes)


def test_a_header_that_was_changed_on_its_way_is_noticed() -> None:
    assert talk(Scram(OURS), "n,,", bound=b"y,,") == Proof("user", "", "wrong channel binding")


# What no client says.


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"n",
        b"n,,",
        b"\xff",
        b"n,,n=,r=abc",
        b"n,,n=user,r=",
        b"n,,n=user,r=a\x7f",
        b"n,,n=us=41er,r=abc",
        b"n,,m=must,n=user,r=abc",
        b"n,,n=user,r=abc,",
        b"n,a=,n=user,r=abc",
        b"z,,n=user,r=abc",
        b"p=tls-unique,,n=user,r=abc",
        b"n,,n=" + b"x" * 256 + b",r=abc",
        b"n,a=" + b"x" * 256 + b",n=user,r=abc",
        b"n,,n=user,r=" + b"a" * 1025,
        b"n,,n=user,r=abc,x=" + b"a" * 3000,
    ],
)
def test_what_is_no_first_message_is_refused(said: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Scram(OURS, BINDING).respond(said)


def test_plus_is_for_those_who_bind() -> None:
    for header in (b"n,,", b"y,,"):
        with pytest.raises(ValueError, match="bound"):
            Scram(OURS, BINDING, plus=True).respond(header + b"n=user,r=abc")


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\xff",
        b"c=biws",
        b"c=biws,r=abc",
        FINAL + b",x=y",
        FINAL.replace(b"p=d", b"p="),
        FINAL.replace(b"VQ=", b"VQ"),
        FINAL.replace(b"p=dHzb", b"p="),
        FINAL.replace(b"c=biws,", b""),
    ],
)
def test_what_is_no_final_message_is_refused(said: bytes) -> None:
    scram = Scram(OURS)
    scram.respond(FIRST)
    scram.give(Kept())
    with pytest.raises(ValueError, match=r"."):
        scram.respond(said)


def test_what_is_no_base64_binds_nothing() -> None:
    scram = Scram(OURS)
    scram.respond(FIRST)
    scram.give(Kept())
    found = scram.respond(FINAL.replace(b"c=biws", b"c=biw"))
    assert isinstance(found, Proof)
    assert found.fault == "wrong channel binding"
