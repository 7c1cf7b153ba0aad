"""What plugins may change, and what becomes of a header by it."""

from __future__ import annotations

from email.header import decode_header

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from elemta.message import HeaderScanner
from elemta.plugins import (
    AddHeader,
    AddRecipient,
    Change,
    Prioritise,
    Redirect,
    RemoveHeader,
    RemoveRecipient,
    Tag,
    Via,
    rewritten,
)
from elemta.plugins.changes import LONGEST
from elemta.protocol import parse_mailbox
from elemta.queue import Priority

HEADER = b"""\
Received: by one\r
Subject: a long\r
\tone\r
received: by two\r
From : x@y.example\r
RECEIVED: by three\r
no field\r
X-Last: 1\r
"""

ANN = parse_mailbox("ann@here.example")


def test_a_field_is_added_at_the_top_or_below_the_last() -> None:
    changes = [AddHeader("X-A", "1"), AddHeader("X-B", "2"), AddHeader("X-C", "3", top=False)]
    assert rewritten(HEADER, changes) == b"X-B: 2\r\nX-A: 1\r\n" + HEADER + b"X-C: 3\r\n"


def test_what_is_added_stands_above_our_own_trace() -> None:
    assert (
        rewritten(b"A: b\r\n", [AddHeader("X", "1")], b"Received: by us\r\n")
        == b"X: 1\r\nReceived: by us\r\nA: b\r\n"
    )


@pytest.mark.parametrize(
    ("change", "gone"),
    [
        (RemoveHeader("Received"), [b"Received: by one\r\n", b"received: by two\r\n",
                                    b"RECEIVED: by three\r\n"]),
        (RemoveHeader("rEceived", 2), [b"received: by two\r\n"]),
        (RemoveHeader("received", 4), []),
        (RemoveHeader("subject"), [b"Subject: a long\r\n\tone\r\n"]),
        (RemoveHeader("From"), [b"From : x@y.example\r\n"]),
        (RemoveHeader("X-None"), []),
        (RemoveHeader("no"), []),
    ],
)  # fmt: skip
def test_a_field_is_removed_with_its_folds_by_its_number(
    change: RemoveHeader, gone: list[bytes]
) -> None:
    wanted = HEADER
    for each in gone:
        wanted = wanted.replace(each, b"")
    assert rewritten(HEADER, [change]) == wanted


def test_numbers_are_those_of_the_client_whatever_was_removed_and_added_before() -> None:
    changes = [
        RemoveHeader("received", 1),
        AddHeader("Received", "by a plugin"),
        RemoveHeader("received", 2),
    ]
    assert rewritten(HEADER, changes).count(b"by ") == 2
    assert b"by three" in rewritten(HEADER, changes)


def test_what_removes_all_of_a_name_removes_what_was_added_before_it() -> None:
    add, remove = AddHeader("X-Spam", "no"), RemoveHeader("x-spam")
    below = AddHeader("X-Spam", "no", top=False)
    assert rewritten(b"", [add, below, remove]) == b""
    assert rewritten(b"", [remove, add]) == b"X-Spam: no\r\n"
    assert rewritten(b"", [add, RemoveHeader("x-spam", 1)]) == b"X-Spam: no\r\n"


def test_a_header_may_be_empty_and_may_become_it() -> None:
    assert rewritten(b"", [AddHeader("X", "1", top=False)], b"R: u\r\n") == b"R: u\r\nX: 1\r\n"
    assert rewritten(b"A: b\r\n", [RemoveHeader("a")]) == b""


def test_a_last_line_without_an_end_gets_one_before_another_follows() -> None:
    below = AddHeader("X", "1", top=False)
    assert rewritten(b"A: b", [below]) == b"A: b\r\nX: 1\r\n"
    assert rewritten(b"A: b", [AddHeader("X", "1")]) == b"X: 1\r\nA: b"
    assert rewritten(b"A: b", [RemoveHeader("a"), below]) == b"X: 1\r\n"


def test_a_field_is_of_ascii_unless_its_client_takes_more() -> None:
    change = AddHeader("X-Verdict", "gefährlich")
    assert rewritten(b"", [change], utf8=True) == "X-Verdict: gefährlich\r\n".encode()
    field = rewritten(b"", [change])
    assert field.isascii()
    ((octets, charset),) = decode_header(field.decode().partition(": ")[2])
    assert (octets.decode(charset), charset) == ("gefährlich", "utf-8")
    raw = AddHeader("X", " gef\r\n ährlich", verbatim=True)
    assert rewritten(b"", [raw]).isascii()
    assert rewritten(b"", [raw], utf8=True) == "X: gef\r\n ährlich\r\n".encode()


# What stands in a header that somebody else wrote, and what plugins may do with it.

LINES = st.lists(
    st.one_of(
        st.sampled_from([b"A: 1", b"a:2", b"B : x", b" fold", b"\tfold", b"no field", b":", b"A"]),
        st.binary(max_size=20).map(lambda line: line.replace(b"\r", b"").replace(b"\n", b"")),
        st.sampled_from([b"x\ny", b"A\x0b: b", b"\x85: \xe9"]),
    ).filter(lambda line: line != b""),
    max_size=12,
)
NAMES = st.sampled_from(["A", "b", "X-New", "no", "C"])
VALUES = st.text(
    st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=120
)
CHANGES = st.lists(
    st.one_of(
        st.builds(AddHeader, NAMES, VALUES, st.booleans()),
        st.builds(RemoveHeader, NAMES, st.integers(0, 4)),
    ),
    max_size=6,
)


def scanned(header: bytes) -> list[tuple[bytes, bytes]]:
    scanner = HeaderScanner()
    scanner.feed(header)
    return scanner.fields


def units(header: bytes) -> list[bytes]:
    """Lines with what folds them."""
    found: list[bytes] = []
    for line in header.split(b"\r\n")[:-1]:
        if found and line[:1] in (b" ", b"\t"):
            found[-1] += line + b"\r\n"
        else:
            found.append(line + b"\r\n")
    return found


@given(LINES, CHANGES, st.booleans())
@example([b"A: 1", b"a: 2"], [RemoveHeader("A", 1), RemoveHeader("a", 2)], False)
@example([b"B", b" : x"], [RemoveHeader("B")], False)
def test_what_is_not_changed_is_as_it_was_and_nothing_is_injected(
    lines: list[bytes], changes: list[Change], utf8: bool
) -> None:
    header = b"".join(line + b"\r\n" for line in lines)
    trace = b"Received: by us\r\n"
    found = rewritten(header, changes, trace, utf8=utf8)
    above, _, rest = found.partition(trace)
    # What is left of the client's stands there in order, octet for octet.
    whole = units(header)
    gone: set[int] = set()
    for change in changes:
        if isinstance(change, RemoveHeader):
            wanted = change.name.lower().encode()
            named = [n for n, each in enumerate(whole) if [wanted] == [f[0] for f in scanned(each)]]
            gone.update(named if change.number == 0 else named[change.number - 1 : change.number])
    left = b"".join(each for n, each in enumerate(whole) if n not in gone)
    assert rest.startswith(left)
    # What was added is in fields of its own: at most one for each, and of that name.
    below = rest.removeprefix(left)
    added = [each for each in changes if isinstance(each, AddHeader)]
    names = {each.name.lower().encode() for each in added}
    for part in (above, below):
        assert all(name in names for name, _ in scanned(part))
        assert len(units(part)) == len(scanned(part))
    assert len(units(above)) + len(units(below)) <= len(added)
    if not utf8 and header.isascii():
        assert found.isascii()
    assert b"\r\n\r\n" not in found
    assert all(len(line) <= 998 for line in (above + below).split(b"\r\n"))


@given(st.text(max_size=200), st.booleans(), st.booleans())
def test_no_value_becomes_two_fields(value: str, utf8: bool, verbatim: bool) -> None:
    try:
        change = AddHeader("X", value, verbatim=verbatim)
    except ValueError:
        return
    (field,) = scanned(change.octets(utf8=utf8))
    assert field[0] == b"x"
    assert change.octets(utf8=utf8).endswith(b"\r\n")


@pytest.mark.parametrize("name", ["", "a b", "a:", "ä", "x" * 78, "a\r\nb"])
def test_what_is_no_name_of_a_field_is_refused_where_it_is_made(name: str) -> None:
    with pytest.raises(ValueError, match="no name of a field"):
        AddHeader(name, "x")
    with pytest.raises(ValueError, match="no name of a field"):
        RemoveHeader(name)


@pytest.mark.parametrize("value", ["a\r\nBcc: x", "a\nb", "a\rb", "a\0b", "x" * (LONGEST + 1)])
def test_what_is_no_value_of_a_field_is_refused_where_it_is_made(value: str) -> None:
    with pytest.raises(ValueError, match="the field X"):
        AddHeader("X", value)


def test_other_values_that_mean_nothing_are_refused_too() -> None:
    with pytest.raises(ValueError, match="no number"):
        RemoveHeader("X", -1)
    for word in ("", "two words", "é", "x" * 65):
        with pytest.raises(ValueError, match="no tag"):
            Tag(word)
    with pytest.raises(ValueError, match="no targets"):
        Via(())
    with pytest.raises(ValueError, match="nonsense"):
        Via(("nonsense://x",))
    with pytest.raises(ValueError, match="maildir"):
        Via(("maildir", "mx.example"))


def test_each_change_says_what_it_does() -> None:
    bob = parse_mailbox("bob@far.example")
    told = [
        str(each)
        for each in (
            AddHeader("X-A", "secret"), RemoveHeader("X-B", 2), AddRecipient(ANN),
            RemoveRecipient(ANN), Redirect(ANN, bob), Prioritise(Priority.HIGH), Tag("t"),
            Via(("smtp://mx.example:25",)), Via(("maildir",), ANN),
        )
    ]  # fmt: skip
    assert told == [
        "add header X-A",
        "remove header X-B",
        "add recipient ann@here.example",
        "remove recipient ann@here.example",
        "redirect ann@here.example to bob@far.example",
        "priority high",
        "tag t",
        "route by smtp://mx.example:25",
        "route by maildir for ann@here.example",
    ]
