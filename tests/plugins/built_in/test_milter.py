from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, TypeAlias

import pytest
import trio

from elemta.config import ConfigError, check
from elemta.plugins import (
    CONTINUE,
    AddHeader,
    AddRecipient,
    Continue,
    Defer,
    Discard,
    Quarantine,
    Reject,
    RemoveHeader,
    RemoveRecipient,
    rewritten,
)
from elemta.plugins.built_in.milter import Milter, Settings
from elemta.plugins.milter import wire
from elemta.plugins.milter.link import OFFERED, OPTIONAL
from elemta.plugins.milter.wire import Actions, MilterError, Steps
from elemta.protocol import Body, MailParams
from elemta.queue import Addressee
from elemta.testing import FakeContent, FakeDns, a_session, a_transaction, mailbox, some_tools
from tests.dialogue import TRUSTED, Server
from tests.plugins.built_in.service import FakeService

if TYPE_CHECKING:
    from trio.testing import MockClock

    from elemta.plugins import Session, Transaction, Verdict

#: What is answered to a packet: one after the other; a number is so many seconds of silence; octets
#: are no packet at all; None: nothing more, ever.
Answers: TypeAlias = "tuple[wire.Packet | bytes | float | None, ...]"

MAIL = b"Subject: hello\r\nX-Fold: a\r\n\tb\r\n\r\nbody\r\n"
LARGE = MAIL + (b"x" * 78 + b"\r\n") * 2000
MUTE = frozenset({wire.Macros, wire.Abort, wire.Quit})


class FakeMilter:
    """A milter that answers as it is told to.

    Attributes:
        answers: to packets of a kind; others are answered `wire.Continue`.
        actions, steps: what it negotiates.
        heard: all that it heard, but macros.
        macros: these, the last of each name.
    """

    def __init__(self) -> None:
        self.answers: dict[type[wire.Packet], Answers] = {}
        self.actions, self.steps = OFFERED, Steps(0)
        self.heard: list[wire.Command] = []
        self.macros: dict[bytes, bytes] = {}

    @property
    def said(self) -> str:
        """The letters of what it heard."""
        return b"".join(each.LETTER for each in self.heard).decode()

    async def __call__(self, stream: trio.abc.Stream) -> None:
        inbox = wire.Inbox()
        while True:
            while (command := inbox.command()) is None:
                octets = await stream.receive_some(70_000)
                if not octets:
                    return
                inbox.feed(bytes(octets))
            if isinstance(command, wire.Macros):
                self.macros |= dict(command.values)
                continue
            self.heard.append(command)
            if not await self._answer(stream, command):
                return

    async def _answer(self, stream: trio.abc.Stream, command: wire.Command) -> bool:
        usual: Answers = (wire.Continue(),)
        if isinstance(command, wire.Negotiate):
            usual = (wire.Negotiate(6, self.actions, self.steps),)
        elif type(command) in MUTE:
            usual = ()
        for each in self.answers.get(type(command), usual):
            match each:
                case wire.Packet():
                    await stream.send_all(bytes(each))
                case bytes():
                    await stream.send_all(each)
                case None:
                    return False
                case _:
                    await trio.sleep(each)
        return True


@pytest.fixture
def milter() -> FakeMilter:
    return FakeMilter()


@pytest.fixture
def service(nursery: trio.Nursery, milter: FakeMilter) -> FakeService:
    return FakeService(nursery, milter)


@pytest.fixture
def plugin(service: FakeService) -> Milter:
    found = Milter(check({"address": "/run/milter.sock"}, Settings))
    found.tools = some_tools("milter", connect=service)
    return found


async def verdicts(
    plugin: Milter, transaction: Transaction | None = None, octets: bytes = MAIL
) -> list[Verdict]:
    """What the plugin says at each step of a session with one message, up to an objection."""
    transaction = transaction or a_transaction()
    session = transaction.session
    helo, session.helo = session.helo, ""
    found = [await plugin.on_connect(session)]
    if not _objects(found):
        found.append(await plugin.on_hello(session, helo))
    session.helo = helo
    if not _objects(found):
        found.append(await plugin.on_mail(transaction))
    for recipient in transaction.recipients:
        if not _objects(found):
            found.append(await plugin.on_rcpt(transaction, recipient))
    if not _objects(found):
        found.append(await plugin.on_data(transaction))
    if not _objects(found):
        found.append(await plugin.on_message(transaction, FakeContent(octets)))
    await plugin.on_disconnect(session)
    await trio.testing.wait_all_tasks_blocked()
    return found


