"""What attackers write into messages and into the DNS, in the hands of libraries."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final, get_args

import hypothesis.strategies as st
import trio
from hypothesis import given

from elemta.mailauth import (
    ArcResult,
    DkimResult,
    DmarcResult,
    Spf,
    SpfResult,
    check_arc,
    check_dkim,
    check_dmarc,
    check_iprev,
    check_spf,
)
from elemta.net.dns import DnsResolver
from elemta.testing import FakeDns, at_once
from fuzz.profiles import examples
from tests.mailauth.signing import MESSAGE, publish, rsa_key, sealed, signed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

#: Seconds that nothing here may take, by far.
LONG: Final = 5.0

NAMES: Final = ("s.example", "a.example", "b.example", "c.example")
#: What SPF records are made of, right and wrong.
TERMS: Final = st.one_of(
    st.sampled_from(
        [
            *("+all", "-all", "~all", "?all", "a", "mx", "ptr", "exists:%{i}.a.example", "all:x"),
            *("a:b.example/24", "a//64", "mx:c.example/33", "ip4:192.0.2.1", "ip4:1.2.3/8"),
            *("ip6:2001:db8::1/32", "ip6:::::", "include:a.example", "include:b.example", "exp="),
            *("include:s.example", "redirect=c.example", "redirect=", "exp=b.example", "a=b=c"),
            *("include:%{d}", "a:%{p}.x", "exists:%{l1r+-/}.%{o2}.%{h}.%{v}", "%{", "%%", "%(x)"),
            *("exists:%{c}%{r}%{t}", "ptr:a.example", "x", "=", ":", "/", "a:", "ip4:", "\t"),
        ]
    ),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20),
)
RECORDS: Final = st.builds(
    lambda terms, gap: gap.join(["v=spf1", *terms]),
    st.lists(TERMS, max_size=12),
    st.sampled_from([" ", "  ", " "]),
)
OTHERS: Final = st.sampled_from(
    [
        *(("A", "192.0.2.1"), ("A", "198.51.100.1"), ("AAAA", "2001:db8::1"), ("MX", "0 .")),
        *(("MX", "10 a.example."), ("MX", "10 b.example."), ("MX", "20 c.example.")),
        *(("TXT", '"\\255\\000"'), ("TXT", '""'), ("TXT", '"v=spf1 \\200"'), ("TXT", '"%{x"')),
    ]
)


def in_time(call: Callable[[], Awaitable[Spf]] | Callable[[], Awaitable[object]]) -> object:
    began = time.process_time()
    found = trio.run(call)
    assert time.process_time() - began < LONG
    return found


@st.composite
def zones(draw: st.DrawFn) -> FakeDns:
    dns = FakeDns()
    for name in NAMES:
        for record in draw(st.lists(RECORDS, max_size=2)):
            dns.text(name, record)
        for kind, text in draw(st.lists(OTHERS, max_size=4)):
            dns.add(name, kind, text)
    dns.add("1.2.0.192.in-addr.arpa", "PTR", *(f"{name}." for name in NAMES))
    dns.failing = set(draw(st.lists(st.sampled_from(NAMES), max_size=1)))
    return dns


@examples(120)
@given(
    zones(),
    st.sampled_from(["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", "nonsense", ""]),
    st.one_of(
        st.sampled_from(["x@s.example", "", "s.example", "@s.example", "a@b@s.example"]), st.text()
    ),
    st.one_of(st.just("s.example"), st.text()),
)
def test_spf_has_a_result_whatever_the_dns_says(
    dns: FakeDns, address: str, sender: str, helo: str
) -> None:
    found = in_time(
        partial(
            check_spf, address, sender, helo, resolver=DnsResolver(backend=dns), in_thread=at_once
        )
    )
    assert isinstance(found, Spf)
    assert found.result in get_args(SpfResult)
    assert str(found).isprintable()
    assert len(dns.asked) <= 250


@examples(50)
@given(zones(), st.text())
def test_iprev_has_a_result_whatever_the_dns_says(dns: FakeDns, address: str) -> None:
    resolver = DnsResolver(backend=dns)
    for each in ("192.0.2.1", "2001:db8::1", address):
        in_time(partial(check_iprev, each, resolver=resolver))


def spliced(message: bytes, cuts: list[tuple[int, int, bytes]]) -> bytes:
    for place, length, octets in cuts:
        start = place % (len(message) + 1)
        message = message[:start] + octets + message[start + length :]
    return message


#: Where a message is changed, how much of it goes, and what comes there.
CUTS: Final = st.lists(
    st.tuples(
        st.integers(0, 2000),
        st.integers(0, 40),
        st.one_of(
            st.binary(max_size=12),
            st.sampled_from(
                [
                    *(b";", b"=", b":", b"\r\n", b"\r\n ", b"\r\n\r\n", b" i=1;", b"; l=0", b"b="),
                    *(b"; x=99999999999999999999", b"; t=-1", b"; h=from", b"; c=/", b"a=rsa-sha1"),
                    *(b"DKIM-Signature:", b"ARC-Seal: i=1;", b"i=2", b"cv=pass", b"From: x\r\n"),
                ]
            ),
        ),
    ),
    max_size=6,
)
KEYS: Final = st.one_of(
    st.just(rsa_key()[1]),
    st.builds(lambda cuts: spliced(rsa_key()[1].encode(), cuts).decode("ascii", "ignore"), CUTS),
)


@examples(120)
@given(CUTS, KEYS)
def test_signatures_have_results_whatever_became_of_the_message(
    cuts: list[tuple[int, int, bytes]], key: str
) -> None:
    whole = signed(signed(domain="b.example"))
    message = spliced(whole, cuts)
    dns = FakeDns()
    publish(dns, key)
    publish(dns, key, "b.example")
    found = in_time(
        partial(
            check_dkim,
            message,
            resolver=DnsResolver(backend=dns),
            in_thread=at_once,
            now=time.time(),
        )
    )
    assert isinstance(found, list)
    for each in found:
        assert each.result in get_args(DkimResult)
        assert str(each).isprintable()
        if each.result == "pass":
            assert all(name in message for name in (b"From: Ann <ann@sender.example>", b"at noon."))


@examples(80)
@given(CUTS, KEYS)
def test_a_chain_has_a_result_whatever_became_of_the_message(
    cuts: list[tuple[int, int, bytes]], key: str
) -> None:
    whole = sealed(sealed(MESSAGE), domain="b.example", results="arc=pass")
    dns = FakeDns()
    publish(dns, key, "list.example")
    publish(dns, key, "b.example")
    found = in_time(
        partial(
            check_arc,
            spliced(whole, cuts),
            resolver=DnsResolver(backend=dns),
            in_thread=at_once,
        )
    )
    assert getattr(found, "result", None) in get_args(ArcResult)
    assert str(found).isprintable()


@examples(60)
@given(st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=126)), max_size=6))
def test_dmarc_has_a_result_whatever_the_dns_says(tags: list[str]) -> None:
    dns = FakeDns()
    dns.text("_dmarc.s.example", ";".join(["v=DMARC1", *tags]))
    found = in_time(
        partial(
            check_dmarc,
            ["s.example"],
            Spf("none", "s.example"),
            [],
            resolver=DnsResolver(backend=dns),
        )
    )
    assert getattr(found, "result", None) in get_args(DmarcResult)
