"""What a client may say, and what it makes of the answers."""

from __future__ import annotations

from typing import Final

import pytest

from elemta.protocol import (
    AuthAnswer,
    Body,
    Broken,
    ClientConnection,
    ClientState,
    Closed,
    ContentAnswer,
    DataAnswer,
    Goodbye,
    Greeting,
    HelloAnswer,
    LocalProtocolError,
    MailAnswer,
    Mailbox,
    MailParams,
    NoopAnswer,
    Notify,
    OriginalRecipient,
    QuitAnswer,
    RcptAnswer,
    RcptParams,
    Reply,
    ResetAnswer,
    Ret,
    StartTlsAnswer,
    TransferAnswer,
    Wait,
)

ANN: Final = Mailbox("ann", "a.example")
BOB: Final = Mailbox("bob", "b.example")
ALL: Final = (
    "PIPELINING", "SIZE 1000", "8BITMIME", "SMTPUTF8", "DSN", "CHUNKING", "STARTTLS", "AUTH PLAIN",
    "MT-PRIORITY MIXER",
)  # fmt: skip


def ready(*keywords: str, lmtp: bool = False) -> ClientConnection:
    """A client that may begin a transaction."""
    client = ClientConnection(lmtp=lmtp)
    client.receive_data(b"220 mx.example\r\n")
    assert isinstance(client.next_event(), Greeting)
    hello = client.hello("me.example")
    assert hello == (b"LHLO me.example\r\n" if lmtp else b"EHLO me.example\r\n")
    *first, last = ("mx.example", *keywords)
    lines = [*(f"250-{line}" for line in first), f"250 {last}"]
    client.receive_data("".join(f"{line}\r\n" for line in lines).encode())
    assert isinstance(client.next_event(), HelloAnswer)
    assert client.usable
    return client


def hear(client: ClientConnection, *codes: int) -> list[object]:
    """What becomes of some bare replies that arrive together."""
    client.receive_data(b"".join(b"%d\r\n" % code for code in codes))
    return events(client)


def events(client: ClientConnection) -> list[object]:
    found: list[object] = []
    while not isinstance(event := client.next_event(), Wait):
        found.append(event)
        if isinstance(event, Closed):
            break
    return found


def bare(code: int) -> Reply:
    return Reply(code, None, ("",))


def test_a_message_goes_out_step_by_step() -> None:
    client = ready()
    assert client.mail(ANN) == b"MAIL FROM:<ann@a.example>\r\n"
    assert not client.usable
    assert client.outstanding == 1
    assert hear(client, 250) == [MailAnswer(bare(250))]
    assert client.rcpt(BOB) == b"RCPT TO:<bob@b.example>\r\n"
    assert hear(client, 550) == [RcptAnswer(0, bare(550))]
    client.rcpt(ANN)
    assert hear(client, 251) == [RcptAnswer(1, bare(251))]
    assert client.accepted == 1
    assert client.data() == b"DATA\r\n"
    assert hear(client, 354) == [DataAnswer(bare(354))]
    assert client.state is ClientState.DATA
    assert client.content(b"hello\r\n") == b"hello\r\n"
    assert client.content_end() == b".\r\n"
    assert hear(client, 250) == [ContentAnswer(1, bare(250))]
    assert client.accepted == 0
    assert client.usable
    assert client.quit() == b"QUIT\r\n"
    assert hear(client, 221) == [QuitAnswer(bare(221)), Closed()]


def test_a_group_is_answered_in_order() -> None:
    client = ready("PIPELINING")
    said = client.mail(None) + client.rcpt(ANN) + client.rcpt(BOB) + client.data()
    assert said.startswith(b"MAIL FROM:<>\r\n")
    assert hear(client, 250, 250, 450, 354) == [
        MailAnswer(bare(250)),
        RcptAnswer(0, bare(250)),
        RcptAnswer(1, bare(450)),
        DataAnswer(bare(354)),
    ]


