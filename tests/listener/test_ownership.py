"""Whether who has logged in may send as he says: `elemta.listener.ownership`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace
from typing_extensions import override

from elemta.config import load
from elemta.listener.ownership import Ownership
from elemta.listener.recipients import MAP_DOWN, Recipients
from elemta.maps import MapDownError, Maps
from elemta.message import HeaderScanner
from elemta.plugins import Session
from elemta.protocol import parse_mailbox
from tests.dialogue import Server
from tests.listener.test_submission_listener import GREETED, Users

if TYPE_CHECKING:
    import trio
    from trio.testing import MockClock

CONFIG = """
hostname: mx.example
listeners: [{name: mx, address: "127.0.0.1:0"}]
domains:
  - name: here.example
    mailboxes: [alice, bob, carol, dave]
    delimiter: "+"
    aliases:
      sales: [alice]
      shop: [sales]
      team: [alice, bob]
      abroad: [alice, x@far.example]
      away: [someone@elsewhere.example]
      dave: [dave, carol]
  - name: bücher.example
    mailboxes: [alice]
    aliases: {buch: ["alice@here.example"]}
"""


def ownership() -> Ownership:
    config = load(CONFIG)
    return Ownership(config, Recipients(config))


def session(login: str | None, *addresses: str) -> Session:
    return Session(
        id="1", address="192.0.2.1", port=1, listener="mx", login=login, addresses=addresses
    )


def header(text: str) -> HeaderScanner:
    scanner = HeaderScanner()
    scanner.feed(text.replace("\n", "\r\n").encode() + b"\r\n\r\n")
    return scanner


ALICE = session("alice@here.example")


@pytest.mark.parametrize(
    "address",
    [
        "alice@here.example",
        "Alice@HERE.example",
        "alice+shop@here.example",
        "sales@here.example",
        "sales+x@here.example",
        "shop@here.example",
        "buch@bücher.example",
        "buch@xn--bcher-kva.example",
    ],
)
async def test_an_account_owns_its_address_and_what_leads_to_it_alone(address: str) -> None:
    assert await ownership().owns(ALICE, parse_mailbox(address))
    assert await ownership().judge_sender(ALICE, parse_mailbox(address)) is None


@pytest.mark.parametrize(
    "address",
    [
        "bob@here.example",
        "team@here.example",
        "abroad@here.example",
        "away@here.example",
        "nobody@here.example",
        "alice@far.example",
        "alice@bücher.example",
        "alice+shop@far.example",
        "alice@sub.here.example",
        '"alice@here.example"@far.example',
    ],
)
async def test_it_owns_nothing_else(address: str) -> None:
    mailbox = parse_mailbox(address)
    refusal = await ownership().judge_sender(ALICE, mailbox)
    assert refusal is not None
    assert (refusal.code, refusal.enhanced) == (553, "5.7.1")
    shown = address.encode("ascii", "backslashreplace").decode()
    assert refusal.lines[0] == f"<{shown}> is not an address of alice@here.example"


@pytest.mark.parametrize("login", ["@here.example", "@*.example", "*"])
async def test_a_login_that_looks_like_a_pattern_is_none(login: str) -> None:
    # Where people choose their names themselves, one could choose a domain.
    assert not await ownership().owns(session(login), parse_mailbox("bob@here.example"))


async def test_a_bare_name_is_one_of_our_first_domain() -> None:
    alice = session("alice")
    assert await ownership().owns(alice, parse_mailbox("alice@here.example"))
    assert await ownership().owns(alice, parse_mailbox("sales@here.example"))
    assert not await ownership().owns(alice, parse_mailbox("alice@bücher.example"))


async def test_an_account_owns_what_it_was_granted_and_what_leads_there() -> None:
    shop = session("shop-system", "@far.example", "carol@here.example")
    for own in ("x@far.example", "carol@here.example", "carol+tag@here.example"):
        assert await ownership().owns(shop, parse_mailbox(own))
    assert not await ownership().owns(shop, parse_mailbox("alice@here.example"))


async def test_the_null_sender_is_anybodys_and_a_star_is_everybody() -> None:
    assert await ownership().judge_sender(ALICE, None) is None
    anybody = session("gateway", "*")
    assert await ownership().judge_sender(anybody, parse_mailbox("x@far.example")) is None
    assert await ownership().judge_authors(anybody, header("Subject: without a From")) is None


async def test_who_has_not_logged_in_is_not_asked() -> None:
    stranger = session(None)
    assert ownership().patterns(stranger) == ()
    assert await ownership().judge_sender(stranger, parse_mailbox("x@far.example")) is None
    assert await ownership().judge_authors(stranger, header("From: x@far.example")) is None


@pytest.mark.parametrize(
    "text",
    [
        "From: alice@here.example",
        "From: Alice Liddell <alice@here.example>",
        'From: "Liddell, Alice" <alice+x@here.example> (me)',
        'From: "alice@here.example" <sales@here.example>',
        'From: "bob@here.example" <alice@here.example>',
        "From: alice@here.example <alice@here.example>",
        "from: =?utf-8?q?=C3=84lice?=\n <alice@here.example>",
        "From: Älice <alice@here.example>",
        "From: alice@here.example, Sales <sales@here.example>\nSender: alice@here.example",
        "From: Us: alice@here.example, sales@here.example;",
        "From: alice@here.example\nReply-To: bob@here.example",
        "From: Alice @ home <alice@here.example>",
        "From: alice@here.example\nX-From: bob@here.example\nSubject: x\n From: bob@here.example",
        "From: alice@here.example\nFrom bob@here.example Mon Nov 28 2026",
        "Resent-From: sales@here.example\nResent-To: x@far.example\nFrom: alice@here.example",
        # Somebody has resent it to her before.
        "Resent-From: alice@here.example\nResent-From: bob@here.example\nFrom: alice@here.example",
    ],
)
async def test_a_message_may_be_of_its_account(text: str) -> None:
    assert await ownership().judge_authors(ALICE, header(text)) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("From: bob@here.example", "From: <bob@here.example> is not an address of"),
        ("From: Alice <bob@here.example>", "From: <bob@here.example> is not an address of"),
        ("From: alice@here.example, bob@here.example", "From: <bob@here.example> is not"),
        ("From: alice@here.example\nSender: bob@here.example", "Sender: <bob@here.example> is not"),
        # Who resends what another has written, or says that another does.
        ("Resent-From: alice@here.example\nFrom: bob@here.example", "From: <bob@here.example> is"),
        (
            "Resent-From: alice@here.example\nResent-Sender: alice@here.example\n"
            "From: alice@here.example\nSender: bob@here.example",
            "Sender: <bob@here.example> is not",
        ),
        ("Resent-From: bob@here.example\nFrom: alice@here.example", "Resent-From: <bob@here.exam"),
        ("Resent-From: Bob\nFrom: alice@here.example", "the field Resent-From is not clear:"),
        # What programs may take for the author.
        ("From: bob@here.example <alice@here.example>", "From: <bob@here.example> is not"),
        ("From: <alice@here.example> <bob@here.example>", "From: <bob@here.example> is not"),
        ("From: alice@here.example\nFrom: bob@here.example", "one From field, and there are 2"),
        ("From: alice@here.example\nFROM : alice@here.example", "one From field, and there are 2"),
        (" From: bob@here.example\nFrom: alice@here.example", "a line before the first field"),
        # A field for whoever leaves out what cannot be in its name.
        ("From\0: bob@here.example\nFrom: alice@here.example", "a line is nearly a From field"),
        ("F\x01rom : bob@here.example\nFrom: alice@here.example", "a line is nearly a From field"),
        ("\ufeffFrom: bob@here.example\nFrom: alice@here.example", "a line is nearly a From field"),
        ("Subject: hello", "one From field, and there is none"),
        ("From:", "the field From is not clear: there is no address in it"),
        ("From: Alice", "the field From is not clear: 'Alice' is no address"),
        ("From: undisclosed:;", "the field From is not clear: there is no address in it"),
        ("From: =?utf-8?q?alice=40here.example?=", "the field From is not clear:"),
        ("From: <=?utf-8?q?alice=40here.example?=>", "the field From is not clear:"),
        ("From: Alice <alice@here.example", "the field From is not clear: it does not end"),
        ('From: "Alice <alice@here.example>', "the field From is not clear: it does not end"),
        ("From: (Alice <alice@here.example>", "the field From is not clear: it does not end"),
        ("From: bob@here.example@here.example", "the field From is not clear:"),
        ("From: alice(x)@here.example", "the field From is not clear:"),
        ("From: alice@here.example\0@far.example", "the field From is not clear:"),
        ("From: Alice <alice@[192.0.2.1]>", "From: <alice@[192.0.2.1]> is not"),
        ("From: alice@here.example\nSender: Bob", "the field Sender is not clear:"),
        (f"From: {'alice@here.example, ' * 2000}", "the field From is not clear: it is too long"),
        (
            "From: " + ", ".join(f"alice+{n}@here.example" for n in range(20)),
            "the field From is not clear: there are more than 10",
        ),
    ],
)
async def test_what_is_not_clear_or_of_another_is_refused(text: str, told: str) -> None:
    refusal = await ownership().judge_authors(ALICE, header(text))
    assert refusal is not None
    assert (refusal.code, refusal.enhanced) == (550, "5.7.1")
    assert told in refusal.lines[0]
    assert len(bytes(refusal)) < 1024


async def test_who_resends_what_another_has_written_is_told_what_to_do_instead() -> None:
    text = "Resent-From: alice@here.example\nFrom: bob@far.example"
    refusal = await ownership().judge_authors(ALICE, header(text))
    assert refusal is not None
    assert refusal.lines[1] == (
        "to resend another's mail is not allowed here: forward it as an attachment"
    )
    own = await ownership().judge_authors(ALICE, header("Resent-From: bob@here.example\n" + text))
    assert own is not None
    assert own.lines[1].startswith("look up whom your program writes as")
    granted = session("alice@here.example", "*")
    assert await ownership().judge_authors(granted, header(text)) is None


async def test_octets_that_are_no_text_are_no_address() -> None:
    scanner = HeaderScanner()
    scanner.feed(b"From: Alice <ali\xffce@here.example>\r\n\r\n")
    refusal = await ownership().judge_authors(session("x", "@here.example"), scanner)
    assert refusal is not None
    assert "it is no UTF-8" in refusal.lines[0]


async def test_what_is_told_fits_in_a_reply_however_long_it_is() -> None:
    long = parse_mailbox("ä" * 30 + "@" + ".".join(["x" * 60] * 3) + ".example")
    refusal = await ownership().judge_sender(session("ß" * 255), long)
    assert refusal is not None
    assert bytes(refusal).isascii()


# In a session.

LOGIN = "C: AUTH PLAIN AGFsaWNlAHg=\nS: 235 ..."


async def test_a_sender_is_refused_at_mail_and_an_author_at_the_end(
    nursery: trio.Nursery, autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Server(Users(), kind="submission", auth="always")
    nursery.start_soon(made.run)
    await made.play(
        f"""{GREETED}
        {LOGIN}
        C: MAIL FROM:<bob@here.example>
        S: 553-5.7.1 <bob@here.example> is not an address of alice
        S: 553 5.7.1 look up whom your program sends as, or ask postmaster@here.example
        C: MAIL FROM:<alice@here.example>
        C: RCPT TO:<x@far.example>
        C: DATA
        S: 250 ...
        S: 250 ...
        S: 354 ...
        C: From: bob@here.example
        O: \\r\\nhello\\r\\n
        C: .
        S: 550-5.7.1 From: <bob@here.example> is not an address of alice
        S: 550 5.7.1 look up whom your program writes as, or ask postmaster@here.example
        C: MAIL FROM:<>
        C: RCPT TO:<x@far.example>
        C: DATA
        S: 250 ...
        S: 250 ...
        S: 354 ...
        C: From: bob@here.example
        C: .
        S: 550 ...
        Q: 0
        """
    )
    assert made.house.meters.refusals["foreign_sender"] == 3
    told = re.findall(r'login"?[=:]"?alice\b', capsys.readouterr().err)
    assert len(told) == 1 + 3, "each refusal says whose it was"


@pytest.mark.parametrize(
    ("kind", "senders", "answer"),
    [
        ("submission", "any", "250 ..."),
        ("submission", "own", "553 ..."),
        ("submission", None, "553 ..."),
        ("smtp", "own", "553 ..."),
        ("smtp", None, "250 ..."),
    ],
)
async def test_it_is_asked_where_the_listener_says_so(
    kind: str,
    senders: str | None,
    answer: str,
    nursery: trio.Nursery,
    autojump_clock: MockClock,
) -> None:
    made = Server(Users(), auth="always", kind=kind, senders=senders)
    nursery.start_soon(made.run)
    await made.play(f"{GREETED}{LOGIN}\nC: MAIL FROM:<bob@here.example>\nS: {answer}")


async def test_clients_that_may_relay_without_a_login_are_not_asked(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    made = Server(Users(), auth="always", senders="own")
    nursery.start_soon(made.run)
    await made.play(
        f"""{GREETED}
        C: MAIL FROM:<bob@here.example>
        C: RCPT TO:<alice@here.example>
        C: DATA
        S: 250 ...
        S: 250 ...
        S: 354 ...
        C: From: anybody@far.example
        C: .
        S: 250 ...
        """
    )


# While it cannot be told.


class DownMaps(Maps):
    """None of them answers."""

    def __init__(self) -> None:
        super().__init__({})

    @override
    async def get(self, name: str, key: str, *, exact: bool = False) -> tuple[str, ...] | None:
        raise MapDownError(f"{name} is down")


async def test_while_a_map_is_down_nobody_is_told_that_an_address_is_not_his() -> None:
    config = load(CONFIG)
    (here, books) = config.domains
    asking = replace(config, domains=[replace(here, alias_map="aliases"), books])
    judge = Ownership(asking, Recipients(asking, DownMaps()))
    assert await judge.owns(ALICE, parse_mailbox("alice@here.example"))
    refusal = await judge.judge_sender(ALICE, parse_mailbox("news@here.example"))
    assert refusal is MAP_DOWN
    assert await judge.judge_authors(ALICE, header("From: news@here.example")) is MAP_DOWN