def _objects(found: list[Verdict]) -> bool:
    return isinstance(found[-1], (Defer, Reject))


# What it hears.


async def test_it_hears_all_of_a_session(plugin: Milter, milter: FakeMilter) -> None:
    session = a_session("192.0.2.7", helo="client.example")
    session.login = "ann"
    transaction = a_transaction(session, recipients=["bob@us.example", "eve@us.example"])
    assert await verdicts(plugin, transaction) == [CONTINUE] * 7
    assert milter.heard == [
        wire.Negotiate(6, OFFERED, Steps(OPTIONAL)),
        wire.Connect(b"[192.0.2.7]", b"4", 2525, b"192.0.2.7"),
        wire.Helo(b"client.example"),
        wire.Mail(b"<ann@sender.example>"),
        wire.Rcpt(b"<bob@us.example>"),
        wire.Rcpt(b"<eve@us.example>"),
        wire.Data(),
        wire.Field(b"Subject", b"hello"),
        wire.Field(b"X-Fold", b"a\n\tb"),
        wire.EndOfHeader(),
        wire.Body(b"body\r\n"),
        wire.EndOfBody(),
        wire.Quit(),
    ]
    assert milter.macros == {
        b"j": b"mx.us.example",
        b"v": b"Elemta",
        b"_": b"[192.0.2.7]",
        b"i": b"MESSAGE",
        b"{daemon_name}": b"mx",
        b"{client_name}": b"[192.0.2.7]",
        b"{client_addr}": b"192.0.2.7",
        b"{client_port}": b"2525",
        b"{auth_type}": b"PLAIN",
        b"{auth_authen}": b"ann",
        b"{mail_addr}": b"ann@sender.example",
        b"{mail_host}": b"sender.example",
        b"{mail_mailer}": b"esmtp",
        b"{rcpt_addr}": b"eve@us.example",
        b"{rcpt_host}": b"us.example",
        b"{rcpt_mailer}": b"esmtp",
    }


@pytest.mark.parametrize("first", ["on_rcpt", "on_data", "on_message"])
async def test_who_is_accepted_by_another_plugin_at_mail_is_shown_all_the_same(
    plugin: Milter, milter: FakeMilter, first: str
) -> None:
    session = a_session(helo="client.example")
    await plugin.on_connect(session)
    for _ in range(2):
        milter.heard.clear()
        transaction = a_transaction(session)
        if first == "on_rcpt":
            await plugin.on_rcpt(transaction, transaction.recipients[0])
        if first != "on_message":
            await plugin.on_data(transaction)
        milter.answers[wire.EndOfBody] = (wire.Reject(),)
        assert isinstance(await plugin.on_message(transaction, FakeContent(MAIL)), Reject)
        told = milter.said.removeprefix("A")
        assert told == {"on_rcpt": "MRT", "on_data": "MT", "on_message": "M"}[first] + "LLNBE"


async def test_a_client_by_ipv6_with_a_name_that_leads_back(
    service: FakeService, milter: FakeMilter
) -> None:
    dns = FakeDns({("mail.sender.example", "AAAA"): ["2001:db8::1"]})
    dns.add(ipaddress.ip_address("2001:db8::1").reverse_pointer, "PTR", "mail.sender.example.")
    for client_names, name in ((True, b"mail.sender.example"), (False, b"[2001:db8::1]")):
        plugin = Milter(check({"address": "[::1]:8891", "client_names": client_names}, Settings))
        plugin.tools = some_tools("milter", connect=service, dns=dns)
        milter.heard.clear()
        await verdicts(plugin, a_transaction(a_session("2001:db8::1"), sender=""))
        assert milter.heard[1] == wire.Connect(name, b"6", 2525, b"2001:db8::1")
        assert milter.heard[3] == wire.Mail(b"<>")
        assert milter.macros[b"{client_name}"] == name
    assert milter.macros[b"_"] == b"[2001:db8::1]"


