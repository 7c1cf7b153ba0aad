from __future__ import annotations

import base64
import hashlib
import re
import time
from typing import TYPE_CHECKING, TypeVar

import dkim
import hypothesis.strategies as st
import pytest
import trio
from dkim.canonicalization import CanonicalizationPolicy
from hypothesis import given

from elemta.mailauth import DkimSignature, check_dkim
from elemta.mailauth import signed as signing
from elemta.net.dns import Absent, DnsResolver, Failed, Found, Kind
from elemta.testing import FakeDns, at_once
from tests.mailauth import suites
from tests.mailauth.signing import MESSAGE, ed25519_key, publish, rsa_key, signed

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

T = TypeVar("T")

NOW = time.time()


async def check(
    message: bytes, dns: FakeDns | None = None, *, now: float = NOW
) -> list[DkimSignature]:
    if dns is None:
        dns = FakeDns()
        publish(dns, rsa_key()[1])
    return await check_dkim(message, resolver=DnsResolver(backend=dns), in_thread=at_once, now=now)


async def result(message: bytes, dns: FakeDns | None = None) -> str:
    (found,) = await check(message, dns)
    return found.result


@pytest.mark.parametrize("header", [b"simple", b"relaxed"])
@pytest.mark.parametrize("body", [b"simple", b"relaxed"])
@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
async def test_a_message_is_as_it_was_signed_or_it_is_not(
    header: bytes, body: bytes, kind: str
) -> None:
    key, record = rsa_key() if kind == "rsa" else ed25519_key()
    dns = FakeDns()
    publish(dns, record)
    message = signed(key=key, algorithm=f"{kind}-sha256".encode(), canonicalize=(header, body))
    (found,) = await check(message, dns)
    assert found == DkimSignature(
        "pass",
        "sender.example",
        "s1",
        "@sender.example",
        f"{kind}-sha256",
        1024 if kind == "rsa" else 256,
    )
    assert await result(message + b"\r\n\r\n", dns) == "pass"
    assert await result(message + b"and more\r\n", dns) == "fail"
    assert await result(message.replace(b"noon", b"one"), dns) == "fail"
    assert await result(message.replace(b"Ann <", b"Bob <"), dns) == "fail"
    spaces = await result(message.replace(b"We  meet \t at", b"We meet at"), dns)
    assert spaces == ("pass" if body == b"relaxed" else "fail")
    spaces = await result(message.replace(b":  the   plan", b": the plan"), dns)
    assert spaces == ("pass" if header == b"relaxed" else "fail")


async def test_what_it_says_of_itself_is_as_in_authentication_results() -> None:
    message = signed()
    assert [str(each) for each in await check(message)] == [
        "dkim=pass (1024-bit key) header.d=sender.example header.s=s1 header.a=rsa-sha256"
    ]
    assert [str(each) for each in await check(message + b"x\r\n")] == [
        "dkim=fail (the body was changed) header.d=sender.example header.s=s1 header.a=rsa-sha256"
    ]
    assert [str(each) for each in await check(MESSAGE)] == ["dkim=none"]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ("v=DKIM1; p=", "the key was revoked"),
        ("v=DKIM1; k=rsa", "without a key"),
        ("v=DKIM2; p=AAAA", "another version"),
        ("v=DKIM1; k=dsa; p=AAAA", "unknown kind"),
        ("v=DKIM1; p=AAAA", "no RSA key"),
        ("v=DKIM1; p=A", "no base64"),
        ("v=DKIM1; k=ed25519; p=AAAA", "no Ed25519 key"),
        ("what is this", "no key record"),
        ("v=DKIM1; s=tlsrpt; p=AAAA", "not for mail"),
        ("v=DKIM1; p=" + "A" * 5000, "4096 octets"),
        pytest.param(ed25519_key()[1], "the key is of the kind ed25519", id="another kind"),
        pytest.param(rsa_key()[1] + "; h=sha1", "not for this hash", id="another hash"),
    ],
)
async def test_a_key_that_is_none_is_a_permanent_error(record: str, expected: str) -> None:
    dns = FakeDns()
    publish(dns, record)
    (found,) = await check(signed(), dns)
    assert found.result == "permerror"
    assert expected in found.reason


