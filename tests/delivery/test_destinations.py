from __future__ import annotations

import pytest

from elemta.config import load
from elemta.delivery.destinations import destination
from elemta.delivery.routing import Router
from elemta.protocol import Mailbox
from elemta.queue import Addressee, LaneLimits, Rate, RetryPolicy

CONFIG = """
hostname: mx.us.example
listeners: [{name: mx, address: "203.0.113.25:25"}]
domains: [{name: us.example, mailboxes: ["*"]}]
routes:
  - {match: smart.example, via: ["smtp://Relay.example:2525", "smtp://other.example"]}
  - {match: literal.example, via: ["smtp://[2001:db8::1]:25"], hello_name: out.us.example}
  - {match: local.example, via: ["lmtp:///run/dovecot/lmtp"]}
queue: {retry: [1 min, 2 min], lifetime: 3 d, delay_warning: 1 h, report_lifetime: 2 d}
"""


def to(domain: str, *via: str) -> Addressee:
    return Addressee(address=Mailbox("u", domain), via=via)


def router(*destinations: str) -> Router:
    entries = "".join(f"  - {{{each}}}\n" for each in destinations)
    return Router(load(CONFIG + ("destinations:\n" + entries if entries else "")))


@pytest.mark.parametrize(
    ("lane", "name"),
    [
        ("mx:example.net", "example.net"),
        ("mx:example.net;tls=required", "example.net"),
        ("mx:[192.0.2.1]", "[192.0.2.1]"),
        ("smtp:Relay.example:2525,other.example:25;hello=x", "relay.example"),
        ("smtp:[2001:db8::1]:25", "2001:db8::1"),
        ("lmtp:[192.0.2.1]:24", "192.0.2.1"),
        ("lmtp:/run/lmtp", "/run/lmtp"),
        ("maildir", "maildir"),
        ("pipe:/bin/program --to {recipient}", "pipe"),
        ("domain:x", "domain"),
    ],
)
def test_a_lane_leads_to_a_domain_or_a_first_host(lane: str, name: str) -> None:
    assert destination(lane) == name


def test_where_nothing_is_said_all_is_as_usual() -> None:
    usual = RetryPolicy(
        schedule=(60.0, 120.0), lifetime=3 * 86400, delay_warning=3600, report_lifetime=2 * 86400
    )
    plain, others = router(), router("match: x.example, connections: 3")
    for each in (plain, others):
        assert each.limits("mx:y.example") == LaneLimits()
        assert each.policy(to("y.example"), None) == usual
    assert others.policy(to("x.example"), None) == usual


def test_limits_are_found_by_domain_or_first_host_and_the_first_match_says_it_all() -> None:
    found = router(
        "match: a.example.net, messages: 100/1 h, recipients: 5/10 s, connections_rate: 7/min",
        'match: "*.example.net", connections: 4',
        "match: relay.example, connections: 50",
        'match: "2001:db8::1", connections: 51',
        "match: maildir, connections: 52",
        "match: Bücher.example, connections: 53",
    )
    assert found.limits("mx:a.example.net") == LaneLimits(
        20,
        (Rate("messages", 100, 3600.0), Rate("recipients", 5, 10.0), Rate("connections", 7, 60.0)),
    )
    for lane, connections in (
        ("mx:b.example.net", 4),
        ("mx:example.net", 20),
        ("smtp:relay.example:2525,other.example:25", 50),
        ("smtp:other.example:25,relay.example:2525", 20),
        ("smtp:[2001:db8::1]:25;hello=out.us.example", 51),
        ("maildir", 52),
        ("mx:xn--bcher-kva.example", 53),
    ):
        assert found.limits(lane) == LaneLimits(connections)


def test_patience_is_found_by_the_domain_of_a_recipient_or_by_its_destination() -> None:
    found = router(
        "match: smart.example, lifetime: 1 h, delay_warning: 0 s",
        "match: relay.example, retry: [5 min]",
        'match: "*", lifetime: 2 d',
    )
    smart = found.policy(to("smart.example"), None)
    assert (smart.lifetime, smart.delay_warning) == (3600, 0)
    assert (smart.schedule, smart.report_lifetime) == ((60.0, 120.0), 2 * 86400)
    assert found.policy(to("else.example"), None).lifetime == 2 * 86400
    by_host = router("match: relay.example, retry: [5 min]", 'match: "*.example", lifetime: 2 d')
    assert by_host.policy(to("smart.example"), None).schedule == (300.0,)
    assert by_host.policy(to("else.example"), None).schedule == (60.0, 120.0)
    chosen = to("smart.example", "smtp://other.example:25")
    assert by_host.policy(chosen, None).schedule == (60.0, 120.0)
    assert by_host.policy(to("else.example", "smtp://relay.example:25"), None).schedule == (300.0,)
