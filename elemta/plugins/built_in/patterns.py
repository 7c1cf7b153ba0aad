r"""Regular expressions whose search takes time in proportion to the text, whoever wrote the text.

Python's own go back and try again: ``(a+)+$`` takes hours for thirty letters, and a stranger may
choose the letters of a header field. These are an automaton that looks at each character once. Its
states are found as they are needed, and remembered, so a character mostly costs one look-up.

What cannot be had so is refused: references to groups, and looking ahead or behind. A search only
says whether there is a match, so ``.*?`` is the same as ``.*``, and groups have no numbers.
"""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: States that a pattern may have: repetitions such as ``{1,50}`` count as often as they say.
MOST_STATES: Final = 256
#: Groups within groups.
MOST_DEPTH: Final = 20
#: What is remembered of searches for the next ones: places, and ways between them.
_REMEMBERED: Final = 10_000

_QUANTIFIER: Final = re.compile(r"[*+?]|\{(?:\d{1,4}(?:,\d{0,4})?|,\d{1,4})\}")
_ESCAPE: Final = re.compile(
    r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[^0-9xuU])", re.DOTALL
)
_CLASS: Final = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_ASSERTIONS: Final[dict[str, _At]] = {
    "^": "start",
    "\\A": "start",
    "$": "end",
    "\\Z": "end",
    "\\b": "edge",
    "\\B": "no edge",
}

_At: TypeAlias = Literal["start", "end", "edge", "no edge"]


# A pattern as it is written.


class _Char(Struct, frozen=True):
    """One character of a kind, as `re` has it."""

    one: re.Pattern[str]


class _Assert(Struct, frozen=True):
    at: _At


class _Sequence(Struct, frozen=True):
    parts: tuple[_Node, ...]


class _Either(Struct, frozen=True):
    ways: tuple[_Node, ...]


class _Repeat(Struct, frozen=True):
    what: _Node
    least: int
    most: int | None


_Node: TypeAlias = _Char | _Assert | _Sequence | _Either | _Repeat


class _Parser:
    def __init__(self, text: str, flags: re.RegexFlag) -> None:
        self._text = text
        self._flags = flags
        self._at = 0

    def parse(self) -> _Node:
        found = self._either(0)
        if self._at < len(self._text):
            raise ValueError("a ) without its (")
        return found

    def _either(self, depth: int) -> _Node:
        if depth > MOST_DEPTH:
            raise ValueError(f"more than {MOST_DEPTH} groups within each other")
        ways = [self._sequence(depth)]
        while self._take("|"):
            ways.append(self._sequence(depth))
        return ways[0] if len(ways) == 1 else _Either(tuple(ways))

    def _sequence(self, depth: int) -> _Node:
        parts: list[_Node] = []
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            parts.append(self._repeated(self._one(depth)))
        return parts[0] if len(parts) == 1 else _Sequence(tuple(parts))

    def _repeated(self, what: _Node) -> _Node:
        found = _QUANTIFIER.match(self._text, self._at)
        if found is None:
            return what
        if isinstance(what, _Assert):
            problem = f"nothing to repeat before {found[0]}"
            raise ValueError(problem)  # noqa: TRY004 # the type of what is written is right
        self._at = found.end()
        least, most = _times(found[0])
        if self._take("+"):
            raise ValueError(f"{found[0]}+ is not known here; there is no need for it")
        self._take("?")  # no difference: it is only asked whether there is a match
        if _QUANTIFIER.match(self._text, self._at):
            raise ValueError(f"nothing to repeat behind {found[0]}")
        return _Repeat(what, least, most)

    def _one(self, depth: int) -> _Node:
        text, at = self._text, self._at
        match text[at]:
            case "(":
                return self._group(depth)
            case "[":
                found = _CLASS.match(text, at)
                if found is None:
                    raise ValueError("a [ without its ]")
                return self._char(found[0])
            case "\\":
                found = _ESCAPE.match(text, at)
                if found is None:
                    raise ValueError(f"{text[at : at + 2]} is not known here")
                if found[0] in _ASSERTIONS:
                    self._at = found.end()
                    return _Assert(_ASSERTIONS[found[0]])
                return self._char(found[0])
            case "^" | "$" as sign:
                self._at += 1
                return _Assert(_ASSERTIONS[sign])
            case "*" | "+" | "?" as sign:
                raise ValueError(f"nothing to repeat before {sign}")
            case character:
                return self._char(character)

    def _group(self, depth: int) -> _Node:
        self._at += 1
        if self._take("?") and not self._take(":"):
            sign = self._text[self._at : self._at + 2]
            raise ValueError(f"(?{sign} is not known here: of groups there are ( and (?: alone")
        found = self._either(depth + 1)
        if not self._take(")"):
            raise ValueError("a ( without its )")
        return _Sequence((found,))  # which may be repeated, also if it is an assertion

    def _char(self, written: str) -> _Char:
        self._at += len(written)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # [[: a bracket, as it always was
                return _Char(re.compile(written, self._flags))
        except re.error as error:
            raise ValueError(str(error)) from None

    def _take(self, sign: str) -> bool:
        if not self._text.startswith(sign, self._at):
            return False
        self._at += len(sign)
        return True