async def test_parameters_of_the_sender_are_told(plugin: Milter, milter: FakeMilter) -> None:
    transaction = a_transaction()
    transaction.params = MailParams(size=123, body=Body.EIGHT_BIT, smtputf8=True)
    await verdicts(plugin, transaction)
    words = (b"SIZE=123", b"BODY=8BITMIME", b"SMTPUTF8")
    assert milter.heard[3] == wire.Mail(b"<ann@sender.example>", words)


async def test_a_large_body_comes_in_chunks(plugin: Milter, milter: FakeMilter) -> None:
    await verdicts(plugin, octets=LARGE)
    chunks = [each.octets for each in milter.heard if isinstance(each, wire.Body)]
    assert b"".join(chunks) == LARGE.partition(b"\r\n\r\n")[2]
    assert [len(each) for each in chunks[:-1]] == [65535, 65535]


async def test_a_milter_may_skip_the_rest_of_a_body(plugin: Milter, milter: FakeMilter) -> None:
    milter.steps = Steps.SKIP
    milter.answers[wire.Body] = (wire.Skip(),)
    assert (await verdicts(plugin, octets=LARGE))[-1] == CONTINUE
    assert milter.said.count("B") == 1
    assert milter.said.endswith("EQ")


async def test_a_message_of_nothing_but_a_header(plugin: Milter, milter: FakeMilter) -> None:
    await verdicts(plugin, octets=b"Subject: x\r\n")
    assert milter.said == "OCHMRTLNEQ"


async def test_a_milter_hears_only_what_it_wants_to(plugin: Milter, milter: FakeMilter) -> None:
    milter.steps = Steps.NO_HELO | Steps.NO_RCPT | Steps.NO_BODY | Steps.NO_END_OF_HEADER
    assert (await verdicts(plugin))[-1] == CONTINUE
    assert milter.said == "OCMTLLEQ"


async def test_a_milter_need_not_answer(plugin: Milter, milter: FakeMilter) -> None:
    milter.steps = (*(Steps.MUTE_CONNECT | Steps.MUTE_HELO | Steps.MUTE_MAIL | Steps.MUTE_RCPT,),)[
        0
    ] | (Steps.MUTE_DATA | Steps.MUTE_FIELDS | Steps.MUTE_END_OF_HEADER | Steps.MUTE_BODY)
    kinds = (wire.Connect, wire.Helo, wire.Mail, wire.Rcpt, wire.Data, wire.Field)
    milter.answers = dict.fromkeys((*kinds, wire.EndOfHeader, wire.Body), ())
    assert (await verdicts(plugin, octets=LARGE))[-1] == CONTINUE
    assert milter.said == "OCHMRTLLNBBBEQ"


async def test_spaces_behind_colons_are_told_to_who_wants_them(
    plugin: Milter, milter: FakeMilter
) -> None:
    milter.steps = Steps.LEADING_SPACE
    milter.answers[wire.EndOfBody] = (wire.AddField(b"X-A", b"  1\n\t2"), wire.Continue())
    (*_, found) = await verdicts(plugin)
    assert wire.Field(b"X-Fold", b" a\n\tb") in milter.heard
    assert found == Continue((AddHeader("X-A", "  1\r\n\t2", top=False, verbatim=True),))


# What it says.

OBJECTIONS = [
    (wire.Reject(), "550 5.7.1 this mail is not wanted"),
    (wire.TempFail(), "451 4.7.1 try again later"),
    (wire.ShutDown(), "451 4.3.0 try again later"),
    (wire.ConnectionFailed(), "451 4.3.0 try again later"),
    (wire.ReplyCode(b"554 5.6.0 100%% no"), "554 5.6.0 100% no"),
    (wire.ReplyCode(b"550-5.7.8 one\r\n550 5.7.8 two"), "550 5.7.8 one two"),
    (wire.ReplyCode(b"452 4.2.2 full"), "452 4.2.2 full"),
    (wire.ReplyCode(b"450"), "450 4.7.1 try again later"),
    (wire.ReplyCode(b"571 no code of ours"), "571 5.7.1 no code of ours"),
    (wire.ReplyCode(b"421 4.3.2 bye"), "451 4.3.2 bye"),
    (wire.ReplyCode(b"550 4.7.1 of another class"), "550 5.7.1 of another class"),
    (wire.ReplyCode(b"550 5.7.1 c\xc3\xa9\x01 " + b"x" * 600), "550 5.7.1 c? " + "x" * 397),
]