async def test_no_key_is_a_permanent_error_and_no_answer_is_none() -> None:
    dns = FakeDns()
    assert await result(signed(), dns) == "permerror"
    dns.failing.add("s1._domainkey.sender.example")
    dns = FakeDns()
    dns.failing.add("s1._domainkey.sender.example")
    assert await result(signed(), dns) == "temperror"


async def test_a_silent_name_server_costs_no_more_than_its_time(autojump_clock: MockClock) -> None:
    class Silent:
        async def ask(self, name: str, kind: Kind) -> Found | Absent | Failed:
            await trio.sleep_forever()
            raise AssertionError

    found = await check_dkim(
        signed(), resolver=DnsResolver(backend=Silent()), in_thread=at_once, now=NOW
    )
    assert [each.result for each in found] == ["temperror"]
    assert found[0].domain == "sender.example"


async def test_weak_and_giant_keys_are_not_accepted() -> None:
    weak = (
        "v=DKIM1; p=MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBANmBe10IgY+u7h3enWTukkqtUD5PR52T"
        "b/mPfjC0QJTocVBq6Za/PlzfV+Py92VaCak19F4WrbVTK5Gg5tW220MCAwEAAQ=="
    )
    dns = FakeDns()
    publish(dns, weak)
    (found,) = await check(signed(), dns)
    assert (found.result, found.reason) == ("policy", "a key of 512 bits is too weak")
    # 9000 bits, as DER has them: no such key need be made.
    octets = bytes.fromhex("3082046c02820465") + b"\x7f" + b"\xff" * 1124 + b"\x02\x01\x03"
    dns = FakeDns()
    publish(dns, f"v=DKIM1; p={base64.b64encode(octets).decode()}")
    (found,) = await check(signed(), dns)
    assert found.result == "policy"
    assert found.reason.endswith("is too large")


async def test_sha1_is_not_accepted() -> None:
    (found,) = await check(signed(algorithm=b"rsa-sha1"))
    assert (found.result, found.reason) == ("policy", "rsa-sha1 is too weak")


async def test_a_body_that_is_partly_signed_is_not_accepted() -> None:
    message = signed(length=True)
    assert await result(message) == "pass"
    (found,) = await check(message + b"<p>Send money</p>\r\n")
    assert (found.result, found.reason) == ("policy", "l= leaves 23 octets unsigned")
    (found,) = await check(re.sub(rb" l=\d+", b" l=9999", message))
    assert (found.result, found.reason) == ("fail", "l= counts more than there is")


async def test_another_from_is_no_part_of_what_was_signed() -> None:
    assert await result(b"From: Eve <eve@evil.example>\r\n" + signed()) == "fail"


async def test_no_from_is_hidden_from_the_signature() -> None:
    (found,) = await check(b"From : Eve <eve@evil.example>\r\n" + signed())
    assert (found.result, found.domain) == ("permerror", "sender.example")


async def test_from_must_be_signed() -> None:
    message = signed().replace(b"h=from : to :", b"h=to :")
    (found,) = await check(message)
    assert (found.result, found.reason) == ("permerror", "From is not signed")


async def test_a_signature_is_valid_for_its_time() -> None:
    message = signed()
    (found,) = await check(message, now=NOW - 86400)
    assert (found.result, found.reason) == ("policy", "it was signed in the future")
    expiring = re.sub(rb"; t=(\d+);", rb"; t=1; x=5;", message, count=1)
    (found,) = await check(expiring)
    assert (found.result, found.reason) == ("policy", "the signature has expired")


async def test_a_key_may_be_for_one_domain_only_and_may_be_a_trial() -> None:
    dns = FakeDns()
    publish(dns, rsa_key()[1] + "; t=y:s")
    (found,) = await check(signed(), dns)
    assert (found.result, found.testing) == ("pass", True)
    (found,) = await check(signed(identity=b"@sub.sender.example"), dns)
    assert found.result == "permerror"


