from __future__ import annotations

import smtplib
from typing import TYPE_CHECKING

import pytest

from tests.scenarios import messages, ports
from tests.scenarios.conftest import needs, needs_root

if TYPE_CHECKING:
    from tests.scenarios.conftest import MakeDaemon, StartPostfix
    from tests.scenarios.daemon import Daemon

pytestmark = [pytest.mark.scenario, needs("postfix"), needs_root]


def test_postfix_relays_in(elemta: Daemon, start_postfix: StartPostfix) -> None:
    postfix = start_postfix(elemta.port)
    with smtplib.SMTP("127.0.0.1", postfix.port, "client.example", timeout=60.0) as client:
        client.sendmail(
            "alice@far.example",
            [f"{name}@example.org" for name in ("bob", "carol")],
            messages.AWKWARD,
            mail_options=["BODY=8BITMIME"],
        )

    for mailbox in ("bob@example.org", "carol@example.org"):
        found = ports.eventually(
            lambda box=mailbox: elemta.maildir(box), what=f"mail for {mailbox}"
        )
        assert [messages.without_trace(content) for content in found] == [
            messages.lines(messages.AWKWARD)
        ], postfix.log()


def test_postfix_takes_mail(make_elemta: MakeDaemon, start_postfix: StartPostfix) -> None:
    elemta = make_elemta()
    postfix = start_postfix(elemta.port)
    elemta.settings["routes"] = [
        {"match": "postfix.example", "via": [f"smtp://127.0.0.1:{postfix.port}"]}
    ]
    elemta.start()

    elemta.send(messages.AWKWARD, ["bob@postfix.example"])

    (content,) = ports.eventually(postfix.mail, what="mail at Postfix")
    assert messages.without_trace(content) == messages.lines(messages.AWKWARD), postfix.log()


def test_two_hundred_messages_come_through_postfix_once_each(
    elemta: Daemon, start_postfix: StartPostfix
) -> None:
    postfix = start_postfix(elemta.port)
    names = [f"many-{number}" for number in range(200)]
    with smtplib.SMTP("127.0.0.1", postfix.port, "client.example", timeout=60.0) as client:
        for name in names:
            client.sendmail("alice@far.example", ["bob@example.org"], messages.numbered(name))

    def arrived() -> bool:
        return len(elemta.maildir("bob@example.org")) >= len(names)

    ports.eventually(arrived, within=60.0, what="200 messages")
    found = [messages.scenario_id(content) for content in elemta.maildir("bob@example.org")]
    assert sorted(found) == sorted(names), postfix.log()