@pytest.mark.parametrize(("answer", "wanted"), OBJECTIONS)
async def test_an_objection_is_ours(
    plugin: Milter, milter: FakeMilter, answer: wire.Packet, wanted: str
) -> None:
    milter.answers[wire.EndOfBody] = (answer,)
    (*_, found) = await verdicts(plugin)
    assert str(found.reply) == wanted


STEPS = [
    (wire.Connect, "OC"),
    (wire.Helo, "OCH"),
    (wire.Mail, "OCHM"),
    (wire.Rcpt, "OCHMR"),
    (wire.Data, "OCHMRT"),
    (wire.Field, "OCHMRTL"),
    (wire.EndOfHeader, "OCHMRTLLN"),
    (wire.Body, "OCHMRTLLNB"),
    (wire.EndOfBody, "OCHMRTLLNBE"),
]


@pytest.mark.parametrize(("kind", "heard"), STEPS)
async def test_an_objection_ends_a_message_at_each_step(
    plugin: Milter, milter: FakeMilter, kind: type[wire.Packet], heard: str
) -> None:
    milter.answers[kind] = (wire.Reject(),)
    assert isinstance((await verdicts(plugin))[-1], Reject)
    assert milter.said == f"{heard}Q"


@pytest.mark.parametrize(("kind", "heard"), STEPS)
async def test_who_has_heard_enough_is_told_no_more(
    plugin: Milter, milter: FakeMilter, kind: type[wire.Packet], heard: str
) -> None:
    milter.answers[kind] = (wire.Accept(),)
    assert await verdicts(plugin) == [CONTINUE] * 6
    assert milter.said == f"{heard}Q"


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        (wire.Connect, 0),
        (wire.Helo, 1),
        (wire.Mail, 2),
        (wire.Rcpt, 4),
        (wire.Data, 4),
        (wire.EndOfBody, 5),
    ],
)
async def test_what_is_discarded_is_discarded_for_all(
    plugin: Milter, milter: FakeMilter, kind: type[wire.Packet], step: int
) -> None:
    # What a milter says of one recipient is about the message; ours would be about him alone.
    milter.answers[kind] = (wire.Discard(),)
    found = await verdicts(plugin, a_transaction(recipients=["bob@us.example"]))
    wanted: list[Verdict] = [CONTINUE] * 6
    wanted[step] = Discard("the milter discards it")
    assert found == wanted


async def test_a_refused_recipient_is_not_the_end_of_the_message(
    plugin: Milter, milter: FakeMilter
) -> None:
    transaction = a_transaction()
    session = transaction.session
    await plugin.on_connect(session)
    await plugin.on_mail(transaction)
    milter.answers[wire.Rcpt] = (wire.Reject(),)
    assert isinstance(await plugin.on_rcpt(transaction, mailbox("no@us.example")), Reject)
    del milter.answers[wire.Rcpt]
    assert await plugin.on_rcpt(transaction, mailbox("bob@us.example")) == CONTINUE
    assert await plugin.on_message(transaction, FakeContent(MAIL)) == CONTINUE
    assert milter.said == "OCHMRRLLNBE"


