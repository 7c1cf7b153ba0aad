"""What plugins do with mail that is taken, in a real daemon; and real clients that log in."""

from __future__ import annotations

import shutil
import signal
import smtplib
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.scenarios import messages, ports
from tests.scenarios.conftest import needs
from tests.scenarios.daemon import Daemon

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.scenario

HERE = "tests.scenarios.outgoing"
USERS, FILES, LOCAL = f"{HERE}:Users", f"{HERE}:Files", f"{HERE}:Local"
PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def elemta() -> Iterator[Daemon]:
    """One for all of these; nobody may relay who has not logged in."""
    folder = Path(tempfile.mkdtemp(prefix="elemta-scenario-"))
    folder.chmod(0o755)
    daemon = Daemon(
        folder,
        {
            "relay": {},
            "domains": [
                {"name": "example.org", "mailboxes": ["*"]},
                {"name": "kept.example", "mailboxes": ["*"], "deliver": f"plugin:{FILES}"},
            ],
            "plugins": [{"name": USERS}, {"name": FILES}, {"name": LOCAL}],
        },
    )
    daemon.settings["listeners"] = [daemon.listener(auth="always")]
    daemon.start()
    yield daemon
    daemon.kill()
    shutil.rmtree(folder, ignore_errors=True)


def kept(elemta: Daemon) -> list[bytes]:
    folder = elemta.data / "plugins"
    return [each.read_bytes() for each in sorted(folder.glob("*Files*/*"))]


def test_smtplib_logs_in_and_may_relay_by_the_route_of_a_plugin(elemta: Daemon) -> None:
    with smtplib.SMTP("127.0.0.1", elemta.port, "client.example", timeout=60.0) as client:
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            client.sendmail("a@example.org", ["bob@elsewhere.example"], messages.AWKWARD)
        client.login("alice", PASSWORD)
        client.sendmail("a@example.org", ["bob@elsewhere.example"], messages.AWKWARD)
    (content,) = ports.eventually(
        lambda: elemta.maildir("bob@elsewhere.example"), what="mail in the Maildir"
    )
    assert b"with ESMTPA" in content
    assert PASSWORD not in elemta.log.read_text()


@needs("swaks")
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_swaks_logs_in(mechanism: str, elemta: Daemon) -> None:
    subprocess.run(
        ["swaks", "--server", f"127.0.0.1:{elemta.port}", "--from", "alice@example.org",
         "--to", f"{mechanism.lower()}@elsewhere.example", "--auth", mechanism,
         "--auth-user", "alice", "--auth-password", PASSWORD],
        check=True, timeout=60.0, stdout=subprocess.PIPE,
    )  # fmt: skip


@needs("curl")
def test_curl_logs_in(elemta: Daemon) -> None:
    subprocess.run(
        ["curl", "--silent", "--show-error", f"smtp://127.0.0.1:{elemta.port}/client.example",
         "--user", f"alice:{PASSWORD}", "--mail-from", "alice@example.org",
         "--mail-rcpt", "carol@elsewhere.example", "--upload-file", "-"],
        check=True, timeout=60.0, input=b"Subject: hi\r\n\r\nhello\r\n",
    )  # fmt: skip


def test_a_plugin_keeps_mail_and_over_a_reload_without_it_mail_waits(elemta: Daemon) -> None:
    elemta.send(messages.AWKWARD, ["bob@kept.example"])
    ports.eventually(lambda: len(kept(elemta)) == 1, what="what the plugin keeps")
    assert b"Delivered-To: bob@kept.example\r\n" in kept(elemta)[0]
    elemta.tell("plugins", "disable", FILES)
    id_ = elemta.send(messages.AWKWARD, ["bob@kept.example"])
    ports.eventually(
        lambda: any(each["id"] == id_ for each in elemta.events("delivery.deferred")),
        what="an attempt in vain",
    )
    elemta.signal(signal.SIGHUP)  # which enables it again
    ports.eventually(lambda: len(kept(elemta)) == 2, what="what had to wait")


def test_a_plugin_holds_what_is_to_be_tried_until_somebody_releases_it(elemta: Daemon) -> None:
    id_ = elemta.send(messages.AWKWARD, ["odd@example.org"])
    ports.eventually(
        lambda: any(each["id"] == id_ for each in elemta.events("delivery.plugin_objected")),
        what="a hold",
    )
    # The plugin hears of the hold when it has happened.
    ports.eventually(
        lambda: "odd things first" in elemta.tell("queue", "timeline", id_), what="its priority"
    )
    timeline = elemta.tell("queue", "timeline", id_)
    assert f"plugin:{LOCAL}" in timeline
    assert "looks odd" in timeline
    assert elemta.maildir("odd@example.org") == []
    elemta.tell("queue", "release", id_)
    ports.eventually(lambda: elemta.maildir("odd@example.org"), what="the released mail")
