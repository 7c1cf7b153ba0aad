from __future__ import annotations

from pathlib import Path

import pytest

from elemta.config import Config, HostPort, Pipe, load
from elemta.delivery.routes import ByMx, LocalMaildir, Nowhere, Route, Terms, ToHosts, ToProgram
from elemta.delivery.routing import Router
from elemta.delivery.senders import REMEMBERED
from elemta.protocol import Mailbox, ReversePath
from elemta.queue import Addressee

CONFIG = """
hostname: mx.example.com
listeners: [{name: mx, address: "127.0.0.1:25"}]
domains:
  - {name: example.com, mailboxes: [bob]}
  - {name: Lists.Example.com, mailboxes: ["*"], delimiter: "+", deliver: "smtp://lists.internal:2525"}
  - {name: bücher.example, mailboxes: ["*"]}
routes:
  - {match: exact.example.net, via: ["smtp://exact.internal"]}
  - {match: "*.example.net", via: ["smtp://10.0.0.1:2600", "smtp://[2001:db8::1]:2601"]}
  - {match: late.example.net, via: ["smtp://never.internal"]}
  - {match: "*.net", via: [maildir]}
  - {match: "*.xn--mnchen-3ya.example", via: ["smtp://m.internal"]}
"""


def config(text: str = CONFIG) -> Config:
    return load(text)


def at(domain: str, *via: str) -> Addressee:
    return Addressee(address=Mailbox("somebody", domain), via=via)


TEN = ToHosts((HostPort("10.0.0.1", 2600), HostPort("2001:db8::1", 2601)))


@pytest.mark.parametrize(
    ("domain", "route", "lane"),
    [
        ("example.com", LocalMaildir(), "maildir"),
        (
            "lists.example.com",
            ToHosts((HostPort("lists.internal", 2525),)),
            "smtp:lists.internal:2525",
        ),
        ("bücher.example", LocalMaildir(), "maildir"),
        ("xn--bcher-kva.example", LocalMaildir(), "maildir"),
        ("sub.example.com", ByMx("sub.example.com"), "mx:sub.example.com"),
        ("exact.example.net", ToHosts((HostPort("exact.internal", 25),)), "smtp:exact.internal:25"),
        ("a.example.net", TEN, "smtp:[10.0.0.1]:2600,[2001:db8::1]:2601"),
        ("a.b.example.net", TEN, "smtp:[10.0.0.1]:2600,[2001:db8::1]:2601"),
        # The entry for late.example.net stands behind one that matches too.
        ("late.example.net", TEN, "smtp:[10.0.0.1]:2600,[2001:db8::1]:2601"),
        ("example.net", LocalMaildir(), "maildir"),
        ("net", ByMx("net"), "mx:net"),
        ("badexample.net", LocalMaildir(), "maildir"),
        ("a.münchen.example", ToHosts((HostPort("m.internal", 25),)), "smtp:m.internal:25"),
        ("example.org", ByMx("example.org"), "mx:example.org"),
        ("österreich.example", ByMx("xn--sterreich-z7a.example"), "mx:xn--sterreich-z7a.example"),
        ("[192.0.2.1]", ByMx("[192.0.2.1]"), "mx:[192.0.2.1]"),
        # The bare postmaster lives in the first domain of ours.
        ("", LocalMaildir(), "maildir"),
    ],
)
def test_the_first_match_wins_and_own_domains_come_first(
    domain: str, route: Route, lane: str
) -> None:
    router = Router(config())
    for _ in range(2):  # found, then remembered
        assert router.route(at(domain), None) == route
        assert router.lane(at(domain), None) == lane
        assert router.way(at(domain), None) == (router.route(at(domain), None), lane)


WAYS = """
hostname: mx.example.com
listeners: [{name: mx, address: "127.0.0.1:25"}]
domains:
  - {name: lmtp.example, mailboxes: ["*"], deliver: "lmtp:///run/lmtp"}
routes:
  - {match: hosts.example, via: ["lmtp://10.0.0.1", "lmtp://b.internal:2424"]}
  - {match: void.example, via: [discard]}
  - {match: prog.example, via: ["pipe:/bin/x {recipient}"]}
  - match: bank.example
    tls: required
    source: [192.0.2.1, "2001:db8::1"]
    hello_name: out.example.com
  - {match: smart.example, via: ["smtp://smart.internal"], tls: "off"}
"""
TERMS = Terms(hello_name="out.example.com", source=("192.0.2.1", "2001:db8::1"), tls="required")