async def test_the_end_of_a_message_brings_changes(plugin: Milter, milter: FakeMilter) -> None:
    transaction = a_transaction(recipients=["team@us.example", "eve@us.example"])
    transaction.addressees = {
        each.address: each
        for each in (
            Addressee(address=mailbox("bob@us.example"), original=mailbox("team@us.example")),
            Addressee(address=mailbox("eve@us.example")),
        )
    }
    milter.answers[wire.EndOfBody] = (
        wire.Progress(),
        wire.AddField(b"X-Low", b"a"),
        wire.InsertField(1, b"X-Top", b"b"),
        wire.ChangeField(1, b"subject", b"changed"),
        wire.ChangeField(1, b"X-Fold", b""),
        wire.AddRecipient(b"<new@us.example>"),
        wire.RemoveRecipient(b"team@us.example"),
        wire.Quarantine(b"looks\x01odd"),
        wire.Continue(),
    )
    (*_, found) = await verdicts(plugin, transaction)
    assert isinstance(found, Quarantine)
    assert found.reason == "looks?odd"
    assert set(found.changes) == {
        RemoveHeader("Subject", 1),
        RemoveHeader("X-Fold", 1),
        AddHeader("X-Top", " b", verbatim=True),
        AddHeader("subject", " changed", top=True, verbatim=True),
        AddHeader("X-Low", " a", top=True, verbatim=True),
        AddRecipient(mailbox("new@us.example")),
        RemoveRecipient(mailbox("team@us.example")),
        RemoveRecipient(mailbox("bob@us.example")),
    }


async def test_no_field_becomes_another_one_or_a_line_that_is_too_long(
    plugin: Milter, milter: FakeMilter
) -> None:
    milter.answers[wire.EndOfBody] = (
        wire.AddField(b"X-A", b"1\nBcc: x"),
        wire.AddField(b"X-B", b"caf\xe9\r\n"),
        wire.AddField(b"X-C", b"y" * 600 + b"\n\t" + b"z" * 1200),
        wire.Continue(),
    )
    (*_, found) = await verdicts(plugin)
    assert isinstance(found, Continue)
    header = rewritten(b"", found.changes, utf8=True)
    assert header.startswith(b"X-C: " + b"y" * 600) or b"\r\nX-C: " in header
    assert b"X-A: 1 Bcc: x\r\n" in header
    assert b"X-B: caf\xe9\r\n" in header
    assert max(map(len, header.split(b"\r\n"))) <= 998


async def test_changes_of_a_refused_message_are_forgotten(
    plugin: Milter, milter: FakeMilter
) -> None:
    milter.answers[wire.EndOfBody] = (wire.AddField(b"X-A", b"1"), wire.Reject())
    assert isinstance((await verdicts(plugin))[-1], Reject)


async def test_a_milter_sees_what_earlier_plugins_have_changed(
    plugin: Milter, milter: FakeMilter
) -> None:
    transaction = a_transaction()
    transaction.change("other", AddHeader("X-Other", "1"))
    transaction.change("other", RemoveHeader("X-Fold"))
    milter.answers[wire.EndOfBody] = (wire.ChangeField(1, b"X-Other", b"2"), wire.Continue())
    (*_, found) = await verdicts(plugin, transaction)
    assert [each for each in milter.heard if isinstance(each, wire.Field)] == [
        wire.Field(b"X-Other", b"1"),
        wire.Field(b"Subject", b"hello"),
    ]
    assert found == Continue(
        (RemoveHeader("x-other"), AddHeader("X-Other", " 2", top=True, verbatim=True))
    )


# Several messages, and a milter that goes.


async def messages(plugin: Milter, session: Session, count: int) -> list[Verdict]:
    found: list[Verdict] = []
    for _ in range(count):
        transaction = a_transaction(session)
        found.append(await plugin.on_mail(transaction))
        await plugin.on_rcpt(transaction, mailbox("bob@us.example"))
        found.append(await plugin.on_message(transaction, FakeContent(MAIL)))
    return found


async def test_a_session_has_one_connection(
    plugin: Milter, milter: FakeMilter, service: FakeService
) -> None:
    session = a_session()
    await plugin.on_connect(session)
    assert await messages(plugin, session, 2) == [CONTINUE] * 4
    await plugin.on_mail(a_transaction(session))  # which is given up
    assert await messages(plugin, session, 1) == [CONTINUE] * 2
    await plugin.on_mail(a_transaction(session))
    await plugin.on_hello(session, "again.example")
    await plugin.on_disconnect(session)
    await trio.testing.wait_all_tasks_blocked()
    message = "MRLLNBE"
    assert milter.said == f"OCH{message}{message}MA{message}MAHQ"
    assert (service.connections, service.open) == (1, 0)


