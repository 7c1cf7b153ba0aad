from __future__ import annotations

import pytest

from elemta.protocol import (
    Auth,
    AuthResponse,
    BareNewline,
    Chunk,
    ChunkEnd,
    Closed,
    Content,
    ContentEnd,
    Data,
    Fault,
    Hello,
    Limits,
    LocalProtocolError,
    Mail,
    MailParams,
    Offer,
    Quit,
    Rcpt,
    Refused,
    Reply,
    ServerConnection,
    StartTls,
    State,
    Wait,
    challenge,
    reply,
)
from tests.protocol.policy import OK, Server, codes

ENVELOPE = "MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"
EVERYTHING = Offer(
    starttls=True, mt_priority=True, mechanisms=("PLAIN", "LOGIN"), rcpt_max=1000, mail_max=100
)


def test_a_whole_session_is_what_it_should_be() -> None:
    server = Server()
    assert server.says("EHLO client.example\r\n")[0] == "250-mx.example"
    assert codes(server.says(ENVELOPE + "DATA\r\n")) == ["250 2.0.0", "250 2.0.0", "354 go"]
    assert server.smtp.in_transaction
    assert codes(server.says("a\r\n..b\r\n.\r\nQUIT\r\n")) == ["250 2.0.0", "221 2.0.0"]
    assert server.messages == [b"a\r\n.b\r\n"]
    assert [type(event) for event in server.events] == [
        *[Hello, Mail, Rcpt, Data, Content, ContentEnd, Quit, Closed]
    ]
    assert server.smtp.state is State.CLOSED


def test_what_comes_before_our_answer_to_data_is_content() -> None:
    smtp = Server().smtp
    smtp.receive_data(f"EHLO a\r\n{ENVELOPE}DATA\r\n".encode())
    for _ in range(3):
        smtp.next_event()
        smtp.send(OK)
    assert smtp.next_event() == Data()
    smtp.receive_data(b"a\r\n.\r\nNOOP\r\n")
    smtp.send(reply(354, 0, 0, "go"))
    assert smtp.next_event() == Content(b"a\r\n")
    assert smtp.next_event() == ContentEnd(None)


def test_content_comes_in_as_few_pieces_as_it_came() -> None:
    server = Server()
    server.says(f"EHLO a\r\n{ENVELOPE}DATA\r\n")
    server.says(b"x\r\n" * 100)
    server.says(b"y\r\n" * 100 + b".\r\n")
    assert [len(event.octets) for event in server.events if isinstance(event, Content)] == [
        298,
        302,
    ]


@pytest.mark.parametrize(
    ("said", "answers"),
    [
        ("MAIL FROM:<a@b>\r\n", ["503 5.5.1"]),
        ("EHLO a\r\nRCPT TO:<a@b>\r\n", ["503 5.5.1"]),
        ("EHLO a\r\nMAIL FROM:<>\r\nDATA\r\n", ["250 2.0.0", "503 5.5.1"]),
        ("EHLO a\r\nMAIL FROM:<>\r\nMAIL FROM:<>\r\n", ["250 2.0.0", "503 5.5.1"]),
        ("HELO a\r\nMAIL FROM:<>\r\nEHLO a\r\nRCPT TO:<a@b>\r\n", ["503 5.5.1"]),
        ("EHLO a\r\nMAIL FROM:<>\r\nRSET\r\nRCPT TO:<a@b>\r\n", ["250 2.0.0", "503 5.5.1"]),
        ("EHLO a\r\nRSET\r\nMAIL FROM:<>\r\n", ["250 2.0.0", "250 2.0.0"]),
        ("FROB\r\n", ["500 5.5.1"]),
        ("\r\n", ["500 5.5.1"]),
        ("LHLO a\r\n", ["500 5.5.1"]),
        ("EXPN a\r\n", ["502 5.5.1"]),
        ("STARTTLS\r\n", ["502 5.5.1"]),
        ("EHLO a\r\nAUTH PLAIN\r\n", ["502 5.5.1"]),
        ("NOOP a\x00b\r\n", ["500 5.5.2"]),
        ("NOOP \xff\r\n", ["250 2.0.0"]),
        ("x" * 2047 + "\r\nNOOP\r\n", ["500 5.5.2", "250 2.0.0"]),
        ("NOOP" + " " * 2042 + "\r\n", ["250 2.0.0"]),
        ("HELP\r\nVRFY x\r\nNOOP\r\nRSET\r\n", ["250 2.0.0"] * 4),
        ("VRFY\r\n", ["501 5.5.4"]),
        ("RSET now\r\n", ["501 5.5.4"]),
    ],
)
def test_what_is_wrong_is_refused_with_its_code(said: str, answers: list[str]) -> None:
    assert codes(Server().says(said))[-len(answers) :] == answers