async def test_ten_signatures_are_verified_and_of_the_rest_it_is_said() -> None:
    dns, message = FakeDns(), MESSAGE
    for number in range(13):
        publish(dns, rsa_key()[1], f"d{number}.example")
        message = signed(message, domain=f"d{number}.example")
    found = await check(message, dns)
    assert [each.result for each in found] == ["pass"] * 10 + ["policy"]
    assert [each.domain for each in found[:2]] == ["d12.example", "d11.example"]
    assert str(found[10]) == "dkim=policy (3 more signatures not looked at)"
    assert len(dns.asked) == 10


async def test_one_signature_says_nothing_of_another() -> None:
    dns = FakeDns()
    publish(dns, rsa_key()[1])
    publish(dns, rsa_key()[1], "other.example")
    dns.failing.add("s1._domainkey.broken.example")
    message = signed(signed(signed(), domain="other.example"), domain="broken.example")
    message = b"DKIM-Signature: nonsense\r\n" + message
    found = await check(message, dns)
    assert [each.result for each in found] == ["permerror", "temperror", "pass", "pass"]


FOOTBALL = {
    "test._domainkey.football.example.com": "test.txt",
    "brisbane._domainkey.football.example.com": "v=DKIM1; k=ed25519; "
    "p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
}


@pytest.mark.parametrize(
    ("message", "records", "results"),
    [
        ("rfc6376.signed.rsa.msg", FOOTBALL, ["pass"]),
        ("rfc6376.signed.msg", FOOTBALL, ["pass", "pass"]),
        ("ed25519test2.msg", {"sed._domainkey.test.ex": "eximtest.dns"}, ["pass"]),
        ("test.message.baddomain", {}, ["permerror"]),
        ("test.message", {}, ["none"]),
    ],
)
async def test_messages_of_dkimpy_itself(
    message: str, records: dict[str, str], results: list[str]
) -> None:
    dns = FakeDns()
    for name, record in records.items():
        text = data(record).decode() if record.endswith((".txt", ".dns")) else record
        dns.text(name, "".join(text.split("\n")).strip())
    found = await check(crlf(data(message)), dns)
    assert [each.result for each in found] == results


def data(name: str) -> bytes:
    return suites.read("dkimpy", f"dkim/tests/data/{name}")


def crlf(text: bytes) -> bytes:
    return text.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


@pytest.mark.parametrize(
    "body",
    [b" " * 20_000_000, b"\r\n" * 10_000_000, b"a \t" * 5_000_000, b"\t\r\n" * 5_000_000 + b"x"],
)
async def test_a_giant_body_takes_time_in_proportion(body: bytes) -> None:
    began = time.process_time()
    for canonical in (b"simple", b"relaxed"):
        header = signed(canonicalize=(b"relaxed", canonical)).partition(b"\r\n\r\n")[0]
        assert await result(header + b"\r\n\r\n" + body) == "fail"
    assert time.process_time() - began < 20


@pytest.mark.parametrize(
    "field",
    [
        b"DKIM-Signature: " + b"\r\n ".join([b" " * 900] * 100) + b"v=1",
        b"DKIM-Signature: v=1; b=" + b"A " * 30_000,
        b"DKIM-Signature: v=1; d=a; s=b; b=AAAA; bh=AAAA; a=rsa-sha256; h="
        + b":".join(b"x%d" % n for n in range(2000)),
        b"DKIM-Signature: " + b";".join(b"t%d=1" % n for n in range(1500)),
    ],
)
async def test_fields_made_to_take_long_take_no_time(field: bytes) -> None:
    began = time.process_time()
    found = await check((field + b"\r\n") * 12 + MESSAGE)
    assert "pass" not in {each.result for each in found}
    assert time.process_time() - began < 5


