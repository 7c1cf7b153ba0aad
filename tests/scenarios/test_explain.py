"""`elemta explain` with a real name server: what would become of mail, and why it waits."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from elemta.cli import main
from tests.scenarios import messages, ports
from tests.scenarios.conftest import needs

if TYPE_CHECKING:
    from tests.scenarios.conftest import MakeDaemon, ServeZones
    from tests.scenarios.daemon import Daemon

pytestmark = [pytest.mark.scenario, needs("nsd")]

DEAD = "127.0.0.13"
ZONE = f"""
dead        IN A {DEAD}
private     IN A 10.0.0.1
good        IN MX 10 dead
good        IN MX 20 private
good        IN MX 30 nowhere
null        IN MX 0 .
"""


def explain(daemon: Daemon, *arguments: str) -> tuple[int, str]:
    """The exit code, and what is printed. In this process: starting Python is dear."""
    command = ["explain", *arguments, "--config", str(daemon.config)]
    done = CliRunner().invoke(main, command)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout


def test_what_would_become_of_mail_and_why_it_waits(
    make_elemta: MakeDaemon, serve_zones: ServeZones
) -> None:
    port = ports.free_port(DEAD)
    daemon = make_elemta(
        {
            "dns": {"nameservers": [f"127.0.0.1:{serve_zones({'test.example': ZONE})}"]},
            "delivery": {"port": port, "allow_targets": ["127.0.0.0/8"]},
            "domains": [{"name": "example.org", "mailboxes": ["alice"]}],
            "queue": {"retry": ["1 h"], "disk_reserve": "1 MiB"},
        }
    )
    daemon.start()

    code, told = explain(daemon, "--to", "x@good.test.example", "--from", "alice@example.org")
    assert code == 0, told
    assert told.startswith("It would be taken, and tried at once\n")
    for line in (
        "is in 127.0.0.0/8 of relay.networks",
        "+ route: x@good.test.example goes to the mail exchangers of good.test.example",
        "+ lane: mx:good.test.example is open; nothing waits there",
        "+ hosts: 1 address would be called, in this order",
        f"    1. dead.test.example[{DEAD}]:{port}: TLS if it offers it",
        "    MX 20 private.test.example: 10.0.0.1",
        "    10.0.0.1 of private.test.example is left out: it is no public address",
        "    MX 30 nowhere.test.example: no address: nowhere.test.example does not exist",
    ):
        assert line in told

    code, told = explain(daemon, "--to", "x@null.test.example")
    assert code == 1
    assert "- hosts: nobody can be called: 556 5.1.10 the domain accepts no mail" in told

    code, told = explain(daemon, "--to", "x@good.test.example", "--client", "192.0.2.1")
    assert code == 1
    assert told.startswith("It would be refused (relay permission): 550 5.7.1 relay access denied")

    code, told = explain(daemon, "--to", "nobody@example.org", "--json")
    assert code == 1
    found: dict[str, Any] = json.loads(told)
    assert found["steps"][-1]["reply"] == "550 5.1.1 no such mailbox"

    id_ = daemon.send(messages.numbered("one"), ["x@good.test.example"])
    ports.eventually(lambda: "1st attempt failed" in explain(daemon, id_)[1], what="a dead host")
    code, told = explain(daemon, id_)
    assert code == 0
    assert "1 of 1 recipient left to try; the next attempt is" in told
    assert "the 1st attempt failed for now; the next is due" in told
    assert "its lane mx:good.test.example is parked until" in told
    assert f"cannot connect to dead.test.example[{DEAD}]:{port}: Connection refused" in told
    assert json.loads(explain(daemon, id_, "--json")[1])["next_at"] is not None
    assert explain(daemon, "01M82Q28V6DAVJCKE0E9HMK3Q1")[0] == 1
