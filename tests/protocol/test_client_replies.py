"""What a client makes of the replies of servers good and bad."""

from __future__ import annotations

import pytest

from elemta.protocol import (
    Broken,
    ClientConnection,
    Closed,
    Goodbye,
    Greeting,
    HelloAnswer,
    LocalProtocolError,
    Reply,
    Wait,
)
from elemta.protocol.replies import MAX_LINE, MAX_LINES


def heard(*octets: bytes) -> object:
    """What a client that waits for the greeting makes of it."""
    client = ClientConnection()
    for some in octets:
        client.receive_data(some)
    return client.next_event()


def test_a_greeting_is_read_with_its_enhanced_code() -> None:
    assert heard(b"220 mx.example ESMTP\r\n") == Greeting(Reply(220, None, ("mx.example ESMTP",)))
    assert heard(b"554 5.7.1 go away\r\n") == Greeting(Reply(554, (7, 1), ("go away",)))


@pytest.mark.parametrize(
    ("octets", "status", "lines"),
    [
        (b"554\r\n", None, ("",)),
        (b"554 \r\n", None, ("",)),
        (b"554-a\r\n554\r\n", None, ("a", "")),
        (b"554-5.1.1 a\r\n554 5.1.1 b\r\n", (1, 1), ("a", "b")),
        (b"554-a\r\n554-5.1.1 b\r\n554 5.7.0\r\n", (1, 1), ("a", "b", "")),
        (b"554 4.1.1 drifted apart\r\n", None, ("4.1.1 drifted apart",)),
        (b"554 5.1.1000 not one\r\n", None, ("5.1.1000 not one",)),
        (b"554 5.1.1x\r\n", None, ("5.1.1x",)),
        (b"554 5.110.256   wide\r\n", (110, 256), ("wide",)),
    ],
)
def test_replies_of_every_legal_shape_are_read(
    octets: bytes, status: tuple[int, int] | None, lines: tuple[str, ...]
) -> None:
    assert heard(octets) == Greeting(Reply(554, status, lines))


@pytest.mark.parametrize(
    ("octets", "line"),
    [
        ("554 gr\u00fc\u00dfe\r\n".encode(), "gr\u00fc\u00dfe"),
        (b"554 latin \xfc\r\n", r"latin \xfc"),
        (b"554 \x1b[2J\x00\r\n", r"\x1b[2J\x00"),
        (b"554 a\rb\r\n", r"a\rb"),
        ("554 \u202egnorw\r\n".encode(), r"\u202egnorw"),
        (b"554 " + b"x" * 1000 + b"\r\n", "x" * 495 + "\u2026"),
    ],
)
def test_any_text_becomes_printable(octets: bytes, line: str) -> None:
    assert heard(octets) == Greeting(Reply(554, None, (line,)))


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"220 mx\n", "bare LF in a reply"),
        (b"\r\n", "no reply code: b'\\r\\n'"),
        (b"22\r\n", "no reply code: b'22\\r\\n'"),
        (b"22x a\r\n", "no reply code: b'22x a\\r\\n'"),
        (b"2200 a\r\n", "no reply code: b'2200 a\\r\\n'"),
        (b"220\ra\r\n", "no reply code: b'220\\ra\\r\\n'"),
        (b"220\ta\r\n", "no reply code: b'220\\ta\\r\\n'"),
        (b"199 a\r\n", "no reply code: b'199 a\\r\\n'"),
        (b"600 a\r\n", "no reply code: b'600 a\\r\\n'"),
        (b"SSH-2.0-x\r\n", "no reply code: b'SSH-2.0-x\\r\\n'"),
        (b"220-a\r\n250 b\r\n", "reply with two codes: b'250 b\\r\\n'"),
        (b"354 a\r\n", "354 to CONNECT in state GREETING"),
        (b"x" * MAX_LINE, f"reply line over {MAX_LINE} octets"),
        (b"220 " + b"x" * (MAX_LINE - 5) + b"\r\n", f"reply line over {MAX_LINE} octets"),
        (b"220-x\r\n" * MAX_LINES, f"reply of more than {MAX_LINES} lines"),
    ],
)
def test_what_is_no_reply_ends_the_conversation(octets: bytes, reason: str) -> None:
    client = ClientConnection()
    client.receive_data(octets)
    assert client.next_event() == Broken(reason)
    assert client.next_event() == Closed()
    with pytest.raises(LocalProtocolError):
        client.quit()


