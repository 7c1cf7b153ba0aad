"""An operator steers the daemon by the command line."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import pytest
import trio
from click.testing import CliRunner

from elemta.cli import main
from elemta.control.client import connect
from elemta.control.facts import Submission, Submitted
from elemta.control.interface import RequestError
from elemta.protocol import parse_mailbox
from tests.scenarios import ports
from tests.scenarios.conftest import needs_root
from tests.scenarios.sink import Sink, Step

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from tests.scenarios.conftest import MakeDaemon
    from tests.scenarios.daemon import Daemon

pytestmark = pytest.mark.scenario

MESSAGE = b"Subject: steer me\r\n\r\nhello\r\n"


class Told(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


class Desk:
    """A daemon whose mail for other domains waits at a sink, and the commands to steer it."""

    def __init__(self, daemon: Daemon, sink: Sink) -> None:
        self.daemon = daemon
        self.sink = sink

    def run(self, *arguments: str) -> Told:
        """Run a command in this process: there are many, and starting Python is dear."""
        done = CliRunner().invoke(main, [*arguments, "--config", str(self.daemon.config)])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Told(done.exit_code, done.stdout, done.stderr)

    def ask(self, *arguments: str) -> Any:  # noqa: ANN401 # whatever JSON has
        """What a command answers to programs."""
        told = self.run(*arguments, "--json")
        assert told.returncode == 0, told
        return json.loads(told.stdout)

    def tally(self, *arguments: str) -> dict[str, object]:
        found: dict[str, object] = self.ask("queue", *arguments)
        return found

    def states(self, id_: str) -> dict[str, str]:
        told = self.ask("queue", "show", id_)
        return {each["address"]: each["state"] for each in told["recipients"]}

    def send(self, *recipients: str, sender: str = "alice@example.org") -> str:
        return self.daemon.send(MESSAGE, recipients, sender)

    def deferred(self, *recipients: str, sender: str = "alice@example.org") -> str:
        """A message that was tried, and waits for an hour."""
        id_ = self.send(*recipients, sender=sender)
        ports.eventually(lambda: set(self.states(id_).values()) == {"deferred"}, what="a deferral")
        return id_


@pytest.fixture
def desk(make_elemta: MakeDaemon) -> Iterator[Desk]:
    with Sink() as sink:
        sink.answer(Step.RCPT, "451 4.2.0 the mailbox is busy")
        daemon = make_elemta(
            {
                "routes": [{"match": "*", "via": [f"smtp://127.0.0.1:{sink.port}"]}],
                "queue": {"retry": ["1 h"], "disk_reserve": "1 MiB"},
            }
        )
        daemon.start()
        yield Desk(daemon, sink)


def test_mail_is_held_released_and_tried_now(desk: Desk) -> None:
    id_ = desk.deferred("bob@example.net", "carol@example.com")

    dry = desk.tally("hold", id_, "--domain", "example.com", "--dry-run")
    assert dry == {
        "messages": 1, "recipients": 1, "octets": dry["octets"], "busy": 0, "dry_run": True,
    }  # fmt: skip
    assert desk.states(id_)["carol@example.com"] == "deferred"

    assert desk.tally("hold", id_, "--domain", "example.com", "--reason", "odd")["recipients"] == 1
    assert desk.states(id_) == {"bob@example.net": "deferred", "carol@example.com": "held"}
    (held,) = _list(desk, "--view", "hold", "--owner", f"operator:{_me()}")
    assert held["id"] == id_

    desk.sink.answer(Step.RCPT, None)
    assert desk.tally("retry", id_)["recipients"] == 1
    ports.eventually(lambda: desk.states(id_)["bob@example.net"] == "delivered")
    assert desk.states(id_)["carol@example.com"] == "held"

    assert desk.tally("release", "--view", "hold", "--yes")["recipients"] == 1
    ports.eventually(lambda: desk.states(id_)["carol@example.com"] == "delivered")
    story = desk.run("queue", "timeline", id_.lower()).stdout
    assert f"hold by operator:{_me()}, carol@example.com: odd" in story
    assert story.splitlines()[-1].endswith("finished")
    assert "451 4.2.0 the mailbox is busy" in story


def test_mail_is_deleted_and_nobody_is_told(desk: Desk) -> None:
    id_ = desk.deferred("bob@example.net")

    assert desk.tally("delete", id_)["messages"] == 1

    assert desk.states(id_) == {"bob@example.net": "deleted"}
    assert [each["id"] for each in _list(desk, "--view", "failed")] == [id_]
    assert desk.daemon.waiting() == 0
    again = desk.run("queue", "delete", id_)
    assert (again.returncode, again.stdout) == (1, "nothing to delete\n")
    assert desk.daemon.maildir("alice@example.org") == []


def test_mail_is_bounced_and_its_sender_told_why(desk: Desk) -> None:
    id_ = desk.deferred("bob@example.net")

    assert desk.tally("bounce", id_, "--reason", "that company is gone")["messages"] == 1

    assert desk.states(id_) == {"bob@example.net": "failed"}
    (report,) = ports.eventually(lambda: desk.daemon.maildir("alice@example.org"))
    assert b"that company is gone" in report
    assert b"Final-Recipient: rfc822; bob@example.net" in report


def test_mail_is_redirected_and_reprioritised(desk: Desk) -> None:
    id_ = desk.deferred("bob@example.net")

    assert desk.tally("reprioritise", id_, "--to", "high")["messages"] == 1
    assert desk.tally("redirect", id_, "--to", "robert@example.org")["messages"] == 1

    ports.eventually(lambda: desk.daemon.maildir("robert@example.org"))
    told = desk.ask("queue", "show", id_)
    assert told["priority"] == "high"
    assert [note["action"].split()[0] for note in told["notes"]] == ["reprioritise", "redirect"]
    wrong = desk.run("queue", "redirect", id_, "--to", "no address")
    assert wrong.returncode == 64
    assert "'no address' is no address" in wrong.stderr


def test_mail_is_sent_by_another_host_and_at_another_time(desk: Desk) -> None:
    id_ = desk.deferred("bob@example.net", "carol@example.net")
    with Sink() as other:
        via = f"smtp://127.0.0.1:{other.port}"
        chosen = ("reroute", id_, "--recipient", "bob@example.net", "--via", via)
        assert desk.tally(*chosen, "--dry-run")["recipients"] == 1
        assert desk.tally(*chosen)["recipients"] == 1
        ports.eventually(lambda: desk.states(id_)["bob@example.net"] == "delivered")
        assert len(other.deliveries) == 1
    (bob, carol) = desk.ask("queue", "show", id_)["recipients"]
    assert (bob["via"], carol["via"]) == ([via], [])
    for wrong in ("pipe:/bin/true", "nonsense"):
        told = desk.run("queue", "reroute", id_, "--via", wrong)
        assert (told.returncode, "action.via[0]" in told.stderr) == (64, True)

    desk.sink.answer(Step.RCPT, None)
    late = desk.run("queue", "reschedule", id_, "--in", "30d")
    assert late.returncode == 64
    assert "carol@example.net" in late.stderr
    assert desk.tally("reschedule", id_, "--in", "2s")["recipients"] == 1
    due = desk.ask("queue", "show", id_)["recipients"][1]["due"]
    ports.eventually(lambda: desk.states(id_)["carol@example.net"] == "delivered")
    assert time.time() >= due
    story = desk.run("queue", "timeline", id_).stdout
    assert f"reroute {via} by operator:{_me()}, bob@example.net" in story
    assert "reschedule 20" in story
    (hour,) = [each for each in desk.ask("statistics")["buckets"] if each["counts"]][-1:]
    assert hour["counts"]["delivered"] == 2
    assert "DELIVERED" in desk.run("statistics", "--scale", "hour").stdout


def test_what_was_handed_in_with_a_key_is_one_message_after_a_kill_too(desk: Desk) -> None:
    """And what is to be sent later is not sent by the restart."""
    large = Submission(
        sender=parse_mailbox("alice@example.org"),
        recipients=(parse_mailbox("bob@example.net"),),
        content=b"Subject: later\r\n\r\n" + b"a line of text\r\n" * 1_000_000,
        due=time.time() + 3600,
        key="monday's report",
    )
    socket = desk.daemon.data / "control.sock"

    async def submit(submission: Submission) -> Submitted:
        async with connect(socket) as server:
            return await server.submit(submission)

    first = trio.run(submit, large)
    desk.daemon.kill()
    desk.daemon.start()
    again = trio.run(submit, large)
    assert (again.id, first.again, again.again) == (first.id, False, True)
    (waiting,) = _list(desk, "--view", "deferred")
    assert (waiting["id"], waiting["send_at"]) == (first.id, large.due)
    with pytest.raises(RequestError):
        trio.run(submit, msgspec.structs.replace(large, content=b"Subject: other\r\n\r\n"))
    desk.sink.answer(Step.RCPT, None)
    assert desk.tally("retry", first.id)["recipients"] == 1
    ports.eventually(lambda: desk.states(first.id) == {"bob@example.net": "delivered"})
    assert len(desk.sink.deliveries) == 1


def test_a_filter_means_what_it_says(desk: Desk) -> None:
    first = desk.deferred("bob@example.net", sender="a@one.example")
    second = desk.deferred("carol@sub.example.net", sender="")
    for options, found in (
        (("--domain", "example.net"), [first]),
        (("--domain", "*.example.net"), [second]),
        (("--sender", "@one.example"), [first]),
        (("--sender", "<>"), [second]),
        (("--recipient", "carol@sub.example.net"), [second]),
        (("--error", "MAILBOX is busy"), [first, second]),
        (("--error", "no such"), []),
        (("--text", "ONE.example"), [first]),
        (("--text", "mailbox is busy", "--newest"), [second, first]),
        (("--newest", "--limit", "1"), [second]),
        (("--view", "deferred"), [first, second]),
        (("--state", "ready"), []),
        (("--younger-than", "1h"), [first, second]),
        (("--older-than", "1h"), []),
        (("--smaller-than", "1MB", "--larger-than", "10B"), [first, second]),
        (("--larger-than", "1MiB"), []),
        (("--priority", "normal"), [first, second]),
        (("--destination", f"smtp:[127.0.0.1]:{desk.sink.port}"), [first, second]),
        ((second, first), [first, second]),
    ):
        assert [each["id"] for each in _list(desk, *options)] == found, options


def test_nothing_is_done_to_everything_by_accident(desk: Desk) -> None:
    id_ = desk.deferred("bob@example.net")
    for command in ("retry", "hold", "release", "delete", "bounce"):
        vague = desk.run("queue", command)
        assert vague.returncode == 64
        assert "say which mail" in vague.stderr
        silent = desk.run("queue", command, "--all")
        assert silent.returncode == 64
        assert "there is nobody to ask" in silent.stderr
    for nonsense in (("--older-than", "2"), ("--larger-than", "x"), ("not-an-id",)):
        assert desk.run("queue", "delete", "--yes", *nonsense).returncode == 64
    assert desk.states(id_) == {"bob@example.net": "deferred"}

    assert "delete 1 message, 1 recipient" in _on_a_terminal(desk, "n\n", "delete", "--all")
    assert desk.states(id_) == {"bob@example.net": "deferred"}
    assert "delete 1 message, 1 recipient" in _on_a_terminal(desk, "y\n", "delete", "--all")
    assert desk.states(id_) == {"bob@example.net": "deleted"}


def test_a_destination_is_suspended_and_resumed(desk: Desk) -> None:
    desk.sink.answer(Step.RCPT, None)
    dry = desk.tally("suspend", "domain:example.net", "--dry-run")
    assert (dry["messages"], dry["dry_run"]) == (0, True)
    told = desk.run("queue", "suspend", "domain:example.net", "--reason", "repairs", "--for", "1h")
    assert told.stdout == "domain:example.net is suspended\n"

    id_ = desk.send("bob@example.net")
    other = desk.send("bob@example.com")
    ports.eventually(lambda: desk.states(other) == {"bob@example.com": "delivered"})
    assert desk.states(id_) == {"bob@example.net": "ready"}
    (found,) = desk.ask("queue", "suspensions")
    assert (found["scope"], found["who"], found["reason"]) == (
        "domain:example.net", f"operator:{_me()}", "repairs",
    )  # fmt: skip
    assert "repairs" in desk.run("queue", "suspensions").stdout
    assert "suspended (domain:example.net)" in desk.run("queue", "top", "--once").stdout

    assert desk.run("queue", "resume", "domain:example.net").returncode == 0
    ports.eventually(lambda: desk.states(id_) == {"bob@example.net": "delivered"})
    assert desk.run("queue", "suspensions").stdout == "nothing is suspended\n"
    again = desk.run("queue", "resume", "domain:example.net")
    assert (again.returncode, again.stdout) == (1, "")
    assert desk.run("queue", "suspend", "nonsense").returncode == 64


def test_flush_tries_all_that_waits_now(desk: Desk) -> None:
    ids = [desk.deferred(f"bob@{number}.example") for number in range(3)]
    desk.sink.answer(Step.RCPT, None)

    desk.daemon.flush()

    ports.eventually(lambda: desk.daemon.waiting() == 0, what="an empty queue")
    assert {state for id_ in ids for state in desk.states(id_).values()} == {"delivered"}


def test_top_and_status_show_what_goes_on(desk: Desk) -> None:
    desk.deferred("bob@example.net")

    top = desk.run("queue", "top", "--once").stdout
    assert re.search(r"^mx\.example\.org  1 message", top)
    status = desk.run("status")
    assert status.returncode == 0, status
    for line in (
        r"^elemta \S+, mx\.example\.org, running, process \d+$",
        r"^health      all is well$",
        rf"^listener    mx \(smtp\) 127\.0\.0\.1:{desk.daemon.port}: 0 connections$",
        r"^queue       1 message: 0 ready, 1 deferred, 0 held$",
    ):
        assert re.search(line, status.stdout, re.MULTILINE), status.stdout
    told = desk.ask("status")
    assert (told["pid"], told["troubles"], told["queue"]["messages"]) == (desk.daemon.pid, [], 1)
    assert told["counts"]["Queued"] == 1
    assert {part["name"] for part in told["parts"]} >= {
        "control", "delivery", "log", "maintenance", "reaper", "schedule", "systemd",
        f"listener mx 127.0.0.1:{desk.daemon.port}",
    }  # fmt: skip
    assert all(part["running"] for part in told["parts"])


def test_top_draws_anew_until_it_is_interrupted(desk: Desk) -> None:
    process = desk.daemon.begin("queue", "top", "--interval", "50ms")
    assert process.stdout is not None
    drawn = 0
    while drawn < 3:
        line = process.stdout.readline()
        assert line, "it ended by itself"
        drawn += line.startswith("DESTINATION")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "\n")
    shown = _on_a_terminal(desk, "\x03", "top", "--interval", "50ms", until=b"\x1b[J")
    assert shown.startswith("\x1b[Hmx.example.org")


def test_reload_says_what_has_changed_or_what_is_wrong(desk: Desk) -> None:
    daemon = desk.daemon
    assert desk.run("reload").stdout == "nothing has changed in the configuration\n"
    daemon.settings |= {"limits": {"connections": 77}, "dns": {"timeout": "3 s"}}
    daemon.write_config()

    dry = desk.run("reload", "--dry-run").stdout
    assert "limits.connections: 2000 -> 77\n" in dry
    assert desk.run("reload").stdout == dry
    assert re.search(r"^dns\.timeout: .* \(after a restart\)$", dry, re.MULTILINE)
    told = desk.ask("status")
    assert told["places"] == 77

    right = daemon.config.read_text()
    daemon.config.write_text(right.replace("connections: 77", "connections: many"))
    wrong = subprocess.run(
        [*daemon.command("reload")[:-2], "--config", str(_elsewhere(daemon, right))],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True, text=True, timeout=60.0,
    )  # fmt: skip
    assert wrong.returncode == 78
    assert "limits.connections: expected a whole number" in wrong.stderr
    assert str(daemon.config) in wrong.stderr
    assert desk.run("status").returncode == 78  # the command reads that file, too


def test_the_queue_is_checked_and_copied_while_it_is_used(
    desk: Desk, make_elemta: MakeDaemon, place: Path
) -> None:
    id_ = desk.deferred("bob@example.net")
    assert desk.run("queue", "check").stdout == "the queue is whole\n"
    copy = place / "copy"

    assert desk.run("queue", "backup", str(copy)).returncode == 0
    assert desk.run("queue", "backup", str(copy)).returncode == 64  # it is there already

    desk.tally("delete", id_)
    desk.daemon.terminate()
    (place / "second").mkdir()
    second = make_elemta(dict(desk.daemon.settings), place / "second")
    second.settings |= {"data_dir": str(second.data), "listeners": [second.listener()]}
    second.data.mkdir(mode=0o700)
    copy.rename(second.data / "queue")
    second.start()
    restored = Desk(second, desk.sink)
    assert restored.states(id_) == {"bob@example.net": "deferred"}
    assert restored.run("queue", "check").returncode == 0


def test_content_comes_back_octet_for_octet(desk: Desk) -> None:
    id_ = desk.deferred("bob@example.net")
    shown = subprocess.run(
        desk.daemon.command("queue", "raw", id_),
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True, check=True, timeout=60.0,
    ).stdout  # fmt: skip
    assert shown.startswith(b"Received: ")
    assert shown.endswith(MESSAGE)


def test_watch_tells_what_happens_as_it_happens_and_again_since_a_number(desk: Desk) -> None:
    with _watching(desk) as lines:
        id_ = desk.deferred("bob@example.net")
        told = [json.loads(next(lines)) for _ in range(3)]
        assert [each["type"] for each in told] == ["Queued", "AttemptStarted", "Deferred"]
        assert {each["id"] for each in told} == {id_}
        assert told[2]["recipient"] == "bob@example.net"
        assert told[2]["reply"] == "451 4.2.0 the mailbox is busy"
    with _watching(desk, "--since", str(told[0]["number"])) as lines:
        assert [json.loads(next(lines)) for _ in range(2)] == told[1:]


def test_with_the_daemon_down_the_store_is_read_and_nothing_else(desk: Desk) -> None:
    id_ = desk.deferred("bob@example.net")
    assert desk.daemon.terminate() == 0

    down = "elemta: the server is down; its store says this\n"
    for arguments, said in (
        (("list",), id_),
        (("list", "--domain", "example.net"), id_),
        (("list", "--destination", f"smtp:[127.0.0.1]:{desk.sink.port}"), id_),
        (("show", id_), "451 4.2.0 the mailbox is busy"),
        (("timeline", id_), "451 4.2.0 the mailbox is busy"),
        (("raw", id_), "Subject: steer me"),
        (("stats",), "messages    1"),
        (("check",), "the queue is whole"),
    ):
        told = desk.run("queue", *arguments)
        assert (told.returncode, told.stderr) == (0, down), told
        assert said in told.stdout
    for command in (
        ("queue", "hold", id_), ("queue", "flush"), ("queue", "top", "--once"),
        ("queue", "suspend", "all"), ("queue", "watch"), ("queue", "backup", "x"),
        ("status",), ("reload",),
    ):  # fmt: skip
        told = desk.run(*command)
        assert told.returncode == 69, told
        assert re.fullmatch(r"elemta: the server is down: nobody listens at \S+\n", told.stderr)


def test_a_client_that_goes_away_stops_a_watch_and_harms_nothing(desk: Desk) -> None:
    path = str(desk.daemon.data / "control.sock")
    for _ in range(100):  # more than there may be at a time
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            client.sendall(b'{"is": "events"}\n{"is": "check"}\n')
    ports.eventually(lambda: desk.run("status").returncode == 0, what="a free place")


def test_what_a_kill_leaves_of_the_socket_is_replaced(desk: Desk) -> None:
    desk.daemon.kill()
    assert (desk.daemon.data / "control.sock").exists()
    assert desk.run("status").returncode == 69
    desk.daemon.start()
    assert desk.run("status").returncode == 0


@needs_root
def test_another_user_may_not_steer(desk: Desk, place: Path) -> None:
    """Even one who can read the configuration, and has come as far as the socket."""
    desk.daemon.data.chmod(0o711)
    path = desk.daemon.data / "control.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    script = (  # all is imported while Python itself can still be read
        "import os, elemta.cli.looking, elemta.cli.steering, elemta.cli.screens, elemta.config;"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534); elemta.cli.main()"
    )
    for arguments in (("queue", "list"), ("queue", "delete", "--all", "--yes"), ("status",)):
        told = subprocess.run(
            [sys.executable, "-c", script, *desk.daemon.command(*arguments)[3:]],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60.0,
        )  # fmt: skip
        assert told.returncode == 77, told
        assert told.stderr == f"elemta: you may not use {path}: become its owner, or root\n"


def _list(desk: Desk, *options: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = desk.ask("queue", "list", *options)
    return found


def _me() -> str:
    import pwd

    return pwd.getpwuid(os.geteuid()).pw_name


def _elsewhere(daemon: Daemon, text: str) -> Path:
    """The configuration as it was, for a command that must find the socket."""
    path = daemon.folder / "as-it-was.yaml"
    path.write_text(text)
    return path


@contextmanager
def _watching(desk: Desk, *options: str) -> Iterator[Iterator[str]]:
    """The lines of ``elemta queue watch``, from when it is connected."""
    before = _served(desk)
    process = desk.daemon.begin("queue", "watch", "--json", *options)
    try:
        ports.eventually(lambda: _served(desk) > before, what="a watcher")
        assert process.stdout is not None
        yield iter(process.stdout)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def _served(desk: Desk) -> int:
    """Connections to the control socket that are open."""
    path = str(desk.daemon.data / "control.sock")
    return sum(line.endswith(path) for line in Path("/proc/net/unix").read_text().splitlines())


def _on_a_terminal(desk: Desk, types: str, *arguments: str, until: bytes = b"?") -> str:
    """What ``elemta queue …`` shows somebody who types this, once it has shown `until`."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
        command = desk.daemon.command("queue", *arguments)
        os.execv(command[0], command)
    shown = b""
    deadline = time.monotonic() + 30
    while until not in shown and time.monotonic() < deadline:
        shown += os.read(terminal, 1024)
    os.write(terminal, types.encode())
    while True:
        try:
            more = os.read(terminal, 1024)
        except OSError:  # the other end is closed
            break
        if not more:
            break
        shown += more
    os.waitpid(pid, 0)
    os.close(terminal)
    return shown.decode()
