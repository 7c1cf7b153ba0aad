"""What a next hop answers, at each step: deferred, bounced or delivered, as it should be.

All cases run at once against one daemon, each with a sink and a domain of its own.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.scenarios import messages, ports
from tests.scenarios.daemon import Daemon
from tests.scenarios.sink import Answer, Silence, Sink, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.scenario

KINDS: dict[str, Answer] = {
    "4xx": "451 4.3.0 not now",
    "5xx": "550 5.7.9 never",
    "421": "421 4.3.2 going down",
    "drop": Silence.DROP,
    "stall": Silence.STALL,
}
STEPS = [Step.GREETING, Step.EHLO, Step.MAIL, Step.RCPT, Step.DATA, Step.DOT]
CASES = [(step, kind) for step in STEPS for kind in KINDS]
#: A 5xx to what concerns the message is final. One in the greeting is about us, the client, and
#: may pass; one to EHLO makes us say HELO.
BOUNCED = [(step, "5xx") for step in (Step.MAIL, Step.RCPT, Step.DATA, Step.DOT)]
HELO = [(Step.EHLO, "5xx"), (Step.EHLO, "4xx"), (Step.EHLO, "421")]
DEFERRED = [case for case in CASES if case not in BOUNCED and case not in HELO[:1]]


def _name(case: tuple[Step, str]) -> str:
    return f"{case[0].value}-{case[1]}"


class Cases:
    """A daemon that has been given one message for each case.

    Attributes:
        waited: those that were still in the queue after their first attempts.
    """

    def __init__(self, daemon: Daemon, sinks: dict[tuple[Step, str], Sink]) -> None:
        self.daemon, self.sinks = daemon, sinks
        self.ids = {
            case: daemon.send(
                messages.numbered(_name(case)),
                [f"carol@{_name(case)}.example"],
                f"{_name(case)}@example.org",
            )
            for case in sinks
        }
        ports.eventually(self._tried, what="a first attempt at each")
        listed = str(daemon.ask("queue", "list"))
        self.waited = {case for case, message_id in self.ids.items() if message_id in listed}
        for (step, _), sink in sinks.items():
            sink.answer(step, None)
        # A destination that does not answer is left alone for half a minute, whatever `retry` says.
        daemon.flush()

    def _tried(self) -> bool:
        """Whether every message has been delivered, bounced or deferred once."""
        ended = {
            event.get("id")
            for event in self.daemon.events()
            if event["event"] in ("delivery.delivered", "delivery.failed", "delivery.deferred")
        }
        return ended >= set(self.ids.values())

    def report(self, case: tuple[Step, str]) -> list[bytes]:
        return self.daemon.maildir(f"{_name(case)}@example.org")


@pytest.fixture(scope="module")
def cases() -> Iterator[Cases]:
    folder = Path(tempfile.mkdtemp(prefix="elemta-scenario-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        sinks = {case: stack.enter_context(Sink()) for case in CASES}
        for (step, kind), sink in sinks.items():
            sink.answer(step, KINDS[kind])
        daemon = Daemon(
            folder,
            {
                "routes": [
                    {"match": f"{_name(case)}.example", "via": [f"smtp://127.0.0.1:{sink.port}"]}
                    for case, sink in sinks.items()
                ],
                "delivery": {
                    "connect_timeout": "2 s",
                    "command_timeout": "1 s",
                    "content_timeout": "1 s",
                },
            },
        )
        stack.callback(daemon.kill)
        daemon.start()
        yield Cases(daemon, sinks)


@pytest.mark.parametrize("case", BOUNCED, ids=_name)
def test_a_5xx_bounces(cases: Cases, case: tuple[Step, str]) -> None:
    (report,) = ports.eventually(lambda: cases.report(case), what="a report of failure")

    assert b"Action: failed" in report
    assert b"Status: 5.7.9" in report
    assert b"550 5.7.9 never" in report
    assert f"carol@{_name(case)}.example".encode() in report
    assert report.startswith(b"Return-Path: <>\n")
    assert case not in cases.waited


def test_an_ehlo_that_is_refused_becomes_a_helo(cases: Cases) -> None:
    sink = cases.sinks[Step.EHLO, "5xx"]

    ports.eventually(lambda: sink.deliveries)

    assert sink.ids == {"ehlo-5xx": 1}


@pytest.mark.parametrize("case", DEFERRED, ids=_name)
def test_what_may_pass_is_tried_again(cases: Cases, case: tuple[Step, str]) -> None:
    assert case in cases.waited
    sink = cases.sinks[case]

    ports.eventually(lambda: sink.deliveries, within=60.0, what="the message, once it may pass")

    assert sink.connections >= 2
    assert sink.deliveries[0].content.endswith(messages.numbered(_name(case))[-200:])
    assert not cases.report(case)


def test_in_the_end_nothing_waits_and_nothing_came_twice(cases: Cases) -> None:
    ports.eventually(lambda: cases.daemon.ask("queue", "list") == [], what="an empty queue")

    for case in DEFERRED:
        assert cases.sinks[case].ids == {_name(case): 1}
