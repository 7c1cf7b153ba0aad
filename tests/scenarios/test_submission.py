"""People's programs hand in mail, as themselves and as nobody else (RFC 6409, 8314)."""

from __future__ import annotations

import os
import smtplib
import socket
import ssl
import subprocess
from base64 import b64encode
from email.message import EmailMessage
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from elemta.login import ScramVerifier, User, UserFile, hash_password
from tests.scenarios import ports
from tests.scenarios.conftest import needs
from tests.scenarios.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.scenarios.conftest import MakeDaemon
    from tests.scenarios.daemon import Daemon

pytestmark = [pytest.mark.scenario, needs("openssl")]

ANN, BOB, FAR = "ann@example.org", "bob@example.org", "carol@far.example"
PASSWORD = "correct horse battery"

#: Debian's place for libraries of Node.
_NODE = Path("/usr/share/nodejs")
needs_nodemailer = pytest.mark.skipif(
    not (_NODE / "nodemailer").exists(),
    reason="nodemailer not installed: apt-get install node-nodemailer",
)
encryption = pytest.mark.parametrize("implicit", [True, False], ids=["implicit", "STARTTLS"])


class House:
    """A server with a listener for each way to encrypt, one for everybody, and two users."""

    def __init__(self, elemta: Daemon, place: Path, sink: Sink) -> None:
        self.elemta = elemta
        self.place = place
        self.sink = sink
        self.implicit, self.starttls = ports.free_port(), ports.free_port()
        self.certificate, key = place / "certificate.pem", place / "key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
             "-nodes", "-days", "2", "-subj", "/CN=mx.example.org",
             "-addext", "subjectAltName=IP:127.0.0.1",
             "-keyout", str(key), "-out", str(self.certificate)],
            check=True, capture_output=True, timeout=60.0,
        )  # fmt: skip
        people = {"kind": "submission"}
        elemta.settings |= {
            "listeners": [
                elemta.listener(),
                {"name": "submissions", "address": self.at(True), "tls": "implicit", **people},
                {"name": "submission", "address": self.at(False), "tls": "required", **people},
            ],
            "tls": {"certificates": [{"certificate": str(self.certificate), "key": str(key)}]},
            "relay": {},
            "domains": [
                {
                    "name": "example.org",
                    "mailboxes": ["ann", "bob"],
                    "aliases": {"sales": ["ann"]},
                    "delimiter": "+",
                }
            ],
            "routes": [{"match": "*", "via": [f"smtp://127.0.0.1:{sink.port}"]}],
            "plugins": [{"name": "users-file", "settings": {"file": str(place / "users.yaml")}}],
        }
        # What `elemta user add` does (see test_users.py), at once: each house has users.
        known = User(password=hash_password(PASSWORD), scram=str(ScramVerifier.of(PASSWORD)))
        both = dict.fromkeys((ANN, BOB), known)
        UserFile(place / "users.yaml").change(lambda users: users.update(both), make=True)
        elemta.start()

    def port(self, implicit: bool) -> int:
        return self.implicit if implicit else self.starttls

    def at(self, implicit: bool) -> str:
        return f"127.0.0.1:{self.port(implicit)}"

    def trusting(self) -> ssl.SSLContext:
        """What a client knows that trusts this server alone."""
        return ssl.create_default_context(cafile=str(self.certificate))

    def arrived(self) -> bytes:
        """The one message for bob; what carol got elsewhere is the same."""
        (content,) = ports.eventually(lambda: self.elemta.maildir(BOB), what="a message for bob")
        (delivery,) = ports.eventually(lambda: self.sink.deliveries, what="a message for carol")
        assert delivery.recipients == [FAR]
        assert _below(delivery.content) == _below(content)
        return content


def _below(content: bytes) -> bytes:
    """What stands below the last trace field of ours, lines ended by LF."""
    lines = content.replace(b"\r\n", b"\n").split(b"\n")
    last = max(n for n, line in enumerate(lines) if line.startswith(b"Received:"))
    rest = next(n for n, line in enumerate(lines) if n > last and line[:1] not in (b" ", b"\t"))
    return b"\n".join(lines[rest:])


@pytest.fixture
def house(make_elemta: MakeDaemon, place: Path) -> Iterator[House]:
    with Sink() as sink:
        yield House(make_elemta(), place, sink)


def message(sender: str = ANN) -> bytes:
    """What a program writes that leaves to us what it need not know."""
    return (
        f"From: Ann <{sender}>\nTo: {BOB}\nBcc: {FAR}\nSubject: hello\n\n.\nHello, carol.\n"
    ).encode()


