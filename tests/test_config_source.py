"""Two loaders of YAML: the quick one reads what the slow one reads, and puts it where that does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from elemta.config import ConfigError
from elemta.config.source import Source, _is_flat, _Loader, _parse, _quick

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
IN_DOCS = [
    found[1]
    for path in sorted((ROOT / "docs").glob("*.md"))
    for found in re.finditer(r"^```yaml\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)
]
ODD = [
    "a: [no, on, 12:30, 2026-01-01, 0x1f, 1_0, .5, 1e3, ~, null, '', \"\\u00fc\"]",
    "ü: {b: |\n  one\n\n  two\n, c: >-\n  three\n  four\n}",
    "base: &base {a: 1}\nmore: {<<: *base, b: 2}\nsame: *base\n",
    "a: 1\na: 2\n",
    "\ufeffa: 1\n",
    "",
    "# nothing\n",
]


def places(node: yaml.Node | None) -> Iterator[tuple[str, int, int]]:
    """Each node by its tag, and where it stands."""
    if node is None:
        return
    yield node.tag, node.start_mark.line, node.start_mark.column
    if isinstance(node, yaml.SequenceNode):
        for each in node.value:
            yield from places(each)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from places(key)
            yield from places(value)


@pytest.mark.parametrize("text", [(ROOT / "packaging" / "elemta.yaml").read_text(), *IN_DOCS, *ODD])
def test_both_loaders_read_the_same(text: str) -> None:
    try:
        slow = _parse(text)
    except yaml.YAMLError:
        with pytest.raises(yaml.YAMLError):
            _parse(text, _quick())
        return
    quick = _parse(text, _quick())
    assert quick[1:] == slow[1:]
    assert list(places(quick[0])) == list(places(slow[0]))


def test_of_a_mistake_only_one_of_them_is_heard() -> None:
    with pytest.raises(ConfigError) as caught:
        Source("a: [1\nb: 2\n", "elemta.yaml")
    with pytest.raises(yaml.MarkedYAMLError) as ours:
        _parse("a: [1\nb: 2\n", _Loader)
    assert ours.value.problem is not None
    assert ours.value.problem in str(caught.value)


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? ", "a:\n[", "['x]', ", "[ # ]\n"])
def test_what_is_nested_without_end_is_a_mistake_and_no_end_of_the_process(opening: str) -> None:
    code = (
        "import sys\n"
        "from elemta.config import ConfigError\n"
        "from elemta.config.source import Source\n"
        "try:\n"
        "    Source(sys.stdin.read(), 'elemta.yaml')\n"
        "except ConfigError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=opening * 40_000,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert "no YAML" in done.stdout


@pytest.mark.parametrize(
    ("text", "flat"),
    [
        ("a: [b, c]\n" * 9000, True),
        ("a: [b, [c, []]]\n" * 1000, True),
        ("[" * 5000 + "]" * 5000, False),
        ("['x]', \n" * 5000, False),
        ("a: |\n  " + "x" * 3000, True),
        ("- " * 3000, False),
    ],
)
def test_only_what_cannot_be_deep_is_for_the_quick_one(text: str, *, flat: bool) -> None:
    assert _is_flat(text) is flat
