"""Writes the package of a new plugin: what it does, and tests of that, which pass.

The pieces are files in ``skeleton``: one for each file of the package, and one for each kind of
plugin, which has settings, hooks and tests under headings in brackets.
"""

from __future__ import annotations

import re
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING, Final

from elemta.plugins import KINDS
from elemta.plugins.loader import BUILT_IN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

#: What one is if nobody says.
KIND: Final = "data"

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST: Final = 40
_WIDTH: Final = 100
_HEADING: Final = re.compile(r"(?m)^\[(\w+)\]\n")
_WORD: Final = re.compile(r"\b[A-Za-z]\w*")
_STRING: Final = re.compile(r'"[^"\n]*"')

#: Where the words are from that the pieces use; by the order of modules in a file.
_MODULES: Final[Mapping[str, tuple[str, ...]]] = {
    "": ("os",),
    "collections.abc": ("Sequence",),
    "pathlib": ("Path",),
    " ": ("pytest",),
    "argon2": ("PasswordHasher",),
    "argon2.exceptions": ("InvalidHashError", "VerificationError"),
    "elemta.config": ("Network", "Table"),
    "elemta.plugins": (
        *("CONTINUE", "Accept", "AddHeader", "Attempted", "Content", "Defer"),
        *("Granted", "Letter", "PluginWith", "Quarantine", "Reject", "Session", "Steers"),
        *("Transaction", "Verdict", "change"),
    ),
    "elemta.protocol": ("Credentials", "Mailbox"),
    "elemta.queue": ("Destined", "QueueEvent"),
    "elemta.testing": ("CONFIG", "TRUSTED", "Elemta", "running"),
    "elemta.units": ("Octets", "Seconds"),
    "msgspec": ("Struct",),
    "typing_extensions": ("override",),
}
#: What the class of a plugin cannot be called.
_TAKEN: Final = frozenset(
    {"Settings", "Size", *(each for names in _MODULES.values() for each in names)}
)
_STANDARD: Final = ("", "collections.abc", "pathlib")

_INIT: Final = """\
    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
"""


class CannotBeCalledError(ValueError):
    """There cannot be a plugin of this name."""


def write(name: str, kinds: Sequence[str], folder: Path) -> list[Path]:
    """Write a package into a folder of the plugin's name.

    Args:
        name: what the configuration will call it.
        kinds: of `KINDS`; none: `KIND`.
        folder: where to.

    Returns:
        What was written.

    Raises:
        CannotBeCalledError: that is no name, or one of ours.
        FileExistsError: there is something of this name; it is left alone.
        OSError: it cannot be written.
    """
    _check(name)
    place = folder / name
    place.mkdir()
    written: list[Path] = []
    for path, text in _package(name, kinds or (KIND,)):
        file = place / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        written.append(file)
    return written


def _check(name: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        raise CannotBeCalledError(
            f"{name!r} is no name for a plugin: small letters and digits, words joined by -,"
            f" {_LONGEST} characters at most, e.g. quiet-hours"
        )
    if name in BUILT_IN:
        raise CannotBeCalledError(f"there is a plugin {name} already; it ships with Elemta")
    if _class(name) in _TAKEN:
        raise CannotBeCalledError(f"{name} would have a class called as another that it needs")


def _package(name: str, kinds: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The files: where each stands in the package, and what is in it."""
    module = f"elemta_{name.replace('-', '_')}"
    both = sorted((_class(name), "Settings"))
    words = {"name": name, "class": _class(name), "module": module, "both": ", ".join(both)}
    parts = [_parts(kind, words) for kind in KINDS if kind in kinds]

    def all_of(part: str, between: str) -> str:
        return between.join(each[part].rstrip("\n") for each in parts if part in each)

    state = all_of("state", "\n")
    hooks = [f"{_INIT}{state}"] if state else []
    code = _spaced(
        _fill(
            "plugin.py",
            {
                **words,
                "settings": all_of("settings", "\n"),
                "hooks": "\n\n".join([*hooks, all_of("hooks", "\n\n")]),
                "results": all_of("results", "\n\n\n"),
                "functions": all_of("functions", "\n\n\n"),
            },
        )
    )
    tests = all_of("tests", "\n\n\n") + "\n"
    own = [each for each in both if re.search(rf"\b{each}\b", tests)]
    yield "pyproject.toml", _fill("pyproject.toml", words)
    yield "README.md", _fill("README.md", words)
    front = [f"from {module}.plugin import {each} as {each}\n" for each in both]
    yield f"src/{module}/__init__.py", '"""A plugin for Elemta."""\n\n' + "".join(front)
    yield f"src/{module}/plugin.py", code.replace("IMPORTS", _imports(code))
    yield f"src/{module}/py.typed", ""
    yield "tests/conftest.py", _fill("conftest.py", words)
    ours = f"\n\nfrom {module} import {', '.join(own)}" if own else ""
    yield f"tests/test_{module}.py", f"{_imports(tests)}{ours}\n\n\n{tests}"


def _parts(kind: str, words: Mapping[str, str]) -> dict[str, str]:
    """What a kind has under each heading."""
    found = _HEADING.split(_fill(f"kinds/{kind}", words))
    return dict(zip(found[1::2], found[2::2], strict=True))


def _fill(piece: str, words: Mapping[str, str]) -> str:
    file = files("elemta.cli") / "skeleton" / f"{piece}.in"
    return Template(file.read_text(encoding="utf-8")).substitute(words)


def _spaced(code: str) -> str:
    """Without the gaps that parts leave which are not there."""
    return re.sub(r"\n{4,}", "\n\n\n", code).rstrip("\n") + "\n"


def _imports(code: str) -> str:
    """What a piece of code needs, in the order that tools for that want."""
    used = set(_WORD.findall(_STRING.sub("", code)))
    standard: list[str] = []
    others: list[str] = []
    for module, names in _MODULES.items():
        wanted = [each for each in names if each in used]
        if wanted:
            lines = standard if module in _STANDARD else others
            lines.append(_import(module.strip(), wanted))
    return "\n\n".join("\n".join(each) for each in (standard, others) if each)


def _import(module: str, names: Iterable[str]) -> str:
    if not module:
        return "\n".join(f"import {each}" for each in names)
    line = f"from {module} import {', '.join(names)}"
    if len(line) <= _WIDTH:
        return line
    return f"from {module} import (\n" + "".join(f"    {each},\n" for each in names) + ")"


def _class(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("-"))