@pytest.mark.parametrize(
    ("domain", "route", "lane"),
    [
        ("lmtp.example", ToHosts((HostPort("/run/lmtp", 0),), lmtp=True), "lmtp:/run/lmtp"),
        (
            "hosts.example",
            ToHosts((HostPort("10.0.0.1", 24), HostPort("b.internal", 2424)), lmtp=True),
            "lmtp:[10.0.0.1]:24,b.internal:2424",
        ),
        ("void.example", Nowhere(), "discard"),
        (
            "prog.example",
            ToProgram(Pipe(("/bin/x", "{recipient}"))),
            "pipe:/bin/x '{recipient}'",
        ),
        (
            "bank.example",
            ByMx("bank.example", TERMS),
            "mx:bank.example;hello=out.example.com;source=192.0.2.1,2001:db8::1;tls=required",
        ),
        (
            "smart.example",
            ToHosts((HostPort("smart.internal", 25),), terms=Terms(tls="off")),
            "smtp:smart.internal:25;tls=off",
        ),
    ],
)
def test_what_goes_another_way_stands_in_a_lane_of_its_own(
    domain: str, route: Route, lane: str
) -> None:
    router = Router(config(WAYS))
    assert router.route(at(domain), None) == route
    assert router.lane(at(domain), None) == lane


def test_mail_for_the_rest_of_the_world_goes_by_mx_unless_a_route_takes_it() -> None:
    # Fault 1 of the original: everything went to one LMTP host.
    assert Router(config()).route(at("gmail.example"), None) == ByMx("gmail.example")
    everything = CONFIG + '  - {match: "*", via: ["smtp://smarthost.example:587"]}\n'
    router = Router(config(everything))
    assert router.route(at("gmail.example"), None) == ToHosts((HostPort("smarthost.example", 587),))
    assert router.route(at("[192.0.2.1]"), None) == ToHosts((HostPort("smarthost.example", 587),))
    assert router.route(at("example.com"), None) == LocalMaildir()


def test_without_a_domain_of_ours_a_bare_postmaster_goes_nowhere() -> None:
    router = Router(load("hostname: a.example\nlisteners: [{name: mx, address: ':25'}]"))
    assert router.route(at(""), None) == ByMx("")


def test_a_domain_that_dns_cannot_say_is_still_routed() -> None:
    assert Router(config()).route(at("a_b.example"), None) == ByMx("a_b.example")


def test_memory_of_domains_is_bounded() -> None:
    router = Router(config(), remembered=100)
    for number in range(1_000):
        assert router.lane(at(f"d{number}.example"), None) == f"mx:d{number}.example"
    assert len(router._known) <= 100


@pytest.mark.parametrize(
    ("domain", "via", "lane"),
    [
        (
            "example.org",
            ("smtp://a.example:26", "smtp://b.example"),
            "smtp:a.example:26,b.example:25",
        ),
        ("exact.example.net", ("lmtp:///run/lmtp",), "lmtp:/run/lmtp"),
        ("example.com", ("lmtp://a.example",), "lmtp:a.example:24"),
        ("example.org", ("maildir",), "maildir"),
        ("", ("smtp://a.example",), "smtp:a.example:25"),
        ("example.org", (), "mx:example.org"),
        # What nobody may choose, or nobody understands, counts for nothing.
        ("example.org", ("pipe:/bin/sh",), "mx:example.org"),
        ("example.net", ("carrier://pigeon",), "maildir"),
    ],
)
def test_what_was_chosen_for_a_recipient_goes_before_the_configuration(
    domain: str, via: tuple[str, ...], lane: str
) -> None:
    router = Router(config())
    assert router.lane(at(domain, *via), None) == lane
    assert router.lane(at(domain, *via), None) == lane, "from memory"
    assert router.route(at(domain, *via), None).lane == lane


def test_chosen_hosts_are_met_on_the_terms_of_the_domain() -> None:
    text = CONFIG + '  - {match: "*.org", hello_name: out.example.com, tls: required}\n'
    route = Router(config(text)).route(at("example.org", "smtp://a.example"), None)
    terms = Terms(hello_name="out.example.com", tls="required")
    assert route == ToHosts((HostPort("a.example", 25),), terms=terms)


def test_what_was_chosen_is_remembered_for_so_many() -> None:
    router = Router(config(), remembered=2)
    for number in range(5):
        chosen = at("example.org", f"smtp://h{number}.example")
        assert router.lane(chosen, None) == f"smtp:h{number}.example:25"
    assert len(router._chosen) <= 2


@pytest.mark.parametrize(
    ("domain", "entry"),
    [
        ("example.com", "domains[0]"),
        ("Lists.Example.com".lower(), "domains[1]"),
        ("xn--bcher-kva.example", "domains[2]"),
        ("", "domains[0]"),
        ("exact.example.net", "routes[0]"),
        ("late.example.net", "routes[1]"),
        ("elsewhere.example", ""),
    ],
)
def test_the_entry_that_decides_is_named(domain: str, entry: str) -> None:
    assert Router(config()).entry(at(domain), None) == entry


