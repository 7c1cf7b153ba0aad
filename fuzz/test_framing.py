"""Where lines and messages end, for any octets and however the network cuts them."""

from __future__ import annotations

from typing import Final

import hypothesis.strategies as st
from hypothesis import example, given

from elemta.protocol.framing import BareNewline, Checks, Counted, Dots, Fault, Lines
from fuzz import model
from fuzz.profiles import examples
from fuzz.strategies import CUTS, OCTETS, pieces

MAX_SIZE: Final = 2048
NEWLINES: Final = st.sampled_from(BareNewline)


def told(fault: Fault | None) -> str | None:
    return fault and fault.name


def wanted(content: bytes, newline: BareNewline) -> bytes:
    return content if newline is BareNewline.REJECT else model.normalized(content)


@given(
    content=OCTETS, cuts=CUTS, after=st.sampled_from([b"", b"QUIT\r\n", b".\r\n"]), newline=NEWLINES
)
@example(content=b"", cuts=[], after=b"", newline=BareNewline.REJECT)
# go-smtp never sees the end of this one
@example(content=b"a\r\r\n", cuts=[], after=b"", newline=BareNewline.REJECT)
@example(content=b"a\r\n.\r\rb", cuts=[], after=b"", newline=BareNewline.NORMALIZE)
@example(content=b"a\n.b\r\n.c", cuts=[100], after=b"", newline=BareNewline.NORMALIZE)
@example(content=b"y" * 998 + b"\r\n", cuts=[], after=b"", newline=BareNewline.REJECT)
@example(content=b"y" * 999 + b"\r\n", cuts=[], after=b"", newline=BareNewline.REJECT)
@example(content=b"x\r\n" + b"y" * 999, cuts=[999], after=b"", newline=BareNewline.REJECT)
# what ends a message for those who take a bare LF for a line end
@example(content=b"a\n.\r\nb", cuts=[100], after=b"", newline=BareNewline.NORMALIZE)
# what ends a message for those who leave NULs out
@example(content=b"a\r\n\0.\r\nb", cuts=[3, 1], after=b"", newline=BareNewline.REJECT)
@example(content=b"\0.\r\nb", cuts=[1], after=b"", newline=BareNewline.REJECT)
@example(content=b"a\n\0.\nb", cuts=[1], after=b"", newline=BareNewline.NORMALIZE)
@example(content=b"a\0.\r\n", cuts=[1], after=b"", newline=BareNewline.REJECT)
# the limit to the octet
@example(content=b"y\r\n" * 682 + b"\r\n", cuts=[], after=b"", newline=BareNewline.REJECT)
@examples(500)
def test_a_message_comes_out_as_it_went_in(
    content: bytes, cuts: list[int], after: bytes, newline: BareNewline
) -> None:
    checks = Checks(MAX_SIZE, newline=newline)
    dots = Dots(checks)
    got, rest = b"", None
    for piece in pieces(model.stuffed(content) + after, cuts):
        if rest is None:
            some, rest = dots.feed(piece)
            got += some
        else:
            rest += piece
    want = wanted(model.ended(content), newline)
    assert rest == after
    assert told(checks.fault) == model.fault(want, MAX_SIZE)
    if checks.fault is None:
        assert got == want


@given(octets=OCTETS, cuts=CUTS, other_cuts=CUTS, newline=NEWLINES)
@examples(500)
def test_how_the_stream_was_cut_never_shows(
    octets: bytes, cuts: list[int], other_cuts: list[int], newline: BareNewline
) -> None:
    octets += b"\r\n.\r\n"
    seen: list[object] = []
    for sizes in (cuts, other_cuts):
        checks = Checks(MAX_SIZE, newline=newline)
        dots = Dots(checks)
        content, fed = b"", 0
        for piece in pieces(octets, sizes):
            some, rest = dots.feed(piece)
            content += some
            fed += len(piece)
            if rest is not None:
                fed -= len(rest)
                break
        seen.append((fed, checks.fault, content if checks.fault is None else b""))
    assert seen[0] == seen[1]


@given(chunks=st.lists(st.tuples(OCTETS, CUTS), min_size=1, max_size=4), newline=NEWLINES)
@example(chunks=[(b"a\r", []), (b"\nb\r\n", [])], newline=BareNewline.REJECT)
@example(chunks=[(b"a\r", [])], newline=BareNewline.REJECT)
@example(chunks=[(b"a\r", []), (b"", [])], newline=BareNewline.NORMALIZE)
@example(chunks=[(b"y" * 998, []), (b"", [])], newline=BareNewline.REJECT)
@example(chunks=[(b"y" * 999, [])], newline=BareNewline.REJECT)
@example(chunks=[(b"y" * 999, []), (b"\r", []), (b"\n", [])], newline=BareNewline.REJECT)
@examples(800)
def test_chunks_come_out_as_they_went_in(
    chunks: list[tuple[bytes, list[int]]], newline: BareNewline
) -> None:
    checks = Checks(MAX_SIZE, newline=newline)
    got = said = b""
    for number, (content, cuts) in enumerate(chunks, 1):
        whole = number == len(chunks)
        counted = Counted(checks, len(content), last=whole)
        for piece in pieces(content, cuts) if content else [b""]:
            got += counted.feed(piece)
        assert counted.whole
        assert not counted.wanted
        said += content
        if newline is BareNewline.REJECT or whole:
            want = wanted(said, newline)
        else:  # a last CR is not judged yet
            want = wanted(said[:-1] if said.endswith(b"\r") else said, newline)
        assert told(checks.fault) == model.fault(want, MAX_SIZE, whole=whole)
    if checks.fault is None:
        assert got == wanted(said, newline)


@given(octets=OCTETS, cuts=CUTS)
@examples(500)
def test_a_line_ends_at_crlf_only(octets: bytes, cuts: list[int]) -> None:
    lines = Lines()
    got: list[bytes | Fault] = []
    for piece in pieces(octets, cuts):
        lines.feed(piece)
        while (line := lines.next_line(600)) is not None:
            got.append(line)
        assert len(lines) <= 600
    *want, _ = octets.split(b"\r\n")
    assert got == [Fault.LINE_TOO_LONG if len(line) + 2 > 600 else line for line in want]


@given(octets=OCTETS, cuts=CUTS, size=st.integers(0, 1500))
@examples(300)
def test_what_is_taken_is_not_read_again(octets: bytes, cuts: list[int], size: int) -> None:
    lines = Lines()
    taken = b""
    for piece in pieces(octets, cuts):
        lines.feed(piece)
        taken += lines.take(size - len(taken))
    assert taken == octets[:size]
    assert lines.take() == octets[size:]
    assert not lines
