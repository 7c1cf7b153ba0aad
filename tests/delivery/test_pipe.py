"""Mail to programs; in real time, since virtual time sees no processes."""

from __future__ import annotations

import os
import signal
import stat
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from msgspec import Struct

from elemta.config import Pipe, load
from elemta.delivery import pipe as pipes
from elemta.delivery.pipe import CannotRunError, deliver
from elemta.protocol import Mailbox, Reply
from elemta.queue import Message, Recipient, State, StoreUnavailable
from tests.delivery.world import ANN, BODY, CONFIG, Stored, world

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

BOB = Mailbox("bob", "us.example")


class Unreadable(Struct):
    size: int = 10
    octets: bytes | None = None

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        yield b"From: "
        raise StoreUnavailable("disk")


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], str]:
    """Makes a program of a few lines of Python, and says where it is."""

    def make(text: str) -> str:
        path = tmp_path / "program"
        path.write_text(f"#!{sys.executable} -IS\nimport os, sys, time\n{text}\n")
        path.chmod(stat.S_IRWXU)
        return str(path)

    return make


def message(sender: Mailbox | None = ANN) -> Message:
    return Message(
        id="01JD0000000000000000000000",
        sender=sender,
        recipients=[],
        received_at=0.0,
        expires_at=1.0,
        size=len(BODY),
    )


async def run(
    *command: str,
    address: Mailbox = BOB,
    sender: Mailbox | None = ANN,
    body: Stored | Unreadable | None = None,
    time_limit: float = 20,
) -> Reply:
    recipient = Recipient(number=0, address=address)
    return await deliver(
        Pipe(command), message(sender), recipient, body or Stored(BODY), time_limit
    )


async def test_a_program_reads_the_message_and_knows_for_whom_it_is(
    program: Callable[[str], str], tmp_path: Path
) -> None:
    path = program(
        f"open({str(tmp_path / 'got')!r}, 'wb').write(sys.stdin.buffer.read())\n"
        "print(sys.argv[1:], sorted(os.environ), os.getcwd())"
    )
    arguments = ("-f", "{sender}", "to:{recipient}", "{local_part}", "{domain}", "{id}", "a  b;$x")
    said = await run(path, *arguments)
    assert said.code == 250
    assert (tmp_path / "got").read_bytes() == (
        b"Return-Path: <ann@sender.example>\nDelivered-To: bob@us.example\n"
        + BODY.replace(b"\r\n", b"\n")
    )
    assert said.text.startswith(f"delivered by {path}: ")
    assert (
        "['-f', 'ann@sender.example', 'to:bob@us.example', 'bob', 'us.example', "
        "'01JD0000000000000000000000', 'a  b;$x'] ['LANG', 'PATH'] /"
    ).replace("  ", " ") in said.text


async def test_the_null_sender_has_a_name(program: Callable[[str], str], tmp_path: Path) -> None:
    path = program("print(sys.argv[1:], sys.stdin.readline())")
    said = await run(path, "-f{sender}", "--", sender=None)
    assert said.text.endswith("['-fMAILER-DAEMON', '--'] Return-Path: <>")


@pytest.mark.parametrize("local", ["-rf", "--exec=x"])
async def test_nobody_slips_a_program_an_option(local: str, tmp_path: Path) -> None:
    address = Mailbox(local, "us.example")
    for word in ("{local_part}", "{recipient}"):
        said = await run("/bin/false", word, address=address)
        assert str(said).startswith("553 5.1.3 the address cannot be given to a program")
    said = await run("/bin/false", "{sender}", sender=address)
    assert said.code == 553
    assert (await run("/bin/true", "-f{sender}", "u:{local_part}", address=address)).code == 250


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (0, "250 2.0.0"),
        (1, "451 4.3.0"),
        (64, "554 5.3.0"),
        (65, "554 5.6.0"),
        (67, "550 5.1.1"),
        (69, "554 5.3.0"),
        (71, "451 4.3.0"),
        (75, "451 4.3.0"),
        (77, "550 5.7.0"),
        (78, "451 4.3.5"),
        (127, "451 4.3.0"),
        (255, "451 4.3.0"),
    ],
)
async def test_how_a_program_ends_says_what_became_of_it(
    status: int, said: str, program: Callable[[str], str]
) -> None:
    path = program(f"print('because\\n  of \\x1b this')\nsys.exit({status})")
    reply = await run(path)
    assert str(reply).startswith(said)
    assert reply.text.endswith("because of ? this")


async def test_a_program_that_a_signal_ended_is_tried_again(program: Callable[[str], str]) -> None:
    path = program("os.kill(os.getpid(), 11)")
    assert str(await run(path)).endswith("was ended by signal 11")
    path = program("os.kill(os.getpid(), 9)")
    assert str(await run(path)).startswith("451 4.3.0")


async def test_what_a_program_writes_is_bounded(program: Callable[[str], str]) -> None:
    path = program("sys.stdout.write('x' * 10_000_000)\nsys.exit(67)")
    reply = await run(path)
    assert reply.code == 550
    assert len(reply.text) < 500


async def test_a_program_need_not_read_it_all(program: Callable[[str], str]) -> None:
    path = program("os.close(0)")
    assert (await run(path, body=Stored(b"x\r\n" * 1_000_000))).code == 250


