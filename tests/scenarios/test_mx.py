from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.scenarios import messages, ports
from tests.scenarios.conftest import needs
from tests.scenarios.sink import Sink, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.scenarios.conftest import MakeDaemon, ServeZones
    from tests.scenarios.daemon import Daemon

pytestmark = [pytest.mark.scenario, needs("nsd")]

FIRST, SECOND, DEAD = "127.0.0.11", "127.0.0.12", "127.0.0.13"

ZONE = f"""
first    IN A {FIRST}
second   IN A {SECOND}
dead     IN A {DEAD}
both     IN A {DEAD}
both     IN A {SECOND}

preferred   IN MX 20 second
preferred   IN MX 10 first
fallback    IN MX 10 dead
fallback    IN MX 20 second
addresses   IN MX 10 both
implicit    IN A {FIRST}
missinghost IN MX 10 nowhere
missinghost IN MX 20 second
null        IN MX 0 .
empty       IN TXT "no address and no MX"
"""


class Net:
    """The daemon, two mail exchangers and their DNS."""

    def __init__(self, daemon: Daemon, first: Sink, second: Sink) -> None:
        self.daemon, self.first, self.second = daemon, first, second

    def send(self, domain: str) -> str:
        return self.daemon.send(messages.numbered(domain), [f"carol@{domain}"])

    def report(self) -> bytes:
        """The report of failure that the sender gets."""
        (report,) = ports.eventually(lambda: self.daemon.maildir("alice@example.org"))
        return report


@pytest.fixture
def net(make_elemta: MakeDaemon, serve_zones: ServeZones) -> Iterator[Net]:
    port = ports.free_port(FIRST)
    with ExitStack() as stack:
        first = stack.enter_context(Sink(FIRST, port))
        second = stack.enter_context(Sink(SECOND, port))
        nameserver = serve_zones({"test.example": ZONE})
        daemon = make_elemta(
            {
                "dns": {"nameservers": [f"127.0.0.1:{nameserver}"], "timeout": "5 s"},
                "delivery": {"port": port, "allow_targets": ["127.0.0.0/8"]},
            }
        )
        daemon.start()
        yield Net(daemon, first, second)


def test_the_lower_preference_is_tried_first(net: Net) -> None:
    net.send("preferred.test.example")

    ports.eventually(lambda: net.first.deliveries)
    assert not net.second.connections


def test_the_second_mx_takes_what_the_first_does_not(net: Net) -> None:
    net.send("fallback.test.example")

    ports.eventually(lambda: net.second.deliveries)


def test_every_address_of_an_mx_is_tried(net: Net) -> None:
    net.send("addresses.test.example")

    ports.eventually(lambda: net.second.deliveries)


def test_an_mx_that_does_not_exist_is_passed_over(net: Net) -> None:
    net.send("missinghost.test.example")

    ports.eventually(lambda: net.second.deliveries)


def test_a_domain_without_mx_is_its_own(net: Net) -> None:
    net.send("implicit.test.example")

    ports.eventually(lambda: net.first.deliveries)


def test_a_first_mx_that_says_4xx_gives_way_to_the_second(net: Net) -> None:
    net.first.answer(Step.GREETING, "421 4.3.2 busy")
    net.send("preferred.test.example")

    ports.eventually(lambda: net.second.deliveries)


def test_a_null_mx_bounces(net: Net) -> None:
    net.send("null.test.example")

    report = net.report()
    assert b"5.1.10" in report  # RFC 7505 §4.2
    assert b"carol@null.test.example" in report


def test_a_domain_that_does_not_exist_bounces(net: Net) -> None:
    net.send("nowhere.test.example")

    report = net.report()
    assert b"5.1.2" in report
    assert b"carol@nowhere.test.example" in report


def test_a_name_server_that_refuses_only_defers(net: Net) -> None:
    # NSD answers REFUSED for a zone that it does not have.
    message_id = net.send("other.example")

    def deferred() -> bool:
        return any(
            event.get("id") == message_id for event in net.daemon.events() if "defer" in str(event)
        )

    ports.eventually(deferred)
    assert not net.daemon.maildir("alice@example.org")


def test_mx_hosts_on_loopback_are_refused_unless_allowed(
    make_elemta: MakeDaemon, serve_zones: ServeZones
) -> None:
    with Sink(FIRST, 0) as sink:
        nameserver = serve_zones({"test.example": ZONE})
        daemon = make_elemta(
            {
                "dns": {"nameservers": [f"127.0.0.1:{nameserver}"]},
                "delivery": {"port": sink.port},
            }
        )
        daemon.start()
        daemon.send(messages.numbered("loop"), ["carol@implicit.test.example"])

        ports.eventually(lambda: [e for e in daemon.events() if "defer" in str(e)])
        assert not sink.connections