def is_complete(content: bytes, protocol: bytes = b"ESMTPSA") -> None:
    """As it must have become, whatever program it is from."""
    head, _, body = content.partition(b"\n\n")
    assert b"with " + protocol in head
    assert b"\nBcc:" not in head
    assert head.lower().count(b"\ndate:") == 1
    assert head.lower().count(b"\nmessage-id:") == 1
    assert body.rstrip() == b".\nHello, carol."


def run(command: Sequence[str], stdin: bytes = b"", code: int = 0, **environment: str) -> str:
    """Run a client; returns all that it prints."""
    done = subprocess.run(
        command,
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60.0,
        env={**os.environ, **environment},
    )
    told = done.stdout.decode(errors="replace")
    assert done.returncode == code, told
    return told


# What real programs do.


def swaks(house: House, implicit: bool, *more: str, code: int = 0) -> str:
    file = house.place / "message"
    file.write_bytes(message())
    return run(
        ["swaks", "--server", house.at(implicit), "--tls-on-connect" if implicit else "--tls",
         "--from", ANN, "--to", f"{BOB},{FAR}", "--auth-user", ANN, "--auth-password", PASSWORD,
         "--tls-verify", "--tls-ca-path", str(house.certificate), "--data", f"@{file}", *more],
        code=code,
    )  # fmt: skip


@needs("swaks")
@encryption
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_swaks(house: House, mechanism: str, implicit: bool) -> None:
    swaks(house, implicit, "--auth", mechanism)
    is_complete(house.arrived())


@needs("swaks")
@pytest.mark.parametrize("mechanism", ["CRAM-MD5", "CRAM-SHA1"])
def test_swaks_is_not_offered_what_takes_passwords_that_can_be_read(
    house: House, mechanism: str
) -> None:
    told = swaks(house, True, "--auth", mechanism, code=28)  # an error of AUTH
    assert "requested type not available" in told


@needs("msmtp")
@encryption
def test_msmtp(house: House, implicit: bool) -> None:
    settings = house.place / "msmtprc"
    settings.write_text(
        f"account default\nhost 127.0.0.1\nport {house.port(implicit)}\nfrom {ANN}\n"
        f"auth plain\nuser {ANN}\npassword {PASSWORD}\n"
        f"tls on\ntls_starttls {'off' if implicit else 'on'}\n"
        f"tls_trust_file {house.certificate}\n"
    )
    settings.chmod(0o600)
    run(["msmtp", "-C", str(settings), BOB, FAR], message())
    is_complete(house.arrived())


@needs("curl")
@encryption
def test_curl(house: House, implicit: bool) -> None:
    file = house.place / "message"
    file.write_bytes(message().replace(b"\n", b"\r\n"))
    run(
        ["curl", "--silent", "--show-error", "--ssl-reqd", "--cacert", str(house.certificate),
         f"{'smtps' if implicit else 'smtp'}://{house.at(implicit)}/client.example",
         "--user", f"{ANN}:{PASSWORD}", "--mail-from", ANN, "--mail-rcpt", BOB, "--mail-rcpt", FAR,
         "--upload-file", str(file)],
    )  # fmt: skip
    is_complete(house.arrived())


@needs("node")
@needs_nodemailer
@encryption
def test_nodemailer(house: House, implicit: bool) -> None:
    script = house.place / "send.js"
    script.write_text(
        """
        const [port, secure, ca, user, pass, to, bcc] = process.argv.slice(2);
        const transport = require("nodemailer").createTransport({
            host: "127.0.0.1", port: Number(port), secure: secure === "true", requireTLS: true,
            auth: {user, pass}, tls: {ca: require("fs").readFileSync(ca)},
        });
        transport.sendMail(
            {from: {name: "Ann", address: user}, to, bcc, subject: "hello",
             text: ".\\nHello, carol.\\n"},
            (error, info) => { if (error) throw error; console.log(info.response); });
        """
    )
    told = run(
        ["node", str(script), str(house.port(implicit)), str(implicit).lower(),
         str(house.certificate), ANN, PASSWORD, BOB, FAR],
        NODE_PATH=str(_NODE),
    )  # fmt: skip
    assert "250 2.0.0 OK: queued as" in told
    is_complete(house.arrived())


def smtplib_client(house: House, implicit: bool) -> smtplib.SMTP:
    if implicit:
        return smtplib.SMTP_SSL(
            "127.0.0.1", house.implicit, "client.example", timeout=60.0, context=house.trusting()
        )
    client = smtplib.SMTP("127.0.0.1", house.starttls, "client.example", timeout=60.0)
    client.starttls(context=house.trusting())
    return client