def test_one_answer_to_the_message_is_told_for_each_accepted_recipient() -> None:
    client = ready("PIPELINING", "CHUNKING")
    client.mail(ANN)
    for _ in range(3):
        client.rcpt(BOB)
    assert client.chunk(b"x\r\n", last=True) == b"BDAT 3 LAST\r\nx\r\n"
    client.receive_data(b"250\r\n250\r\n550\r\n250\r\n451 4.3.0 later\r\n")
    found = events(client)
    later = Reply(451, (3, 0), ("later",))
    assert found[4:] == [ContentAnswer(0, later), ContentAnswer(2, later)]


def test_a_client_is_not_usable_while_answers_wait_to_be_taken() -> None:
    client = ready("PIPELINING")
    client.mail(ANN)
    client.rcpt(BOB)
    client.rcpt(ANN)
    client.data()
    hear(client, 250, 250, 250, 354)
    client.content_end()
    client.receive_data(b"250\r\n")
    assert client.next_event() == ContentAnswer(0, bare(250))
    assert not client.usable
    assert client.next_event() == ContentAnswer(1, bare(250))
    assert client.usable


def test_lmtp_answers_for_each_accepted_recipient() -> None:
    client = ready("PIPELINING", lmtp=True)
    client.mail(ANN)
    for _ in range(4):
        client.rcpt(BOB)
    client.data()
    hear(client, 250, 250, 550, 250, 250, 354)
    client.content_end()
    assert hear(client, 250) == [ContentAnswer(0, bare(250))]
    assert client.outstanding == 1
    assert hear(client, 552, 451) == [ContentAnswer(2, bare(552)), ContentAnswer(3, bare(451))]
    assert client.usable


def test_lmtp_answers_once_to_a_chunk_and_for_each_recipient_to_the_last() -> None:
    client = ready("PIPELINING", "CHUNKING", lmtp=True)
    client.mail(ANN)
    client.rcpt(ANN)
    client.rcpt(BOB)
    assert client.chunk(b"ab", last=False) == b"BDAT 2\r\nab"
    client.chunk(b"", last=True)
    found = hear(client, 250, 250, 250, 250, 250, 250)
    assert found[3:] == [
        TransferAnswer(bare(250)),
        ContentAnswer(0, bare(250)),
        ContentAnswer(1, bare(250)),
    ]


@pytest.mark.parametrize("code", [250, 354])
def test_lmtp_cannot_take_a_message_for_nobody(code: int) -> None:
    client = ready("PIPELINING", lmtp=True)
    client.mail(ANN)
    client.rcpt(BOB)
    client.data()
    assert isinstance(hear(client, 250, 550, code)[2], Broken)


def test_a_354_for_nobody_is_owed_a_dot() -> None:
    client = ready("PIPELINING")
    client.mail(ANN)
    client.rcpt(BOB)
    client.data()
    hear(client, 250, 550, 354)
    assert client.accepted == 0
    assert client.content_end() == b".\r\n"
    assert hear(client, 554) == [TransferAnswer(bare(554))]
    assert client.usable


def test_what_stands_behind_a_refused_mail_can_only_be_refused() -> None:
    client = ready("PIPELINING", "CHUNKING")
    client.mail(ANN)
    client.rcpt(BOB)
    client.chunk(b"x", last=True)
    assert hear(client, 550, 503, 503) == [
        MailAnswer(bare(550)),
        RcptAnswer(0, bare(503)),
        TransferAnswer(bare(503)),
    ]
    assert client.usable
    client.mail(ANN)
    client.rcpt(BOB)
    assert hear(client, 550, 250)[1] == Broken("250 to RCPT in state READY")


