"""What a real Prometheus makes of what we tell it."""

from __future__ import annotations

import os
import re
import signal
import smtplib
import subprocess
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.scenarios import messages, ports
from tests.scenarios.conftest import needs
from tests.scenarios.prometheus import prometheus
from tests.scenarios.test_nodes import NOWHERE, nodes_of, send_to_all

if TYPE_CHECKING:
    from tests.scenarios.conftest import MakeDaemon
    from tests.scenarios.daemon import Daemon

pytestmark = [pytest.mark.scenario, needs("prometheus", "promtool")]

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


def serving(make_elemta: MakeDaemon, folder: Path, port: int, **settings: object) -> Daemon:
    """A daemon with an API."""
    folder.mkdir()
    api = {"address": f"127.0.0.1:{port}"}
    queue = {"retry": ["1 h"], "disk_reserve": "1 MiB"}
    daemon = make_elemta({"api": api, "queue": queue, **NOWHERE, **settings}, folder)
    daemon.start()
    return daemon


def scrape(port: int, accept: str = "") -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=60) as answer:
        text: str = answer.read().decode()
        return text


def check(text: str, what: str = "metrics", *files: str) -> None:
    """promtool has nothing to say."""
    done = subprocess.run(
        ["promtool", "check", what, *files],
        input=text, text=True, capture_output=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def traffic(daemon: Daemon) -> None:
    """Three that are delivered, two that wait, one that is refused."""
    for number in range(3):
        daemon.send(messages.numbered(f"{number}"), ["bob@example.org"])
    for number in range(2):
        daemon.send(messages.numbered(f"far {number}"), ["ann@far.example"])
    with pytest.raises(smtplib.SMTPResponseException):
        daemon.send(messages.numbered("x"), ["nobody@example.org"])


def test_prometheus_counts_what_was_sent_and_sees_no_jump_when_a_node_dies(
    make_elemta: MakeDaemon, place: Path
) -> None:
    jobs = {"one": ports.free_port(), "two": ports.free_port()}
    with prometheus(place / "prometheus", jobs) as found:
        domains = [{"name": "example.org", "mailboxes": ["bob"]}]
        one = serving(make_elemta, place / "one", jobs["one"], domains=domains)
        two = serving(make_elemta, place / "two", jobs["two"], nodes=2)
        traffic(one)
        sent = len(send_to_all(two, "ann@far.example"))
        before = nodes_of(two)
        found.wait()

        # Once a destination has not answered, what else is to go there waits untried.
        for name, label, value in (
            ("elemta_messages_received_total", "", 5),
            ("elemta_messages_delivered_total", "", 3),
            ("elemta_delivery_failures_total", 'outcome="deferred"', 1),
            ("elemta_refusals_total", 'reason="unknown_mailbox"', 1),
            ("elemta_queue_size", 'queue_type="active"', 1),
            ("elemta_queue_size", 'queue_type="deferred"', 1),
            ("elemta_destinations", 'state="parked"', 1),
            ("elemta_destination_messages", 'state="parked"', 1),
            ("elemta_message_size_bytes_count", "", 5),
            ("elemta_accept_duration_seconds_count", "", 5),
            ("elemta_queue_wait_seconds_count", "", 4),
            ("elemta_queue_processing_time_seconds_count", "", 3),
            ("elemta_host_connections_total", 'outcome="unreachable"', 1),
            ("elemta_nodes_up", "", 1),
            ("elemta_healthy", "", 1),
        ):
            found.until(f'{name}{{job="one",{label}}}', value)
        assert (found.one('elemta_commit_operations_sum{job="one"}') or 0) >= 5
        assert (found.one('elemta_loop_lag_seconds_count{job="one"}') or 0) > 0

        # Two nodes are one server, but for what processes say of themselves.
        found.until('elemta_messages_received_total{job="two"}', sent)
        found.until('elemta_queue_messages{job="two"}', sent)
        assert set(found.ask('process_resident_memory_bytes{job="two"}')) == {"0", "1", "2"}
        os.kill(before[2], signal.SIGKILL)
        found.until('elemta_nodes_up{job="two"}', 1)
        assert found.one('elemta_messages_received_total{job="two"}') == sent
        ports.eventually(lambda: nodes_of(two)[2] != before[2])
        found.until('elemta_nodes_up{job="two"}', 2)
        two.send(messages.numbered("last"), ["ann@far.example"])
        found.until('elemta_messages_received_total{job="two"}', sent + 1)
        assert found.one('resets(elemta_messages_received_total{job="two"}[1m])') == 0
        assert found.one('resets(elemta_commit_operations_count{job="two"}[1m])') == 0

    for port in jobs.values():
        check(scrape(port))
        assert scrape(port, "application/openmetrics-text").endswith("# EOF\n")
    for daemon in (one, two):
        assert daemon.terminate() == 0


def test_the_alerts_in_the_documentation_are_right(tmp_path: Path) -> None:
    for what, block in zip(
        ("config", "rules"),
        re.findall(r"^```yaml\n(.*?)^```", DOCS.read_text(), re.MULTILINE | re.DOTALL),
        strict=True,
    ):
        file = tmp_path / f"{what}.yml"
        file.write_text(block)
        check("", what, str(file))
