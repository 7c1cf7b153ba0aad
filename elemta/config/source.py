"""The text of a configuration file: YAML in, plain values out, and on which line each stands.

A place is written as in ``domains[0].aliases["sales"][1]``, here and in every message.
"""

from __future__ import annotations

import re
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Final, TypeAlias

import yaml
from msgspec import Struct
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The keys and indices that lead to a value.
Steps: TypeAlias = tuple[str | int, ...]

#: Levels, and letters of a line, up to which libyaml reads: a fifth of what its stack has room for.
_DEEP: Final = 4096
#: A list or mapping without others, quotes or comments in it.
_CLOSED: Final = re.compile(r"""\[[^\[\]{}"'#\n]*\]|\{[^\[\]{}"'#\n]*\}""")
_STEP: Final = re.compile(r'\.?([A-Za-z_]\w*)|\[(\d+)\]|\["((?:[^"\\]|\\.)*)"\]')


class Mistake(Struct, frozen=True):
    """One thing that is wrong.

    Attributes:
        place: the value it is about, e.g. ``listeners[0].address``; empty for the whole file.
        problem: what is wrong with it, and what was expected.
        line, column: where it stands, from 1; 0 if that is not known.
        of_key: it is the key that is wrong, not its value.
    """

    place: str
    problem: str
    line: int = 0
    column: int = 0
    of_key: bool = False


class ConfigError(Exception):
    """The configuration cannot be used; the message says where and why, a line a mistake."""

    def __init__(self, *mistakes: Mistake, where: str = "") -> None:
        super().__init__(*mistakes)
        self.mistakes = mistakes
        self.where = where

    @override
    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        for mistake in self.mistakes:
            spot = f":{mistake.line}:{mistake.column}" if mistake.line else ""
            before = f"{self.where}{spot}: " if self.where else ""
            yield f"{before}{mistake.place}{': ' if mistake.place else ''}{mistake.problem}"


class _Loader(yaml.SafeLoader):
    """YAML's safe loader with the plain scalars of YAML 1.2.

    YAML 1.1 takes ``no`` and ``on`` for truth values, ``12:30`` for a number and ``2026-01-01``
    for a date: each of them may be a mailbox.
    """


#: What a plain scalar may stand for, and what it may begin with.
_PLAIN: Final = {
    "bool": (r"true|false", "tf"),
    "float": (r"[-+]?[0-9]+\.[0-9]*(?:[eE][-+]?[0-9]+)?", "-+0123456789"),
    "int": (r"[-+]?[0-9]+", "-+0123456789"),
    "merge": (r"<<", "<"),
    "null": (r"~|null|", ["~", "n", ""]),
}
_Loader.yaml_implicit_resolvers = {}
for _kind, (_text, _first) in _PLAIN.items():
    _tag = f"tag:yaml.org,2002:{_kind}"
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_text})\Z"), list(_first))  # pyright: ignore[reportUnknownMemberType] # types-PyYAML leaves it bare


#: What people mean to write where YAML's own words say little, by a part of these words.
_HINTS: Final = {
    "character '\\t'": "indent by spaces",
    "scanning an alias": 'an asterisk wants quotes: "*"',
    "undefined alias": 'an asterisk wants quotes: "*"',
    "but found ':'": 'what begins with a colon wants quotes: ":25"',
    "character '@'": 'what begins with an @ wants quotes: "@example.org"',
    "character '%'": "what begins with a % wants quotes",
    "mapping values are not allowed": "a text with a colon and a space in it wants quotes",
}


