"""What is signed is what is sent: OpenDKIM and dkimpy verify what arrives at the next hop."""

from __future__ import annotations

import shutil
import smtplib
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import dkim
import pytest

from tests.scenarios import messages, ports
from tests.scenarios.conftest import needs
from tests.scenarios.sink import Sink

if TYPE_CHECKING:
    from pathlib import Path

    from tests.scenarios.conftest import MakeDaemon, ServeZones
    from tests.scenarios.daemon import Daemon

pytestmark = [pytest.mark.scenario, needs("nsd", "opendkim")]

LARGE: Final = messages.numbered("large", 1_000_000)
BARE: Final = b"From: alice@example.org\r\nSubject:\r\n\r\n"
STRANGE: Final = (
    b"To: a@far.example\r\nTo: b@far.example\r\nSubject:\r\n  folded\r\n\t again \r\n"
    b'FROM: "A, B"\r\n  <alice@example.org>\r\nreply-to:\r\nX: \r\n\r\n\r\n  \r\n\t\r\n\r\n'
)


def generate(folder: Path, kind: str) -> dict[str, str]:
    """Make a key as an operator does; the entry of the settings."""
    make = [sys.executable, "-m", "elemta", "dkim", "generate", "example.org"]
    options = ["--kind", kind, "--selector", kind, "--directory", str(folder)]
    subprocess.run([*make, *options], check=True, capture_output=True)
    key = str(folder / f"example.org.{kind}.pem")
    return {"domain": "example.org", "selector": kind, "key": key}


def opendkim(folder: Path, message: bytes, records: dict[str, str]) -> list[str]:
    """What OpenDKIM says of each signature."""
    keys = "".join(f"{name} {record}\n" for name, record in records.items())
    (folder / "records").write_text(keys)
    (folder / "message").write_bytes(message)
    configuration = f"Mode v\nTestPublicKeys {folder / 'records'}\nSyslog no\n"
    (folder / "opendkim.conf").write_text(configuration)
    program = shutil.which("opendkim", path="/usr/sbin:/usr/bin")
    assert program
    done = subprocess.run(
        [program, "-x", str(folder / "opendkim.conf"), "-t", str(folder / "message"), "-vvv"],
        check=True,
        capture_output=True,
        text=True,
    )
    return [each.strip().partition(" ")[0] for each in done.stdout.split(";") if "a=" in each]


def hand_in(daemon: Daemon, message: bytes) -> None:
    with smtplib.SMTP("127.0.0.1", daemon.port, "client.example", timeout=60.0) as client:
        client.ehlo()
        client.mail("alice@example.org", ["BODY=8BITMIME"])
        client.rcpt("bob@far.example")
        assert client.data(message)[0] == 250


def test_others_verify_what_arrives(
    make_elemta: MakeDaemon, serve_zones: ServeZones, place: Path
) -> None:
    keys = [generate(place / "keys", kind) for kind in ("rsa", "ed25519")]
    with Sink() as sink:
        settings = {
            "routes": [{"match": "far.example", "via": [f"smtp://127.0.0.1:{sink.port}"]}],
            "plugins": [
                {"name": "dkim-sign", "settings": {"keys": keys}},
                {"name": "authentication-results"},
            ],
        }
        daemon = make_elemta(settings)
        daemon.write_config()
        told = daemon.ask("dkim", "record")
        assert isinstance(told, list)
        records = {str(each["name"]): str(each["record"]) for each in told}
        zone = daemon.tell("dkim", "record")
        daemon.settings["dns"] = {
            "nameservers": [f"127.0.0.1:{serve_zones({'example.org': zone})}"],
            "timeout": "5 s",
        }
        daemon.start()
        checked = daemon.ask("dkim", "check")
        assert isinstance(checked, list)
        assert [each["result"] for each in checked] == ["good", "good"]

        sent = [messages.AWKWARD, LARGE, BARE, STRANGE]
        for each in sent:
            hand_in(daemon, each)
        arrived = ports.eventually(
            lambda: sink.deliveries if len(sink.deliveries) == len(sent) else []
        )
        for each in arrived:
            assert opendkim(place, each.content, records) == ["dkim=pass", "dkim=pass"]
            for place_of in (0, 1):
                found = dkim.DKIM(each.content)
                assert found.verify(  # type: ignore[attr-defined] # no part of what is used outside of tests
                    place_of,
                    dnsfunc=lambda name, timeout=5: records[name.decode().rstrip(".")].encode(),
                )
        changed = arrived[0].content.replace(b"three", b"four").replace(b"tab", b"tub")
        assert opendkim(place, changed, records) == ["dkim=fail", "dkim=fail"]
