"""docs/mail-authentication.md says what is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import msgspec
import pytest
import yaml

from elemta.config import PluginEntry
from elemta.plugins import load
from elemta.plugins.built_in import arc, authentication_results, dkim, dmarc, spf
from tests.plugins.built_in.test_checks_page import keys

PAGE: Final = (Path(__file__).parents[3] / "docs" / "mail-authentication.md").read_text()


def shown(default: object) -> str:
    """As YAML would have it."""
    if isinstance(default, str):
        return default or '""'
    return str(default).lower() if isinstance(default, bool) else str(default).replace("()", "[]")


def test_each_setting_is_documented_with_its_default() -> None:
    tables = re.findall(r"\| key \| default \| \|\n\| --- \| --- \| --- \|\n((?:\|.*\n)+)", PAGE)
    documented = [
        dict(re.findall(r"^\| `(\w+)` \| `(.+?)` \| .+ \|$", table, re.MULTILINE))
        for table in tables
    ]
    expected = [
        {key: shown(value) for key, value in keys(kind).items()}
        for kind in (
            *(spf.Settings, dkim.Settings, arc.Settings, dmarc.Settings),
            authentication_results.Settings,
        )
    ]
    assert documented == expected


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
def test_each_example_is_a_configuration(text: str) -> None:
    entries = yaml.safe_load(text)["plugins"]
    assert load(msgspec.convert(entries, list[PluginEntry], dec_hook=lambda _, value: value))