def test_a_line_of_no_utf8_is_refused() -> None:
    assert codes(Server().says(b"NOOP \xff\r\n")) == ["500 5.5.2"]


def test_helo_is_answered_with_the_name_alone() -> None:
    assert Server(EVERYTHING).says("HELO a\r\n") == ["250 mx.example"]


def test_ehlo_announces_the_offer_and_nothing_else() -> None:
    assert Server(EVERYTHING).says("EHLO a\r\n") == [
        "250-mx.example",
        "250-PIPELINING",
        "250-SIZE 52428800",
        "250-8BITMIME",
        "250-SMTPUTF8",
        "250-ENHANCEDSTATUSCODES",
        "250-DSN",
        "250-CHUNKING",
        "250-STARTTLS",
        "250-MT-PRIORITY",
        "250-AUTH PLAIN LOGIN",
        "250 LIMITS RCPTMAX=1000 MAILMAX=100",
    ]
    nothing = Offer(
        pipelining=False,
        size=False,
        eight_bit=False,
        smtputf8=False,
        enhanced_status_codes=False,
        dsn=False,
        chunking=False,
    )
    assert Server(nothing).says("EHLO a\r\n") == ["250 mx.example"]
    assert Server(Offer(mail_max=3)).says("EHLO a\r\n")[-1] == "250 LIMITS MAILMAX=3"


def test_replies_have_no_enhanced_codes_unless_they_are_offered() -> None:
    assert Server(Offer(enhanced_status_codes=False)).says("NOOP\r\nFROB\r\n") == [
        "250 OK",
        "500 command not recognized",
    ]


def test_a_parameter_is_read_into_the_event() -> None:
    server = Server()
    server.says("EHLO a\r\nMAIL FROM:<> SIZE=99999999999999999999 SMTPUTF8\r\nRCPT TO:<ü@x>\r\n")
    _, mail, rcpt = server.events
    assert mail == Mail(None, MailParams(size=10**20 - 1, smtputf8=True))
    assert isinstance(rcpt, Rcpt)
    assert rcpt.path.local_part == "ü"


def test_smtputf8_lasts_for_one_transaction() -> None:
    server = Server()
    server.says("EHLO a\r\nMAIL FROM:<> SMTPUTF8\r\nRSET\r\nMAIL FROM:<>\r\n")
    assert codes(server.says("RCPT TO:<ü@x>\r\n")) == ["553 5.6.7"]


# RFC 5321 §2.3.8, and what four other servers make of it (CVE-2023-51764)
@pytest.mark.parametrize(
    "smuggled",
    [
        "a\n.\r\nMAIL FROM:<evil@x>\r\n",
        "a\r\n.\nMAIL FROM:<evil@x>\r\n",
        "a\n.\nMAIL FROM:<evil@x>\r\n",
        "a\r.\rMAIL FROM:<evil@x>\r\n",
        "a\r\n.\rb\r\n",
        "a\r\r\n",
    ],
)
def test_smuggled_mail_is_neither_taken_nor_obeyed(smuggled: str) -> None:
    server = Server()
    server.says(f"EHLO a\r\n{ENVELOPE}DATA\r\n")
    assert codes(server.says(smuggled + ".\r\nNOOP\r\n")) == ["550 5.5.2", "250 2.0.0"]
    assert server.messages == []


def test_a_bare_newline_can_be_normalized() -> None:
    server = Server(limits=Limits(bare_newline=BareNewline.NORMALIZE))
    server.says(f"EHLO a\r\n{ENVELOPE}DATA\r\n")
    assert codes(server.says("a\n.\nb\rc\r\n.\r\n")) == ["250 2.0.0"]
    assert server.messages == [b"a\r\n.\r\nb\r\nc\r\n"]


def test_content_that_is_too_big_is_read_to_its_end() -> None:
    server = Server(limits=Limits(message=10))
    server.says(f"EHLO a\r\n{ENVELOPE}DATA\r\n")
    assert codes(server.says("12345678\r\n\r\n.\r\nNOOP\r\n")) == ["552 5.3.4", "250 2.0.0"]
    assert [e.fault for e in server.events if isinstance(e, ContentEnd)] == [Fault.TOO_BIG]


