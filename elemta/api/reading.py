"""Queries and bodies to Structs; and what is said of a mistake in them."""

from __future__ import annotations

import difflib
import math
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
from msgspec import Struct, inspect

from elemta.api.patterns import words_for
from elemta.api.problem import Fault, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

_COMPLAINT: Final = re.compile(
    r"(?P<problem>.*?)(?: - at (?:`key` in )?`\$\.?(?P<place>.*)`)?", re.DOTALL
)
#: What msgspec calls things, and what people do.
_WORDS: Final = {
    "array": "a list",
    "bool": "true or false",
    "float": "a number",
    "int": "a whole number",
    "null": "null",
    "object": "an object",
    "str": "text",
}
_STEP: Final = re.compile(r"\.?([A-Za-z_]\w*)|\[(\d+)\]")

Q = TypeVar("Q", bound=Struct)


def read_query(pairs: Iterable[tuple[str, str]], schema: type[Q]) -> Q:
    """The parameters of a query.

    Args:
        pairs: names and values.
        schema: its fields are the parameters; one that is a list may be given several times.

    Raises:
        Problem: 422, with each parameter that nobody knows, or the first that makes no sense.
    """
    kinds = {field.encode_name: field.type for field in _fields(schema)}
    values: dict[str, str | list[str]] = {}
    faults: dict[str, Fault] = {}
    for name, value in pairs:
        if name not in kinds:
            faults.setdefault(name, Fault(name, _unknown("parameter", name, kinds)))
        elif is_list(kinds[name]):
            former = values.setdefault(name, [])
            assert isinstance(former, list), "what is a list was one from the start"
            former.append(value)
        elif name in values:
            faults.setdefault(name, Fault(name, "is given more than once"))
        else:
            values[name] = value
    if faults:
        raise refused(*faults.values())
    try:
        query = msgspec.convert(values, schema, strict=False)
    except msgspec.ValidationError as error:
        raise refused(_fault(str(error), schema, "parameter")) from None
    for field in _fields(schema):
        name, found = field.encode_name, getattr(query, field.name)
        # msgspec takes "nan" for a number, and "null" for nothing.
        if isinstance(found, float) and not math.isfinite(found):
            raise refused(Fault(name, f"expected a number, not {found}"))
        if found is None and name in values:
            raise refused(Fault(name, "expected a value, not null; leave it out to say nothing"))
    return query


def read_body(content: bytes, schema: type[Q]) -> Q:
    """The body of a request.

    Raises:
        Problem: 400, it is no JSON; 422, with what of it makes no sense.
    """
    try:
        return msgspec.json.decode(content, type=schema)
    except msgspec.ValidationError as error:
        raise refused(_fault(str(error), schema, "key")) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(HTTPStatus.BAD_REQUEST, f"the body is no JSON: {error}") from None


def refused(*faults: Fault) -> Problem:
    """What to raise for values that make no sense."""
    told = "; ".join(f"{each.field}: {each.problem}" for each in faults)
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, told[:1000], *faults)


def is_list(kind: inspect.Type) -> bool:
    """Whether a field holds several values."""
    return isinstance(_plain(kind), (inspect.ListType, inspect.VarTupleType))


def _fields(schema: type[Struct]) -> tuple[inspect.Field, ...]:
    kind = inspect.type_info(schema)
    assert isinstance(kind, inspect.StructType)
    return kind.fields


def _fault(complaint: str, schema: type[Struct], word: str) -> Fault:
    """What msgspec complains of, in words for people."""
    found = _COMPLAINT.fullmatch(complaint)
    assert found is not None, "the expression matches any text"
    place, problem = found["place"] or "", str(found["problem"])
    kind = _type_at(schema, place)
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", problem, re.DOTALL):
        known = kind.fields if isinstance(kind, inspect.StructType) else ()
        names = [field.encode_name for field in known]
        return Fault(_below(place, unknown[1]), _unknown(word, unknown[1], names))
    if missing := re.fullmatch(r"Object missing required field `(.*)`", problem):
        return Fault(_below(place, missing[1]), f"this {word} is missing")
    if problem.startswith("Invalid enum value"):
        problem = f"expected {' or '.join(_choices(kind))}, not{problem[18:]}"
    return Fault(place, _in_words(problem))


def _below(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _unknown(word: str, name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name[:100].lower().replace("-", "_"), names, 1)
    if near:
        return f"there is no such {word}; did you mean `{near[0]}`?"
    if not names:
        return f"there is no such {word}; none is expected"
    return f"there is no such {word} here; there are {', '.join(names)}"


def _in_words(problem: str) -> str:
    """Types as people call them, and what was expected in small letters."""
    if bound := re.fullmatch(r"Expected `(\w+)` ([<>]=?) (\S+)", problem):
        sides = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}
        return f"expected {_WORDS.get(bound[1], bound[1])}, {sides[bound[2]]} {bound[3]}"
    if length := re.fullmatch(r"Expected `(\w+)` of length ([<>]=) (\d+)", problem):
        side = "at least" if length[2] == ">=" else "at most"
        thing = "characters" if length[1] == "str" else "entries"
        return f"expected {side} {length[3]} {thing}"
    if pattern := re.fullmatch(r"Expected `str` matching regex (.*)", problem, re.DOTALL):
        return f"expected {words_for(pattern[1])}"
    words = re.sub(
        r"`([^`]*)`",
        lambda found: " or ".join(_WORDS.get(word, word) for word in found[1].split(" | ")),
        problem,
    ).replace(", got ", ", not ")
    return words[:1].lower() + words[1:]


def _choices(kind: inspect.Type | None) -> list[str]:
    kinds = kind.types if isinstance(kind, inspect.UnionType) else (kind,)
    choices: list[str] = []
    for each in kinds:
        if isinstance(each, inspect.EnumType):
            choices += [str(member.value) for member in each.cls]
        elif isinstance(each, inspect.LiteralType):
            choices += map(str, each.values)
    return choices


def _type_at(schema: type[Struct], place: str) -> inspect.Type | None:
    kind: inspect.Type | None = inspect.type_info(schema)
    for name, _ in _STEP.findall(place):
        kind = _plain(kind)
        if isinstance(kind, inspect.StructType) and name:
            kind = next((f.type for f in kind.fields if f.encode_name == name), None)
        elif isinstance(kind, (inspect.ListType, inspect.VarTupleType)) and not name:
            kind = kind.item_type
        else:
            return None
    return kind.type if isinstance(kind, inspect.Metadata) else kind


def _plain(kind: inspect.Type | None) -> inspect.Type | None:
    """A type without what is said about it, and without null."""
    while isinstance(kind, (inspect.Metadata, inspect.UnionType)):
        if isinstance(kind, inspect.Metadata):
            kind = kind.type
            continue
        rest = [each for each in kind.types if not isinstance(each, inspect.NoneType)]
        if len(rest) != 1:
            return kind
        kind = rest[0]
    return kind
