"""Faults 8 to 11 of the original: it refused or dropped what every server on the net sends.

Each address and each message is brought to a server without plugins, and to one with all checks
that ship and need no service beside them, at their defaults: it arrives, whole.
"""

from __future__ import annotations

from base64 import b64encode
from email.message import EmailMessage
from email.policy import SMTP
from typing import TYPE_CHECKING, Final

import pytest

from elemta.plugins import Discard, Granted, Quarantine
from elemta.testing import STRANGER, TRUSTED, running
from elemta.testing.running import CONFIG
from tests.plugins.saying import saying

if TYPE_CHECKING:
    from elemta.plugins import Verdict
    from elemta.testing.running import Elemta

OURS: Final = CONFIG.replace(
    'domains: [{name: us.example, mailboxes: ["*"]}]',
    """domains:
  - {name: us.example, mailboxes: ["*"]}
  - {name: xn--e1afmkfd.xn--p1ai, mailboxes: ["*"]}
  - {name: dropbox.example, mailboxes: ["*"]}
""",
)
CHECKS: Final = """
plugins:
  - {name: early-talker}
  - {name: allow-deny}
  - {name: dnsbl, settings: {zones: [{zone: black.example}]}}
  - {name: fcrdns, settings: {no_name: none}}
  - {name: helo-checks}
  - {name: rate-limit, settings: {rules: [{of: messages, per: network, limit: 100/1 h}]}}
  - {name: harvest-guard}
  - {name: recipient-limit}
  - {name: greylisting, settings: {networks: [192.0.2.0/24]}}
  - {name: iprev}
  - {name: spf}
  - {name: dkim}
  - {name: arc}
  - {name: dmarc}
  - {name: authentication-results}
  - {name: header-checks, settings: {rules: [{header: Subject, matches: ^never, action: reject}]}}
  - {name: rules, settings: {rules: [{add: {X-Way: in}}]}}
"""
HOUSES: Final = {"no plugins": OURS, "checks": OURS + CHECKS}

#: Local parts that its filter of commands took for SQL, shell or nonsense (rows 10 and 11).
LOCAL_PARTS: Final = [
    *("no-reply", "updates", "subscription", "selection", "o'brien", "insert.coin", "droptable"),
    *("union.select", "deleted", "alter-ego", "executive", "script", "cat", "bash", "curl"),
    *("SRS0=HHH=TT=origin.example=local", "list+bob=there.example", "bounces+1234-ab=x.example"),
    *("prvs=123=bob", "a+tag", "a_b", "a.b.c", "1234567890", "x", "#1", "user%tag", "$dollar"),
    *("{curly}", "a|b", "a&b", "a*b", "a/b", "what?", "tick`", "wow!", "til~de", "ca^ret"),
    *('"a b"', '"a@b"', '"semi;colon"', '"<script>"', "x" * 64),
]
DOMAINS: Final = [
    *("dropbox.com", "xn--80ak6aa92e.com", "xn--e1afmkfd.xn--p1ai", "a.co", "x.museum"),
    *("1.example", "a-b.example", "select.example", "drop.example", "update.union.example"),
    *("[192.0.2.77]", "[IPv6:2001:db8::77]", f"{'x' * 63}.example"),
]


def message(body: str, **fields: str) -> bytes:
    """A message with these fields as they stand."""
    head = {"From": "Ann <ann@sender.example>", "Subject": "hello", **fields}
    text = "".join(f"{name}: {value}\n" for name, value in head.items()) + "\n" + body
    return text.replace("\n", "\r\n").encode()


def with_attachment(name: str, octets: bytes, subtype: str = "octet-stream") -> bytes:
    found = EmailMessage(policy=SMTP)
    found["From"], found["To"], found["Subject"] = "ann@sender.example", "b@us.example", "a file"
    found.set_content("It is in the attachment.\n")
    found.add_attachment(octets, "application", subtype, filename=name)
    return found.as_bytes()


MESSAGES: Final = {
    # 8: "quarantined" with 250, and gone.
    "long": message("A line of a long letter.\n" * 50),
    "longer": message("A line of a very long letter.\n" * 20_000),
    "octet stream": with_attachment("data.bin", bytes(range(256)) * 20),
    "program": with_attachment("setup.exe", b"MZ" + b"\0" * 2000, "x-msdownload"),
    "archive": with_attachment("photos.zip", b"PK\3\4" + b"\0" * 2000, "zip"),
    "a score of five": message("FREE money!!! Click here now, winner! Viagra, casino, lottery.\n"),
    # 9: an "antivirus" of words.
    "virus": message("The virus scanner found no virus.\n"),
    "malware": message("Our malware report is attached.\n", Subject="malware"),
    "trojan": message("A trojan horse, in Troy; keygen, crack, exploit, payload, ransomware.\n"),
    "words": message("virus malware trojan worm rootkit backdoor spyware phishing\n" * 3),
    # 10: what it took for an attack.
    "a name with an address in it": message("x\n", From='"Bob <bob@x.example>" <bob@x.example>'),
    "a name that is an address": message("x\n", From='"bob@x.example" <bob@x.example>'),
    "no name": message("x\n", From="bob@x.example"),
    "mixed letters": message("Привет, dear Дмитрий: Latin and кириллица.\n"),
    "a mixed subject": message("x\n", Subject="=?utf-8?b?0J/RgNC40LLQtdGC?= and hello"),
    "script": message("<script>alert(1)</script> javascript:void(0) onerror=x\n"),
    "sql": message("' UNION SELECT password FROM users; DROP TABLE users -- 1=1 OR 'a'='a'\n"),
    "shell": message("$(rm -rf /) `id` && cat ../../etc/passwd | sh; \\x00 %00\n"),
    "a script in a field": message("x\n", Subject="<script> UNION SELECT and ../.. in a subject"),
    "nothing": message(""),
    "one dot": message(".\n..\n.x\n\n.\n"),
}


