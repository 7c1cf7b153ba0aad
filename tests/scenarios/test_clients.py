from __future__ import annotations

import smtplib
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.scenarios import messages, ports
from tests.scenarios.conftest import needs

if TYPE_CHECKING:
    from pathlib import Path

    from tests.scenarios.conftest import MakeDaemon
    from tests.scenarios.daemon import Daemon

pytestmark = pytest.mark.scenario


def _arrived(elemta: Daemon, mailbox: str = "bob@example.org", count: int = 1) -> list[bytes]:
    def enough() -> list[bytes]:
        found = elemta.maildir(mailbox)
        return found if len(found) >= count else []

    return ports.eventually(enough, what=f"{count} messages for {mailbox}")


def test_what_smtplib_sends_lies_in_the_maildir_unchanged(elemta: Daemon) -> None:
    message_id = elemta.send(messages.AWKWARD)

    (content,) = _arrived(elemta)

    assert messages.without_trace(content) == messages.lines(messages.AWKWARD)
    head = content[: -len(messages.lines(messages.AWKWARD))].decode()
    assert head.startswith("Return-Path: <alice@example.org>\nDelivered-To: bob@example.org\n")
    assert head.count("Received: ") == 1
    assert f"id {message_id}" in head
    assert "from client.example" in head
    assert "by mx.example.org" in head


@needs("swaks")
def test_what_swaks_sends_arrives_at_each_recipient(elemta: Daemon, place: Path) -> None:
    message = place / "message"
    message.write_bytes(messages.lines(messages.AWKWARD))

    subprocess.run(
        ["swaks", "--server", f"127.0.0.1:{elemta.port}", "--from", "alice@example.org",
         "--to", "bob@example.org,carol@example.org", "--data", f"@{message}",
         "--pipeline", "--suppress-data"],
        check=True, timeout=60.0, stdout=subprocess.PIPE,
    )  # fmt: skip

    for mailbox in ("bob@example.org", "carol@example.org"):
        (content,) = _arrived(elemta, mailbox)
        # swaks reads the file as text: it ends the last line anew.
        wanted = messages.lines(messages.AWKWARD).rstrip(b"\n")
        assert messages.without_trace(content).rstrip(b"\n") == wanted


@needs("curl")
def test_what_curl_uploads_lies_in_the_maildir_unchanged(elemta: Daemon, place: Path) -> None:
    message = place / "message"
    message.write_bytes(messages.AWKWARD)

    subprocess.run(
        ["curl", "--silent", "--show-error", f"smtp://127.0.0.1:{elemta.port}/client.example",
         "--mail-from", "alice@example.org", "--mail-rcpt", "bob@example.org",
         "--upload-file", str(message)],
        check=True, timeout=60.0,
    )  # fmt: skip

    (content,) = _arrived(elemta)
    assert messages.without_trace(content) == messages.lines(messages.AWKWARD)


@needs("smtp-source")
@pytest.mark.parametrize("connections", ["a connection a message", "kept connections"])
def test_everything_that_smtp_source_sends_arrives(elemta: Daemon, connections: str) -> None:
    kept = ["-d"] if connections == "kept connections" else []

    subprocess.run(
        ["smtp-source", "-s", "10", "-m", "200", "-l", "4096", "-f", "alice@example.org",
         "-t", "bob@example.org", *kept, f"127.0.0.1:{elemta.port}"],
        check=True, timeout=60.0,
    )  # fmt: skip

    found = _arrived(elemta, count=200)
    assert len(found) == 200
    assert all(len(messages.without_trace(content)) > 4096 for content in found)


def test_elemta_send_says_what_the_server_answered(elemta: Daemon, place: Path) -> None:
    message = place / "message"
    message.write_bytes(messages.AWKWARD)
    command = elemta.command("send")[:-2]

    sent = subprocess.run(
        [*command, "--port", str(elemta.port), "--from", "alice@example.org",
         "--to", "bob@example.org", "--file", str(message)],
        check=True, timeout=60.0, capture_output=True, text=True,
    )  # fmt: skip

    assert sent.stdout.startswith("250 2.0.0 ")
    (content,) = _arrived(elemta)
    assert messages.without_trace(content) == messages.lines(messages.AWKWARD)


def test_a_message_of_20_mib_arrives_whole(elemta: Daemon) -> None:
    large = messages.numbered("large", 20 * 2**20)

    elemta.send(large)

    (content,) = _arrived(elemta)
    assert messages.without_trace(content) == messages.lines(large)


def test_mail_for_others_is_refused_to_strangers(make_elemta: MakeDaemon) -> None:
    elemta = make_elemta({"relay": {"networks": []}})
    elemta.start()

    with pytest.raises(smtplib.SMTPResponseException) as refused:
        elemta.send(messages.AWKWARD, ["carol@elsewhere.example"])

    assert refused.value.smtp_code == 550
    assert b"5.7.1" in refused.value.smtp_error