@pytest.mark.parametrize("text", ["5.1.1 no", "2.0.0 yes", "", "x" * 80, "5.1.1 " + "x" * 80])
def test_a_reply_that_is_remembered_is_the_one_that_is_read(text: str) -> None:
    for code in (220, 554, 220, 450, 554):
        octets = f"{code} {text}\r\n".encode()
        status, rest = None, text
        if text.startswith(f"{code // 100}."):
            status, rest = (int(text[2]), int(text[4])), text[6:]
        assert heard(octets) == Greeting(Reply(code, status, (rest,)))


def test_replies_to_the_limits_are_read() -> None:
    longest = b"554 " + b"x" * (MAX_LINE - 6) + b"\r\n"
    assert isinstance(heard(longest), Greeting)
    assert isinstance(heard(b"554-x\r\n" * (MAX_LINES - 1), b"554 x\r\n"), Greeting)


def test_a_reply_may_come_in_any_pieces() -> None:
    client = ClientConnection()
    for octet in b"220-a\r\n220 b\r":
        client.receive_data(bytes([octet]))
        assert client.next_event() is Wait.FOR_DATA
    client.receive_data(b"\n")
    assert client.next_event() == Greeting(Reply(220, None, ("a", "b")))


def test_421_ends_the_conversation_asked_or_unasked() -> None:
    assert heard(b"421 4.3.2 shutting down\r\n") == Goodbye(Reply(421, (3, 2), ("shutting down",)))
    client = ClientConnection()
    client.receive_data(b"220 a\r\n421 b\r\n")
    client.next_event()
    assert client.next_event() == Goodbye(Reply(421, None, ("b",)))
    assert client.next_event() == Closed()


def test_an_end_of_the_stream_is_told_when_all_before_it_was() -> None:
    client = ClientConnection()
    client.receive_data(b"220 a\r\n220-half")
    client.receive_eof()
    assert isinstance(client.next_event(), Greeting)
    assert client.next_event() == Closed()
    assert client.next_event() == Closed()
    with pytest.raises(LocalProtocolError, match="after the end"):
        client.receive_data(b"more")


def announced(*lines: str) -> HelloAnswer:
    client = ClientConnection(greeted=True)
    client.hello("me.example")
    *first, last = ("mx.example", *lines)
    client.receive_data("".join(f"250-{line}\r\n" for line in first).encode())
    client.receive_data(f"250 {last}\r\n".encode())
    answer = client.next_event()
    assert isinstance(answer, HelloAnswer)
    assert client.extensions == answer.extensions
    return answer


def test_extensions_are_read_in_any_case() -> None:
    offered = announced(
        "pipelining", "Size 1000", "8BITMIME", "SMTPUTF8", "DSN", "CHUNKING", "STARTTLS",
        "ENHANCEDSTATUSCODES", "AUTH plain LOGIN", "LIMITS RcptMax=50 MAILMAX=7 ODD BAD=x",
        "X-FOO a b", "MT-Priority MIXER",
    ).extensions  # fmt: skip
    assert offered.pipelining
    assert offered.size == 1000
    assert offered.eight_bit
    assert offered.smtputf8
    assert offered.dsn
    assert offered.chunking
    assert offered.starttls
    assert offered.mt_priority
    assert offered.enhanced_status_codes
    assert offered.auth == {"PLAIN", "LOGIN"}
    assert offered.limits == {"RCPTMAX": 50, "MAILMAX": 7}
    assert offered.keywords["X-FOO"] == "a b"


@pytest.mark.parametrize(
    ("line", "size"),
    [
        ("SIZE", 0),
        ("SIZE 0", 0),
        ("SIZE many", 0),
        (f"SIZE {'9' * 21}", 0),
        ("SIZE 5", 5),
        ("X", None),
    ],
)
def test_a_size_without_a_number_is_no_limit(line: str, size: int | None) -> None:
    assert announced(line).extensions.size == size


def test_mechanisms_are_found_beside_the_old_way_to_write_them() -> None:
    offered = announced("AUTH=LOGIN PLAIN", "AUTH PLAIN XOAUTH2").extensions
    assert offered.auth == {"LOGIN", "PLAIN", "XOAUTH2"}


def test_nothing_is_announced_by_the_first_line() -> None:
    client = ClientConnection(greeted=True)
    client.hello("me.example")
    client.receive_data(b"250 PIPELINING\r\n")
    answer = client.next_event()
    assert isinstance(answer, HelloAnswer)
    assert not answer.extensions.pipelining