def test_a_refused_chunk_speaks_for_the_whole_message() -> None:
    client = ready("PIPELINING", "CHUNKING")
    client.mail(ANN)
    client.rcpt(BOB)
    client.chunk(b"a", last=False)
    client.chunk(b"b", last=True)
    assert hear(client, 250, 250, 452, 503)[2:] == [
        TransferAnswer(bare(452)),
        TransferAnswer(bare(503)),
    ]
    assert client.state is ClientState.FAILED
    assert not client.usable
    with pytest.raises(LocalProtocolError):
        client.mail(ANN)
    client.reset()
    assert hear(client, 250) == [ResetAnswer(bare(250))]
    assert client.usable


def test_a_refused_data_needs_a_reset() -> None:
    client = ready("PIPELINING")
    client.mail(ANN)
    client.rcpt(BOB)
    client.data()
    hear(client, 250, 250, 451)
    assert client.state is ClientState.FAILED
    client.reset()
    client.mail(BOB)  # in one group
    client.rcpt(ANN)
    assert hear(client, 250, 250, 250)[-1] == RcptAnswer(0, bare(250))


def test_a_transaction_may_be_said_behind_the_end_of_another() -> None:
    client = ready("PIPELINING", "CHUNKING")
    for _ in range(2):
        client.mail(ANN)
        client.rcpt(BOB)
        client.chunk(b"x", last=True)
    assert hear(client, 250, 250, 250, 250, 550, 503) == [
        MailAnswer(bare(250)),
        RcptAnswer(0, bare(250)),
        ContentAnswer(0, bare(250)),
        MailAnswer(bare(250)),
        RcptAnswer(0, bare(550)),
        TransferAnswer(bare(503)),
    ]


def test_what_a_refusal_has_made_senseless_is_not_said_behind_what_was() -> None:
    client = ready("PIPELINING", "CHUNKING")
    client.mail(ANN)
    client.rcpt(BOB)
    client.chunk(b"x", last=False)
    hear(client, 550)
    with pytest.raises(LocalProtocolError, match="BDAT in state READY"):
        client.chunk(b"y", last=False)
    client.mail(BOB)
    assert hear(client, 503, 503, 250)[-1] == MailAnswer(bare(250))


def test_without_pipelining_each_answer_is_waited_for() -> None:
    client = ready()
    client.mail(ANN)
    with pytest.raises(LocalProtocolError, match="RCPT before the answer to MAIL"):
        client.rcpt(BOB)


@pytest.mark.parametrize("first", ["noop", "starttls", "hello", "data"])
def test_what_ends_a_group_is_waited_for(first: str) -> None:
    client = ready(*ALL)
    match first:
        case "noop":
            client.noop()
        case "starttls":
            client.starttls()
        case "hello":
            client.hello("me.example")
        case _:
            client.mail(ANN)
            client.rcpt(BOB)
            client.data()
    with pytest.raises(LocalProtocolError, match="before the answer to"):
        client.reset()


def test_nothing_may_be_said_out_of_order() -> None:
    client = ClientConnection()
    with pytest.raises(LocalProtocolError, match="EHLO before the answer to CONNECT"):
        client.hello("me.example")
    client.receive_data(b"220\r\n")
    client.next_event()
    with pytest.raises(LocalProtocolError, match="MAIL in state START"):
        client.mail(ANN)
    client = ready(*ALL)
    for wrong in (
        lambda: client.rcpt(BOB),
        client.data,
        lambda: client.chunk(b"", last=True),
        lambda: client.content(b"x"),
        client.content_end,
        lambda: client.auth_response(b""),
    ):
        with pytest.raises(LocalProtocolError):
            wrong()
    client.mail(ANN)
    with pytest.raises(LocalProtocolError, match="DATA in state MAIL"):
        client.data()
    client.rcpt(BOB)
    client.data()
    with pytest.raises(LocalProtocolError, match="content in state"):
        client.content(b"too early")
    hear(client, 250, 250, 354)
    client.content_end()
    with pytest.raises(LocalProtocolError, match="content in state DATA"):
        client.content(b"too late")


