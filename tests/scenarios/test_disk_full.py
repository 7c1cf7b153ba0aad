"""A disk that is full: mail is refused for now, nothing is lost, and it ends by itself."""

from __future__ import annotations

import contextlib
import os
import smtplib
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.scenarios import messages, ports
from tests.scenarios.conftest import needs, needs_root
from tests.scenarios.test_process import Client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.scenarios.conftest import MakeDaemon
    from tests.scenarios.daemon import Daemon

pytestmark = [pytest.mark.scenario, needs("mkfs.ext4", "losetup"), needs_root]

_SIZE = 48 * 2**20


@pytest.fixture
def disk(place: Path) -> Iterator[Path]:
    """A small ext4 file system."""
    image, folder = place / "disk.img", place / "disk"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(_SIZE)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def elemta(make_elemta: MakeDaemon, disk: Path) -> Daemon:
    """A daemon whose data lies on that disk; what is for elsewhere stays in the queue."""
    daemon = make_elemta()
    daemon.data = disk / "data"
    daemon.settings |= {
        "data_dir": str(daemon.data),
        "listeners": [daemon.listener(message_size="1 MiB")],
        "routes": [{"match": "*", "via": [f"smtp://127.0.0.1:{ports.free_port()}"]}],
    }
    daemon.start()
    return daemon


def test_mail_is_refused_for_now_when_the_disk_gets_full(elemta: Daemon, disk: Path) -> None:
    kept = elemta.send(messages.numbered("before"), ["carol@far.example"])
    with _filled(disk, leave=512 * 1024):
        # Room is looked at now and then, not for each message.
        ports.eventually(lambda: _answer(elemta) == 452, what="452")
        with pytest.raises(smtplib.SMTPResponseException) as refused:
            elemta.send(messages.numbered("refused"), ["carol@far.example"])
        assert refused.value.smtp_code == 452
        assert refused.value.smtp_error.startswith(b"4.3.1")  # type: ignore[union-attr,arg-type] # it is bytes when it came from a server

    ports.eventually(lambda: _answer(elemta) == 250, what="250 again")
    after = elemta.send(messages.numbered("after"), ["carol@far.example"])
    listed = str(elemta.ask("queue", "list"))
    assert kept in listed
    assert after in listed


@pytest.mark.parametrize("size", [4_000, 200_000, 900_000])
def test_a_disk_that_is_full_before_the_dot_keeps_nothing_and_promises_nothing(
    elemta: Daemon, disk: Path, size: int
) -> None:
    kept = [elemta.send(messages.numbered(f"before-{n}"), ["carol@far.example"]) for n in range(20)]
    client = Client(elemta.port)
    client.begin("carol@far.example")
    with _filled(disk, leave=0):
        # More than the database's own free pages can take, whatever they are.
        answers = [client.say(messages.numbered("full", size) + b".\r\n")]
        while answers[-1].startswith(b"250") and len(answers) < 1000:
            kept.append(answers[-1].split(b"queued as ")[1].split()[0].decode())
            answers.append(_hand_in(client, messages.numbered("full", size)))
        assert answers[-1][:3] in (b"452", b"451"), answers[-1]
        assert kept[0] in str(elemta.ask("queue", "list"))
    client.close()

    ports.eventually(lambda: _answer(elemta) == 250, what="250 again")
    kept.append(elemta.send(messages.numbered("after"), ["carol@far.example"]))
    elemta.kill()
    elemta.start()
    listed = str(elemta.ask("queue", "list"))
    assert [message_id for message_id in kept if message_id not in listed] == []
    assert "full" not in [path.name for path in elemta.data.rglob("*")]


def _hand_in(client: Client, content: bytes) -> bytes:
    for line in (b"MAIL FROM:<alice@example.org>", b"RCPT TO:<carol@far.example>", b"DATA"):
        answer = client.say(line + b"\r\n")
        if answer[:1] not in b"23":
            return answer
    return client.say(content + b".\r\n")


def _answer(elemta: Daemon) -> int:
    """The code that MAIL gets just now."""
    with smtplib.SMTP("127.0.0.1", elemta.port, "client.example", timeout=60.0) as client:
        client.ehlo()
        return client.mail("alice@example.org")[0]


@contextlib.contextmanager
def _filled(disk: Path, leave: int) -> Iterator[None]:
    """Take all space of the disk but `leave` octets, until the block ends."""
    filler = disk / "filler"
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT)
    try:
        for block in (2**20, 2**16, 4096):
            with contextlib.suppress(OSError):
                while _free(disk) > leave:
                    os.write(descriptor, bytes(block))
                    if leave:
                        os.fdatasync(descriptor)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    yield
    filler.unlink()


def _free(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize
