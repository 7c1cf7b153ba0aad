from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta.message import HeaderFault, HeaderScanner, split, without

HEADER = (
    b"Received: from a.example\r\n"
    b"\tby b.example; Fri, 15 Jan 2027 08:00:00 +0000\r\n"
    b"received: from c.example by a.example; Fri, 15 Jan 2027 07:59:00 +0000\r\n"
    b"Received-SPF: pass\r\n"
    b"Subject: one\r\n"
    b" two\r\n"
    b"\tthree \r\n"
    b"subject: again\r\n"
)
MESSAGE = HEADER + b"\r\nReceived: not a field\r\n\r\nbody\r\n"


def scanned(content: bytes, **limits: int) -> HeaderScanner:
    scanner = HeaderScanner(**limits)
    scanner.feed(content)
    return scanner


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 4096])
def test_the_header_is_found_however_the_message_is_cut(size: int) -> None:
    scanner = HeaderScanner()
    for start in range(0, len(MESSAGE), size):
        scanner.feed(MESSAGE[start : start + size])
    assert scanner.done
    assert scanner.header == HEADER
    assert scanner.hops == scanner.hops == 2
    assert scanner.fault is None


def test_fields_are_unfolded() -> None:
    scanner = scanned(MESSAGE)
    assert scanner.first(b"subject") == b"one two\tthree"
    assert scanner.first(b"from") is None
    assert scanner.has(b"received-spf")
    assert not scanner.has(b"from")
    assert [name for name, _ in scanner.fields] == [
        *(b"received", b"received", b"received-spf"),
        *(b"subject", b"subject"),
    ]


LINES = st.lists(
    st.sampled_from(
        [
            *(b"From: a", b"FROM : b ", b"from:", b"From", b"From\t\r\n :c", b"From x: d"),
            *(b"From-Us: e", b" from: f", b"\tg", b"X: from: h", b"Fr\r\n om: i", b"From\r: j"),
            *(b"\r\n From: k", b"To: l\r\n  m \t", b"from:\r\n\r"),
        ]
    ),
    max_size=8,
)


@given(LINES, st.booleans(), st.booleans())
def test_a_field_is_found_by_name_as_if_all_were_parsed(
    lines: list[bytes], whole: bool, parsed: bool
) -> None:
    content = b"\r\n".join(lines) + (b"\r\n\r\n" if whole else b"")
    scanner, other = scanned(content), scanned(content)
    if parsed:
        assert scanner.fields is scanner.fields
    for name in (b"from", b"from-us", b"to", b"x", b"date"):
        assert scanner.named(name) == [value for each, value in other.fields if each == name]


def test_values_are_text_whatever_they_are() -> None:
    scanner = scanned(b"subject: a\r\n b\r\nSUBJECT: \xc3\xa4 \xff\r\nTo: x\r\n\r\n")
    assert scanner.values("Subject") == ["a b", "ä \ufffd"]
    assert scanner.values("From") == []


def test_lines_that_are_no_fields_are_passed_over() -> None:
    scanner = scanned(
        b" begins with a continuation: x\r\n"
        b"no colon\r\n"
        b"a name with spaces: x\r\n"
        b": no name\r\n"
        b"Received : obsolete, but a field\r\n"
        b"X-\xc3\xa4: not ASCII\r\n"
        b"A:b:c\r\n"
        b"B:\r\n"
        b"\r\n"
    )
    assert scanner.fields == [
        (b"received", b"obsolete, but a field"),
        (b"a", b"b:c"),
        (b"b", b""),
    ]
    assert scanner.hops == 1


@pytest.mark.parametrize("content", [b"\r\n", b"\r\nReceived: x\r\n\r\n"])
def test_a_message_may_have_no_header(content: bytes) -> None:
    scanner = scanned(content)
    assert scanner.done
    assert scanner.header == b""
    assert scanner.fields == []
    assert scanner.hops == 0


def test_a_message_may_be_nothing_but_a_header() -> None:
    scanner = scanned(b"Received: a\r\n")
    assert scanner.hops == 1
    scanner.feed(b"Received: b\r\nFrom: c\r\n")
    assert not scanner.done
    assert scanner.hops == 2
    assert scanner.first(b"from") == b"c"
    assert scanner.fault is None


def test_what_follows_the_header_is_not_looked_at() -> None:
    scanner = scanned(b"A: b\r\n\r\n")
    scanner.feed(b"Received: x\r\n" * 100_000)
    assert scanner.header == b"A: b\r\n"
    assert scanner.hops == 0


def test_a_bare_newline_ends_nothing() -> None:
    scanner = scanned(b"A: b\n\nReceived: c\n\r\n\r\n")
    assert scanner.header == b"A: b\n\nReceived: c\n\r\n"
    assert scanner.hops == 0


@pytest.mark.parametrize("cut", [1, 11, 100])
def test_a_header_of_so_many_octets_is_too_long(cut: int) -> None:
    for size, fault in ((100, None), (99, HeaderFault.TOO_LONG)):
        scanner = HeaderScanner(max_octets=size)
        content = b"A: " + b"b" * 95 + b"\r\n\r\nbody"
        for start in range(0, len(content), cut):
            scanner.feed(content[start : start + cut])
        assert scanner.done
        assert scanner.fault is fault
        assert len(scanner.header) == size


def test_a_header_without_end_takes_no_more_memory_than_it_may() -> None:
    scanner = HeaderScanner(max_octets=1000)
    for _ in range(1000):
        scanner.feed(b"x" * 100)
    assert scanner.done
    assert scanner.fault is HeaderFault.TOO_LONG
    assert len(scanner.header) == 1000


def test_a_header_of_so_many_lines_is_too_long() -> None:
    for lines, fault in ((10, None), (11, HeaderFault.TOO_MANY_LINES)):
        assert scanned(b"A: b\r\n" * lines + b"\r\n", max_lines=10).fault is fault
        assert scanned(b"A: b\r\n" * lines, max_lines=10).fault is fault


def test_a_message_is_split_where_its_header_ends() -> None:
    assert split(MESSAGE) == (HEADER, MESSAGE[len(HEADER) :])
    assert split(b"\r\nbody") == (b"", b"\r\nbody")
    assert split(b"A: b\r\n") == (b"A: b\r\n", b"")


def test_fields_are_removed_with_all_their_lines() -> None:
    assert without(HEADER, b"received") == HEADER[HEADER.index(b"Received-SPF") :]
    assert without(HEADER, b"subject", b"received-spf") == HEADER[: HEADER.index(b"Received-SPF")]
    assert without(HEADER, b"bcc") == HEADER
    assert without(HEADER) == HEADER


def test_a_field_that_is_not_there_is_not_found_whether_its_name_is_or_not() -> None:
    scanner = HeaderScanner()
    scanner.feed(b"Subject: about MT-Priority: 4\r\n\r\n")
    assert scanner.first(b"x-other") is None
    assert scanner.first(b"mt-priority") is None
    assert scanner.first(b"subject") == b"about MT-Priority: 4"