async def test_several_milters_hear_of_a_session_each(
    nursery: trio.Nursery, plugin: Milter, milter: FakeMilter
) -> None:
    other = FakeMilter()
    second = Milter(plugin.settings)
    second.tools = some_tools("milter", connect=FakeService(nursery, other))
    other.answers[wire.Mail] = (wire.Accept(),)
    session = a_session()
    for each in (plugin, second):
        await each.on_connect(session)
    for each in (plugin, second):
        await messages(each, session, 1)
    for each in (plugin, second):
        await each.on_disconnect(session)
    await trio.testing.wait_all_tasks_blocked()
    assert (milter.said, other.said) == ("OCHMRLLNBEQ", "OCHMQ")


async def test_a_milter_that_was_started_anew_between_messages_costs_no_mail(
    plugin: Milter, milter: FakeMilter, service: FakeService
) -> None:
    session = a_session()
    await plugin.on_connect(session)
    milter.answers[wire.EndOfBody] = (wire.Continue(), None)
    assert await messages(plugin, session, 1) == [CONTINUE] * 2
    del milter.answers[wire.EndOfBody]
    assert await messages(plugin, session, 1) == [CONTINUE] * 2
    assert service.connections == 2


async def test_a_message_whose_milter_goes_away_fails_and_the_next_one_has_another(
    plugin: Milter, milter: FakeMilter, service: FakeService
) -> None:
    session, transaction = a_session(), a_transaction()
    await plugin.on_connect(session)
    transaction = a_transaction(session)
    await plugin.on_mail(transaction)
    milter.answers[wire.Rcpt] = (None,)
    for _ in range(2):
        with pytest.raises((MilterError, trio.BrokenResourceError)):
            await plugin.on_rcpt(transaction, mailbox("bob@us.example"))
    with pytest.raises(MilterError):
        await plugin.on_message(transaction, FakeContent(MAIL))
    del milter.answers[wire.Rcpt]
    assert await messages(plugin, session, 1) == [CONTINUE] * 2
    await plugin.on_disconnect(session)
    await trio.testing.wait_all_tasks_blocked()
    assert (service.connections, service.open) == (2, 0)


async def test_a_milter_that_is_not_there_at_first_is_asked_about_the_next_message(
    plugin: Milter, milter: FakeMilter, service: FakeService
) -> None:
    session = a_session()
    service.down = True
    with pytest.raises(ConnectionRefusedError):
        await plugin.on_connect(session)
    assert await plugin.on_hello(session, "client.example") == CONTINUE
    with pytest.raises(ConnectionRefusedError):
        await plugin.on_mail(a_transaction(session))
    service.down = False
    assert await messages(plugin, session, 1) == [CONTINUE] * 2
    assert milter.said == "OCHMRLLNBE"


async def test_a_milter_that_was_started_anew_may_refuse_the_client_then(
    plugin: Milter, milter: FakeMilter
) -> None:
    session = a_session()
    await plugin.on_connect(session)
    milter.answers = {wire.EndOfBody: (wire.Continue(), None), wire.Connect: (wire.Reject(),)}
    await messages(plugin, session, 1)
    assert isinstance(await plugin.on_mail(a_transaction(session)), Reject)


async def test_what_came_by_no_connection_is_told_in_one_go(
    plugin: Milter, milter: FakeMilter, service: FakeService
) -> None:
    session = a_session("")
    transaction = a_transaction(session)
    assert await plugin.on_mail(transaction) == CONTINUE
    assert await plugin.on_rcpt(transaction, mailbox("bob@us.example")) == CONTINUE
    assert await plugin.on_data(transaction) == CONTINUE
    milter.answers[wire.EndOfBody] = (wire.AddField(b"X-A", b"1"), wire.Continue())
    found = await plugin.on_message(transaction, FakeContent(MAIL))
    assert found == Continue((AddHeader("X-A", " 1", top=False, verbatim=True),))
    await plugin.on_disconnect(session)
    await trio.testing.wait_all_tasks_blocked()
    assert milter.said == "OCHMRTLLNBEQ"
    assert milter.heard[1] == wire.Connect(b"localhost")
    for kind, wanted in (
        (wire.Connect, "OCQ"),
        (wire.Mail, "OCHMQ"),
        (wire.Rcpt, "OCHMRQ"),
        (wire.Data, "OCHMRTQ"),
    ):
        milter.heard.clear()
        milter.answers = {kind: (wire.Reject(),)}
        assert isinstance(await plugin.on_message(transaction, FakeContent(MAIL)), Reject)
        await trio.testing.wait_all_tasks_blocked()
        assert milter.said == wanted
    assert service.open == 0


