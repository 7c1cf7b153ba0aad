"""Clients that encrypt: real ones, and one that looks for what is wrong with how we do it."""

from __future__ import annotations

import json
import signal
import smtplib
import socket
import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.net.certificates import Authority
from tests.scenarios import messages, ports
from tests.scenarios.conftest import needs

if TYPE_CHECKING:
    from pathlib import Path

    from tests.scenarios.conftest import MakeDaemon
    from tests.scenarios.daemon import Daemon

pytestmark = pytest.mark.scenario


@pytest.fixture
def authority(place: Path) -> Authority:
    return Authority(place)


@pytest.fixture
def implicit() -> int:
    """The port of a listener where TLS comes first."""
    return ports.free_port()


@pytest.fixture
def elemta(make_elemta: MakeDaemon, authority: Authority, implicit: int) -> Daemon:
    made = make_elemta()
    made.settings["tls"] = {
        "certificates": [
            # As long as those of public authorities.
            authority.issue(
                *("mx.example.org", "localhost", "127.0.0.1"),
                not_before=datetime.now(UTC) - timedelta(days=1),
                not_after=datetime.now(UTC) + timedelta(days=89),
            ),
            authority.issue("mail.example.net"),
        ],
        "client_authorities": str(authority.file),
    }
    made.settings["listeners"] = [
        made.listener(),
        {
            "name": "implicit",
            "address": f"127.0.0.1:{implicit}",
            "tls": "implicit",
            "client_certificates": "asked",
            "connections_per_client": 200,
        },
    ]
    made.start()
    return made


def arrived(elemta: Daemon, count: int = 1) -> list[bytes]:
    def enough() -> list[bytes]:
        found = elemta.maildir("bob@example.org")
        return found if len(found) >= count else []

    return ports.eventually(enough, what=f"{count} messages")


def received(content: bytes) -> str:
    """The clause that says how it came."""
    return content.partition(b"\twith")[0].decode()


def brings(client: smtplib.SMTP) -> None:
    client.sendmail("alice@example.org", ["bob@example.org"], messages.numbered("tls"))


def test_smtplib_by_starttls_and_by_tls_first(
    elemta: Daemon, authority: Authority, implicit: int
) -> None:
    trusting = authority.client()
    with smtplib.SMTP("localhost", elemta.port, "client.example", timeout=60.0) as client:
        client.ehlo()
        assert client.has_extn("starttls")
        client.starttls(context=trusting)
        client.ehlo()
        assert not client.has_extn("starttls")
        brings(client)
    with smtplib.SMTP_SSL("localhost", implicit, timeout=60.0, context=trusting) as client:
        brings(client)
    for content in arrived(elemta, 2):
        assert b"by mx.example.org with ESMTPS (version=TLSv1.3 cipher=TLS_AES_" in content
    assert "mail.example.net" in elemta.tell("cert", "info")


@needs("swaks")
@pytest.mark.parametrize("how", ["--tls", "--tls-on-connect"])
def test_swaks(elemta: Daemon, authority: Authority, implicit: int, how: str) -> None:
    port = elemta.port if how == "--tls" else implicit
    subprocess.run(
        ["swaks", "--server", f"127.0.0.1:{port}", "--from", "alice@example.org",
         "--to", "bob@example.org", how, "--tls-ca-path", str(authority.file), "--tls-verify",
         "--tls-sni", "mx.example.org"],
        check=True, timeout=60.0, stdout=subprocess.PIPE,
    )  # fmt: skip
    (content,) = arrived(elemta)
    assert b"with ESMTPS (version=TLSv1." in content


def s_client(port: int, authority: Authority, *more: str, said: str = "QUIT\r\n") -> str:
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", str(authority.file),
         "-verify_return_error", *more],
        input=said, text=True, capture_output=True, timeout=60.0, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


@needs("openssl")
@pytest.mark.parametrize("by", ["starttls", "implicit"])
@pytest.mark.parametrize("name", ["mx.example.org", "mail.example.net"])
def test_openssl_is_shown_the_certificate_that_it_asks_for(
    elemta: Daemon, authority: Authority, implicit: int, by: str, name: str
) -> None:
    port, how = (elemta.port, ["-starttls", "smtp"]) if by == "starttls" else (implicit, [])
    told = s_client(port, authority, *how, "-servername", name, "-verify_hostname", name)
    assert "Verify return code: 0 (ok)" in told
    assert "221 2.0.0 bye" in told or "DONE" in told


@needs("openssl")
@pytest.mark.parametrize("old", [["-tls1_1"], ["-tls1_2", "-cipher", "AES128-SHA256"]])
def test_openssl_cannot_have_what_is_old(
    elemta: Daemon, authority: Authority, implicit: int, old: list[str]
) -> None:
    told = s_client(implicit, authority, *old)
    assert "Cipher is (NONE)" in told
    (event,) = ports.eventually(lambda: elemta.events("client.tls_failed"))
    assert event["listener"] == "implicit"