@encryption
def test_smtplib(house: House, implicit: bool) -> None:
    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = f"Ann <{ANN}>", BOB, "hello"
    made.set_content(".\nHello, carol.\n")
    with smtplib_client(house, implicit) as client:
        client.login(ANN, PASSWORD)
        client.send_message(made, to_addrs=[BOB, FAR])
    is_complete(house.arrived())


def test_a_dialogue_as_thunderbirds(house: House) -> None:
    text = message().replace(b"\n.\n", b"\n..\n").replace(b"\n", b"\r\n")
    plain = b64encode(f"\0{ANN}\0{PASSWORD}".encode()).decode()
    with (
        socket.create_connection(("127.0.0.1", house.implicit), timeout=60.0) as plain_socket,
        house.trusting().wrap_socket(plain_socket, server_hostname="127.0.0.1") as client,
        client.makefile("rb") as heard,
    ):

        def hear() -> list[str]:
            lines = [heard.readline().decode().rstrip("\r\n")]
            while lines[-1][3:4] == "-":
                lines.append(heard.readline().decode().rstrip("\r\n"))
            return lines

        def say(line: str) -> list[str]:
            client.sendall(f"{line}\r\n".encode())
            return hear()

        assert hear() == ["220 mx.example.org ESMTP"]
        offered = [line[4:] for line in say("EHLO [192.168.1.23]")]
        assert {"8BITMIME", "SMTPUTF8", "PIPELINING"} <= set(offered)
        assert "STARTTLS" not in offered
        (size,) = [each for each in offered if each.startswith("SIZE")]
        (mechanisms,) = [each for each in offered if each.startswith("AUTH ")]
        assert {"PLAIN", "LOGIN"} <= set(mechanisms.split())
        assert say(f"AUTH PLAIN {plain}") == ["235 2.7.0 you are logged in"]
        assert int(size.split()[1]) > len(text)
        assert say(f"MAIL FROM:<{ANN}> BODY=8BITMIME SIZE={len(text)}")[0].startswith("250 ")
        assert say(f"RCPT TO:<{BOB}>")[0].startswith("250 ")
        assert say(f"RCPT TO:<{FAR}>")[0].startswith("250 ")
        assert say("DATA")[0].startswith("354 ")
        client.sendall(text)
        assert say(".")[0].startswith("250 ")
        assert say("QUIT")[0].startswith("221 ")
    content = house.arrived()
    is_complete(content)
    assert b"Received: from [192.168.1.23] " in content


# What nobody may.


def test_who_is_not_logged_in_sends_nothing_and_port_25_lets_nobody_log_in(house: House) -> None:
    with smtplib_client(house, True) as client:
        with pytest.raises(smtplib.SMTPSenderRefused) as refused:
            client.sendmail(ANN, [BOB], message())
        assert refused.value.smtp_code == 530
    with smtplib.SMTP("127.0.0.1", house.starttls, "client.example", timeout=60.0) as client:
        client.ehlo()
        assert "auth" not in client.esmtp_features
        with pytest.raises(smtplib.SMTPNotSupportedError):
            client.login(ANN, PASSWORD)
    with smtplib.SMTP("127.0.0.1", house.elemta.port, "client.example", timeout=60.0) as client:
        client.starttls(context=house.trusting())
        client.ehlo()
        assert "auth" not in client.esmtp_features
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            client.sendmail(ANN, [FAR], message())


def test_nobody_sends_as_somebody_else(house: House) -> None:
    with smtplib_client(house, True) as client:
        client.login(ANN, PASSWORD)
        with pytest.raises(smtplib.SMTPSenderRefused) as sender:
            client.sendmail(BOB, [FAR], message())
        assert sender.value.smtp_code == 553
        assert b"<bob@example.org> is not an address of ann@example.org" in sender.value.smtp_error
        with pytest.raises(smtplib.SMTPDataError) as author:
            client.sendmail(ANN, [FAR], message(BOB).decode())
        assert author.value.smtp_code == 550
        assert "From: <bob@example.org> is not an address of ann" in str(author.value.smtp_error)
        for own in ("sales@example.org", "ann+shop@example.org"):
            client.sendmail(own, [FAR], message(own).decode())
    ports.eventually(lambda: len(house.sink.deliveries) == 2, what="two messages for carol")
    ports.eventually(
        lambda: [each["login"] for each in house.elemta.events("client.refused")] == [ANN, ANN],
        what="two refusals in the log",
    )
