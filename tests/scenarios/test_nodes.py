"""A server of several processes, as one who runs it sees it: one server."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.scenarios import messages, ports

if TYPE_CHECKING:
    from tests.scenarios.conftest import MakeDaemon
    from tests.scenarios.daemon import Daemon

pytestmark = pytest.mark.scenario

#: Where nobody listens: what goes there waits.
NOWHERE = {"routes": [{"match": "*", "via": ["smtp://127.0.0.1:1"]}]}


def nodes_of(daemon: Daemon) -> dict[int, int]:
    """The process of each node, by its number."""
    found: dict[int, int] = {}
    for event in daemon.events("node.started"):
        node, pid = event["node"], event["pid"]
        assert isinstance(node, int)
        assert isinstance(pid, int)
        found[node] = pid
    return found


def send_to_all(daemon: Daemon, recipient: str) -> set[str]:
    """Send until each node has taken something: which one a client meets, the kernel says."""
    ids: set[str] = set()
    for _ in range(400):
        ids.add(daemon.send(messages.numbered("x"), [recipient]))
        if len({event["node"] for event in daemon.events("message.received")}) == 2:
            return ids
    raise AssertionError("one node takes nothing")


def test_two_nodes_are_one_server(make_elemta: MakeDaemon) -> None:
    daemon = make_elemta({"nodes": 2, **NOWHERE})
    daemon.start()
    ids = send_to_all(daemon, "bob@far.example")

    listed = daemon.ask("queue", "list", "--limit", "1000")
    assert isinstance(listed, list)
    assert {each["id"] for each in listed} == ids
    for each in sorted(ids)[:5]:
        assert "bob@far.example" in daemon.tell("queue", "show", each)
    daemon.tell("queue", "hold", "--all", "--yes")
    held = daemon.ask("queue", "list", "--view", "hold", "--limit", "1000")
    assert isinstance(held, list)
    assert len(held) == len(ids)
    daemon.tell("queue", "delete", "--all", "--yes")
    assert daemon.ask("queue", "list") == []
    assert daemon.terminate() == 0


def test_a_node_that_is_killed_is_started_again_and_loses_nothing(
    make_elemta: MakeDaemon,
) -> None:
    daemon = make_elemta({"nodes": 2, **NOWHERE})
    daemon.start()
    ids = send_to_all(daemon, "bob@far.example")
    before = nodes_of(daemon)

    os.kill(before[2], signal.SIGKILL)

    ports.eventually(lambda: nodes_of(daemon)[2] != before[2])
    ports.eventually(lambda: len(daemon.events("daemon.ready")) == 3)
    listed = daemon.ask("queue", "list", "--limit", "1000")
    assert isinstance(listed, list)
    assert {each["id"] for each in listed} == ids
    assert nodes_of(daemon)[1] == before[1]
    assert daemon.terminate() == 0


def test_an_account_has_its_limit_once_and_a_node_that_starts_anew_knows_of_it(
    make_elemta: MakeDaemon,
) -> None:
    limits = {"account": {"messages": ["20/1 h"]}, "clients": True, "brake": None}
    plugins = [{"name": "sending-limits", "settings": limits}]
    daemon = make_elemta({"nodes": 2, "plugins": plugins, **NOWHERE})
    daemon.start()
    ids = send_to_all(daemon, "bob@far.example")
    while len(ids) < 60:
        ids.add(daemon.send(messages.numbered("x"), ["bob@far.example"]))
    # What came to both within the same milliseconds may be beyond it.
    assert 20 <= len(ids) - len(held(daemon)) <= 22

    before = nodes_of(daemon)
    os.kill(before[2], signal.SIGKILL)
    ports.eventually(lambda: len(daemon.events("daemon.ready")) == 3)
    known = len(held(daemon))
    for _ in range(20):
        daemon.send(messages.numbered("x"), ["bob@far.example"])
    assert len(held(daemon)) == known + 20
    assert daemon.terminate() == 0


def held(daemon: Daemon) -> list[object]:
    listed = daemon.ask("queue", "list", "--view", "hold", "--limit", "1000")
    assert isinstance(listed, list)
    return listed


def test_the_nodes_end_with_the_process_that_keeps_them(make_elemta: MakeDaemon) -> None:
    daemon = make_elemta({"nodes": 2})
    daemon.start()
    pids = nodes_of(daemon).values()
    daemon.kill()
    ports.eventually(lambda: not any(runs(pid) for pid in pids))


def test_mail_of_a_node_that_is_no_more_wanted_is_still_sent(make_elemta: MakeDaemon) -> None:
    daemon = make_elemta({"nodes": 2, **NOWHERE})
    daemon.start()
    ids = send_to_all(daemon, "bob@far.example")
    assert daemon.terminate() == 0
    listed = daemon.ask("queue", "list", "--limit", "1000")  # the server is down
    assert isinstance(listed, list)
    assert {each["id"] for each in listed} == ids

    daemon.settings |= {"nodes": 1, "routes": [{"match": "*", "via": ["maildir"]}]}
    daemon.start()
    daemon.tell("queue", "flush")
    ports.eventually(lambda: len(daemon.maildir("bob@far.example")) == len(ids))
    assert daemon.terminate() == 0


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
