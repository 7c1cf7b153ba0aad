"""What `elemta queue` shows, and how it reads what is meant; tests/scenarios has the rest."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import click
import msgspec
import pytest
import trio
from click.testing import CliRunner
from msgspec.structs import replace

from elemta.cli import codes, inspection, main, screens, terminal
from elemta.cli.choice import Chosen, choosing, from_now, moment
from elemta.cli.queue import queue
from elemta.cli.steering import action_of
from elemta.control import plain
from elemta.control.facts import Scale
from elemta.control.interface import ListenerStatus, Status
from elemta.control.summing import statistics_of
from elemta.protocol import Reply, parse_mailbox, reply
from elemta.queue import (
    Attempt,
    Bounce,
    Delete,
    Delivered,
    Destination,
    Filter,
    Finished,
    Hold,
    Holder,
    Message,
    Missed,
    Note,
    Origin,
    Parked,
    Priority,
    Recipient,
    Redirect,
    Release,
    Reprioritise,
    Reroute,
    Reschedule,
    Result,
    Retry,
    RetryPolicy,
    State,
    Stats,
    Suspension,
    Timeline,
    View,
    open_queue,
)
from elemta.supervision import Part

ROOT = Path(__file__).parent.parent
ID = "01M82Q28V6DAVJCKE0E9HMK3Q1"
NOW = 1_790_000_000.0


def chosen(*arguments: str) -> Chosen | str:
    """What these arguments mean, or why they mean nothing."""
    found: list[Chosen] = []

    @click.command()
    @click.argument("ids", nargs=-1)
    @choosing
    @click.option("--all", "everything", is_flag=True)
    def command(ids: tuple[str, ...], **options: object) -> None:
        found.append(Chosen(ids, options))

    done = CliRunner().invoke(command, arguments)
    return found[0] if found else done.output


def meant(*arguments: str) -> Filter:
    found = chosen(*arguments)
    assert isinstance(found, Chosen), found
    return found.filter()


def test_options_become_a_filter() -> None:
    assert meant() == Filter()
    assert meant(ID.lower(), "--view", "held", "--state", "active") == Filter(
        ids=(ID,), views=(View.HOLD, View.ACTIVE)
    )
    assert meant("--older-than", "2h", "--younger-than", "5 d") == Filter(
        older_than=7200.0, younger_than=432_000.0
    )
    assert meant("--larger-than", "1MB", "--smaller-than", "1MiB") == Filter(
        larger_than=1_000_000, smaller_than=2**20
    )
    assert meant("--larger-than", "10k").larger_than == 10_000
    assert meant("--priority", "high", "--owner", "plugin:x") == Filter(
        priority=Priority.HIGH, owner="plugin:x"
    )
    assert meant("--sender", "<>", "--error", "busy", "--tag", "t", "--text", "x") == Filter(
        sender="<>", error="busy", tag="t", text="x"
    )


def test_nothing_said_is_told_from_everything_said() -> None:
    for arguments, anything in (
        ((), False),
        (("--all",), True),
        ((ID,), True),
        (("--domain", "x"), True),
        (("--view", "hold"), True),
    ):
        found = chosen(*arguments)
        assert isinstance(found, Chosen)
        assert found.anything is anything


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--older-than", "2"), "expected a number and one of"),
        (("--larger-than", "1 XB"), "expected a number and one of"),
        (("--view", "nowhere"), "nowhere"),
    ],
)
def test_a_quantity_needs_its_unit(arguments: tuple[str, ...], text: str) -> None:
    found = chosen(*arguments)
    assert isinstance(found, str)
    assert text in found


def test_what_is_no_id_is_told() -> None:
    with pytest.raises(click.UsageError, match="'nonsense' is not the id of a message"):
        meant("nonsense")


def test_each_command_is_an_action() -> None:
    for word, to, action in (
        ("hold", None, Hold()),
        ("release", None, Release()),
        ("retry", None, Retry()),
        ("flush", None, Retry()),
        ("delete", None, Delete()),
        ("bounce", None, Bounce()),
        ("reprioritise", "low", Reprioritise(Priority.LOW)),
        ("redirect", "Bob@Example.net", Redirect(parse_mailbox("Bob@example.net"))),
    ):
        assert action_of(word, to) == action
    assert action_of("reroute", via=("smtp://a",)) == Reroute(("smtp://a",))
    assert action_of("reschedule", at=5.0) == Reschedule(5.0)
    with pytest.raises(click.UsageError, match="no address"):
        action_of("redirect", "bob")


@pytest.mark.parametrize(
    ("option", "value", "least", "most"),
    [
        ("--in", "2h", 7200, 7260),
        ("--at", "2027-01-31T08:00:00Z", 1_801_382_400, 1_801_382_400),
        ("--at", "2027-01-31 09:00+01:00", 1_801_382_400, 1_801_382_400),
    ],
)
def test_a_time_is_told_as_such_or_from_now(
    option: str, value: str, least: float, most: float
) -> None:
    found: list[float | None] = []

    @click.command()
    @click.option("--at", callback=moment)
    @click.option("--in", "after", callback=from_now)
    def command(at: float | None, after: float | None) -> None:
        found.append(after if at is None else at)

    began = time.time() if option == "--in" else 0.0
    assert CliRunner().invoke(command, [option, value]).exit_code == 0
    (at,) = found
    assert at is not None
    assert least <= at - began <= most
    for wrong in (["--at", "tomorrow"], ["--in", "soon"]):
        assert CliRunner().invoke(command, wrong).exit_code == 2
    assert CliRunner().invoke(command, []).exit_code == 0
    assert found[-1] is None


@pytest.mark.parametrize(
    ("word", "one", "other", "told"),
    [
        (
            "reroute",
            ("--via", "smtp://a"),
            ("--as-configured",),
            "--via TARGET, or --as-configured",
        ),
        ("reschedule", ("--at", "2027-01-31"), ("--in", "2h"), "--at TIME, or --in SPAN"),
    ],
)
def test_of_two_ways_to_say_it_one_is_wanted(
    word: str, one: tuple[str, ...], other: tuple[str, ...], told: str
) -> None:
    for wrong in ((), one + other):
        done = CliRunner().invoke(main, ("queue", word, "--sandbox", ID, *wrong))
        assert done.exit_code == codes.USAGE
        assert told in done.output


def test_a_command_that_is_called_wrongly_ends_as_sysexits_has_it(tmp_path: Path) -> None:
    for arguments in (("queue", "dance"), ("queue", "show"), ("queue", "list", "--limit", "0")):
        assert CliRunner().invoke(main, arguments).exit_code == codes.USAGE


def test_every_command_and_option_is_documented() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    for name, command in queue.commands.items():
        assert re.search(rf"\b{name}\b", text), name
        for option in command.params:
            for flag in (each for each in option.opts if each.startswith("--")):
                known = flag in ("--config", "--sandbox", "--limit", "--interval")
                assert known or flag.lstrip("-") in text, (name, flag)


def test_exit_codes_are_documented() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    steering = text.partition("## Steering the queue")[2].partition("\n## ")[0]
    told = set(map(int, re.findall(r"^\| (\d+) \|", steering, re.MULTILINE)))
    assert {value for key, value in vars(codes).items() if key.isupper()} <= told


# What is shown.


def test_no_sign_moves_a_cursor_or_forges_a_line() -> None:
    assert terminal.printable("Jürgen 1 €") == "Jürgen 1 €"
    assert terminal.printable("a\x1b[2Jb\r\nc\x9b\u202e") == r"a\u001b[2Jb\u000d\u000ac\u009b\u202e"
    assert terminal.printable("\U000e0001") == r"\udb40\udc01"


def test_json_stays_json_whatever_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    value: terminal.Value = {"helo": 'a\x1b[2J\x7f\x9b\n"\\\u202e\U000e0001', "b": [1, None]}
    for indent in (2, 0):
        terminal.say_json(value, indent=indent)
        shown = capsys.readouterr().out
        assert json.loads(shown) == value
        assert all(sign.isprintable() or sign == "\n" for sign in shown)
    assert shown.count("\n") == 1


def test_quantities_are_shown_in_their_largest_unit() -> None:
    assert [terminal.span(s) for s in (-1, 59.9, 60, 7200, 90_000)] == [
        "0s", "59s", "1min", "2h", "1d",
    ]  # fmt: skip
    sizes = [terminal.size(n) for n in (0, 1023, 1024, 1536 * 1024, 2**30, 2**50)]
    assert sizes == ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "1.0 GiB", "1024.0 TiB"]
    assert [terminal.counted(n, "part") for n in (0, 1, 2)] == ["0 parts", "1 part", "2 parts"]


def recipient(number: int, text: str, state: State, last: Reply | None = None) -> Recipient:
    return Recipient(number=number, address=parse_mailbox(text), state=state, last=last)


def timeline() -> Timeline:
    busy = reply(451, 2, 0, "busy")
    deferred = recipient(1, "bob@example.net", State.DEFERRED, busy)
    deferred.due = NOW + 600
    held = recipient(0, "ann@example.net", State.HELD)
    held.holder = Holder(owner="plugin:scan", reason="a virus", since=NOW - 5)
    held.original = parse_mailbox("sales@example.org")
    message = Message(
        id=ID, sender=None, recipients=[held, deferred], received_at=NOW - 3600,
        expires_at=NOW + 3600, size=2048, priority=Priority.HIGH, tags=("list",),
        origin=Origin(address="192.0.2.1", helo="x\x1b[2J", protocol="ESMTPA", session="s1",
            login="jane@example.org"),
    )  # fmt: skip
    attempt = Attempt(
        number=1, started=NOW - 61, ended=NOW - 60, result=Result.DEFERRED, warned=True,
        destination="mx:example.net", host="mx[192.0.2.9]:25", reply=busy, remote=True,
    )  # fmt: skip
    note = Note(at=NOW - 30, who="operator:jane", action="retry", recipients=(1,), reason="hurry")
    return Timeline(message=message, finished_at=None, attempts=(attempt,), notes=(note,))


def test_a_message_is_shown_recipient_by_recipient() -> None:
    shown = list(inspection.story(timeline(), NOW))
    text = "\n".join(shown)
    assert "ann@example.net (for sales@example.org): held by plugin:scan: a virus" in shown
    assert "bob@example.net: deferred, next in 10min" in shown
    assert "deferred (the sender was told)  mx[192.0.2.9]:25: 451 4.2.0 busy" in text
    assert "retry by operator:jane, bob@example.net: hurry" in text
    for line in (
        "from        <>",
        "priority    high",
        "tags        list",
        "size        2.0 KiB",
        "login       jane@example.org",
    ):
        assert line in shown


def test_what_plugins_say_of_a_message_names_no_recipient() -> None:
    told = [("dnsbl", "found", "score 0"), ("rules", "add header X-Foo", ""),
            ("clamav", "quarantine", "Eicar"), ("alone", "found", "")]  # fmt: skip
    found = replace(
        timeline(),
        notes=tuple(
            Note(at=NOW, who=f"plugin:{who}", action=action, recipients=(), reason=reason)
            for who, action, reason in told
        ),
    )
    want = [
        "plugin:dnsbl found: score 0",
        "plugin:rules: add header X-Foo",
        "plugin:clamav: quarantine: Eicar",
        "plugin:alone found",
    ]
    for shown in (inspection.story(found, NOW), inspection.history(found, NOW)):
        assert [line.split("  ", 1)[-1] for line in shown][-4:] == want


def test_a_timeline_is_shown_in_the_order_of_time() -> None:
    found = timeline()
    shown = [line.split("  ", 1)[-1] for line in inspection.history(found, NOW)][-3:]
    assert [line.split()[0] for line in shown] == ["received", "bob@example.net:", "retry"]
    assert shown[0] == "received for sales@example.org, bob@example.net"
    # What plugins said as it came in is a moment older than that it came in, and follows it.
    older = Note(at=found.message.received_at - 1, who="plugin:x", action="found", recipients=())
    history = inspection.history(replace(found, notes=(older,)), NOW)
    shown = [line.split("  ", 1)[-1] for line in history][-3:]
    assert [line.split()[0] for line in shown] == ["received", "plugin:x", "bob@example.net:"]


def test_a_message_is_one_line() -> None:
    line = inspection.line(timeline().message, NOW)
    assert line.split() == [ID, "1h", "2048", "held", "<>", "->", "ann@example.net", "+1"]


def test_json_of_a_message_has_all_of_it() -> None:
    told = plain.timeline(timeline())
    assert told["sender"] is None
    assert told["priority"] == "high"
    assert told["notes"] == [
        {
            "at": NOW - 30,
            "who": "operator:jane",
            "action": "retry",
            "reason": "hurry",
            "recipients": ["bob@example.net"],
        }
    ]
    recipients = told["recipients"]
    assert isinstance(recipients, list)
    held, deferred = recipients
    assert isinstance(held, dict)
    assert isinstance(deferred, dict)
    assert (held["held_by"], held["held_for"], held["due"]) == ("plugin:scan", "a virus", None)
    assert (deferred["due"], deferred["last"]) == (NOW + 600, "451 4.2.0 busy")


def test_events_are_told_in_words() -> None:
    event = Delivered(
        7, NOW, ID, parse_mailbox("b@x.example"), "mx:x.example", "mx", reply(250, 0, 0, "so be it")
    )
    assert plain.event(event) == {
        "type": "Delivered", "number": 7, "at": NOW, "id": ID, "recipient": "b@x.example",
        "lane": "mx:x.example", "host": "mx", "reply": "250 2.0.0 so be it",
    }  # fmt: skip
    assert screens.event_line(event).endswith(
        f"7 Delivered id={ID} recipient=b@x.example lane=mx:x.example host=mx "
        'reply="250 2.0.0 so be it"'
    )
    assert screens.event_line(Finished(8, NOW, ID)).endswith(f"8 Finished id={ID}")
    parked = screens.event_line(Parked(9, NOW, "mx:x.example", NOW + 60, "gone"))
    assert f'until="{terminal.clock(NOW + 60)}"' in parked
    assert screens.event_line(Missed(3)) == "(3 events missed)"
    assert plain.event(Missed(3)) == {"type": "Missed", "count": 3}


def destination(name: str, **differs: object) -> Destination:
    usual = Destination(
        name=name, ready=1, on_disk=0, workers=0, window=2, parked_until=None, parks=0,
        suspended=None, throttled_until=None, error="",
    )  # fmt: skip
    return msgspec.structs.replace(usual, **differs)


def status(*troubles: str) -> Status:
    return Status(
        version="1.2", hostname="mx.example", pid=9, started_at=NOW - 7200, asked_at=NOW,
        stopping=False, troubles=troubles, sessions=3, places=2000, deliveries=500, files=-1,
        listeners=(ListenerStatus(name="mx", kind="smtp", addresses=("[::]:25",), connections=1),),
        queue=Stats(messages=5, recipients={State.HELD: 2}, oldest=NOW - 90, history=1),
        in_memory=4, counts={"Queued": 9, "AttemptStarted": 3},
        parts=(
            Part(name="reaper", running=True, restarts=0),
            Part(name="delivery", running=False, restarts=2, failure="KeyError: x"),
        ),
    )  # fmt: skip


def test_status_is_one_screen_and_names_only_parts_that_failed() -> None:
    shown = list(screens.status_lines(status("the disk is full")))
    assert shown[0] == "elemta 1.2, mx.example, running, process 9"
    for line in (
        "health      the disk is full",
        "listener    mx (smtp) [::]:25: 1 connection",
        "clients     3 of 2000",
        "queue       5 messages: 0 ready, 0 deferred, 2 held",
        "oldest      1min",
        "since then  3 attempt started, 9 queued",
        "part        delivery: 2 restarts, waits to be started again, failed with KeyError: x",
    ):
        assert line in shown
    assert not any("reaper" in line for line in shown)
    assert len(shown) < 24


def test_top_says_what_keeps_a_destination() -> None:
    found = [
        destination("mx:a", suspended="all"),
        destination("mx:b", parked_until=NOW + 90, parks=3, error="no answer"),
        destination("mx:c", throttled_until=NOW + 5),
        destination("mx:d", workers=2),
        destination("mx:e", throttled_until=NOW - 5),
    ]
    shown = list(screens.top_lines(status("trouble"), found))
    assert shown[0].startswith("mx.example  5 messages, 3 clients, 5 destinations")
    assert shown[1] == "! trouble"
    ends = [line.split("  ")[-1] for line in shown[-5:]]
    assert ends[0] == "suspended (all)"
    assert "parked, probed in 1min (no answer 3 times)  no answer" in shown[-4]
    assert ends[2:] == ["throttled for 5s", "sending", "-"]


def test_a_suspension_says_who_why_and_until_when() -> None:
    found = Suspension(scope="all", reason="fire", who="operator:jane", since=NOW - 60)
    assert inspection.suspended(found, NOW) == (
        "all  until it is resumed, by operator:jane 1min ago: fire"
    )
    ends = Suspension(scope="all", reason="", who="x", since=NOW, until=NOW + 60)
    assert inspection.suspended(ends, NOW) == "all  for another 1min, by x 0s ago"
    assert plain.suspension(found)["until"] is None


async def test_who_reads_may_have_enough(tmp_path: Path) -> None:
    """As `head` does, which ends the pipe before all is written."""
    async with open_queue(tmp_path / "elemta-data" / "queue", RetryPolicy(), lane=lambda *_: "x"):
        pass
    read, write = os.pipe()
    os.close(read)
    try:
        done = await trio.run_process(
            [sys.executable, "-m", "elemta", "queue", "list", "--sandbox"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=write,
            capture_stderr=True,
            check=False,
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_statistics_are_a_line_a_step_and_columns_for_what_happened() -> None:
    found = statistics_of(
        Scale.DAY,
        [(NOW, {"queued": 12, "attemptstarted": 12, "delivered": 11}), (NOW + 3600, {"held": 1})],
    )
    head, first, second, total = screens.statistics_lines(found)
    assert head.split() == ["SINCE", "QUEUED", "DELIVERED", "DEFERRED", "FAILED", "EXPIRED", "HELD"]
    assert first.split()[2:] == ["12", "11", "0", "0", "0", "0"]
    assert second.split()[2:] == ["0", "0", "0", "0", "0", "1"]
    assert total.split() == ["in", "all", "12", "11", "0", "0", "0", "1"]
    assert len({len(line) for line in (head, first, second, total)}) == 1
    told = plain.statistics(found)
    assert (told["scale"], told["step"]) == ("day", 3600.0)
    assert told["total"] == {"queued": 12, "attemptstarted": 12, "delivered": 11, "held": 1}