def _times(quantifier: str) -> tuple[int, int | None]:
    match quantifier:
        case "*":
            return 0, None
        case "+":
            return 1, None
        case "?":
            return 0, 1
        case _:
            least, comma, most = quantifier[1:-1].partition(",")
            if not comma:
                return int(least), int(least)
            found = int(least or 0), int(most) if most else None
            if found[1] is not None and found[0] > found[1]:
                raise ValueError(f"{quantifier}: at least more than at most")
            return found


# The same as states.


class _State(Struct):
    """One state: by a character, or by itself, to others.

    Attributes:
        one: the character that leads on; None: it is left by itself.
        at: where alone it is left.
        to: where it leads; none: the pattern has matched.
    """

    one: re.Pattern[str] | None = None
    at: _At | None = None
    to: tuple[int, ...] = ()


class _States:
    def __init__(self, node: _Node) -> None:
        self.all = [_State()]  # the first is the end
        self._built = 0
        self.first = self._build(node, 0)

    def _build(self, node: _Node, to: int) -> int:
        self._built += 1
        if self._built > 10 * MOST_STATES:
            raise ValueError("it repeats too much")
        match node:
            case _Char(one):
                return self._add(_State(one, None, (to,)))
            case _Assert(at):
                return self._add(_State(None, at, (to,)))
            case _Sequence(parts):
                for part in reversed(parts):
                    to = self._build(part, to)
                return to
            case _Either(ways):
                return self._add(_State(to=tuple([self._build(way, to) for way in ways])))
            case _Repeat(what, least, most):
                if most is None:
                    again = self._add(_State())
                    self.all[again].to = (self._build(what, again), to)
                    entry = again
                else:
                    entry = to
                    for _ in range(most - least):
                        entry = self._add(_State(to=(self._build(what, entry), to)))
                for _ in range(least):
                    entry = self._build(what, entry)
                return entry

    def _add(self, state: _State) -> int:
        if len(self.all) > MOST_STATES:
            raise ValueError(f"more than {MOST_STATES} states: it is too long, or repeats too much")
        self.all.append(state)
        return len(self.all) - 1


# The search. Sets of states are numbers, a bit for each.

#: What stands before a character, or after one: nothing, a letter of a word, or something else.
_Beside: TypeAlias = Literal["", "word", "other"]


class _Place:
    """Where a search stands.

    Attributes:
        states: those that it may be in.
        before: what was before.
        ways: by the next character, where it stands then; None: it has matched.
    """

    __slots__ = ("before", "states", "ways")

    def __init__(self, states: int, before: _Beside) -> None:
        self.states = states
        self.before: _Beside = before
        self.ways: dict[str, _Place | None] = {}