# A milter that means ill.

ILL: list[Answers] = [
    (b"\0\0\0\0",),
    (b"\xff\xff\xff\xff",),
    (b"\0\0\0\1Z",),
    (b"HTTP/1.1 400 Bad Request\r\n\r\n",),
    (bytes(wire.ReplyCode(b"250 fine")),),
    (bytes(wire.ReplyCode(b"")),),
    (b"\0\0\0\2yx",),
    (wire.Skip(),),
    (wire.Negotiate(6, Actions(0), Steps(0)),),
    (wire.AddField(b"X-A", b"1"), wire.Continue()),
    (None,),
]


@pytest.mark.parametrize("answer", ILL)
@pytest.mark.parametrize("kind", [wire.Connect, wire.Field])
async def test_what_is_no_answer_is_a_failure(
    plugin: Milter,
    milter: FakeMilter,
    service: FakeService,
    kind: type[wire.Packet],
    answer: Answers,
) -> None:
    milter.answers[kind] = answer
    with pytest.raises((MilterError, trio.BrokenResourceError)):
        await verdicts(plugin)
    await trio.testing.wait_all_tasks_blocked()
    assert service.open == 0


@pytest.mark.parametrize(
    "answer",
    [
        (wire.AddField(b"X A", b"1"),),
        (wire.AddField(b"", b"1"),),
        (wire.AddField(b"X\xff", b"1"),),
        (wire.AddField(b"X-A", b"1\rBcc: x"),),
        (b"\0\0\0\7hX\0a\0b\0",),
        (wire.InsertField(2**32 - 1, b"X:A", b"1"),),
        (wire.ChangeField(1, b"Subject", b"x" * 100_000),),
        (*[wire.AddField(b"X-A", b"x" * 10_000)] * 200,),
        (*[wire.AddField(b"X-A", b"")] * 1001,),
        (*[wire.AddRecipient(b"<a@us.example>")] * 1001,),
        (wire.AddRecipient(b"<>"),),
        (wire.AddRecipient(b"a@us.example\r\nDATA"),),
        (wire.RemoveRecipient(b"\xff"),),
        (wire.AddRecipientWith(b"<a@us.example>"),),
        (wire.ReplaceBody(b"x"),),
        (wire.ChangeSender(b"<a@us.example>"),),
        (wire.Skip(),),
    ],
)
async def test_changes_that_cannot_be_are_a_failure(
    plugin: Milter, milter: FakeMilter, service: FakeService, answer: Answers
) -> None:
    milter.answers[wire.EndOfBody] = (*answer, wire.Continue())
    with pytest.raises((MilterError, trio.BrokenResourceError)):
        await verdicts(plugin)
    await trio.testing.wait_all_tasks_blocked()
    assert service.open == 0


async def test_who_answers_twice_is_not_believed_from_then_on(
    plugin: Milter, milter: FakeMilter
) -> None:
    milter.answers[wire.Data] = (bytes(wire.Continue()) * 2,)
    with pytest.raises(MilterError, match="answered what it was not asked"):
        await verdicts(plugin)


async def test_a_milter_may_do_only_what_it_has_asked_for(
    plugin: Milter, milter: FakeMilter
) -> None:
    milter.actions = Actions.ADD_FIELDS
    milter.answers[wire.EndOfBody] = (wire.Quarantine(b"x"), wire.Continue())
    with pytest.raises(MilterError, match="Quarantine, which it did not ask for"):
        await verdicts(plugin)


