"""Next hops with ways of their own: they greylist, lose their answer, know no extension, are slow.

Each has a domain and a sink of its own; one daemon sends to all of them.
"""

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
from tests.scenarios.sink import Silence, Sink, Step, greylisting, offering, once

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.scenarios.sink import Answer

pytestmark = pytest.mark.scenario

#: Each test has the sink of its name.
NAMES: Final = ("greylists", "drops", "loses", "busy", "bare", "bare8", "picky", "slow")


class Peers:
    """The daemon, and its next hops by name."""

    def __init__(self, daemon: Daemon, sinks: dict[str, Sink]) -> None:
        self.daemon, self.sinks = daemon, sinks

    def send(self, name: str, *locals_: str, content: bytes | None = None) -> Sink:
        """Hand in a message for the domain of this sink, and give the sink."""
        recipients = [f"{local}@{name}.example" for local in locals_ or ("carol",)]
        self.daemon.send(content or messages.numbered(name), recipients, f"{name}@example.org")
        return self.sinks[name]

    def reports(self, name: str) -> list[bytes]:
        """What came back to the sender of this sink's mail."""
        return self.daemon.maildir(f"{name}@example.org")

    def settled(self, name: str) -> bool:
        """Whether nothing waits any more for this sink."""
        return f"@{name}.example" not in str(self.daemon.ask("queue", "list"))


@pytest.fixture(scope="module")
def peers() -> Iterator[Peers]:
    folder = Path(tempfile.mkdtemp(prefix="elemta-scenario-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        sinks = {name: stack.enter_context(Sink()) for name in NAMES}
        daemon = Daemon(
            folder,
            {
                "routes": [
                    {"match": f"{name}.example", "via": [f"smtp://127.0.0.1:{sink.port}"]}
                    for name, sink in sinks.items()
                ],
                "delivery": {"command_timeout": "3 s", "content_timeout": "3 s"},
            },
        )
        stack.callback(daemon.kill)
        daemon.start()
        yield Peers(daemon, sinks)


def test_greylisting_costs_one_retry(peers: Peers) -> None:
    peers.sinks["greylists"].answer(Step.RCPT, greylisting())
    sink = peers.send("greylists", "carol", "dave")

    ports.eventually(lambda: len(sink.deliveries) == 1 and peers.settled("greylists"))
    assert sorted(sink.deliveries[0].recipients) == [
        "carol@greylists.example",
        "dave@greylists.example",
    ]
    assert not peers.reports("greylists")


@pytest.mark.parametrize(("name", "how"), [("drops", Silence.DROP), ("loses", Silence.LOSE)])
def test_a_connection_lost_at_the_dot_loses_nothing_and_doubles_at_most_once(
    peers: Peers, name: str, how: Silence
) -> None:
    # The sink hangs up instead of answering; with LOSE it has taken the message all the same.
    peers.sinks[name].answer(Step.DOT, once(how))
    sink = peers.send(name)

    ports.eventually(lambda: sink.deliveries and peers.settled(name), within=60.0)
    assert sink.ids == {name: 2 if how is Silence.LOSE else 1}
    assert {d.content for d in sink.deliveries} == {sink.deliveries[0].content}
    assert not peers.reports(name)


def test_a_421_behind_data_is_only_a_delay(peers: Peers) -> None:
    peers.sinks["busy"].answer(Step.DATA, once("421 4.3.2 going down"))
    sink = peers.send("busy")

    ports.eventually(lambda: sink.deliveries and peers.settled("busy"), within=60.0)
    assert sink.ids == {"busy": 1}


def test_a_host_without_any_extension_gets_plain_smtp(peers: Peers) -> None:
    peers.sinks["bare"].answer(Step.EHLO, "502 5.5.1 what?")
    sink = peers.send("bare", "carol", "dave", content=messages.numbered("bare") + b"..\r\n.\r\n.x")

    (delivery,) = ports.eventually(lambda: sink.deliveries)
    assert delivery.hello == "HELO mx.example.org"
    assert delivery.commands == [
        "MAIL FROM:<bare@example.org>",
        "RCPT TO:<carol@bare.example>",
        "RCPT TO:<dave@bare.example>",
    ]
    assert delivery.content.endswith(b"\r\n..\r\n.\r\n.x\r\n")


def test_mail_that_needs_8bitmime_comes_back_from_a_host_without_it(peers: Peers) -> None:
    peers.sinks["bare8"].answer(Step.EHLO, offering("PIPELINING"))
    sink = peers.send("bare8", content=messages.AWKWARD)

    (report,) = ports.eventually(lambda: peers.reports("bare8"))
    assert b"Status: 5.6.3" in report
    assert not sink.deliveries


def test_one_recipient_who_is_refused_does_not_hold_up_the_others(peers: Peers) -> None:
    peers.sinks["picky"].answer(
        Step.RCPT, lambda line: "550 5.1.1 no such user" if "<dave@" in line else None
    )
    sink = peers.send("picky", "carol", "dave", "erin")

    ports.eventually(lambda: sink.deliveries and peers.settled("picky"))
    (report,) = ports.eventually(lambda: peers.reports("picky"))
    (delivery,) = sink.deliveries
    assert delivery.recipients == ["carol@picky.example", "erin@picky.example"]
    assert report.count(b"Final-Recipient:") == 1
    assert b"Final-Recipient: rfc822; dave@picky.example" in report
    assert b"550 5.1.1 no such user" in report


def test_a_slow_host_is_waited_for(peers: Peers) -> None:
    for step in (Step.GREETING, Step.EHLO, Step.MAIL, Step.RCPT, Step.DATA, Step.DOT):
        peers.sinks["slow"].answer(step, late)
    sink = peers.send("slow")

    ports.eventually(lambda: sink.deliveries and peers.settled("slow"))
    assert sink.ids == {"slow": 1}
    assert sink.connections == 1


def late(_: str) -> Answer | None:
    """As usual, more than half a second later."""
    time.sleep(0.6)
    return None
