"""docs/checks.md says what is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import pytest
import yaml

from elemta.config import PluginEntry
from elemta.plugins import load
from elemta.plugins.built_in import (
    allow_deny,
    bcc_archive,
    conditions,
    dnsbl,
    fcrdns,
    header_checks,
    helo_checks,
    rules,
)
from elemta.plugins.loader import BUILT_IN

if TYPE_CHECKING:
    from elemta.config import Table

PAGE: Final = (Path(__file__).parents[3] / "docs" / "checks.md").read_text()

#: Those with a table, in the order of the page.
TABLES: Final[tuple[type[Table], ...]] = (
    allow_deny.Settings,
    allow_deny.Entries,
    dnsbl.Settings,
    dnsbl.Zone,
    helo_checks.Settings,
    fcrdns.Settings,
    header_checks.Settings,
    header_checks.Rule,
    rules.Rule,
    conditions.Match,
    bcc_archive.Settings,
)


def keys(kind: type[Table]) -> dict[str, object]:
    """Its keys and their defaults, as the page has them."""
    found: dict[str, object] = {}
    for field in msgspec.structs.fields(kind):
        default: object = field.default
        if default is msgspec.NODEFAULT and field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        if default is msgspec.NODEFAULT:
            default = "must be there"
        elif isinstance(default, msgspec.Struct):
            default = {}
        found[field.name] = getattr(default, "written", default)
    return found


def test_each_setting_is_documented_with_its_default() -> None:
    tables = re.findall(r"\| key \| default \| \|\n\| --- \| --- \| --- \|\n((?:\|.*\n)+)", PAGE)
    documented = [
        {
            key: default if default.endswith("there") else yaml.safe_load(default.strip("`"))
            for key, default in re.findall(r"^\| `(\w+)` \| (.+?) \| .+ \|$", table, re.MULTILINE)
        }
        for table in tables
    ]
    # YAML takes a text with a colon or braces in it for something else: compare those as they are.
    expected = [
        {
            key: yaml.safe_load(value) if isinstance(value, str) else value
            for key, value in keys(kind).items()
        }
        for kind in TABLES
    ]
    assert documented == expected


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_each_example_is_a_configuration(text: str) -> None:
    found = yaml.safe_load(text)
    entries = found["plugins"] if isinstance(found, dict) else found
    known = [each for each in entries if each["name"] in BUILT_IN]
    assert load(msgspec.convert(known, list[PluginEntry], dec_hook=lambda _, value: value))
