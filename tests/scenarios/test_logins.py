"""Logins by which no password is said, and those who guess: with real clients (RFC 4954)."""

from __future__ import annotations

import json
import smtplib
import sqlite3
import subprocess
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import pytest
from typing_extensions import override

from tests.scenarios import ports
from tests.scenarios.conftest import needs
from tests.scenarios.test_submission import ANN, BOB, FAR, PASSWORD, House, house, message, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["house"]  # a fixture

TOKEN = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="

pytestmark = [pytest.mark.scenario, needs("openssl")]


def gsasl(house: House, mechanism: str, password: str = PASSWORD) -> str:
    """What is said to and fro."""
    return subprocess.run(
        ["gsasl", "--smtp", "--connect", house.at(False), "--mechanism", mechanism,
         "--authentication-id", ANN, "--password", password, "--quality-of-protection", "qop-auth",
         "--x509-ca-file", str(house.certificate), "--no-cb"],
        input="QUIT\n", stdout=subprocess.PIPE, text=True, timeout=60.0,
    ).stdout  # fmt: skip


@needs("gsasl")
@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "PLAIN", "LOGIN"])
def test_gsasl_proves_that_it_knows_the_password(house: House, mechanism: str) -> None:
    # Its exit code says nothing: it may die of a pipe after it has said QUIT.
    assert "\n235 2.7.0 " in gsasl(house, mechanism)
    assert "\n535 5.7.8 " in gsasl(house, mechanism, "wrong")


@needs("msmtp")
@pytest.mark.parametrize("auth", ["on", "scram-sha-256"])
def test_msmtp_proves_that_it_knows_the_password(house: House, auth: str) -> None:
    settings = house.place / "msmtprc"
    settings.write_text(
        f"account default\nhost 127.0.0.1\nport {house.implicit}\nfrom {ANN}\n"
        f"auth {auth}\nuser {ANN}\npassword {PASSWORD}\n"
        f"tls on\ntls_starttls off\ntls_trust_file {house.certificate}\n"
    )
    settings.chmod(0o600)
    told = run(["msmtp", "-v", "-C", str(settings), BOB, FAR], message())
    assert "AUTH SCRAM-SHA-256 " in told
    house.arrived()


class Introspection(BaseHTTPRequestHandler):
    """An issuer that knows one token of ann's."""

    def do_POST(self) -> None:
        asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        known = asked["token"] == [TOKEN] and "Authorization" in self.headers
        meaning = {"active": True, "scope": "mail", "email": ANN} if known else {"active": False}
        answer = json.dumps(meaning).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def with_tokens(house: House) -> Iterator[House]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Introspection) as issuer:
        serving = Thread(target=issuer.serve_forever)
        serving.start()
        (secret := house.place / "oauth-secret").touch(0o600)
        secret.write_text("secret\n")
        house.elemta.settings["plugins"] = [
            {
                "name": "oauth",
                "settings": {
                    "introspection": f"http://127.0.0.1:{issuer.server_port}/introspect",
                    "client_id": "elemta",
                    "client_secret_file": str(secret),
                    "scopes": ["mail"],
                },
            }
        ]
        house.elemta.write_config()
        house.elemta.terminate()
        house.elemta.start()
        yield house
        issuer.shutdown()
        serving.join()


@needs("curl")
@needs("msmtp")
def test_curl_and_msmtp_show_a_token(with_tokens: House) -> None:
    house = with_tokens
    file = house.place / "message"
    file.write_bytes(message().replace(b"\n", b"\r\n"))

    def curl(token: str, mechanism: str, code: int) -> None:
        run(
            ["curl", "--silent", "--show-error", "--cacert", str(house.certificate),
             f"smtps://{house.at(True)}/client.example", "--user", ANN, "--oauth2-bearer", token,
             "--login-options", f"AUTH={mechanism}", "--mail-from", ANN, "--mail-rcpt", BOB,
             "--upload-file", str(file)],
            code=code,
        )  # fmt: skip

    for mechanism in ("OAUTHBEARER", "XOAUTH2"):
        curl("wrong", mechanism, 67)  # it was not let in
        curl(TOKEN, mechanism, 0)
    settings = house.place / "msmtprc"
    for auth in ("oauthbearer", "xoauth2"):
        settings.write_text(
            f"account default\nhost 127.0.0.1\nport {house.implicit}\nfrom {ANN}\n"
            f"auth {auth}\nuser {ANN}\npassword {TOKEN}\n"
            f"tls on\ntls_starttls off\ntls_trust_file {house.certificate}\n"
        )
        settings.chmod(0o600)
        run(["msmtp", "-C", str(settings), BOB], message())
    ports.eventually(lambda: len(house.elemta.maildir(BOB)) == 4, what="four messages")


def test_fault_15_a_restart_helps_nobody_who_guesses(house: House, place: Path) -> None:
    def guess(password: str) -> int:
        with smtplib.SMTP_SSL(
            "127.0.0.1", house.implicit, timeout=60.0, context=house.trusting()
        ) as client:
            client.ehlo()
            code, _ = client.docmd("AUTH", "PLAIN " + plain(password))
        return code

    with ThreadPoolExecutor() as pool:  # each is told no sooner than after five seconds
        assert [*pool.map(guess, (f"guess {number}" for number in range(5)))] == [535] * 5
    ports.eventually(lambda: rows(house), what="what was wrong on the disk")
    house.elemta.terminate()
    house.elemta.start()
    assert guess(PASSWORD) == 454


def plain(password: str) -> str:
    return b64encode(f"\0{ANN}\0{password}".encode()).decode()


def rows(house: House) -> int:
    """How many accounts at networks the server has written down."""
    file = house.elemta.data / "login" / "ledger.sqlite"
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as ledger:
        found: int = ledger.execute("SELECT count(*) FROM rows WHERE book = 'pairs'").fetchone()[0]
    return found