def serial(port: int, context: ssl.SSLContext) -> int:
    """Of the certificate that is shown."""
    with (
        socket.create_connection(("127.0.0.1", port), 30.0) as plain,
        context.wrap_socket(plain, server_hostname="mx.example.org") as encrypted,
    ):
        found = encrypted.getpeercert()
        assert found is not None
        return int(str(found["serialNumber"]), 16)


def test_a_renewed_certificate_is_shown_on_reload_and_sessions_go_on(
    elemta: Daemon, authority: Authority, implicit: int
) -> None:
    trusting = authority.client()
    with smtplib.SMTP_SSL("localhost", implicit, timeout=60.0, context=trusting) as client:
        client.ehlo()
        before = serial(implicit, trusting)
        authority.issue("mx.example.org", "localhost", "127.0.0.1")
        assert serial(implicit, trusting) == before
        elemta.signal(signal.SIGHUP)
        ports.eventually(lambda: elemta.events("tls.certificate_renewed"))
        assert serial(implicit, trusting) != before
        brings(client)
    arrived(elemta)


def test_a_wrong_one_is_refused_and_the_old_one_stays(
    elemta: Daemon, authority: Authority, implicit: int, place: Path
) -> None:
    trusting = authority.client()
    before = serial(implicit, trusting)
    (place / "mx.example.key").write_bytes((place / "mail.example.key").read_bytes())
    elemta.signal(signal.SIGHUP)
    ports.eventually(lambda: elemta.events("tls.certificate_refused"))
    ports.eventually(lambda: elemta.events("config.reloaded"))
    assert serial(implicit, trusting) == before


def test_a_client_is_known_by_its_certificate_and_a_wrong_one_is_refused(
    elemta: Daemon, authority: Authority, implicit: int, place: Path
) -> None:
    known = authority.client("printer.example.org")
    with smtplib.SMTP_SSL("localhost", implicit, timeout=60.0, context=known) as client:
        brings(client)
    (event,) = ports.eventually(lambda: elemta.events("client.certificate"))
    assert "O=trustme" in str(event["subject"])

    (place / "strangers").mkdir()
    strange = authority.client()
    Authority(place / "strangers").certify(strange, "printer.example.org")
    with pytest.raises((ssl.SSLError, OSError, smtplib.SMTPServerDisconnected)):  # noqa: SIM117
        with smtplib.SMTP_SSL("localhost", implicit, timeout=60.0, context=strange) as client:
            client.ehlo()
    (event,) = ports.eventually(lambda: elemta.events("client.tls_failed"))
    assert "unable to get local issuer certificate" in str(event["problem"])


# Fault 12 of the original, CVE-2011-0411: what is put behind STARTTLS on the way is not obeyed.
def test_what_is_injected_behind_starttls_ends_the_conversation(elemta: Daemon) -> None:
    with socket.create_connection(("127.0.0.1", elemta.port), 30.0) as client:
        file = client.makefile("rb")
        assert file.readline().startswith(b"220 ")
        client.sendall(b"EHLO client.example\r\n")
        while file.readline()[3:4] == b"-":
            pass
        client.sendall(b"STARTTLS\r\nMAIL FROM:<evil@example.org>\r\n")
        assert file.readline() == b"554 5.5.0 commands behind STARTTLS\r\n"
        assert file.readline() == b""


@needs("testssl")
@pytest.mark.parametrize("by", ["implicit", "starttls"])
def test_testssl_finds_nothing_above_low(
    elemta: Daemon, authority: Authority, implicit: int, place: Path, by: str
) -> None:
    # Not all that it can look for, which takes minutes: most of that is of versions and ciphers
    # which the checks of protocols and of preference say are not there.
    if by == "implicit":
        how = ["--server-defaults", "--renegotiation", "--compression", "--heartbleed"]
    else:
        how = ["--starttls", "smtp", "--protocols"]
    port = implicit if by == "implicit" else elemta.port
    report = place / "report.json"
    subprocess.run(
        ["testssl", "--quiet", "--warnings", "off", "--color", "0", "--nodns", "none",
         "--ip", "127.0.0.1", "--add-ca", str(authority.file), "--jsonfile", str(report),
         *how, f"localhost:{port}"],
        timeout=180.0, stdout=subprocess.PIPE, check=False,
    )  # fmt: skip
    found = {each["id"]: each for each in json.loads(report.read_text())}
    if by == "starttls":
        assert found["TLS1_2"]["severity"] == found["TLS1_3"]["severity"] == "OK"
    # The authority of this test says nowhere what it has revoked.
    found.pop("cert_revocation", None)
    bad = {
        name: each["finding"]
        for name, each in found.items()
        if each["severity"] in ("MEDIUM", "HIGH", "CRITICAL", "FATAL")
    }
    assert bad == {}
