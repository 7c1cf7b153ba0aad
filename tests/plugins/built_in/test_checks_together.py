"""The checks in a whole server: what its clients, its operators and other servers see."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from elemta.testing.running import CONFIG

if TYPE_CHECKING:
    from elemta.testing import FakeDns
    from elemta.testing.running import Elemta

ANN, BOB = "ann@sender.example", "bob@us.example"

PLUGINS = """
plugins:
  - name: allow-deny
    settings: {allow: {senders: [partner.example]}}
  - name: dnsbl
    settings:
      zones: [{zone: black.example, weight: 2}, {zone: white.example, weight: -1}]
      reject_at: 3
      quarantine_at: 2
  - name: helo-checks
  - name: fcrdns
    settings: {no_name: none}
  - name: header-checks
    settings:
      rules: [{header: Subject, matches: ^win, action: reject, text: "no prizes, please"}]
  - name: rules
    settings: {rules: [{add: {X-Way: in}, tags: [inbound], priority: low}]}
  - name: bcc-archive
    settings: {to: all@archive.example}
"""


@pytest.fixture
def elemta_config() -> str:
    return CONFIG + PLUGINS


async def test_the_archive_gets_a_copy_that_nobody_reads_of(elemta: Elemta) -> None:
    archive = elemta.host("archive.example")
    reply = await elemta.send(ANN, BOB)
    assert reply.code == 250
    (copy,) = archive.taken
    (ours,) = [each for each in elemta.delivered if each.place == "maildir"]
    assert copy.recipients == ("all@archive.example",)
    assert copy.sender == ANN
    assert ours.header("X-Way") == copy.header("X-Way") == ["in"]
    assert b"archive" not in ours.content
    assert "plugin:bcc-archive: add recipient all@archive.example" in elemta.notes(reply)


@pytest.mark.parametrize("answer", ["550 5.1.1 nobody", "451 4.3.0 later"])
async def test_nobody_is_told_that_the_archive_is_broken(elemta: Elemta, answer: str) -> None:
    archive, senders = elemta.host("archive.example"), elemta.host("sender.example")
    archive.says["RCPT"] = answer
    assert (await elemta.send(ANN, BOB)).code == 250
    await elemta.advance(days=6)
    assert archive.sessions
    assert senders.taken == [], "neither of a delay nor of a failure"
    assert elemta.queued() == []


async def test_who_is_listed_is_held_until_somebody_looks(
    elemta: Elemta, fake_dns: FakeDns
) -> None:
    fake_dns.add("1.2.0.192.black.example", "A", "127.0.0.2")
    reply = await elemta.send(ANN, BOB)
    assert reply.code == 250
    assert len(elemta.held()) == 1
    assert elemta.delivered == []
    notes = elemta.notes(reply)
    assert "plugin:dnsbl: found: score 2; 192.0.2.1 in black.example: 127.0.0.2" in notes
    assert "plugin:dnsbl: tag dnsbl" in notes
    await elemta.release(reply)
    assert [each.recipients for each in elemta.delivered if each.place == "maildir"] == [(BOB,)]


async def test_a_sender_of_the_list_is_not_guessed_at(elemta: Elemta, fake_dns: FakeDns) -> None:
    fake_dns.add("1.2.0.192.black.example", "A", "127.0.0.2")
    reply = await elemta.send("x@partner.example", BOB)
    assert elemta.held() == []
    assert "plugin:allow-deny: found: allowed by allow-deny" in elemta.notes(reply)


async def test_header_rules_refuse_at_the_end(elemta: Elemta) -> None:
    prize = "From: a@b.example\nDate: x\nSubject: =?utf-8?q?Win_?= =?utf-8?q?now?=\n\nHi\n"
    assert str(await elemta.send(ANN, BOB, prize)) == "550 5.6.0 no prizes, please"
    assert elemta.queued() == []


async def test_what_is_ours_follows_the_configuration(elemta: Elemta) -> None:
    assert (await elemta.send(ANN, BOB, helo="us.example")).code == 550
    assert (await elemta.send(ANN, BOB, helo="new.example")).code == 250
    more = CONFIG.replace("domains: [", 'domains: [{name: new.example, mailboxes: ["*"]}, ')
    await elemta.reload(more + PLUGINS)
    assert (await elemta.send(ANN, BOB, helo="new.example")).code == 550
