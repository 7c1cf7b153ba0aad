"""What a milter says, for any octets; and what becomes of a header, for anything it asks for."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import hypothesis.strategies as st
from hypothesis import example, given

from elemta.message import HeaderScanner
from elemta.plugins import AddHeader, Change, RemoveHeader, rewritten
from elemta.plugins.milter import wire
from elemta.plugins.milter.fields import Fields
from elemta.plugins.milter.wire import Actions, Inbox, MilterError, Steps
from fuzz.profiles import examples
from fuzz.strategies import CUTS, pieces

if TYPE_CHECKING:
    from collections.abc import Callable

STRING: Final = st.binary(max_size=40).map(lambda octets: octets.replace(b"\0", b""))
BODY: Final = st.binary(max_size=100)
NUMBER: Final = st.integers(0, 2**32 - 1)
WORDS: Final = st.lists(STRING, max_size=3).map(tuple)


def of_one(kind: type[wire.Packet]) -> st.SearchStrategy[wire.Packet]:
    """Packets of one kind."""
    if kind is wire.Negotiate:
        return st.builds(wire.Negotiate, NUMBER, NUMBER.map(Actions), NUMBER.map(Steps))
    if kind is wire.Macros:
        values = st.lists(st.tuples(STRING, STRING), max_size=4).map(tuple)
        return st.builds(wire.Macros, st.sampled_from([b"C", b"M", b"E"]), values)
    if kind is wire.Connect:
        known = st.builds(
            wire.Connect, STRING, st.sampled_from([b"4", b"6", b"L"]), st.integers(0, 65535), STRING
        )
        return known | st.builds(wire.Connect, STRING)
    if issubclass(kind, wire.Words):
        return st.builds(kind, STRING, WORDS)
    if issubclass(kind, wire.Octets):
        return st.builds(kind, BODY)
    if issubclass(kind, wire.Placed):
        return st.builds(kind, NUMBER, STRING, STRING)
    if issubclass(kind, wire.Strings):
        return st.builds(kind, *[STRING for _ in kind.__struct_fields__])
    return st.builds(kind)


def of_all(kinds: dict[bytes, type[wire.Packet]]) -> st.SearchStrategy[list[wire.Packet]]:
    return st.lists(st.one_of([of_one(each) for each in kinds.values()]), max_size=8)


@given(packets=of_all({**wire.COMMANDS}), cuts=CUTS)
@examples(60)
def test_a_milter_reads_what_a_server_says(packets: list[wire.Packet], cuts: list[int]) -> None:
    inbox, found = Inbox(), list[wire.Packet]()
    for piece in pieces(b"".join(map(bytes, packets)), cuts):
        inbox.feed(piece)
        while (one := inbox.command()) is not None:
            found.append(one)
    assert found == packets


@given(packets=of_all({**wire.RESPONSES}), cuts=CUTS)
@examples(60)
def test_a_server_reads_what_a_milter_says(packets: list[wire.Packet], cuts: list[int]) -> None:
    inbox, found = Inbox(), list[wire.Packet]()
    for piece in pieces(b"".join(map(bytes, packets)), cuts):
        inbox.feed(piece)
        while (one := inbox.response()) is not None:
            found.append(one)
    assert found == packets


#: A letter that means something, with whatever behind it, and octets of no meaning at all.
GARBAGE: Final = st.lists(
    st.binary(max_size=30)
    | st.tuples(st.sampled_from(sorted({*wire.COMMANDS, *wire.RESPONSES})), BODY).map(
        lambda each: (1 + len(each[1])).to_bytes(4, "big") + b"".join(each)
    ),
    max_size=6,
).map(b"".join)


@given(octets=GARBAGE, cuts=CUTS)
@example(octets=b"\xff\xff\xff\xffc", cuts=[])
@example(octets=bytes(4), cuts=[])
@example(octets=b"\0\0\0\x05i\0\0\0\1", cuts=[])
@example(octets=b"\0\0\0\x012", cuts=[])
@example(octets=b"\0\0\0\x03DMi", cuts=[])
@example(octets=b"\0\0\0\x04DMi\0", cuts=[])
@example(octets=b"\0\0\0\x05Ca\0Z\0", cuts=[])
@examples(80)
def test_garbage_is_refused_however_it_is_cut(octets: bytes, cuts: list[int]) -> None:
    def read(
        parts: list[bytes], side: Callable[[Inbox], wire.Packet | None]
    ) -> tuple[list[wire.Packet], bool]:
        inbox, found = Inbox(), list[wire.Packet]()
        try:
            for part in parts:
                inbox.feed(part)
                while (one := side(inbox)) is not None:
                    found.append(one)
        except MilterError:
            return found, True
        return found, False

    for side in (Inbox.command, Inbox.response):
        assert read([octets], side) == read(list(pieces(octets, cuts)), side)


# Fields.

NAME: Final = st.sampled_from(["A", "a", "B", "Subject", "X-Long"])
VALUE: Final = st.sampled_from(["1", "2", "one\r\n two", "three\r\n\tfour", "five"])
FIELD: Final = st.tuples(NAME, VALUE)
CHANGES: Final = st.lists(
    st.builds(
        lambda each, top: AddHeader(each[0], f" {each[1]}", top, verbatim=True),
        FIELD,
        st.booleans(),
    )
    | st.builds(RemoveHeader, NAME, st.integers(0, 3)),
    max_size=4,
)
WISH: Final = st.tuples(st.sampled_from("him"), st.integers(0, 5), NAME, VALUE | st.just(""))


def read_fields(header: bytes) -> list[tuple[bytes, bytes]]:
    scanner = HeaderScanner()
    scanner.feed(header + b"\r\n")
    return scanner.fields


@given(
    fields=st.lists(FIELD, max_size=6),
    before=CHANGES,
    wishes=st.lists(WISH, max_size=6),
    spaces=st.booleans(),
)
@example(
    fields=[("A", "1")],
    before=[AddHeader("A", " 2", verbatim=True)],
    wishes=[("m", 1, "A", "")],
    spaces=True,
)
@examples(100)
def test_a_header_is_what_a_milter_has_made_of_it(
    fields: list[tuple[str, str]],
    before: list[Change],
    wishes: list[tuple[str, int, str, str]],
    spaces: bool,
) -> None:
    header = "".join(f"{name}: {value}\r\n" for name, value in fields).encode()
    shown = Fields(header, before, spaces=spaces)
    # What the milter was told is the model: a list that it changes as its library says.
    model = [(name.lower(), value.strip(b" ")) for name, value in shown.said()]
    for kind, number, name, text in wishes:
        key, value = name.lower().encode(), text.replace("\r\n", "\n").encode()
        said = b" " + value if spaces and value else value
        if kind == "h" and value:
            shown.add(name.encode(), said)
            model.append((key, value))
        elif kind == "i" and value:
            shown.insert(number, name.encode(), said)
            model.insert(max(0, number - 1), (key, value))
        elif kind == "m":
            shown.change(number, name.encode(), said)
            places = [place for place, each in enumerate(model) if each[0] == key]
            if max(1, number) <= len(places):
                place = places[max(1, number) - 1]
                model[place : place + 1] = [(key, value)] if value else []
            elif value:
                model.append((key, value))
    found = read_fields(rewritten(header, [*before, *shown.changes()]))
    wanted = [(name, value.replace(b"\n", b"")) for name, value in model]
    assert Counter(found) == Counter(wanted)
    touched = {name.lower().encode() for _, _, name, _ in wishes}
    untouched = {name for name, _ in wanted} - touched
    for left in untouched:
        assert [each for each in found if each[0] == left] == [
            each for each in wanted if each[0] == left
        ]