class Source:
    """A parsed file that remembers where everything stands.

    Args:
        text: YAML.
        where: what messages call it.

    Raises:
        ConfigError: it is no YAML, or a key stands twice in one mapping.
    """

    def __init__(self, text: str, where: str) -> None:
        self.where = where
        try:
            self._root, doubles, self.value = _parse_quickly(text)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
            problem = " ".join(part for part in (error.context, error.problem) if part)
            hints = [hint for words, hint in _HINTS.items() if words in problem]
            told = "; ".join([f"no YAML: {problem}", *hints[:1]])
            raise ConfigError(Mistake("", told, line, column), where=where) from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            problem = " ".join(str(error).split())
            raise ConfigError(Mistake("", f"no YAML: {problem}"), where=where) from None
        if doubles:
            raise self.error(*doubles)

    def error(self, *mistakes: Mistake) -> ConfigError:
        """The mistakes as an error, each with its line, in the order of the file."""
        located = [m if m.line else self._located(m) for m in mistakes]
        return ConfigError(*sorted(located, key=lambda m: (m.line, m.column)), where=self.where)

    def _located(self, mistake: Mistake) -> Mistake:
        """The mistake with its line: that of the deepest part of its place that exists."""
        if self._root is None:
            return mistake
        line, column = _find(self._root, steps(mistake.place), of_key=mistake.of_key)
        return Mistake(mistake.place, mistake.problem, line, column)


@cache
def _quick() -> type[_Loader | yaml.CSafeLoader]:
    """The loader of libyaml, five times as fast; `_Loader` if PyYAML was built without it."""
    if not yaml.__with_libyaml__:
        return _Loader

    class Loader(yaml.CSafeLoader):
        yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers

    return Loader


def _parse_quickly(text: str) -> tuple[yaml.Node | None, list[Mistake], object]:
    """See `_parse`: by libyaml. What that says of mistakes is for nobody: they are said by ours."""
    if _is_flat(text):
        with suppress(yaml.YAMLError, ValueError, RecursionError):
            return _parse(text, _quick())
    return _parse(text)


def _is_flat(text: str) -> bool:
    """Whether a text is surely no deeper than libyaml can go.

    It goes down on the stack of C, about which nobody asks Python: at 20,000 levels it ends the
    process. A block begins further to the right than what it is in, or it is a list in a mapping; a
    bracket that is not closed in its own line, without quotes and comments, may never be closed.
    """
    if max(map(len, text.split("\n"))) > _DEEP:
        return False
    opened = text.count("[") + text.count("{")
    return opened <= _DEEP or opened - len(_CLOSED.findall(text)) <= _DEEP


def _parse(
    text: str, kind: type[_Loader | yaml.CSafeLoader] = _Loader
) -> tuple[yaml.Node | None, list[Mistake], object]:
    """The tree of the text, the keys that stand twice in it, and what it says."""
    loader = kind(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None, [], None
        doubles = list(_doubles(root, (), set()))  # before merge keys (<<) are resolved
        return root, doubles, loader.construct_document(root)  # pyright: ignore[reportUnknownMemberType] # types-PyYAML leaves it bare
    finally:
        loader.dispose()


def steps(place: str) -> Steps:
    """Take a place apart."""
    return tuple(
        int(index) if index else name or key.replace('\\"', '"').replace("\\\\", "\\")
        for name, index, key in _STEP.findall(place)
    )


def place(way: Steps) -> str:
    """Put a place together."""
    text = ""
    for step in way:
        if isinstance(step, int):
            text += f"[{step}]"
        elif re.fullmatch(r"[A-Za-z_]\w*", step):
            text += f".{step}" if text else step
        else:
            text += '["' + step.replace("\\", "\\\\").replace('"', '\\"') + '"]'
    return text


def _find(node: yaml.Node, way: Steps, *, of_key: bool) -> tuple[int, int]:
    """Line and column, from 1, of what lies that way; of the key where the value is a block."""
    mark = node.start_mark
    for step in way:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == step:
                    below = value.start_mark.line != key.start_mark.line
                    mark, node = (key if of_key or below else value).start_mark, value
                    break
            else:
                break
        elif (
            isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value)
        ):
            node = node.value[step]
            mark = node.start_mark
        else:
            break
    return mark.line + 1, mark.column + 1


def _doubles(node: yaml.Node, way: Steps, seen: set[int]) -> Iterator[Mistake]:
    """Keys that stand twice: PyYAML would silently take the last."""
    if id(node) in seen:  # an alias (*name) leads here a second time, perhaps for ever
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _doubles(value, (*way, index), seen)
    elif isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            inner = (*way, str(key.value))
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in first:
                    problem = f"this key stands on line {first[key.value]} already"
                    yield Mistake(place(inner), problem, line, key.start_mark.column + 1)
                first.setdefault(key.value, line)
            yield from _doubles(value, inner, seen)