def test_chunks_make_a_message() -> None:
    server = Server()
    server.says("EHLO a\r\n" + ENVELOPE)
    assert codes(server.says("BDAT 4\r\na\r\n.BDAT 3 LAST\r\n\r\nbNOOP\r\n")) == ["250 2.0.0"] * 3
    assert server.messages == [b"a\r\n.\r\nb"]
    assert not server.smtp.in_transaction
    assert [event for event in server.events if isinstance(event, Chunk | ChunkEnd)] == [
        Chunk(4, last=False),
        ChunkEnd(None),
        Chunk(3, last=True),
    ]


def test_a_chunk_may_come_octet_by_octet_and_the_last_may_be_empty() -> None:
    server = Server()
    server.says("EHLO a\r\n" + ENVELOPE)
    answers = [line for octet in "BDAT 2\r\nabBDAT 0 LAST\r\n" for line in server.says(octet)]
    assert codes(answers) == ["250 2.0.0"] * 2
    assert server.messages == [b"ab"]


# RFC 3030 §2: the octets are on their way, whatever we think of the command.
@pytest.mark.parametrize(
    ("offer", "before", "code"),
    [
        (Offer(), "", "503 5.5.1"),
        (Offer(), "EHLO a\r\nMAIL FROM:<>\r\n", "503 5.5.1"),
        (Offer(chunking=False), "EHLO a\r\n" + ENVELOPE, "502 5.5.1"),
    ],
)
def test_a_chunk_that_is_not_wanted_is_never_taken_for_commands(
    offer: Offer, before: str, code: str
) -> None:
    server = Server(offer)
    server.says(before)
    assert server.says("BDAT 6\r\nQUI") == []
    assert codes(server.says("T\r\nNOOP\r\n")) == [code, "250 2.0.0"]


def test_chunks_behind_a_refused_one_are_refused() -> None:
    server = Server()
    server.says("EHLO a\r\n" + ENVELOPE)
    said = "BDAT 2\r\na\nBDAT 6\r\nQUIT\r\nBDAT 0 LAST\r\n"
    assert codes(server.says(said)) == ["550 5.5.2", "503 5.5.1", "503 5.5.1"]
    assert server.messages == []


def test_a_message_is_chunks_or_data_but_not_both() -> None:
    server = Server()
    server.says("EHLO a\r\n" + ENVELOPE)
    assert codes(server.says("BDAT 1\r\naDATA\r\n")) == ["250 2.0.0", "503 5.5.1"]
    assert codes(server.says("RCPT TO:<x@y>\r\nRSET\r\n")) == ["503 5.5.1", "250 2.0.0"]


@pytest.mark.parametrize("said", ["BDAT\r\n", "BDAT LAST\r\n", "BDAT x\r\n", f"BDAT {10**20}\r\n"])
def test_a_chunk_of_unknown_size_ends_the_conversation(said: str) -> None:
    server = Server()
    server.says("EHLO a\r\n" + ENVELOPE)
    assert codes(server.says(said + "RSET\r\n")) == ["501 5.5.4"]
    assert isinstance(server.events[-1], Closed)


def test_lmtp_answers_for_each_recipient_that_was_accepted() -> None:
    server = Server(lmtp=True)
    server.otherwise[Rcpt] = [reply(250, 1, 5, "a"), reply(550, 1, 1, "b"), reply(250, 1, 5, "c")]
    server.otherwise[ContentEnd] = [reply(250, 0, 0, "a has it"), reply(452, 2, 2, "c is full")]
    server.says("LHLO a\r\nMAIL FROM:<>\r\n" + "RCPT TO:<a@b>\r\n" * 3 + "DATA\r\n")
    assert server.says("x\r\n.\r\nNOOP\r\n") == [
        "250 2.0.0 a has it",
        "452 4.2.2 c is full",
        "250 2.0.0 OK",
    ]
    assert codes(server.says("EHLO a\r\nHELO a\r\n")) == ["500 5.5.1"] * 2


def test_lmtp_answers_for_each_recipient_after_the_last_chunk() -> None:
    server = Server(lmtp=True)
    server.says("LHLO a\r\nMAIL FROM:<>\r\n" + "RCPT TO:<a@b>\r\n" * 2)
    assert codes(server.says("BDAT 1\r\naBDAT 0 LAST\r\n")) == ["250 2.0.0"] * 3