class Pattern:
    """A regular expression, ready to be searched for.

    Args:
        text: as `re` writes it, see above.
        case: capitals are no small letters.

    Raises:
        ValueError: it is none, it is too long, or it cannot be had in linear time.
    """

    def __init__(self, text: str, *, case: bool = False) -> None:
        flags = re.DOTALL if case else re.DOTALL | re.IGNORECASE
        states = _States(_Parser(text, flags).parse())
        self.text = text
        self._states: Sequence[_State] = states.all
        self._first = 1 << states.first
        #: Kinds of characters, and the states that are left by one of each.
        self._kinds: dict[re.Pattern[str], int] = {}
        for number, state in enumerate(self._states):
            if state.one is not None:
                self._kinds[state.one] = self._kinds.get(state.one, 0) | 1 << number
        self._closures: dict[tuple[_Beside, _Beside], list[int]] = {}
        self._takers: dict[str, int] = {}
        self._places: dict[tuple[int, _Beside], _Place] = {}
        self._remembered = 0

    def search(self, text: str) -> bool:
        """Whether it matches somewhere."""
        if self._remembered > _REMEMBERED:
            self._remembered = 0
            self._places.clear()
            self._takers.clear()
        place = self._place(self._first, "")
        for character in text:
            found = place.ways.get(character, place)
            if found is place and character not in place.ways:
                found = self._step(place, character)
            if found is None:
                return True
            place = found
        return bool(self._closure(place, "") & _END)

    def _place(self, states: int, before: _Beside) -> _Place:
        found = self._places.get((states, before))
        if found is None:
            found = _Place(states, before)
            if self._has_room():
                self._places[states, before] = found
        return found

    def _step(self, place: _Place, character: str) -> _Place | None:
        """Look at one more character."""
        beside: _Beside = "word" if _is_word(character) else "other"
        closure = self._closure(place, beside)
        if closure & _END:
            found = None
        else:
            after = self._first  # it may begin anywhere
            for number in _numbers(closure & self._taking(character)):
                after |= 1 << self._states[number].to[0]
            found = self._place(after, beside)
        if self._has_room():
            place.ways[character] = found
        return found

    def _has_room(self) -> bool:
        """Whether one more thing may be remembered."""
        self._remembered += 1
        return self._remembered <= _REMEMBERED

    def _taking(self, character: str) -> int:
        """The states that a character leads on from."""
        found = self._takers.get(character)
        if found is None:
            found = 0
            for one, states in self._kinds.items():
                if one.fullmatch(character):
                    found |= states
            if self._has_room():
                self._takers[character] = found
        return found

    def _closure(self, place: _Place, after: _Beside) -> int:
        """All states that can be reached without a character, by what comes after."""
        key = (place.before, after)
        of_each = self._closures.get(key)
        if of_each is None:
            of_each = self._closures[key] = [
                self._reached(number, *key) for number in range(len(self._states))
            ]
        found = 0
        for number in _numbers(place.states):
            found |= of_each[number]
        return found

    def _reached(self, start: int, before: _Beside, after: _Beside) -> int:
        edge = (before == "word") != (after == "word")
        holds = {"start": not before, "end": not after, "edge": edge, "no edge": not edge}
        found, ahead = 1 << start, [start]
        while ahead:
            state = self._states[ahead.pop()]
            if state.one is None and (state.at is None or holds[state.at]):
                new = [each for each in state.to if not found >> each & 1]
                for each in new:
                    found |= 1 << each
                ahead += new
        return found


#: The state that is the end.
_END: Final = 1


def _numbers(states: int) -> Iterator[int]:
    """Which bits are set."""
    while states:
        lowest = states & -states
        yield lowest.bit_length() - 1
        states ^= lowest


def _is_word(character: str) -> bool:
    """What words are of, as `re` has it."""
    return character.isalnum() or character == "_"
