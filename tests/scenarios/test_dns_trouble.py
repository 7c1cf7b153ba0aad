"""Name servers and mail exchangers that do not do what they should: mail waits, and then goes."""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.scenarios import messages, ports
from tests.scenarios.daemon import Daemon
from tests.scenarios.nameserver import Nameserver, Trouble
from tests.scenarios.sink import Silence, Sink, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.scenario

GOOD, MUTE, BUSY, DEAD, PRIVATE = (f"127.0.0.{number}" for number in range(21, 26))

TO_GOOD: Final = ["MX 10 good.test."]
RECORDS: Final = {
    "good.test": [f"A {GOOD}"],
    "mute.test": [f"A {MUTE}"],
    "busy.test": [f"A {BUSY}"],
    "dead.test": [f"A {DEAD}"],
    "ours.test": [f"A {PRIVATE}"],
    "slow.test": TO_GOOD,
    "cut.test": TO_GOOD,
    **{f"{each.value}.test": TO_GOOD for each in Trouble},
    "failover.test": ["MX 30 good.test.", "MX 20 busy.test.", "MX 10 dead.test."],
    "hangs.test": ["MX 20 good.test.", "MX 10 mute.test."],
    "all-dead.test": ["MX 10 dead.test.", "MX 20 nowhere.test."],
    "sick-mx.test": ["MX 10 unsure.test."],
    "unsure.test": [f"A {GOOD}"],
    "inside.test": ["MX 10 ours.test."],
    "ten.test": ["A 10.0.0.1"],
    "link.test": ["A 169.254.169.254"],
    "many.test": ["A 224.0.0.1"],
    "six.test": ["AAAA ::1", "AAAA fe80::1", "AAAA ::ffff:127.0.0.25"],
    "mixed.test": ["MX 10 ours.test.", "MX 20 good.test."],
}
#: Answers that say nothing of whether a domain exists.
UNSURE: Final = [each for each in Trouble if each is not Trouble.TRUNCATED]


class Net:
    """The daemon, the name server, and mail exchangers by their addresses."""

    def __init__(self, daemon: Daemon, nameserver: Nameserver, sinks: dict[str, Sink]) -> None:
        self.daemon, self.nameserver, self.sinks = daemon, nameserver, sinks

    def send(self, domain: str) -> str:
        return self.daemon.send(
            messages.numbered(domain), [f"carol@{domain}"], f"{domain}@example.org"
        )

    def arrived(self, domain: str, within: float = 20.0) -> None:
        """Wait until the message for this domain came to where it should go, once."""
        good = self.sinks[GOOD]
        ports.eventually(lambda: good.ids[domain], within=within, what=f"mail for {domain}")
        assert good.ids[domain] == 1

    def deferred(self, message_id: str) -> str:
        """Wait until a message was tried in vain; gives why."""

        def said() -> list[str]:
            events = self.daemon.events("delivery.deferred")
            return [str(event["reply"]) for event in events if event["id"] == message_id]

        return ports.eventually(said, what="a delivery in vain")[0]

    def reports(self, domain: str) -> list[bytes]:
        return self.daemon.maildir(f"{domain}@example.org")


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    folder = Path(tempfile.mkdtemp(prefix="elemta-scenario-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        port = ports.free_port(GOOD)
        sinks = {
            address: stack.enter_context(Sink(address, port))
            for address in (GOOD, MUTE, BUSY, PRIVATE)
        }
        sinks[MUTE].answer(Step.GREETING, Silence.STALL)
        sinks[BUSY].answer(Step.GREETING, "421 4.3.2 too busy")
        nameserver = stack.enter_context(Nameserver(RECORDS))
        daemon = Daemon(
            folder,
            {
                "dns": {"nameservers": [f"127.0.0.1:{nameserver.port}"], "timeout": "2 s"},
                "delivery": {
                    "port": port,
                    "allow_targets": [GOOD, MUTE, BUSY, DEAD],
                    "command_timeout": "1 s",
                },
            },
        )
        stack.callback(daemon.kill)
        daemon.start()
        yield Net(daemon, nameserver, sinks)


def test_lame_name_servers_delay_mail_and_bounce_none(net: Net) -> None:
    domains = {f"{trouble.value}.test": trouble for trouble in UNSURE}
    for domain, trouble in domains.items():
        net.nameserver.trouble(domain, trouble)

    ids = [net.send(domain) for domain in domains]

    for message_id in ids:
        assert net.deferred(message_id).startswith("451 4.4.3 DNS: ")
    for domain in domains:
        net.nameserver.trouble(domain, None)

    def arrived() -> bool:
        net.daemon.flush()  # in vain while the failure is remembered
        time.sleep(0.5)
        return all(net.sinks[GOOD].ids[domain] for domain in domains)

    ports.eventually(arrived, what="mail for each domain")
    for domain in domains:
        net.arrived(domain)
        assert not net.reports(domain)


def test_a_slow_name_server_is_waited_for(net: Net) -> None:
    net.nameserver.delay("slow.test", 0.8)

    net.send("slow.test")

    net.arrived("slow.test")


def test_an_answer_too_long_for_a_datagram_is_fetched_by_tcp(net: Net) -> None:
    net.nameserver.trouble("cut.test", Trouble.TRUNCATED)

    net.send("cut.test")

    net.arrived("cut.test")


def test_dead_and_busy_exchangers_give_way_to_the_third(net: Net) -> None:
    message_id = net.send("failover.test")

    net.arrived("failover.test")
    assert not [e for e in net.daemon.events("delivery.deferred") if e["id"] == message_id]


def test_an_exchanger_that_says_nothing_gives_way_to_the_next(net: Net) -> None:
    message_id = net.send("hangs.test")

    net.arrived("hangs.test")
    assert not [e for e in net.daemon.events("delivery.deferred") if e["id"] == message_id]


def test_where_nobody_is_there_mail_waits(net: Net) -> None:
    message_id = net.send("all-dead.test")

    assert "451 4.4.1 cannot connect to dead.test[" in net.deferred(message_id)
    assert message_id in str(net.daemon.ask("queue", "list"))
    assert not net.reports("all-dead.test")


def test_an_exchanger_whose_address_nobody_can_tell_delays_mail(net: Net) -> None:
    net.nameserver.trouble("unsure.test", Trouble.SERVFAIL)

    message_id = net.send("sick-mx.test")

    assert net.deferred(message_id).startswith("451 4.4.3 DNS: ")
    assert not net.reports("sick-mx.test")


@pytest.mark.parametrize(
    "domain", ["inside.test", "ten.test", "link.test", "many.test", "six.test"]
)
def test_no_domain_can_make_us_talk_to_our_own_network(net: Net, domain: str) -> None:
    message_id = net.send(domain)

    assert "public" in net.deferred(message_id)
    assert not net.sinks[PRIVATE].connections


def test_an_exchanger_inside_gives_way_to_one_outside(net: Net) -> None:
    net.send("mixed.test")

    net.arrived("mixed.test")
    assert not net.sinks[PRIVATE].connections
