from __future__ import annotations

import os
import pty
import termios
from contextlib import aclosing

import trio

from elemta.cli.monitor.keys import Keys, pressed, telling


def test_what_a_terminal_sends_becomes_keys() -> None:
    for octets, keys in (
        (b"q", ["q"]),
        (b"\x1b[A\x1bOBj", ["up", "down", "j"]),
        (b"\x1b[5~\x1b[6~\x1b[H\x1b[4~", ["page up", "page down", "home", "end"]),
        (b"\r\x7f\x1b", ["enter", "backspace", "escape"]),
        ("ü€".encode(), ["ü", "€"]),
        (b"\x1b[1;5C\x00\x01", []),  # a key that means nothing here
        (b"\xff", ["\ufffd"]),
    ):
        assert list(Keys().receive(octets)) == keys, octets


def test_a_sign_may_come_in_two_pieces() -> None:
    keys = Keys()
    assert list(keys.receive(b"\xc3")) == []
    assert list(keys.receive(b"\xbc")) == ["ü"]


async def test_keys_are_told_as_they_are_pressed_and_the_terminal_is_put_back() -> None:
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    with telling(theirs):
        assert not termios.tcgetattr(theirs)[3] & (termios.ICANON | termios.ECHO)
        assert termios.tcgetattr(theirs)[3] & termios.ISIG  # Ctrl-C stays what it is
        found: list[str] = []
        os.write(ours, b"s\x1b[A")
        with trio.fail_after(60):
            async with aclosing(pressed(theirs)) as keys:
                async for key in keys:
                    found.append(key)
                    if key == "up":
                        break
        assert found == ["s", "up"]
        assert os.get_blocking(theirs)
    assert termios.tcgetattr(theirs) == before
    os.close(ours)
    assert [key async for key in pressed(theirs)] == []  # it was hung up
    os.close(theirs)
