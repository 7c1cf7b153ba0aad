from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from typing_extensions import override

from elemta.config import ConfigError
from elemta.plugins import CONTINUE, AddRecipient, Continue, Defer, Plugin, Verdict
from elemta.plugins.built_in.bcc_archive import BccArchive
from elemta.protocol import Notify
from elemta.testing import FakeContent, a_session, a_transaction, mailbox, some_tools
from tests.dialogue import Server

if TYPE_CHECKING:
    import trio
    from trio.testing import MockClock

    from elemta.plugins import Content, Transaction

ARCHIVE = mailbox("archive@keep.example")
CONTENT = FakeContent(b"Subject: x\r\n\r\nHi\r\n")


def plugin(**settings: object) -> BccArchive:
    made = BccArchive.configured({"to": "archive@keep.example", **settings}, "settings")
    made.tools = some_tools("bcc-archive")
    return made


async def test_each_message_is_copied_once_and_nobody_is_told_of_it() -> None:
    made, transaction = plugin(), a_transaction()
    verdict = await made.on_message(transaction, CONTENT)
    assert verdict == Continue((AddRecipient(ARCHIVE, quiet=True),))
    for change in verdict.changes:
        transaction.change("bcc-archive", change)
    archive = transaction.addressees[ARCHIVE]
    assert archive.params.notify == {Notify.NEVER}
    assert transaction.addressees[mailbox("bob@us.example")].params.notify == set()
    assert await made.on_message(transaction, CONTENT) is CONTINUE


@pytest.mark.parametrize(
    ("sender", "recipients"),
    [
        ("ann@sender.example", ["bob@us.example", "Archive@KEEP.example"]),
        ("archive@keep.example", ["bob@us.example"]),
    ],
)
async def test_mail_of_the_archive_itself_goes_in_no_circle(
    sender: str, recipients: list[str]
) -> None:
    transaction = a_transaction(sender=sender, recipients=recipients)
    assert await plugin().on_message(transaction, CONTENT) is CONTINUE


async def test_some_mail_may_be_copied_alone() -> None:
    made = plugin(match={"recipients": ["us.example"], "trusted": True})
    assert await made.on_message(a_transaction(), CONTENT) is CONTINUE
    trusted = a_transaction(a_session(trusted=True))
    assert await made.on_message(trusted, CONTENT) != CONTINUE
    other = a_transaction(a_session(trusted=True), recipients=["x@other.example"])
    assert await made.on_message(other, CONTENT) is CONTINUE


async def test_nobody_reads_of_the_archive(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server(plugin(to="archive@elsewhere.example"))
    nursery.start_soon(server.run)
    await server.play(r"""
        S: 220 ...
        C: EHLO client.example
        S: 250 ...
        C: MAIL FROM:<ann@sender.example>
        C: RCPT TO:<alice@here.example> NOTIFY=SUCCESS,FAILURE
        C: DATA
        S: 250 ...
        S: 250 ...
        S: 354 ...
        O: Subject: x\r\n\r\nHi\r\n.\r\n
        S: 250 ...
        C: MAIL FROM:<>
        C: RCPT TO:<alice@here.example>
        C: RCPT TO:<nobody@here.example>
        C: DATA
        S: 250 ...
        S: 250 ...
        S: 550 ...
        S: 354 ...
        O: Subject: y\r\n\r\nHi\r\n.\r\n
        S: 250 ...
    """)
    first, second = server.queue.kept
    told = {str(each.address): each.params.notify for each in first.envelope.recipients}
    assert told == {
        "alice@here.example": {Notify.SUCCESS, Notify.FAILURE},
        "archive@elsewhere.example": {Notify.NEVER},
    }
    assert b"for <alice@here.example>" in first.content
    assert b"archive" not in first.content
    assert len(second.envelope.recipients) == 2
    assert any("archive" in note.action for note in first.envelope.notes), "operators read of it"


class Stern(Plugin):
    """Wants nothing, in the end."""

    name = "stern"

    @override
    async def on_message(self, transaction: Transaction, content: Content) -> Verdict:
        return Defer((7, 1), "no")


async def test_what_is_refused_is_not_copied(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server(plugin(), Stern())
    nursery.start_soon(server.run)
    await server.play(r"""
        S: 220 ...
        C: EHLO client.example
        S: 250 ...
        C: MAIL FROM:<ann@sender.example>
        C: RCPT TO:<alice@here.example>
        C: DATA
        S: 250 ...
        S: 250 ...
        S: 354 ...
        O: Subject: x\r\n\r\nHi\r\n.\r\n
        S: 451 4.7.1 no
    """)
    assert server.queue.kept == []


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "`to` is missing"),
        ({"to": "archive"}, "to must be an address"),
        ({"to": "a@b.example", "match": {"senders": ["@"]}}, "expected an address"),
    ],
)
def test_a_mistake_is_told_with_its_place(settings: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        BccArchive.configured(settings, "plugins[0].settings")
    assert problem in str(caught.value)
    assert "plugins[0].settings" in str(caught.value)
