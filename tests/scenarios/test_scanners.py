"""Mail through scanners as administrators install them: Debian's clamd, rspamd and OpenDKIM."""

from __future__ import annotations

import email
import email.policy
import smtplib
from typing import TYPE_CHECKING

import dkim
import pytest

from tests.scenarios import messages, ports
from tests.scenarios.conftest import needs
from tests.scenarios.scanners import (
    DOMAIN,
    MARKED,
    PATTERN,
    REJECTED,
    RENAMED,
    SELECTOR,
    Scanners,
    scanners,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.scenarios.conftest import MakeDaemon
    from tests.scenarios.daemon import Daemon

pytestmark = [pytest.mark.scenario, needs("clamd", "opendkim", "rspamd")]

SENDER = f"alice@{DOMAIN}"
CLEAN = messages.AWKWARD.replace(b"alice@example.org", SENDER.encode())


@pytest.fixture
def running(place: Path) -> Iterator[Scanners]:
    with scanners(place / "scanners") as started:
        yield started


@pytest.fixture
def daemon(make_elemta: MakeDaemon, running: Scanners) -> Daemon:
    settings = {"address": str(running.clamd.socket), "max_size": "2 MiB"}
    elemta = make_elemta(
        {
            "plugins": [
                {"name": "clamav", "settings": settings},
                {
                    "name": "rspamd",
                    "settings": {"address": str(running.rspamd.socket), "all_clients": True},
                },
                {
                    "name": "milter",
                    "settings": {"address": str(running.opendkim.socket), "client_names": False},
                },
            ]
        }
    )
    elemta.start()
    return elemta


def mail(elemta: Daemon, number: int) -> bytes:
    """What bob got as his message of this number, once he has; lines ended by CRLF."""
    found = ports.eventually(
        lambda: elemta.maildir("bob@example.org")[number:], what=f"message {number}"
    )
    return found[0].replace(b"\n", b"\r\n")


def test_mail_is_scanned_and_signed_or_waits_until_that_can_be(
    daemon: Daemon, running: Scanners
) -> None:
    daemon.send(CLEAN, sender=SENDER)
    delivered = mail(daemon, 0)
    assert messages.without_trace(delivered).startswith(b"DKIM-Signature:")
    assert messages.lines(CLEAN) in delivered.replace(b"\r\n", b"\n")

    # Who reads it can prove who signed it: not an octet of it has changed, the folds included.
    def record(name: bytes, timeout: int = 5) -> bytes:
        assert name == f"{SELECTOR}._domainkey.{DOMAIN}.".encode()
        return running.record

    assert dkim.verify(delivered, dnsfunc=record)
    assert b"c=simple/simple" in delivered

    sick = CLEAN.replace(b"From the start", b"From " + PATTERN)
    with pytest.raises(smtplib.SMTPResponseException) as refused:
        daemon.send(sick, sender=SENDER)
    assert refused.value.smtp_code == 550
    assert refused.value.smtp_error == b"5.7.1 this message has malware in it"
    (objected,) = ports.eventually(lambda: daemon.events("plugin.objected"), what="the log")
    assert objected["note"] == "infected: Elemta.Scenario.UNOFFICIAL"

    # One that lies on the disk by then is shown to all of them, too.
    large = messages.numbered("large", 900_000).replace(b"alice@example.org", SENDER.encode())
    daemon.send(large, sender=SENDER)
    assert dkim.verify(mail(daemon, 1), dnsfunc=record)
    # What is too large for clamd, by its own configuration, is taken, and told apart.
    daemon.send(messages.numbered("too-large", 1_500_000), sender=SENDER)
    assert b"X-Scenario-Id: too-large" in mail(daemon, 2)
    ports.eventually(
        lambda: any("not scanned" in str(each) for each in daemon.events("plugin.decided")),
        what="a note in the log",
    )

    with pytest.raises(smtplib.SMTPResponseException) as refused:
        daemon.send(CLEAN + REJECTED + b"\r\n", sender=SENDER)
    assert refused.value.smtp_error == b"5.7.1 Gtube pattern"
    # What is changed before OpenDKIM's turn is signed as it has become.
    daemon.send(CLEAN + MARKED + b"\r\n", sender=SENDER)
    assert b"\r\nX-Spam: Yes\r\n" in mail(daemon, 3)
    daemon.send(CLEAN + RENAMED + b"\r\n", sender=SENDER)
    renamed = email.message_from_bytes(mail(daemon, 4), policy=email.policy.default)
    assert renamed["Subject"] == "*** SPAM *** grüße"
    for number in (3, 4):
        assert dkim.verify(mail(daemon, number), dnsfunc=record)

    for scanner in running.all:
        scanner.stop()
        with pytest.raises(smtplib.SMTPResponseException) as deferred:
            daemon.send(CLEAN, sender=SENDER)
        assert deferred.value.smtp_code in (421, 451)
        scanner.begin()
        scanner.wait()
        daemon.send(CLEAN, sender=SENDER)
    assert dkim.verify(mail(daemon, 7), dnsfunc=record)