def test_lmtp_may_hang_up_between_recipients() -> None:
    server = Server(lmtp=True)
    server.otherwise[ContentEnd] = [reply(421, 3, 0, "bye")]
    server.says("LHLO a\r\nMAIL FROM:<>\r\n" + "RCPT TO:<a@b>\r\n" * 2 + "DATA\r\n")
    assert codes(server.says(".\r\n")) == ["421 4.3.0"]
    assert isinstance(server.events[-1], Closed)


def test_a_login_takes_base64_off() -> None:
    server = Server(EVERYTHING)
    server.says("EHLO a\r\n")
    assert server.says("AUTH login\r\n") == ["334 VXNlcm5hbWU6"]
    assert codes(server.says("Ym9i\r\n")) == ["235 2.7.0"]
    assert server.events[1:] == [Auth("LOGIN", None), AuthResponse(b"bob")]
    assert codes(server.says("AUTH LOGIN\r\n")) == ["503 5.5.1"]
    assert codes(server.says("EHLO a\r\nAUTH PLAIN AA==\r\n"))[-1] == "503 5.5.1"


@pytest.mark.parametrize(
    ("said", "event"),
    [
        ("AUTH PLAIN AGEAYg==", Auth("PLAIN", b"\0a\0b")),
        ("auth  plain  =", Auth("PLAIN", b"")),
        ("AUTH PLAIN " + "QUFB" * 1024, Auth("PLAIN", b"AAA" * 1024)),
    ],
)
def test_an_initial_response_is_read(said: str, event: Auth) -> None:
    server = Server(EVERYTHING)
    server.says("EHLO a\r\n")
    assert codes(server.says(said + "\r\n")) == ["235 2.7.0"]
    assert server.events[-1] == event


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("AUTH", "501 5.5.4"),
        ("AUTH PLAIN a b", "501 5.5.4"),
        ("AUTH CRAM-MD5", "504 5.5.4"),
        ("AUTH PLAIN AGEAYg", "501 5.5.2"),
        ("AUTH PLAIN " + "A" * 12288, "500 5.5.2"),
    ],
)
def test_a_login_that_cannot_be_is_refused_and_never_shown(said: str, code: str) -> None:
    server = Server(EVERYTHING)
    server.says("EHLO a\r\n")
    assert codes(server.says(said + "\r\n")) == [code]
    assert isinstance(refused := server.events[-1], Refused)
    assert refused.line == b""


@pytest.mark.parametrize(
    ("response", "code"),
    [
        ("*", "501 5.0.0"),
        ("Ym9", "501 5.5.2"),
        ("A" * 12288, "500 5.5.6"),
    ],
)
def test_a_failed_response_ends_the_login(response: str, code: str) -> None:
    server = Server(EVERYTHING)
    server.says("EHLO a\r\nAUTH LOGIN\r\n")
    assert codes(server.says(response + "\r\n")) == [code]
    assert server.smtp.state is State.READY


def test_no_login_within_a_transaction() -> None:
    server = Server(EVERYTHING)
    server.says("EHLO a\r\nMAIL FROM:<>\r\n")
    assert codes(server.says("AUTH PLAIN\r\n")) == ["503 5.5.1"]


def test_starttls_ends_the_connection_object() -> None:
    server = Server(EVERYTHING)
    server.says("EHLO a\r\n")
    assert codes(server.says("STARTTLS\r\n")) == ["220 2.0.0"]
    assert server.smtp.state is State.TLS
    assert server.smtp.next_event() == Closed()
    with pytest.raises(LocalProtocolError):
        server.smtp.receive_data(b"EHLO a\r\n")


# CVE-2011-0411
def test_plaintext_behind_starttls_is_never_obeyed() -> None:
    server = Server(EVERYTHING)
    server.says("EHLO a\r\n")
    assert codes(server.says("STARTTLS\r\nRSET\r\n")) == ["554 5.5.0"]
    assert server.events[-2:] == [StartTls(injected=True), Closed()]


@pytest.mark.parametrize("said", ["DATA\r\nx", "AUTH LOGIN\r\nYQ==\r\n"])
def test_what_is_sent_before_the_answer_ends_the_conversation(said: str) -> None:
    server = Server(EVERYTHING)
    server.says("EHLO a\r\n" + (ENVELOPE if said.startswith("DATA") else ""))
    assert codes(server.says(said)) == ["554 5.5.0"]
    assert isinstance(server.events[-1], Closed)


