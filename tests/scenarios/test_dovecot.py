"""Local mail by LMTP into Dovecot: each recipient has an outcome of its own."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, TypeAlias

import pytest

from tests.scenarios import messages, ports
from tests.scenarios.conftest import needs, needs_root
from tests.scenarios.dovecot import QUOTA, Dovecot, dovecot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.scenarios.conftest import MakeDaemon
    from tests.scenarios.daemon import Daemon

#: Starts a Dovecot, and an Elemta that hands it all mail for dovecot.example.
Pair: TypeAlias = "Callable[..., tuple[Daemon, Dovecot]]"

pytestmark = [
    pytest.mark.scenario,
    needs("dovecot", "doveadm", "/usr/lib/dovecot/lmtp"),
    needs_root,
]

TCP, SOCKET = "by TCP", "by unix socket"


@pytest.fixture
def pair(make_elemta: MakeDaemon, place: Path) -> Iterator[Pair]:
    with ExitStack() as stack:

        def make(how: str = TCP, *, full_is_temporary: bool = False) -> tuple[Daemon, Dovecot]:
            server = stack.enter_context(
                dovecot(place / "dovecot", full_is_temporary=full_is_temporary)
            )
            target = f"127.0.0.1:{server.port}" if how == TCP else str(server.socket)
            elemta = make_elemta()
            elemta.settings["domains"] = [
                {"name": "example.org", "mailboxes": ["*"]},
                {"name": "dovecot.example", "mailboxes": ["*"], "deliver": f"lmtp://{target}"},
            ]
            elemta.start()
            return elemta, server

        yield make


def large(name: str) -> bytes:
    """A message of which one fits into the small mailbox, but not two."""
    return messages.numbered(name, QUOTA * 3 // 4)


@pytest.mark.parametrize("how", [TCP, SOCKET])
def test_one_recipient_over_quota_bounces_and_the_other_gets_it(pair: Pair, how: str) -> None:
    # Fault 5 of the original: what failed in part was sent again to all, or was lost.
    elemta, server = pair(how)
    server.fill("small", QUOTA * 3 // 4)

    elemta.send(large("partial"), [f"{name}@dovecot.example" for name in ("small", "bob", "ghost")])

    (report,) = ports.eventually(lambda: elemta.maildir("alice@example.org"), what="a report")
    (content,) = ports.eventually(lambda: server.mail("bob"), what="mail for bob")
    assert messages.scenario_id(content) == "partial"
    assert report.count(b"Final-Recipient:") == 2
    assert b"Final-Recipient: rfc822; small@dovecot.example" in report
    assert b"Status: 5.2.2" in report
    assert b"Quota exceeded (mailbox for user is full)" in report
    assert b"Final-Recipient: rfc822; ghost@dovecot.example" in report
    assert b"Status: 5.1.1" in report
    assert elemta.ask("queue", "list") == []
    assert len(server.mail("small")) == 1  # what it was filled with


def test_who_is_over_quota_for_now_gets_it_once_there_is_room_and_nobody_twice(pair: Pair) -> None:
    elemta, server = pair(SOCKET, full_is_temporary=True)
    server.fill("small", QUOTA * 3 // 4)
    recipients = [f"{name}@dovecot.example" for name in ("bob", "small", "carol")]

    elemta.send(large("later"), recipients)

    def deferred() -> bool:
        return any("452 4.2.2" in str(e) for e in elemta.events("delivery.deferred"))

    ports.eventually(deferred, what="the answer that small is full")
    server.empty("small")
    ports.eventually(lambda: elemta.ask("queue", "list") == [], what="an empty queue")
    for user in ("bob", "small", "carol"):
        assert [messages.scenario_id(content) for content in server.mail(user)][-1:] == ["later"]
    assert len(server.mail("bob")) == len(server.mail("carol")) == 1
    assert not elemta.maildir("alice@example.org")


@pytest.mark.parametrize("how", [TCP, SOCKET])
def test_a_restart_of_dovecot_loses_nothing(pair: Pair, how: str) -> None:
    # Fault 3 of the original: "connection refused" was permanent.
    elemta, server = pair(how)
    elemta.send(messages.numbered("before"), ["bob@dovecot.example"])
    ports.eventually(lambda: server.mail("bob"))
    server.stop()

    elemta.send(messages.numbered("meanwhile"), ["bob@dovecot.example"])
    ports.eventually(lambda: elemta.events("delivery.deferred"), what="an attempt in vain")
    server.start()
    elemta.flush()

    ports.eventually(lambda: len(server.mail("bob")) == 2, within=60.0, what="the second message")
    assert sorted(map(messages.scenario_id, server.mail("bob"))) == ["before", "meanwhile"]
    assert not elemta.maildir("alice@example.org")


@pytest.mark.parametrize("size", [0, 100_000])
def test_no_line_of_a_body_ends_it_or_becomes_a_command(pair: Pair, size: int) -> None:
    # Fault 6 of the original: LMTP content was not dot-stuffed. The large one goes by DATA also
    # where BDAT is offered.
    elemta, server = pair()
    nasty = (
        messages.numbered("nasty", size)
        + b".\r\nRSET\r\nMAIL FROM:<evil@example.net>\r\nRCPT TO:<carol@dovecot.example>\r\n"
        b"DATA\r\nSubject: injected\r\n\r\nx\r\n.\r\n..\r\n...\r\n.QUIT\r\nQUIT\r\n.\r\n"
    )

    elemta.send(nasty, ["bob@dovecot.example"])

    (content,) = ports.eventually(lambda: server.mail("bob"))
    assert messages.without_trace(content) == messages.lines(nasty)
    assert not server.mail("carol")


def test_the_awkward_lies_there_as_it_was_sent(pair: Pair) -> None:
    elemta, server = pair(SOCKET)

    elemta.send(messages.AWKWARD, ["bob@dovecot.example", "carol@dovecot.example"])

    for user in ("bob", "carol"):
        (content,) = ports.eventually(lambda name=user: server.mail(name))
        assert messages.without_trace(content) == messages.lines(messages.AWKWARD)
        # Fault 18 of the original: Received came last, and named every recipient.
        head = content[: -len(messages.lines(messages.AWKWARD))]
        assert head.startswith(b"Return-Path: <alice@example.org>\n")
        other = {"bob": b"carol", "carol": b"bob"}[user]
        assert other not in head
