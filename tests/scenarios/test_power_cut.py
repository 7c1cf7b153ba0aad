"""The power fails: every message that was answered is there afterwards, whole.

The daemon runs once, with all that it does to its files written down; then the disk is put
together as a cut would have left it, at many moments (see powercut.py).
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from elemta.queue import StoreReader
from tests.scenarios import messages, ports, powercut
from tests.scenarios.conftest import needs

if TYPE_CHECKING:
    from pathlib import Path

    from tests.scenarios.conftest import MakeDaemon
    from tests.scenarios.daemon import Daemon
    from tests.scenarios.powercut import Record

pytestmark = [pytest.mark.scenario, needs("gcc")]

CUTS = 40
STAMP = b"X-Stamp: kept\n"


def test_a_disk_keeps_what_was_synced_and_no_more(place: Path) -> None:
    # The judge is judged first: it must know what a careless program loses.
    program = """
import os
def put(path, sync_file, sync_folder):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"octets")
    if sync_file: os.fsync(fd)
    os.close(fd)
    if sync_folder:
        fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
put("careful", True, True)
os.mkdir("folder")
put("folder/nameless", True, True)
put("renamed.tmp", True, True)
os.rename("renamed.tmp", "renamed")
os.rename("careful", "moved")
put("empty", False, True)
put("nothing", True, False)
"""
    root = place / "root"
    root.mkdir()
    _run_recorded(place, [sys.executable, "-c", program], root)
    disk = powercut.Disk(root)
    found: set[frozenset[str]] = set()
    for record in powercut.read_log(place / "log"):
        disk.play(record)
        target = place / "cut"
        target.mkdir()
        disk.cut(target, None)
        found.add(
            frozenset(
                f"{path.relative_to(target)}={path.read_text() if path.is_file() else ''}"
                for path in target.rglob("*")
            )
        )
        shutil.rmtree(target)

    assert found == {
        frozenset(),
        frozenset({"careful=octets"}),
        frozenset({"careful=octets", "folder=", "folder/nameless=octets", "renamed.tmp=octets"}),
        frozenset(
            {"moved=octets", "folder=", "folder/nameless=octets", "renamed=octets", "empty="}
        ),
    }


def test_a_power_cut_loses_nothing_that_was_answered(place: Path, make_elemta: MakeDaemon) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    root = place / "root"
    root.mkdir()
    sent = _run_daemon(place, root, make_elemta, chance)
    records = powercut.read_log(place / "log")
    moments = _moments(records, chance)
    disk = powercut.Disk(root)
    done = promised = 0
    for number, moment in enumerate(moments):
        for record in records[done:moment]:
            disk.play(record)
        done = moment
        # What was not synced is gone; or, every second time, half of it.
        target = place / f"cut-{number}"
        target.mkdir()
        disk.cut(target, chance if number % 2 else None)
        promised += len(disk.promised)
        _check(target, disk.promised, sent, f"cut {number} at record {moment}")
        if number in (CUTS // 4, CUTS // 2, CUTS - 1):
            _start(make_elemta, target, disk.promised)
        shutil.rmtree(target)
    print(
        f"{len(records)} records, {len(sent)} messages, {len(moments)} cuts, "
        f"{promised} promises looked at, lost 0"
    )
    assert len(moments) >= 30


def _run_recorded(place: Path, command: list[str], root: Path) -> None:
    subprocess.run(command, check=True, cwd=root, env={**os.environ, **_environment(place, root)})


def _environment(place: Path, root: Path) -> dict[str, str]:
    return {
        "LD_PRELOAD": str(powercut.compile_shim(place)),
        "POWERCUT_ROOT": str(root),
        "POWERCUT_LOG": str(place / "log"),
    }


def _settings(root: Path) -> dict[str, object]:
    return {
        "data_dir": str(root / "var" / "data"),
        # Half of the mail stays in the queue, half is delivered and leaves it.
        "routes": [{"match": "*", "via": [f"smtp://127.0.0.1:{ports.free_port()}"]}],
        "queue": {"retry": ["1 s"], "disk_reserve": "1 MiB"},
        # A field at the top of a large message costs a second file, which takes the first's name.
        "plugins": [{"name": "rules", "settings": {"rules": [{"add": {"X-Stamp": "kept"}}]}}],
    }


def _run_daemon(
    place: Path, root: Path, make_elemta: MakeDaemon, chance: random.Random
) -> dict[str, bytes]:
    """Send to a daemon that is ended in every way in between; gives content by id."""
    daemon = make_elemta(_settings(root))
    daemon.environment = _environment(place, root)
    sent: dict[str, bytes] = {}
    for end in (daemon.kill, daemon.terminate, daemon.terminate):
        daemon.start()
        seeds = [chance.random() for _ in range(6)]
        threads = [threading.Thread(target=_send, args=(daemon, sent, seed)) for seed in seeds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60.0)
        end()
    assert len(sent) > 150, daemon.log_tail()
    return sent


def _send(daemon: Daemon, sent: dict[str, bytes], seed: float) -> None:
    chance = random.Random(seed)
    for number in range(10):
        size = chance.choice([1_000, 1_000, 8_000, 30_000, 120_000])
        if number == 5:
            size = 400_000  # a file of its own
        content = messages.numbered(f"{seed}-{number}", size)
        recipients = chance.choice([["bob@example.org"], ["carol@far.example"]])
        sent[daemon.send(content, recipients)] = content


def _moments(records: list[Record], chance: random.Random) -> list[int]:
    """When to cut: mostly just behind a promise, else anywhere."""
    promises = [n + 1 for n, record in enumerate(records) if record.kind is powercut.Kind.PROMISE]
    some = chance.sample(promises, CUTS * 2 // 3)
    return sorted({*some, *chance.sample(range(len(records)), CUTS - len(some) - 1), len(records)})


def _check(target: Path, promised: list[str], sent: dict[str, bytes], when: str) -> None:
    """Each promised message is in the queue or in the Maildir, and whole."""
    data = target / "var" / "data"
    if not promised:
        return
    boxes = (data / "mail").glob("*/*/new/*")
    delivered = {path.name: path.read_bytes() for path in boxes}
    with StoreReader(data / "queue") as reader:
        for message_id in promised:
            wanted = sent.get(message_id)
            found = next((c for name, c in delivered.items() if message_id in name), None)
            if found is None:
                found = reader.body(message_id)
            assert found is not None, f"{when}: {message_id} is lost"
            if wanted is not None:
                before, stamp, behind = messages.lines(found).partition(STAMP)
                assert stamp, when
                assert messages.without_trace(before + behind) == messages.lines(wanted), when


def _start(make_elemta: MakeDaemon, target: Path, promised: list[str]) -> None:
    """The daemon starts on what is left, takes mail, and delivers what waits for the Maildir."""
    daemon = make_elemta(_settings(target), target)
    daemon.data = target / "var" / "data"
    daemon.start()
    daemon.send(messages.numbered("after"))

    def whole() -> bool:
        names = " ".join(path.name for path in (daemon.data / "mail").glob("*/*/new/*"))
        waiting = str(daemon.ask("queue", "list"))
        return all(each in names or each in waiting for each in promised)

    ports.eventually(whole, what="every promised message")
    assert daemon.terminate() == 0
