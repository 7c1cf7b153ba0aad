"""docs/greylisting.md and docs/rate-limits.md say what there is."""

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
    early_talker,
    greylisting,
    harvest_guard,
    rate_limit,
    recipient_limit,
)
from tests.plugins.built_in.test_checks_page import keys

if TYPE_CHECKING:
    from elemta.config import Table

DOCS: Final = Path(__file__).parents[3] / "docs"
#: Those with a table, in the order of each page.
PAGES: Final[dict[str, tuple[type[Table], ...]]] = {
    "greylisting.md": (greylisting.Settings,),
    "rate-limits.md": (
        rate_limit.Settings,
        rate_limit.Rule,
        harvest_guard.Settings,
        early_talker.Settings,
        recipient_limit.Settings,
    ),
}


@pytest.mark.parametrize("page", PAGES)
def test_each_setting_is_documented_with_its_default(page: str) -> None:
    text = (DOCS / page).read_text()
    tables = re.findall(r"\| key \| default \| \|\n\| --- \| --- \| --- \|\n((?:\|.*\n)+)", text)
    documented = [
        {
            key: default if default.endswith("there") else yaml.safe_load(default.strip("`"))
            for key, default in re.findall(r"^\| `(\w+)` \| (.+?) \| .+ \|$", table, re.MULTILINE)
        }
        for table in tables
    ]
    expected = [
        {key: [] if value == () else value for key, value in keys(kind).items()}
        for kind in PAGES[page]
    ]
    assert documented == expected


@pytest.mark.parametrize("page", PAGES)
def test_each_example_is_a_configuration(page: str) -> None:
    for example in re.findall(r"```yaml\n(.*?)```", (DOCS / page).read_text(), re.DOTALL):
        entries = yaml.safe_load(example)["plugins"]
        assert load(msgspec.convert(entries, list[PluginEntry]))