async def arrived(elemta: Elemta, before: int, content: bytes) -> None:
    """One more message is in its mailbox, whole; none is held, none is gone."""
    assert elemta.held() == []
    assert elemta.queued() == []
    assert len(elemta.delivered) == before + 1
    assert elemta.delivered[-1].content.endswith(content)


@pytest.mark.parametrize("house", HOUSES)
async def test_faults_8_to_10_every_message_arrives_whatever_it_says(
    house: str, virtual_time: None
) -> None:
    messages = MESSAGES
    if house == "no plugins":  # DMARC refuses who names no author (RFC 7489 §6.6.1)
        messages = {**MESSAGES, "no header": b"\r\nJust a body.\r\n"}
    async with running(HOUSES[house]) as elemta:
        for name, content in messages.items():
            before = len(elemta.delivered)
            reply = await elemta.send("ann@sender.example", "bob@us.example", content)
            assert (name, reply.code) == (name, 250), reply
            await arrived(elemta, before, content)


@pytest.mark.parametrize("house", HOUSES)
async def test_fault_11_every_address_is_one(house: str, virtual_time: None) -> None:
    async with running(HOUSES[house]) as elemta:
        for local_part in LOCAL_PARTS:
            async with elemta.client() as client:
                assert (await client.say("EHLO client.example")).code == 250
                line = f"MAIL FROM:<{local_part}@sender.example>"
                assert (line, (await client.say(line)).code) == (line, 250)
                for domain in ("us.example", "xn--e1afmkfd.xn--p1ai", "dropbox.example"):
                    line = f"RCPT TO:<{local_part}@{domain}>"
                    assert (line, (await client.say(line)).code) == (line, 250)
                assert (await client.say("RSET")).code == 250
                await client.say("QUIT")


@pytest.mark.parametrize("house", HOUSES)
@pytest.mark.parametrize("client", [STRANGER, TRUSTED])
async def test_fault_11_every_domain_is_one(house: str, client: str, virtual_time: None) -> None:
    async with running(HOUSES[house]) as elemta, elemta.client(client) as talk:
        assert (await talk.say("EHLO client.example")).code == 250
        for domain in DOMAINS:
            line = f"MAIL FROM:<ann@{domain}>"
            assert (line, (await talk.say(line)).code) == (line, 250)
            if client == TRUSTED:  # to a domain of somebody else's
                line = f"RCPT TO:<ann@{domain}>"
                assert (line, (await talk.say(line)).code) == (line, 250)
            assert (await talk.say("RSET")).code == 250


@pytest.mark.parametrize("house", HOUSES)
async def test_fault_11_what_is_announced_is_taken(house: str, virtual_time: None) -> None:
    async with running(HOUSES[house]) as elemta, elemta.client() as client:
        offered = await client.say("EHLO xn--80ak6aa92e.xn--p1ai")
        assert {"DSN", "SMTPUTF8"} <= {each.split()[0] for each in offered.lines}
        for line in (
            "MAIL FROM:<ann@sender.example> RET=HDRS ENVID=QQ314159",
            "RCPT TO:<bob@us.example> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;bob@there.example",
            "RCPT TO:<postmaster>",
            "RCPT TO:<Postmaster@us.example> NOTIFY=NEVER",
            "RSET",
            "MAIL FROM:<дима@почта.рф> SMTPUTF8 BODY=8BITMIME",
            "RCPT TO:<jörg@us.example>",
            "RSET",
            "MAIL FROM:<> SIZE=1000",
        ):
            assert (line, (await client.say(line)).code) == (line, 250)


async def test_fault_11_a_long_login_is_no_line_too_long(virtual_time: None) -> None:
    keeper = saying("keeper", on_authenticate=Granted("ann"))
    async with running(OURS, [keeper]) as elemta, elemta.client() as client:
        await client.say("EHLO client.example")
        token = b64encode(b"\0" + b"a" * 250 + b"\0" + b"x" * 250).decode()
        assert len(token) > 512
        assert (await client.say(f"AUTH PLAIN {token}")).code == 235


@pytest.mark.parametrize("hook", ["on_connect", "on_rcpt", "on_body", "on_inspect", "on_message"])
async def test_fault_8_what_is_quarantined_can_be_found_and_let_go(
    hook: str, virtual_time: None
) -> None:
    strict = saying("strict", **{hook: Quarantine("looks odd")})
    async with running(OURS, [strict]) as elemta:
        for content in (MESSAGES["virus"], MESSAGES["longer"]):
            before = len(elemta.delivered)
            reply = await elemta.send("ann@sender.example", "bob@us.example", content)
            assert reply.code == 250
            assert len(elemta.held()) == 1
            assert len(elemta.delivered) == before
            await elemta.advance(hours=2)  # it waits for somebody
            assert len(elemta.held()) == 1
            await elemta.release(reply)
            await arrived(elemta, before, content)


@pytest.mark.parametrize("hook", ["on_mail", "on_rcpt", "on_message"])
@pytest.mark.parametrize(
    "verdict", [Discard("as I was told"), Quarantine("as I was told")], ids=["discard", "hold"]
)
async def test_fault_8_nothing_is_gone_without_a_trace(
    hook: str, verdict: Verdict, virtual_time: None
) -> None:
    async with running(OURS, [saying("strict", **{hook: verdict})]) as elemta:
        reply = await elemta.send("ann@sender.example", "bob@us.example", MESSAGES["virus"])
        assert reply.code == 250
        assert elemta.delivered == []
        (note,) = elemta.notes(reply)
        assert note.startswith("plugin:strict: ")
        assert note.endswith(": as I was told")
