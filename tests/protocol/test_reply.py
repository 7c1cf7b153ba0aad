from __future__ import annotations

import msgspec
import pytest

from elemta.protocol import LocalProtocolError, Outcome, Reply, reply


def test_a_reply_is_written_line_by_line() -> None:
    assert bytes(reply(250, 1, 0, "sender OK")) == b"250 2.1.0 sender OK\r\n"
    assert bytes(Reply(354, None, ("go ahead",))) == b"354 go ahead\r\n"
    assert bytes(Reply(250, None, ("a", "b", ""))) == b"250-a\r\n250-b\r\n250 \r\n"
    assert bytes(reply(550, 1, 1, "a", "ü")) == "550-5.1.1 a\r\n550 5.1.1 ü\r\n".encode()


def test_the_class_of_an_enhanced_code_is_that_of_the_code() -> None:
    assert reply(450, 1, 1, "x").enhanced == "4.1.1"
    assert reply(550, 1, 1, "x").enhanced == "5.1.1"
    assert Reply(550, None, ("x",)).enhanced is None


def test_a_reply_is_shown_in_one_line() -> None:
    assert str(reply(550, 1, 1, "no such", "user")) == "550 5.1.1 no such user"
    assert str(Reply(250, None, ("OK",))) == "250 OK"
    assert reply(550, 1, 1, "no such", "user").text == "no such user"


def test_the_first_digit_tells_what_a_reply_does() -> None:
    codes = (220, 354, 451, 550)
    assert [Reply(code, None, ("x",)).outcome for code in codes] == list(Outcome)


@pytest.mark.parametrize("text", ["a\r\nb", "a\nb", "a\x00b", "a\x1b[2Jb", "a\x85b", "a\tb"])
def test_text_that_would_break_the_framing_cannot_be_a_reply(text: str) -> None:
    with pytest.raises(LocalProtocolError, match="unprintable"):
        Reply(550, None, (text,))


@pytest.mark.parametrize("code", [0, 199, 600, -250])
def test_there_are_no_other_codes(code: int) -> None:
    with pytest.raises(LocalProtocolError, match="no such reply code"):
        Reply(code, None, ("x",))


def test_a_reply_has_a_line() -> None:
    with pytest.raises(LocalProtocolError, match="at least one line"):
        Reply(250, None, ())


@pytest.mark.parametrize("lines", [("x" * 506,), ("a", "x" * 506), ("x" * 506, "a"), ("ü" * 253,)])
def test_a_remote_reply_may_be_longer_than_what_we_write(lines: tuple[str, ...]) -> None:
    with pytest.raises(LocalProtocolError, match="at most 512"):
        bytes(Reply(250, None, (*lines, "x" * 507)))
    assert bytes(Reply(250, None, lines)).startswith(b"250")
    assert Reply(250, None, ("x" * 4000,)).text == "x" * 4000


def test_a_reply_that_was_written_is_the_same_value() -> None:
    one, two = reply(250, 0, 0, "OK"), reply(250, 0, 0, "OK")
    assert bytes(one) is bytes(one)
    assert one == two
    assert msgspec.json.encode(one) == msgspec.json.encode(two)
    assert msgspec.json.decode(msgspec.json.encode(one), type=Reply) == one