@pytest.mark.parametrize(
    "answer",
    [
        wire.Negotiate(7, Actions(0), Steps(0)),
        wire.Negotiate(1, Actions(0), Steps(0)),
        wire.Negotiate(6, Actions.CHANGE_BODY, Steps(0)),
        wire.Negotiate(6, Actions(0), Steps.REJECTED_RCPT),
        wire.Continue(),
        b"\0\0\0\5O\0\0\0\6",
    ],
)
async def test_a_milter_that_wants_what_is_not_offered_is_not_asked(
    plugin: Milter, milter: FakeMilter, answer: wire.Packet | bytes
) -> None:
    milter.answers[wire.Negotiate] = (answer,)
    with pytest.raises(MilterError):
        await plugin.on_connect(a_session())
    assert milter.said == "O"


async def test_a_milter_that_is_silent_is_given_up(
    plugin: Milter, milter: FakeMilter, service: FakeService, autojump_clock: MockClock
) -> None:
    milter.answers[wire.EndOfBody] = (100.0,)
    with pytest.raises(trio.TooSlowError):
        await verdicts(plugin)
    assert trio.current_time() == pytest.approx(20)
    service.deaf = True
    with pytest.raises(trio.TooSlowError):
        await plugin.on_connect(a_session())
    assert trio.current_time() == pytest.approx(25)


async def test_a_milter_that_says_that_it_works_is_waited_for(
    plugin: Milter, milter: FakeMilter, autojump_clock: MockClock
) -> None:
    milter.answers[wire.EndOfBody] = (
        15.0,
        wire.Progress(),
        15.0,
        wire.Progress(),
        15.0,
        wire.Continue(),
    )
    assert (await verdicts(plugin))[-1] == CONTINUE
    assert trio.current_time() == pytest.approx(45)


async def test_a_milter_that_reads_nothing_does_not_hold_a_goodbye_up(
    plugin: Milter, milter: FakeMilter, service: FakeService, autojump_clock: MockClock
) -> None:
    session = a_session(helo="")
    milter.answers[wire.Connect] = (wire.Continue(), 1000.0)
    await plugin.on_connect(session)
    with trio.fail_after(2):
        await plugin.on_disconnect(session)


# In the daemon.


async def test_a_session_of_the_daemon(
    nursery: trio.Nursery, plugin: Milter, milter: FakeMilter, autojump_clock: MockClock
) -> None:
    milter.answers[wire.Rcpt] = (wire.ReplyCode(b"553 5.7.2 not him"),)
    server = Server(plugin, client=TRUSTED)
    nursery.start_soon(server.run)
    await server.play("""
        S: 220 ...
        C: EHLO client.example
        S: 250 ...
        C: MAIL FROM:<ann@sender.example>
        S: 250 ...
        C: RCPT TO:<alice@here.example>
        S: 553 5.7.2 not him
        C: RSET
        S: 250 ...
        C: MAIL FROM:<ann@sender.example>
        S: 250 ...
    """)
    milter.answers = {wire.EndOfBody: (wire.AddField(b"X-Seen", b"yes"), wire.Continue())}
    await server.play("""
        C: RCPT TO:<alice@here.example>
        S: 250 ...
        C: DATA
        S: 354 ...
        C: Subject: hello
        C:
        C: body
        C: .
        S: 250 ...
        C: QUIT
        S: 221 ...
        E:
    """)
    await trio.testing.wait_all_tasks_blocked()
    assert milter.said == "OCHMRAMRTLNBEQ"
    (kept,) = server.queue.kept
    assert kept.content.endswith(b"Subject: hello\r\nX-Seen: yes\r\n\r\nbody\r\n")


def test_settings_are_checked_with_their_place() -> None:
    for settings, problem in (
        ({}, "the key `address` is missing"),
        ({"address": "inet:1234@localhost"}, "expected HOST:PORT or the path of a socket"),
        ({"address": "/x", "connect_timeout": "0 s"}, "connect_timeout must be more than 0 s"),
        ({"address": "/x", "reply_timeout": "0 s"}, "reply_timeout must be more than 0 s"),
    ):
        with pytest.raises(ConfigError, match=problem):
            Milter.configured(settings, "plugins[0].settings")