def test_what_was_not_announced_cannot_be_said() -> None:
    client = ready("AUTH LOGIN")
    for wrong in (
        client.starttls,
        lambda: client.auth("PLAIN"),
        lambda: client.chunk(b"", last=True),
        lambda: client.mail(Mailbox("j\u00f8rn", "a.example")),
        lambda: client.hello("b\u00fccher.example"),
    ):
        with pytest.raises(LocalProtocolError, match="was not announced"):
            wrong()
    assert client.usable


@pytest.mark.parametrize("evil", ["a\r\nRSET", "a\nb", "a\0b", "a\x7fb"])
def test_nothing_can_be_smuggled_into_a_command(evil: str) -> None:
    client = ready(*ALL)
    with pytest.raises(LocalProtocolError, match="control character"):
        client.mail(Mailbox("ann", evil))
    with pytest.raises(LocalProtocolError, match="control character"):
        client.hello(evil)
    client.mail(ANN)
    with pytest.raises(LocalProtocolError, match="control character"):
        client.rcpt(Mailbox("bob", evil))
    orcpt = OriginalRecipient(evil, "x")
    with pytest.raises(LocalProtocolError, match="control character"):
        client.rcpt(BOB, RcptParams(orcpt=orcpt))


def test_odd_but_harmless_letters_are_written() -> None:
    client = ready("SMTPUTF8")
    assert (
        client.mail(Mailbox("a\u00adb", "x.example"))
        == "MAIL FROM:<a\u00adb@x.example>\r\n".encode()
    )


EVERY_MAIL_PARAM: Final = MailParams(
    size=5,
    body=Body.EIGHT_BIT,
    smtputf8=True,
    ret=Ret.HEADERS,
    envid="a+b =c",
    auth="ann@a.example",
    mt_priority=-9,
)
EVERY_RCPT_PARAM: Final = RcptParams(
    notify=frozenset({Notify.DELAY, Notify.SUCCESS}),
    orcpt=OriginalRecipient("rfc822", "b+b@x.example"),
)


def test_every_parameter_is_written_that_was_announced() -> None:
    client = ready(*ALL)
    assert client.mail(ANN, EVERY_MAIL_PARAM) == (
        b"MAIL FROM:<ann@a.example> SIZE=5 BODY=8BITMIME SMTPUTF8"
        b" RET=HDRS ENVID=a+2Bb+20+3Dc AUTH=ann@a.example MT-PRIORITY=-9\r\n"
    )
    assert client.rcpt(BOB, EVERY_RCPT_PARAM) == (
        b"RCPT TO:<bob@b.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b+2Bb@x.example\r\n"
    )


def test_no_parameter_is_written_that_was_not_announced() -> None:
    client = ready()
    assert client.mail(ANN, EVERY_MAIL_PARAM) == b"MAIL FROM:<ann@a.example>\r\n"
    hear(client, 250)
    assert client.rcpt(BOB, EVERY_RCPT_PARAM) == b"RCPT TO:<bob@b.example>\r\n"


def test_parameters_that_were_not_given_are_not_written() -> None:
    client = ready(*ALL)
    assert client.mail(ANN) == b"MAIL FROM:<ann@a.example>\r\n"
    assert client.rcpt(BOB, RcptParams(notify=frozenset())) == b"RCPT TO:<bob@b.example>\r\n"


def test_an_original_recipient_beyond_ascii_is_written_for_any_server() -> None:
    client = ready("DSN")
    client.mail(ANN)
    hear(client, 250)
    orcpt = OriginalRecipient("utf-8", "j\u00f8=\\+@x.example")
    assert client.rcpt(BOB, RcptParams(orcpt=orcpt)) == (
        b"RCPT TO:<bob@b.example> ORCPT=utf-8;j\\x{F8}\\x{3D}\\x{5C}\\x{2B}@x.example\r\n"
    )


def in_data() -> ClientConnection:
    client = ready("PIPELINING")
    client.mail(ANN)
    client.rcpt(BOB)
    client.data()
    hear(client, 250, 250, 354)
    return client