async def test_what_libraries_would_go_over_again_and_again_is_refused() -> None:
    (found,) = await check(signed().replace(b"; d=", b";" + b"\r\n " * 200 + b"d=", 1))
    assert (found.result, found.reason) == (
        "permerror",
        "a field with hundreds of spaces in a row",
    )


async def test_giant_fields_and_those_that_sign_everything_are_refused() -> None:
    (found,) = await check(signed().replace(b"; d=", b"; z=" + b"z" * 9000 + b"; d=", 1))
    assert (found.result, found.reason) == ("permerror", "a field of more than 8192 octets")
    names = [b"from", *(b"x%d" % number for number in range(200))]
    (found,) = await check(signed(names=names))
    assert (found.result, found.reason) == ("permerror", "it signs more than 150 fields")
    assert await result(signed(names=names[:100])) == "pass"


async def test_a_message_of_odd_lines_is_read_as_far_as_it_can_be() -> None:
    for message in (b"", b"\r\n", b" \r\n\r\n", b" x\r\nDKIM-Signature: v=1\r\n\r\n", b"No field"):
        await check(message)
    assert await result(b"Not a field\r\n" + signed()) == "permerror"


async def not_here(call: Callable[[], T]) -> T:
    raise AssertionError("a thread was asked for")


@pytest.mark.parametrize(
    ("message", "small"),
    [
        (signed(), True),
        (signed(signed()), True),
        (signed(signed(signed())), False),
        (signed(MESSAGE + b"x\r\n" * 20_000), False),
        (signed(b"X: " + b"x " * 5000 + b"\r\n" + MESSAGE), False),
        (signed(b"X: y\r\n" * 200 + MESSAGE), False),
        # Over spaces in a signature dkimpy goes again and again, and over each of many tags.
        (signed().replace(b"; d=", b";" + b" " * 24 + b"d="), True),
        (signed().replace(b"; d=", b";" + b" " * 32 + b"d="), False),
        (signed(names=[b"from", *([b"x-long"] * 80)]), True),
        (signed(names=[b"from", *([b"x-a-much-longer-one"] * 100)]), False),
    ],
)
async def test_small_messages_need_no_thread_and_large_ones_do(
    message: bytes, *, small: bool
) -> None:
    dns = FakeDns()
    publish(dns, rsa_key()[1])
    resolver = DnsResolver(backend=dns)
    await resolver.texts("s1._domainkey.sender.example")
    found = await check_dkim(message, resolver=resolver, in_thread=not_here, now=NOW)
    assert {each.result for each in found} == ({"pass"} if small else {"permerror"})
    assert {each.result for each in await check(message)} == {"pass"}


HEADERS = st.lists(
    st.tuples(
        st.sampled_from([b"From", b"from", b"To", b"Subject", b"X-Y"]),
        st.binary(max_size=30)
        | st.sampled_from([b" a \t b\r\n  c \r\n", b"\r\n", b" \r\r\n\n x\r\n", b""]),
    ),
    max_size=8,
)
SIGNING = st.lists(
    st.sampled_from(
        [
            *(b"b=", b" b =", b";b", b"=", b";", b"b", b"ab+/=", b" ", b"\r\n", b"\t", b"\n"),
            *(b"bh=", b";\r\n b\r\n =\r\n Aa9", b"\x0b", b"\xff", b"v=1"),
        ]
    ),
    max_size=20,
).map(b"".join)


@given(HEADERS, st.lists(st.sampled_from([b"from", b"to", b"subject", b"none"])), SIGNING)
@pytest.mark.parametrize("form", [b"simple/simple", b"relaxed/simple"])
def test_what_is_hashed_is_what_dkimpy_hashes(
    form: bytes, headers: list[tuple[bytes, bytes]], names: list[bytes], value: bytes
) -> None:
    policy = CanonicalizationPolicy.from_c_value(form)
    field = (b"DKIM-Signature", value)
    hasher = hashlib.sha256()
    dkim.hash_headers(hasher, policy, policy.canonicalize_headers(headers), names, field, {})
    assert signing.digest_of(policy, signing.selected(headers, names), field) == hasher.digest()