async def test_a_large_message_arrives_whole(program: Callable[[str], str]) -> None:
    path = program("print(len(sys.stdin.buffer.read()))")
    body = Stored(b"x\r\n" * 1_000_000, large=True, piece=65_537)
    head = len("Return-Path: <ann@sender.example>\nDelivered-To: bob@us.example\n")
    assert (await run(path, body=body)).text.endswith(f": {2_000_000 + head}")


@pytest.mark.parametrize("path", ["/nonexistent/program", "/etc/passwd", "/"])
async def test_a_program_that_cannot_be_run_is_no_fault_of_the_mail(path: str) -> None:
    with pytest.raises(CannotRunError, match=f"451 4.3.5 cannot run {path}: ") as caught:
        await run(path)
    assert not caught.value.started


async def test_a_message_that_breaks_off_is_not_delivered_in_part(
    program: Callable[[str], str], tmp_path: Path
) -> None:
    path = program(f"sys.stdin.read()\nopen({str(tmp_path / 'got')!r}, 'w')")
    with pytest.raises(CannotRunError, match="the content could not be read: disk"):
        await run(path, body=Unreadable())
    assert not (tmp_path / "got").exists()


def gone(file: Path) -> bool:
    """Whether the process is gone, or as good as, whose number stands in a file."""
    try:
        state = Path("/proc", file.read_text(), "stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


CHILD = """
if os.fork() == 0:
    open({0!r}, "w").write(str(os.getpid()))
    os.rename({0!r}, {1!r})
    time.sleep(1000)
"""


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(60):
        while not condition():  # noqa: ASYNC110 # another process brings it about
            await trio.sleep(0.01)


async def test_a_program_that_takes_too_long_is_killed_with_its_children(
    program: Callable[[str], str], tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    path = program(CHILD.format(str(tmp_path / "new"), str(pid)) + "time.sleep(1000)")
    with pytest.raises(CannotRunError, match="was killed: it may take 1 s") as caught:
        await run(path, time_limit=1)
    assert caught.value.started
    assert pid.exists()
    await until(lambda: gone(pid))


async def test_a_program_is_killed_when_we_are_cancelled(
    program: Callable[[str], str], tmp_path: Path, nursery: trio.Nursery
) -> None:
    pid = tmp_path / "pid"
    path = program(CHILD.format(str(tmp_path / "new"), str(pid)) + "time.sleep(1000)")
    nursery.start_soon(run, path)
    await until(pid.exists)
    nursery.cancel_scope.cancel()
    with trio.CancelScope(shield=True):
        await until(lambda: gone(pid))


async def test_what_a_program_leaves_behind_is_not_waited_for(
    program: Callable[[str], str], tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    path = program(
        CHILD.format(str(tmp_path / "new"), str(pid))
        + f"while not os.path.exists({str(pid)!r}): time.sleep(0.01)\nprint('done')"
    )
    with trio.fail_after(60):
        reply = await run(path)
    assert reply.text.endswith(": done")
    os.kill(int(pid.read_text()), signal.SIGKILL)


def test_all_codes_of_sysexits_are_known() -> None:
    known = {getattr(os, name) for name in dir(os) if name.startswith("EX_")} - {os.EX_OK}
    assert known == pipes._PERMANENT.keys() | pipes._TEMPORARY.keys()


async def test_mail_goes_to_a_program_once_for_each_recipient(
    program: Callable[[str], str], tmp_path: Path
) -> None:
    path = program(
        f"open({str(tmp_path)!r} + '/' + sys.argv[1], 'w').write(sys.stdin.read())\n"
        "sys.exit(67 if sys.argv[1] == 'nobody' else 0)"
    )
    deliver = f"    deliver: 'pipe:{path} {{local_part}}'\n"
    config = load(
        CONFIG.replace(
            '  - {name: us.example, mailboxes: ["*"]}\n',
            f"  - name: us.example\n    mailboxes: ['*']\n{deliver}",
        )
    )
    async with world(tmp_path, config=config, clock=time.time) as here:
        with here.queue.events.subscribe() as events, trio.fail_after(60):
            id_ = await here.send("bob@us.example", "nobody@us.example", "eve@us.example")
            while State.READY in here.states(id_):
                await anext(events)
        assert here.states(id_) == [State.DELIVERED, State.FAILED, State.DELIVERED]
        assert (tmp_path / "eve").read_text().startswith("Return-Path: <ann@sender.example>\n")
        assert [attempt.destination for attempt in here.timeline(id_).attempts] == [
            f"pipe:{path} '{{local_part}}'"
        ] * 3


async def test_mail_that_comes_back_to_a_program_is_stopped(
    program: Callable[[str], str], tmp_path: Path
) -> None:
    path = program("")
    config = load(CONFIG + f"  - {{match: prog.example, via: ['pipe:{path}']}}\n")
    body = b"Delivered-To: Bob@PROG.example\r\n" + BODY
    async with world(tmp_path, config=config, clock=time.time) as here:
        with here.queue.events.subscribe() as events, trio.fail_after(60):
            id_ = await here.send("bob@prog.example", "eve@prog.example", body=body)
            while State.READY in here.states(id_):
                await anext(events)
        assert here.states(id_) == [State.FAILED, State.DELIVERED]
        assert "554 5.4.6 mail loop" in " ".join(here.replies(id_))
