"""Answers to JSON, without holding up the mail.

What is long is written entry by entry, with a checkpoint in between: a message may have a hundred
thousand recipients, and a page of a search five hundred messages. What is short is written by
msgspec as a whole: to take a page of messages apart to their last field took 80 ms, to write each
of them at once takes 3.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

import msgspec
import trio
from msgspec import Struct, inspect

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

#: Entries of a list that are written at once, where none of them has lists in it.
AT_ONCE: Final = 100
#: Octets that are written, or handed to the server, at once: a fraction of a millisecond.
PIECE: Final = 2**16
#: Parts that are written at once, however short they are.
PARTS: Final = 500

_encode: Final = msgspec.json.Encoder().encode


async def written(value: Struct) -> bytes:
    """A value as JSON. What may be left out as it has its default may be there all the same."""
    parts: list[bytes] = []
    size = number = 0
    for part in _parts(value):
        parts.append(part)
        size += len(part)
        number += 1
        if size >= PIECE or number >= PARTS:
            size = number = 0
            await trio.lowlevel.checkpoint()
    await trio.lowlevel.checkpoint()
    return b"".join(parts)


async def in_pieces(content: bytes) -> AsyncGenerator[bytes]:
    """Content, so that no piece of it takes long to be sent."""
    for start in range(0, len(content), PIECE):
        yield content[start : start + PIECE]


def _parts(value: object) -> Iterator[bytes]:
    """JSON in parts, each of which is quickly made."""
    if isinstance(value, Struct) and _is_long(value):
        mark = b"{"
        names = zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True)
        for field, name in names:
            yield mark + _encode(name) + b":"
            yield from _parts(getattr(value, field))
            mark = b","
        yield b"}"
    elif isinstance(value, (list, tuple)) and _entries_of(value) > AT_ONCE:  # pyright: ignore[reportUnknownArgumentType] # of whatever
        yield from _entries(value)  # pyright: ignore[reportUnknownArgumentType] # of whatever
    else:
        yield _encode(value)


def _entries(values: list[object] | tuple[object, ...]) -> Iterator[bytes]:
    first = values[0]
    mark = b"["
    if isinstance(first, Struct) and _has_lists(type(first)):
        for value in values:
            yield mark
            yield from _parts(value)
            mark = b","
    else:
        for start in range(0, len(values), AT_ONCE):
            yield mark + _encode(values[start : start + AT_ONCE])[1:-1]
            mark = b","
    yield b"]"


def _is_long(value: Struct) -> bool:
    """Whether a value holds many others, in all of its lists together."""
    return _entries_of(value) > AT_ONCE


def _entries_of(value: object) -> int:
    """How many entries the lists of a value have; where there are many, some of them."""
    if isinstance(value, Struct):
        return sum([_entries_of(getattr(value, name)) for name in _lists(type(value))])
    if isinstance(value, (list, tuple)):
        return _entries_in(value)  # pyright: ignore[reportUnknownArgumentType] # of whatever
    return 0


def _entries_in(values: Sequence[object]) -> int:
    count = len(values)
    if 0 < count <= AT_ONCE and isinstance(first := values[0], Struct) and _lists(type(first)):
        count += sum(map(_entries_of, values))
    return count


def _has_lists(schema: type[Struct]) -> bool:
    """Whether such a value may hold many others."""
    return bool(_lists(schema))


@cache
def _lists(schema: type[Struct]) -> tuple[str, ...]:
    """The fields that may hold many others. What has a tag is written as a whole."""
    kind = inspect.type_info(schema)
    assert isinstance(kind, inspect.StructType)
    if kind.tag is not None:
        return ()
    return tuple(field.name for field in kind.fields if _is_list(field.type))


def _is_list(kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.Metadata):
        return _is_list(kind.type)
    if isinstance(kind, inspect.UnionType):
        return any(map(_is_list, kind.types))
    if isinstance(kind, inspect.StructType):
        return _has_lists(kind.cls)
    return isinstance(kind, (inspect.ListType, inspect.VarTupleType))