def test_a_response_that_is_followed_by_anything_ends_the_conversation() -> None:
    server = Server(EVERYTHING)
    server.says("EHLO a\r\nAUTH LOGIN\r\n")
    assert codes(server.says("Ym9i\r\nc2VjcmV0\r\n")) == ["554 5.5.0"]


def test_commands_behind_ehlo_are_tolerated_unless_told_otherwise() -> None:
    assert codes(Server().says("EHLO a\r\nNOOP\r\n"))[-1] == "250 2.0.0"
    strict = Server(limits=Limits(strict_pipelining=True))
    assert codes(strict.says("EHLO a\r\nNOOP\r\n")) == ["554 5.5.0"]
    assert isinstance(strict.events[-1], Closed)


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00", b"\x16\r\n"])
def test_who_speaks_something_else_is_sent_away(said: bytes) -> None:
    server = Server()
    assert codes(server.says(said)) == ["554 5.5.1"]
    assert isinstance(server.events[-1], Closed)
    assert server.says("NOOP\r\n") == []


def test_a_refusal_with_421_closes() -> None:
    server = Server()
    server.otherwise[Refused] = [reply(421, 7, 0, "too many errors")]
    assert codes(server.says("FROB\r\nNOOP\r\n")) == ["421 4.7.0"]
    assert isinstance(server.events[-1], Closed)


def test_a_refused_greeting_is_the_end() -> None:
    smtp = ServerConnection()
    smtp.send(reply(554, 7, 1, "not you"))
    assert smtp.next_event() == Closed()


def test_after_starttls_nobody_is_greeted_again_and_nothing_is_known() -> None:
    smtp = ServerConnection(greeted=True)
    assert smtp.replies_owed == 0
    assert smtp.next_event() is Wait.FOR_DATA
    smtp.receive_data(b"MAIL FROM:<a@b.example>\r\n")
    event = smtp.next_event()
    assert isinstance(event, Refused)
    assert event.reply.code == 503
    smtp.send(event.reply)
    smtp.receive_data(b"EHLO a\r\n")
    assert isinstance(smtp.next_event(), Hello)


def test_an_early_talker_is_noticed() -> None:
    smtp = ServerConnection()
    assert not smtp.has_buffered
    smtp.receive_data(b"EHLO a\r\n")
    assert smtp.has_buffered
    assert smtp.next_event() is Wait.FOR_REPLY


@pytest.mark.parametrize(
    "said",
    ["", "NOO", f"EHLO a\r\n{ENVELOPE}DATA\r\n", "EHLO a\r\n" + ENVELOPE + "BDAT 9\r\n"],
)
def test_the_end_of_the_stream_ends_the_conversation(said: str) -> None:
    server = Server()
    server.says(said)
    server.smtp.receive_eof()
    assert server.answers() == []
    assert isinstance(server.events[-1], Closed)
    with pytest.raises(LocalProtocolError):
        server.smtp.receive_data(b"x")


def test_what_came_before_the_end_of_the_stream_is_still_answered() -> None:
    server = Server()
    server.smtp.receive_data(b"NOOP\r\nQUIT\r\n")
    server.smtp.receive_eof()
    assert codes(server.answers()) == ["250 2.0.0", "221 2.0.0"]


def test_a_reply_that_cannot_be_is_a_bug_and_changes_nothing() -> None:
    smtp = ServerConnection()
    with pytest.raises(LocalProtocolError, match="354 cannot answer CONNECT"):
        smtp.send(Reply(354, None, ("what?",)))
    with pytest.raises(LocalProtocolError, match="reply line of"):
        smtp.send(Reply(220, None, ("x" * 600,)))
    with pytest.raises(LocalProtocolError, match="nobody said hello"):
        smtp.hello_reply("mx.example")
    smtp.send(Reply(220, None, ("mx.example",)))
    with pytest.raises(LocalProtocolError, match="250 answers nothing"):
        smtp.send(Reply(250, None, ("OK",)))
    smtp.receive_data(b"FROB\r\n")
    assert isinstance(smtp.next_event(), Refused)
    with pytest.raises(LocalProtocolError, match="250 cannot answer NONSENSE"):
        smtp.send(Reply(250, None, ("OK",)))
    assert smtp.send(Reply(500, None, ("no",))) == b"500 no\r\n"


def test_a_long_challenge_is_no_long_reply() -> None:
    assert len(bytes(challenge(b"x" * 9000))) == 12000 + 6
    with pytest.raises(LocalProtocolError):
        bytes(challenge(b"x" * 9300))