BY_SENDER = (
    CONFIG
    + """
  - {match: "*.org", via: ["smtp://orgs.internal"], senders: ["@orgs.example"]}
  - match: "*"
    via: ["smtp://shop.internal:587"]
    source: [192.0.2.7]
    senders: ["@shop.example", "ann@example.com", "ann@lists.example.com"]
  - {match: "*", via: ["smtp://reports.internal"], senders: ["<>"]}
"""
)
SHOP = "smtp:shop.internal:587;source=192.0.2.7"


@pytest.mark.parametrize(
    ("sender", "domain", "lane", "entry"),
    [
        (Mailbox("sales", "shop.example"), "gmail.example", SHOP, "routes[6]"),
        (Mailbox("Ann", "EXAMPLE.com"), "gmail.example", SHOP, "routes[6]"),
        (Mailbox("bob", "example.com"), "gmail.example", "mx:gmail.example", ""),
        (Mailbox("x", "sub.shop.example"), "gmail.example", "mx:gmail.example", ""),
        (None, "gmail.example", "smtp:reports.internal:25", "routes[7]"),
        # The first that matches wins, whether it looks at senders or not.
        (
            Mailbox("sales", "shop.example"),
            "exact.example.net",
            "smtp:exact.internal:25",
            "routes[0]",
        ),
        (Mailbox("x", "orgs.example"), "a.org", "smtp:orgs.internal:25", "routes[5]"),
        (Mailbox("sales", "shop.example"), "a.org", SHOP, "routes[6]"),
        # A tag of ours is none of who it is; another's is.
        (Mailbox("ann+shop", "Lists.example.com"), "gmail.example", SHOP, "routes[6]"),
        (Mailbox("+", "lists.example.com"), "gmail.example", "mx:gmail.example", ""),
        (Mailbox("ann+shop", "example.com"), "gmail.example", "mx:gmail.example", ""),
        # Mail to us stays here, whoever sends it.
        (Mailbox("sales", "shop.example"), "example.com", "maildir", "domains[0]"),
    ],
)
def test_a_route_may_be_for_some_senders_alone(
    sender: ReversePath, domain: str, lane: str, entry: str
) -> None:
    router = Router(config(BY_SENDER))
    for _ in range(2):  # found, then remembered
        assert router.lane(at(domain), sender) == lane
        assert router.route(at(domain), sender).lane == lane
        assert router.entry(at(domain), sender) == entry
        assert router.lane(at(domain), Mailbox("nobody", "else.example")) != SHOP


def test_chosen_hosts_are_met_on_the_terms_that_the_sender_has() -> None:
    router = Router(config(BY_SENDER))
    to = at("gmail.example", "smtp://other.example")
    for _ in range(2):
        assert router.lane(to, None) == "smtp:other.example:25"
        assert router.lane(to, Mailbox("a", "shop.example")) == (
            "smtp:other.example:25;source=192.0.2.7"
        )


def test_memory_of_senders_is_bounded() -> None:
    router = Router(config(BY_SENDER))
    for number in range(REMEMBERED + 100):
        assert router.lane(at("a.org"), Mailbox(f"u{number}", "shop.example")) == SHOP
        assert router.lane(at("a.org"), Mailbox("u", f"d{number}.example")) == "mx:a.org"
    senders = router._parted["a.org"][1].step.senders
    assert senders is not None
    assert len(senders._known) <= REMEMBERED


def test_memory_of_domains_is_bounded_where_senders_part() -> None:
    router = Router(config(BY_SENDER), remembered=100)
    for number in range(1_000):
        assert router.lane(at(f"d{number}.example"), None) == "smtp:reports.internal:25"
    assert len(router._parted) <= 100
    assert not router._known


SMART = """
hostname: mx.example.com
listeners: [{name: mx, address: "127.0.0.1:25"}]
routes:
  - match: "*"
    via: ["smtps://a.internal", "smtp://[2001:db8::1]:587"]
    login: {user: us, password: hush}
    server_name: mail.internal
    authorities: /ca.pem
"""


def test_what_is_said_to_a_smarthost_stands_in_its_lane_but_no_secret() -> None:
    router = Router(load(SMART))
    assert router.lane(at("far.example"), None) == (
        "smtp:a.internal:465/tls,[2001:db8::1]:587"
        ";tls=verified;name=mail.internal;authorities=/ca.pem;login=us"
    )
    route = router.route(at("far.example"), None)
    assert "hush" not in repr(route)
    assert isinstance(route, ToHosts)
    assert route.implicit == {HostPort("a.internal", 465)}


def test_nobody_learns_who_we_are_but_the_hosts_of_the_route() -> None:
    router = Router(load(SMART))
    route = router.route(at("far.example", "smtps://other.internal:4650"), None)
    assert isinstance(route, ToHosts)
    assert route.terms == Terms(tls="verified", authorities=Path("/ca.pem"))
