"""What an account sends beyond its limits lies in the queue until somebody has looked at it."""

from __future__ import annotations

import smtplib
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.scenarios import ports

if TYPE_CHECKING:
    from pathlib import Path

    from tests.scenarios.conftest import MakeDaemon
    from tests.scenarios.daemon import Daemon

pytestmark = pytest.mark.scenario

ANN, PASSWORD = "ann@example.org", "correct horse battery"
OWNER = "plugin:sending-limits"


@pytest.fixture
def limited(make_elemta: MakeDaemon, place: Path) -> Daemon:
    """A server with one user, who may send one message a day."""
    daemon = make_elemta()
    limits = {"account": {"messages": ["1/1 d"], "recipients": ["3/1 h"]}, "brake": None}
    daemon.settings |= {
        "listeners": [daemon.listener(kind="submission", auth="always", tls="off")],
        "plugins": [
            {"name": "users-file", "settings": {"file": str(place / "users.yaml")}},
            {"name": "sending-limits", "settings": limits},
        ],
    }
    daemon.write_config()
    subprocess.run(
        daemon.command("user", "add", ANN, "--password-stdin"),
        input=f"{PASSWORD}\n", text=True, check=True, capture_output=True, timeout=60.0,
    )  # fmt: skip
    daemon.start()
    return daemon


def send(daemon: Daemon, subject: str) -> None:
    with smtplib.SMTP("127.0.0.1", daemon.port, timeout=60.0) as client:
        client.login(ANN, PASSWORD)
        client.sendmail(
            ANN, ["bob@example.org"], f"From: {ANN}\r\nSubject: {subject}\r\n\r\nHi.\r\n"
        )


def delivered(daemon: Daemon) -> list[str]:
    """Subjects, of what lies in a Maildir."""
    return sorted(
        line.removeprefix("Subject: ")
        for path in daemon.data.rglob("new/*")
        for line in path.read_text().splitlines()
        if line.startswith("Subject: ")
    )


def listed(daemon: Daemon) -> list[str]:
    """Ids of what is held for a limit."""
    found = daemon.ask("queue", "list", "--view", "hold", "--owner", OWNER)
    assert isinstance(found, list)
    return [each["id"] for each in found]


def test_what_is_over_a_limit_is_found_with_its_reason_released_and_deleted(
    limited: Daemon,
) -> None:
    for subject in ("first", "second", "third"):
        send(limited, subject)
    ports.eventually(lambda: delivered(limited) == ["first"], what="one message")
    second, third = sorted(listed(limited))
    shown = limited.tell("queue", "show", second)
    assert f"{OWNER}: {ANN}: 2 of 1 messages in 1 d" in shown
    limited.terminate()
    limited.start()
    send(limited, "fourth")
    assert len(listed(limited)) == 3, "a restart forgets nothing"
    limited.tell("queue", "release", second)
    ports.eventually(lambda: delivered(limited) == ["first", "second"], what="what was released")
    limited.tell("queue", "delete", "--view", "hold", "--owner", OWNER, "--yes")
    assert listed(limited) == []
    assert third not in limited.tell("queue", "list")
    assert delivered(limited) == ["first", "second"]
