from __future__ import annotations

import re
from typing import TYPE_CHECKING

import dkim
import pytest

from elemta.mailauth import SealError, Signer, check_arc, parse_private_key, seal
from elemta.mailauth.body import cut
from elemta.net.dns import DnsResolver
from elemta.testing import FakeDns, at_once
from tests.mailauth.signing import MESSAGE, publish, rsa_key, sealed, signed

if TYPE_CHECKING:
    from elemta.mailauth.sealing import Chain

NOW = 1_700_000_000.0
STATED = "us.example; spf=pass smtp.mailfrom=sender.example; arc=none; dmarc=pass header.from=a.b"


def with_seal(message: bytes, chain: Chain = "none", domain: str = "us.example") -> bytes:
    header, body = cut(message)
    signer = Signer(domain, "s1", parse_private_key(rsa_key()[0]))
    digest = body.measured(b"relaxed").digest
    fields = seal(header, digest, signer, chain=chain, stated=STATED, now=NOW)
    return b"".join(f"{name}:{value}\r\n".encode() for name, value in fields) + message


def dkimpy(message: bytes) -> str | None:
    """What dkimpy says of a chain; None: it has ended."""
    record = rsa_key()[1].encode()
    verified = dkim.arc_verify(message, dnsfunc=lambda name, timeout=5: record)  # type: ignore[attr-defined] # no part of what is used outside of tests
    return None if verified[0] is None else verified[0].decode()


async def ours(message: bytes) -> str:
    dns = FakeDns()
    for domain in ("us.example", "list.example", "second.example"):
        publish(dns, rsa_key()[1], domain)
    found = await check_arc(message, resolver=DnsResolver(backend=dns), in_thread=at_once)
    return str(found)


async def test_the_first_seal_verifies_and_says_what_we_found() -> None:
    message = with_seal(signed())
    assert dkimpy(message) == "pass"
    assert await ours(message) == "arc=pass (i=1 sealed by us.example)"
    whole = re.sub(rb"\r\n[ \t]+", b" ", message)
    assert f"ARC-Authentication-Results: i=1; {STATED}\r\n".encode() in whole
    assert b"cv=none" in whole
    assert re.search(rb": ?dkim-signature[:;]", whole)
    assert max(map(len, message.split(b"\r\n"))) < 100


async def test_a_chain_goes_on_whoever_began_it() -> None:
    message = sealed(MESSAGE, results="dmarc=pass header.from=sender.example")
    message = with_seal(message, "pass")
    assert dkimpy(message) == "pass"
    message = sealed(message, domain="second.example", results="arc=pass")
    assert dkimpy(message) == "pass"
    message = with_seal(message.replace(b"noon", b"noon."), "fail")
    assert b"i=4; a=rsa-sha256; cv=fail;" in message
    message = sealed(MESSAGE, results="arc=none")
    for chain in range(48):
        message = with_seal(message, "pass", "us.example" if chain % 2 else "second.example")
    assert await ours(message) == "arc=pass (i=49 sealed by us.example)"
    message = with_seal(message, "pass")
    assert (await ours(message)).startswith("arc=pass (i=50")
    with pytest.raises(SealError, match="limit"):
        with_seal(message, "pass")


@pytest.mark.parametrize("where", [b"noon", b"the   plan", b"spf=pass", b"cv=none"])
async def test_what_is_changed_afterwards_is_found(where: bytes) -> None:
    message = with_seal(MESSAGE)
    assert where in message
    broken = message.replace(where, b"cv=pass" if where == b"cv=none" else b"changed")
    assert (await ours(broken)).startswith("arc=fail")


async def test_of_a_chain_that_has_failed_our_own_set_alone_is_sealed_and_that_is_the_end() -> None:
    broken = sealed(MESSAGE, results="arc=none").replace(b"noon", b"one")
    message = with_seal(broken, "fail")
    # What was before may be anything: it is not sealed.
    assert dkimpy(message) is None
    own = re.sub(rb"(?m)^ARC-[^:]*: ?i=1;.*\r\n(?:[ \t].*\r\n)*", b"", message)
    assert own.count(b"ARC-") == 3
    names = (b"arc-authentication-results", b"arc-message-signature", b"arc-seal")
    found = dkim.ARC(own, minkey=1024)  # type: ignore[call-arg] # as above
    newest, headers = found.sorted_arc_headers()
    assert (newest, sorted(field[0] for _, field in headers)) == (2, sorted(names))
    record = rsa_key()[1].encode()
    verified = found.verify_instance(headers, 2, dnsfunc=lambda name, timeout=5: record)  # type: ignore[attr-defined] # as above
    assert verified["as-valid"]
    assert verified["ams-valid"]
    assert verified["cv"] == b"fail"
    with pytest.raises(SealError, match="over"):
        with_seal(message, "fail")
    assert (await ours(message)).startswith("arc=fail")


@pytest.mark.parametrize(
    "header",
    [b"From a line\r\n folded\r\nno field\r\n", b" begins folded\r\n", b"\xff: x\r\n"],
    ids=range(3),
)
def test_a_header_that_nobody_can_read_is_not_sealed(header: bytes) -> None:
    with pytest.raises(SealError, match="malformed"):
        with_seal(header + MESSAGE)
