from __future__ import annotations

import pytest

from elemta.protocol.framing import BareNewline, Checks, Counted, Dots, Fault, Lines


def test_a_line_that_began_before_content_is_found_behind_it() -> None:
    lines = Lines()
    lines.feed(b"abcde\r")
    assert lines.next_line(100) is None
    assert lines.take(5) == b"abcde"
    lines.feed(b"\nNOOP\r\n")
    assert lines.next_line(100) == b""
    assert lines.next_line(100) == b"NOOP"


def test_a_line_may_be_of_the_limit_and_no_longer() -> None:
    lines = Lines()
    lines.feed(b"x" * 8 + b"\r\n" + b"x" * 9 + b"\r\nok\r\n")
    assert [lines.next_line(10) for _ in range(4)] == [b"x" * 8, Fault.LINE_TOO_LONG, b"ok", None]


def test_an_endless_line_costs_no_memory() -> None:
    lines = Lines()
    for _ in range(100):
        lines.feed(b"x" * 1000)
        assert lines.next_line(100) is None
        assert len(lines) <= 100
    assert not lines.starts_with(b"X")
    lines.feed(b"\r\nNOOP\r\n")
    assert lines.next_line(100) is Fault.LINE_TOO_LONG
    assert lines.starts_with(b"NOOP")


def test_a_limit_can_be_looser_for_some_lines() -> None:
    lines = Lines()
    lines.feed(b"x" * 50 + b"\r\n")
    assert lines.next_line(100) == b"x" * 50


def test_a_piece_without_dots_is_passed_on_as_it_is() -> None:
    checks = Checks(10**6)
    dots = Dots(checks)
    dots.feed(b"x")
    piece = b"hello\r\nworld"
    counted = Counted(checks, 100, last=False)
    assert counted.feed(piece) is piece
    assert counted.wanted == 100 - len(piece)


@pytest.mark.parametrize("newline", BareNewline)
def test_clean_content_passes_in_any_pieces(newline: BareNewline) -> None:
    content = b"a\r\n\r\n.b\r\n"
    for cut in range(len(content)):
        counted = Counted(checks := Checks(100, newline=newline), len(content), last=True)
        assert counted.feed(content[:cut]) + counted.feed(content[cut:]) == content
        assert checks.fault is None


def test_the_gravest_fault_is_told() -> None:
    checks = Checks(10, 5)
    checks.feed(b"12345678\r\n\r\n")
    assert checks.fault is Fault.LINE_TOO_LONG
    assert checks.feed(b"\n") == b""
    assert checks.fault is Fault.BARE_NEWLINE


@pytest.mark.parametrize("newline", BareNewline)
@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"a\r\n\0.\r\nMAIL FROM:<b@c.example>\r\n", Fault.LEADING_NUL),
        (b"\0.\r\nMAIL FROM:<b@c.example>\r\n", Fault.LEADING_NUL),
        (b"a\r\n\0\0.\0\r\n", Fault.LEADING_NUL),
        (b"a\r\n..\0\r\n", None),
        (b"a\0.\r\n", None),
    ],
)
def test_no_dot_is_hidden_from_those_who_leave_nuls_out(
    content: bytes, fault: Fault | None, newline: BareNewline
) -> None:
    for cut in range(len(content)):
        dots = Dots(checks := Checks(100, newline=newline))
        dots.feed(content[:cut])
        dots.feed(content[cut:] + b".\r\n")
        assert checks.fault is fault


def test_a_limit_is_one_of_octets() -> None:
    for size, fault in ((10, None), (9, Fault.TOO_BIG)):
        checks = Checks(size)
        Dots(checks).feed("üüüü\r\n.\r\n".encode())
        assert checks.fault is fault


@pytest.mark.parametrize(
    ("content", "want"),
    [
        (b"a\rb\nc\r\n", b"a\r\nb\r\nc\r\n"),
        (b"a\r\r\n", b"a\r\n\r\n"),
        (b"\n\r\r\n", b"\r\n\r\n\r\n"),
        (b"\n.\n\r\n", b"\r\n.\r\n\r\n"),
    ],
)
def test_normalizing_ends_each_line_once(content: bytes, want: bytes) -> None:
    checks = Checks(100, newline=BareNewline.NORMALIZE)
    assert Dots(checks).feed(content + b".\r\n") == (want, b"")
    assert checks.fault is None


def test_a_last_line_without_an_end_has_room_for_one() -> None:
    for size, fault in ((998, None), (999, Fault.LINE_TOO_LONG)):
        checks = Checks(2000)
        Counted(checks, size, last=True).feed(b"x" * size)
        assert checks.fault is fault
