"""RFC 7489, row by row."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Literal

import pytest
import trio

from elemta.mailauth import (
    Arc,
    DkimSignature,
    Dmarc,
    Policy,
    Seal,
    Spf,
    Wish,
    aligned,
    applied,
    check_dmarc,
    find_policy,
    judged,
    organisation_of,
    vouched_by,
)
from elemta.mailauth.dmarc import read_policy
from elemta.net.dns import Absent, DnsResolver, DnsTemporaryError, Failed, Found, Kind
from elemta.testing import FakeDns

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trio.testing import MockClock

FAILING = Spf("fail", "elsewhere.example")
NO_SPF = Spf("none", "sender.example")
#: What SPF or DKIM may pass for, whose mail is of news.sender.example, and how close that is.
PASSING = {
    "news.sender.example": "strict",
    "sender.example": "relaxed",
    "www.sender.example": "relaxed",
    "x.news.sender.example": "relaxed",
    "other.example": "not",
    "example": "not",
    "": "not",
}
WISHES: tuple[Wish, ...] = ("none", "quarantine", "reject")
MODES: tuple[Literal["strict", "relaxed"], ...] = ("strict", "relaxed")


def policy(**changes: object) -> Policy:
    values: dict[str, object] = {"at": "sender.example", "wish": "reject", "below": "reject"}
    return Policy(**(values | changes))  # type: ignore[arg-type] # a test's


def signature(domain: str, result: Literal["pass", "fail", "temperror"] = "pass") -> DkimSignature:
    return DkimSignature(result, domain)


@pytest.mark.parametrize("by", ["spf", "dkim"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("domain", "how"), PASSING.items())
def test_alignment_decides_what_a_pass_is_worth(
    by: str, mode: Literal["strict", "relaxed"], domain: str, how: str
) -> None:
    # The other method is as lenient as can be: it must not matter.
    wanted = policy(dkim=mode) if by == "dkim" else policy(spf=mode)
    found = judged(
        "news.sender.example",
        wanted,
        Spf("pass", domain) if by == "spf" else FAILING,
        [signature(domain)] if by == "dkim" else [],
    )
    passes = how == "strict" or (how == "relaxed" and mode == "relaxed")
    assert found.result == ("pass" if passes else "fail")


@pytest.mark.parametrize(("wish", "below"), list(product(WISHES, WISHES)))
@pytest.mark.parametrize("percent", [0, 1, 50, 99, 100])
def test_what_a_domain_wants_and_of_how_much(wish: Wish, below: Wish, percent: int) -> None:
    for domain, wanted in (("sender.example", wish), ("news.sender.example", below)):
        found = judged(domain, policy(wish=wish, below=below, percent=percent), FAILING, [])
        assert found == Dmarc("fail", domain, wanted, percent)
        milder: dict[Wish, Wish] = {"reject": "quarantine", "quarantine": "none", "none": "none"}
        for chance in (0.0, 0.005, 0.495, 0.5, 0.985, 0.995):
            expected = wanted if chance * 100 < percent else milder[wanted]
            assert applied(wanted, percent, chance) == expected


#: For what SPF or DKIM passes, if it does, and whether that will do in each mode.
ROWS = {
    "own": ("news.sender.example", {"strict": True, "relaxed": True}),
    "organisation": ("sender.example", {"strict": False, "relaxed": True}),
    "sibling": ("www.sender.example", {"strict": False, "relaxed": True}),
    "stranger": ("other.example", {"strict": False, "relaxed": False}),
    "nobody": (None, {"strict": False, "relaxed": False}),
}


@pytest.mark.parametrize(("spf_row", "dkim_row"), list(product(ROWS, ROWS)))
async def test_each_row_of_alignment_policy_subdomain_policy_and_percentage(
    spf_row: str, dkim_row: str
) -> None:
    (spf_domain, spf_will_do), (dkim_domain, dkim_will_do) = ROWS[spf_row], ROWS[dkim_row]
    spf = FAILING if spf_domain is None else Spf("pass", spf_domain)
    signatures = [] if dkim_domain is None else [signature(dkim_domain)]
    for aspf, adkim, p, sp, pct in product(MODES, MODES, WISHES, (None, *WISHES), (None, 0, 30)):
        tags = ["v=DMARC1", f"p={p}", f"aspf={aspf[0]}", f"adkim={adkim[0]}"]
        tags += [] if sp is None else [f"sp={sp}"]
        tags += [] if pct is None else [f"pct={pct}"]
        dns = FakeDns()
        dns.text("_dmarc.sender.example", "; ".join(tags))
        found = await check_dmarc(
            ["news.sender.example"], spf, signatures, resolver=DnsResolver(backend=dns)
        )
        passes = spf_will_do[aspf] or dkim_will_do[adkim]
        wish: Wish = sp or p
        percent = 100 if pct is None else pct
        expected = Dmarc("pass" if passes else "fail", "news.sender.example", wish, percent)
        assert found == expected, tags
        for chance in (0.0, 0.29, 0.3, 0.99):
            done = wish if chance * 100 < percent else WISHES[max(0, WISHES.index(wish) - 1)]
            assert applied(wish, percent, chance) == done


@pytest.mark.parametrize("result", ["fail", "softfail", "neutral", "none", "permerror"])
def test_only_a_pass_is_a_pass(result: Literal["fail", "softfail", "neutral"]) -> None:
    spf = Spf(result, "sender.example")
    assert judged("sender.example", policy(), spf, []).result == "fail"
    for word in ("fail", "policy", "neutral", "none", "permerror"):
        dkim = DkimSignature(word, "sender.example")  # type: ignore[arg-type] # each is one
        assert judged("sender.example", policy(), NO_SPF, [dkim]).result == "fail"


def test_what_might_yet_pass_neither_passes_nor_fails() -> None:
    broken = Spf("temperror", "sender.example")
    assert judged("sender.example", policy(), broken, []).result == "temperror"
    assert judged("sender.example", policy(), broken, [signature("sender.example")]).result == (
        "pass"
    )
    dkim = signature("sender.example", "temperror")
    assert judged("sender.example", policy(), FAILING, [dkim]).result == "temperror"
    # What would not be aligned does not matter.
    dkim = signature("other.example", "temperror")
    assert judged("sender.example", policy(), FAILING, [dkim]).result == "fail"
    assert judged("sender.example", policy(), Spf("temperror", "o.example"), []).result == "fail"


def test_without_a_policy_there_is_no_result() -> None:
    assert judged("sender.example", None, Spf("pass", "sender.example"), []).result == "none"


@pytest.mark.parametrize(
    ("domain", "organisation"),
    [
        ("sender.example", "sender.example"),
        ("a.b.sender.example", "sender.example"),
        ("example", "example"),
        ("com", "com"),
        ("co.uk", "co.uk"),
        ("x.co.uk", "x.co.uk"),
        ("a.x.co.uk", "x.co.uk"),
        ("a.b.kawasaki.jp", "a.b.kawasaki.jp"),
        ("c.a.b.kawasaki.jp", "a.b.kawasaki.jp"),
        ("www.city.kawasaki.jp", "city.kawasaki.jp"),
        ("x.github.io", "x.github.io"),
        ("a.xn--85x722f.xn--55qx5d.cn", "xn--85x722f.xn--55qx5d.cn"),
    ],
)
def test_organisations(domain: str, organisation: str) -> None:
    assert organisation_of(domain) == organisation


def test_two_customers_of_one_registry_are_not_aligned() -> None:
    assert not aligned("a.co.uk", "b.co.uk", "relaxed")
    assert not aligned("a.github.io", "b.github.io", "relaxed")
    assert not aligned("co.uk", "a.co.uk", "relaxed")
    assert aligned("X.A.co.uk.", "a.co.uk", "relaxed")


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ("v=DMARC1; p=reject", policy()),
        ("v=DMARC1;p=REJECT;", policy()),
        ("v=DMARC1; p=none", policy(wish="none", below="none")),
        ("v=DMARC1; p=none; sp=reject", policy(wish="none", below="reject")),
        ("v=DMARC1; p=reject; sp=none", policy(below="none")),
        ("v=DMARC1; p=reject; adkim=s; aspf=s", policy(dkim="strict", spf="strict")),
        ("v=DMARC1; p=reject; adkim=x; aspf=r", policy()),
        ("v=DMARC1; p=reject; pct=20", policy(percent=20)),
        ("v=DMARC1; p=reject; pct=0", policy(percent=0)),
        # What is wrong beside what is wanted is as if it were not there.
        ("v=DMARC1; p=reject; pct=200", policy()),
        ("v=DMARC1; p=reject; pct=-1; x; =; y=", policy()),
        ("v=DMARC1; p=reject; p=none", policy()),
        # Without what is wanted it is for reports, if it asks for any.
        ("v=DMARC1; rua=mailto:d@sender.example", policy(wish="none", below="none")),
        ("v=DMARC1; p=x; rua=mailto:d@sender.example", policy(wish="none", below="none")),
        ("v=DMARC1; p=reject; sp=x; rua=mailto:d@a.example", policy(wish="none", below="none")),
        ("v=DMARC1; p=x; rua=nothing", None),
        ("v=DMARC1; p=reject; sp=x", None),
        ("v=DMARC1", None),
    ],
)
def test_what_a_record_says(record: str, expected: Policy | None) -> None:
    assert read_policy(record.encode(), "sender.example") == expected


async def find(records: Mapping[str, list[str]], domain: str = "news.sender.example") -> str:
    dns = FakeDns()
    for name, texts in records.items():
        for text in texts:
            dns.text(name, text)
    found = await find_policy(domain, DnsResolver(backend=dns))
    return "" if found is None else f"{found.at} {found.for_domain(domain)}"


async def test_where_a_policy_is_looked_for() -> None:
    own, organisation = "_dmarc.news.sender.example", "_dmarc.sender.example"
    reject, none = "v=DMARC1; p=reject; sp=quarantine", "v=DMARC1; p=none"
    assert await find({}) == ""
    assert await find({own: [none], organisation: [reject]}) == "news.sender.example none"
    assert await find({organisation: [reject]}) == "sender.example quarantine"
    assert await find({organisation: [reject]}, "sender.example") == "sender.example reject"
    assert await find({organisation: [reject]}, "a.b.news.sender.example") == (
        "sender.example quarantine"
    )
    # Other records there do not count, and two that count are none.
    assert await find({own: ["hello", "v=DMARC1x", "v=spf1"], organisation: [reject]}) == (
        "sender.example quarantine"
    )
    assert await find({own: [none, none], organisation: [reject]}) == ""
    assert await find({own: ["hello", none]}) == "news.sender.example none"
    assert await find({"_dmarc.example": [reject]}) == ""


async def test_a_policy_that_nobody_can_say_is_not_absent() -> None:
    dns = FakeDns()
    dns.failing.add("_dmarc.sender.example")
    with pytest.raises(DnsTemporaryError):
        await find_policy("news.sender.example", DnsResolver(backend=dns))
    found = await check(["news.sender.example"], dns=dns)
    assert (found.result, found.wish) == ("temperror", "unknown")


async def check(
    domains: list[str],
    *,
    dns: FakeDns | None = None,
    spf: Spf = FAILING,
    local: Mapping[str, Wish] | None = None,
) -> Dmarc:
    if dns is None:
        dns = FakeDns()
        dns.text("_dmarc.quarantine.example", "v=DMARC1; p=quarantine")
        dns.text("_dmarc.reject.example", "v=DMARC1; p=reject")
        dns.text("_dmarc.none.example", "v=DMARC1; p=none")
        dns.failing.add("_dmarc.broken.example")
    return await check_dmarc(domains, spf, [], resolver=DnsResolver(backend=dns), local=local or {})


@pytest.mark.parametrize(
    ("domains", "passing", "expected"),
    [
        (["quarantine", "reject", "none"], "", ("fail", "reject")),
        (["none", "quarantine"], "", ("fail", "quarantine")),
        (["reject", "none"], "reject", ("fail", "none")),
        (["reject", "broken"], "reject", ("temperror", "broken")),
        (["reject", "unknown"], "reject", ("none", "unknown")),
        (["reject"], "reject", ("pass", "reject")),
        (["unknown"], "", ("none", "unknown")),
    ],
)
async def test_of_several_authors_the_strictest_policy_counts_that_fails(
    domains: list[str], passing: str, expected: tuple[str, str]
) -> None:
    spf = Spf("pass", f"{passing}.example") if passing else FAILING
    found = await check([f"{each}.example" for each in domains], spf=spf)
    assert (found.result, found.domain) == (expected[0], f"{expected[1]}.example")


async def test_a_policy_of_our_own_comes_first_and_holds_below() -> None:
    local: dict[str, Wish] = {"reject.example": "none", "unknown.example": "reject"}
    assert (await check(["reject.example"], local=local)).wish == "none"
    assert (await check(["a.b.reject.example"], local=local)).wish == "none"
    assert await check(["unknown.example"], local=local) == (
        Dmarc("fail", "unknown.example", "reject")
    )
    passing = Spf("pass", "unknown.example")
    assert (await check(["unknown.example"], local=local, spf=passing)).result == "pass"


async def test_a_silent_name_server_costs_no_more_than_its_time(autojump_clock: MockClock) -> None:
    class Silent:
        async def ask(self, name: str, kind: Kind) -> Found | Absent | Failed:
            await trio.sleep_forever()
            raise AssertionError

    found = await check_dmarc(
        ["a.example", "b.example"], FAILING, [], resolver=DnsResolver(backend=Silent())
    )
    assert (found.result, found.wish) == ("temperror", "unknown")


STATED = b"list.example; dmarc=pass (p=reject) header.from=sender.example; spf=fail"


@pytest.mark.parametrize(
    ("seals", "result", "by"),
    [
        ([("list.example", STATED)], "pass", "list.example"),
        ([("list.example", STATED)], "fail", ""),
        ([("other.example", STATED)], "pass", ""),
        # Whoever sealed last could have made up what was before.
        ([("other.example", b"x; none"), ("list.example", STATED)], "pass", ""),
        ([("second.example", b"x; none"), ("list.example", STATED)], "pass", "list.example"),
        ([("list.example", STATED.replace(b"sender", b"else"))], "pass", ""),
        ([("list.example", STATED.replace(b"dmarc=pass", b"dmarc=fail"))], "pass", ""),
        ([("list.example", b"(")], "pass", ""),
        ([], "none", ""),
    ],
)
def test_who_is_believed_that_it_passed(
    seals: list[tuple[str, bytes]], result: Literal["pass", "fail", "none"], by: str
) -> None:
    arc = Arc(result, tuple(Seal(domain, stated) for domain, stated in seals))
    assert vouched_by("sender.example", arc, {"list.example", "second.example"}) == by