@pytest.mark.parametrize(
    ("content", "wire"),
    [
        (b"", b".\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b"a\r\n", b"a\r\n.\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b".\r\n", b"..\r\n.\r\n"),
        (b"a\r\n.\r\n..b\r\n", b"a\r\n..\r\n...b\r\n.\r\n"),
        (b"a.b\r\n", b"a.b\r\n.\r\n"),
        (b"a\nb", b"a\r\nb\r\n.\r\n"),
        (b"a\rb", b"a\r\nb\r\n.\r\n"),
        (b"a\r", b"a\r\n.\r\n"),
        (b"a\r\r\n", b"a\r\n\r\n.\r\n"),
        (b"a\n.\nb", b"a\r\n..\r\nb\r\n.\r\n"),
        (b"a\r.\rb", b"a\r\n..\r\nb\r\n.\r\n"),
        (b"\n.\r\nMAIL FROM:<>\r\n", b"\r\n..\r\nMAIL FROM:<>\r\n.\r\n"),
        (b"a\r\n\r", b"a\r\n\r\n.\r\n"),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_content_is_stuffed_however_it_is_cut(content: bytes, wire: bytes, size: int) -> None:
    client = in_data()
    said = b"".join(
        client.content(content[start : start + size]) for start in range(0, len(content), size)
    )
    assert said + client.content_end() == wire


def test_what_was_cut_in_one_message_does_not_show_in_the_next() -> None:
    client = in_data()
    client.content(b"a\r")
    assert client.content_end() == b"\r\n.\r\n"
    hear(client, 250)
    client.mail(ANN)
    client.rcpt(BOB)
    client.data()
    hear(client, 250, 250, 354)
    assert client.content(b".a") == b"..a"


def test_hello_falls_back() -> None:
    client = ClientConnection()
    client.receive_data(b"220\r\n")
    client.next_event()
    client.hello("me.example")
    client.receive_data(b"500-what\r\n500 PIPELINING\r\n")
    answer = client.next_event()
    assert isinstance(answer, HelloAnswer)
    assert answer.reply.code == 500
    assert not answer.extensions.pipelining
    assert not client.usable
    assert client.hello("me.example", extended=False) == b"HELO me.example\r\n"
    client.receive_data(b"250-mx\r\n250 PIPELINING\r\n")
    answer = client.next_event()
    assert isinstance(answer, HelloAnswer)
    assert not answer.extensions.pipelining
    assert client.usable


def test_lmtp_has_no_helo() -> None:
    with pytest.raises(LocalProtocolError, match="LMTP has no HELO"):
        ClientConnection(lmtp=True).hello("me.example", extended=False)


def test_an_unwelcome_client_can_only_quit() -> None:
    client = ClientConnection()
    client.receive_data(b"554 go away\r\n")
    client.next_event()
    with pytest.raises(LocalProtocolError, match="EHLO in state UNWELCOME"):
        client.hello("me.example")
    client.quit()
    assert hear(client, 500) == [QuitAnswer(bare(500)), Closed()]


def test_starttls_ends_the_object() -> None:
    client = ready(*ALL)
    assert client.starttls() == b"STARTTLS\r\n"
    assert hear(client, 454) == [StartTlsAnswer(bare(454))]
    client.starttls()
    assert hear(client, 220) == [StartTlsAnswer(bare(220))]
    with pytest.raises(LocalProtocolError, match="in state TLS"):
        client.hello("me.example")
    client = ClientConnection(greeted=True)
    assert client.hello("me.example") == b"EHLO me.example\r\n"
    assert not client.extensions.starttls


def test_plaintext_behind_the_220_to_starttls_is_an_attack() -> None:
    client = ready(*ALL)
    client.starttls()
    client.receive_data(b"220 go ahead\r\n250-mx\r\n")
    assert client.next_event() == Broken("octets behind the 220 to STARTTLS")
    client = ready(*ALL)
    client.starttls()
    hear(client, 220)
    client.receive_data(b"250 late\r\n")
    assert client.next_event() == Broken("250 to nothing")


def test_a_2xx_that_is_no_220_leaves_tls_in_doubt() -> None:
    client = ready(*ALL)
    client.starttls()
    assert hear(client, 250)[0] == Broken("250 to STARTTLS in state READY")


def test_auth_with_an_initial_response() -> None:
    client = ready(*ALL)
    assert client.auth("PLAIN", b"\0ann\0secret") == b"AUTH PLAIN AGFubgBzZWNyZXQ=\r\n"
    assert hear(client, 535) == [AuthAnswer(bare(535), None)]
    assert client.auth("PLAIN", b"") == b"AUTH PLAIN =\r\n"
    assert hear(client, 235) == [AuthAnswer(bare(235), None)]
    assert client.usable


def test_auth_by_challenge_and_response() -> None:
    client = ready(*ALL)
    assert client.auth("PLAIN") == b"AUTH PLAIN\r\n"
    client.receive_data(b"334 VXNlcjo=\r\n")
    assert client.next_event() == AuthAnswer(Reply(334, None, ("VXNlcjo=",)), b"User:")
    assert not client.usable
    assert client.auth_response(b"ann") == b"YW5u\r\n"
    assert hear(client, 334) == [AuthAnswer(bare(334), b"")]
    assert client.auth_response(None) == b"*\r\n"
    assert hear(client, 501) == [AuthAnswer(bare(501), None)]
    assert client.usable


@pytest.mark.parametrize("reply", [b"334 ***\r\n", b"334 abc\r\n", b"300 YQ==\r\n"])
def test_a_challenge_that_cannot_be_read_ends_the_conversation(reply: bytes) -> None:
    client = ready(*ALL)
    client.auth("PLAIN")
    client.receive_data(reply)
    assert isinstance(client.next_event(), Broken)


def test_noop_and_reset_are_answered() -> None:
    client = ready()
    assert client.noop() == b"NOOP\r\n"
    assert hear(client, 250) == [NoopAnswer(bare(250))]
    assert client.reset() == b"RSET\r\n"
    assert hear(client, 500) == [ResetAnswer(bare(500))]
    assert client.state is ClientState.UNWELCOME


@pytest.mark.parametrize("code", [250, 354, 450, 550])
def test_a_reply_to_nothing_ends_the_conversation(code: int) -> None:
    client = ready()
    assert hear(client, code) == [Broken(f"{code} to nothing"), Closed()]


def test_a_reply_that_came_before_the_command_is_no_answer_to_it() -> None:
    client = ready()
    client.receive_data(b"250 of an attacker\r\n")
    assert not client.usable
    client.mail(ANN)
    assert client.next_event() == Broken("250 to nothing")


@pytest.mark.parametrize("code", [250, 353, 333])
def test_content_is_wanted_by_354_alone(code: int) -> None:
    client = ready("PIPELINING")
    client.mail(ANN)
    client.rcpt(BOB)
    client.data()
    assert hear(client, 250, 250, code)[2] == Broken(f"{code} to DATA in state RCPT")


@pytest.mark.parametrize("lmtp", [False, True])
def test_the_message_cannot_be_answered_with_a_3xx(lmtp: bool) -> None:
    client = ready("PIPELINING", lmtp=lmtp)
    client.mail(ANN)
    client.rcpt(BOB)
    client.rcpt(BOB)
    client.data()
    hear(client, 250, 250, 250, 354)
    client.content_end()
    assert isinstance(hear(client, 354)[0], Broken)


def test_421_ends_a_transaction() -> None:
    client = ready("PIPELINING")
    client.mail(ANN)
    client.rcpt(BOB)
    client.data()
    assert hear(client, 250, 421, 250) == [MailAnswer(bare(250)), Goodbye(bare(421)), Closed()]
    assert client.outstanding == 0
    assert client.state is ClientState.CLOSED
