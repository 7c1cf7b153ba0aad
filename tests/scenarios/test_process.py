"""The daemon as a process: signals, privileges, reload."""

from __future__ import annotations

import os
import pwd
import re
import signal
import smtplib
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.scenarios import messages, ports
from tests.scenarios.conftest import needs_root
from tests.scenarios.daemon import message_id

if TYPE_CHECKING:
    from tests.scenarios.conftest import MakeDaemon
    from tests.scenarios.daemon import Daemon

pytestmark = pytest.mark.scenario


class Client:
    """A connection on which a scenario says each line itself."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60.0)
        self._lines = self._socket.makefile("rb")

    def say(self, octets: bytes) -> bytes:
        self._socket.sendall(octets)
        return self.reply()

    def write(self, octets: bytes) -> None:
        self._socket.sendall(octets)

    def reply(self) -> bytes:
        """The next reply, its last line; empty if the server hung up."""
        while (line := self._lines.readline())[3:4] == b"-":
            pass
        return line

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def begin(self, recipient: str = "bob@example.org") -> None:
        """Up to the 354."""
        assert self.reply().startswith(b"220 ")
        assert self.say(b"EHLO client.example\r\n").startswith(b"250 ")
        assert self.say(b"MAIL FROM:<alice@example.org>\r\n").startswith(b"250 ")
        assert self.say(f"RCPT TO:<{recipient}>\r\n".encode()).startswith(b"250 ")
        assert self.say(b"DATA\r\n").startswith(b"354 ")


def test_sigterm_lets_a_message_in_transit_end_and_sends_the_idle_away(elemta: Daemon) -> None:
    idle, busy = Client(elemta.port), Client(elemta.port)
    idle.reply()
    idle.say(b"EHLO client.example\r\n")
    busy.begin()
    busy.write(b"Subject: in transit\r\n\r\nfirst half\r\n")

    elemta.signal(signal.SIGTERM)

    assert idle.reply().startswith(b"421 ")
    assert idle.reply() == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", elemta.port), timeout=5.0).close()
    answer = busy.say(b"second half\r\n.\r\n")
    assert answer.startswith(b"250 2.0.0 ")
    assert elemta.wait() == 0
    idle.close()
    busy.close()

    elemta.start()
    (content,) = ports.eventually(lambda: elemta.maildir("bob@example.org"))
    assert b"first half\nsecond half\n" in content
    assert message_id(answer).encode() in content


def test_sigint_ends_it_like_sigterm(elemta: Daemon) -> None:
    elemta.signal(signal.SIGINT)

    assert elemta.wait() == 0


def test_a_client_that_never_ends_its_message_does_not_hold_up_the_end(
    make_elemta: MakeDaemon,
) -> None:
    elemta = make_elemta({"shutdown_grace": "2 s"})
    elemta.start()
    busy = Client(elemta.port)
    busy.begin()

    elemta.signal(signal.SIGTERM)

    assert elemta.wait(within=20.0) == 0
    busy.close()


def test_sighup_reloads_and_sessions_go_on(elemta: Daemon) -> None:
    with smtplib.SMTP("127.0.0.1", elemta.port, "client.example", timeout=60.0) as client:
        client.ehlo()
        assert client.mail("alice@example.org")[0] == 250
        elemta.settings["domains"] = [
            {"name": "example.org", "mailboxes": ["*"]},
            {"name": "new.example", "mailboxes": ["bob"]},
        ]
        elemta.write_config()

        elemta.signal(signal.SIGHUP)

        def knows() -> bool:
            # Foreign domains are relayed for loopback: only ours knows its mailboxes.
            with smtplib.SMTP("127.0.0.1", elemta.port, "client.example", timeout=60.0) as other:
                other.ehlo()
                other.mail("alice@example.org")
                return other.rcpt("nobody@new.example")[0] == 550

        ports.eventually(knows, what="the new configuration")
        assert client.rcpt("bob@example.org")[0] == 250
        assert client.data(messages.AWKWARD)[0] == 250
    elemta.send(messages.AWKWARD, ["bob@new.example"])
    ports.eventually(lambda: elemta.maildir("bob@new.example"))
    ports.eventually(lambda: elemta.maildir("bob@example.org"))


def test_a_broken_configuration_is_not_taken_up_by_sighup(elemta: Daemon) -> None:
    elemta.config.write_text("hostname: [")

    elemta.signal(signal.SIGHUP)

    def said() -> bool:
        return any(event.get("level") == "error" for event in elemta.events())

    ports.eventually(said, what="an error in the log")
    elemta.send(messages.AWKWARD)
    ports.eventually(lambda: elemta.maildir("bob@example.org"))


@needs_root
def test_root_without_a_user_is_refused(make_elemta: MakeDaemon) -> None:
    elemta = make_elemta()
    elemta.arguments = []

    elemta.start(wait=False)

    assert elemta.wait() not in (0, None)
    assert "--allow-root" in elemta.log_tail()


@needs_root
def test_root_binds_a_low_port_and_then_is_somebody_else(make_elemta: MakeDaemon) -> None:
    elemta = make_elemta()
    elemta.port = _low_port()
    elemta.settings |= {"listeners": [elemta.listener()], "user": "nobody"}
    elemta.arguments = []
    nobody = pwd.getpwnam("nobody")
    elemta.data.mkdir()
    os.chown(elemta.data, nobody.pw_uid, nobody.pw_gid)

    elemta.start()

    status = Path(f"/proc/{elemta.pid}/status").read_text()
    assert _ids(status, "Uid") == {nobody.pw_uid}
    assert _ids(status, "Gid") == {nobody.pw_gid}
    assert _ids(status, "Groups") <= {nobody.pw_gid}
    assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE)
    for task in Path(f"/proc/{elemta.pid}/task").iterdir():
        assert _ids((task / "status").read_text(), "Uid") == {nobody.pw_uid}
    elemta.send(messages.AWKWARD)
    ports.eventually(lambda: elemta.maildir("bob@example.org"))
    assert {path.stat().st_uid for path in elemta.data.rglob("*")} == {nobody.pw_uid}


def test_a_second_daemon_on_the_same_data_is_refused(
    elemta: Daemon, make_elemta: MakeDaemon, place: Path
) -> None:
    (place / "second").mkdir()
    second = make_elemta({"data_dir": str(elemta.data)}, place / "second")

    second.start(wait=False)

    assert second.wait() not in (0, None)
    elemta.send(messages.AWKWARD)


def _ids(status: str, field: str) -> set[int]:
    found = re.search(rf"^{field}:\s*(.*)$", status, re.MULTILINE)
    assert found
    return {int(number) for number in found[1].split()}


def _low_port() -> int:
    for port in range(1023, 512, -1):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port below 1024")
