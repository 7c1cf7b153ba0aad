"""Each plugin that ships is registered, described and tested, and documented with its settings."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

import msgspec
import pytest
import yaml
from msgspec import NODEFAULT

from elemta import config
from elemta.config import Service, Table
from elemta.plugins import Plugin, PluginWith, load
from elemta.plugins.loader import BUILT_IN
from elemta.plugins.plugin import _schema
from tests.mailauth.signing import rsa_key

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[3]
HERE: Final = ROOT / "elemta" / "plugins" / "built_in"
PAGES: Final = {path.name: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
_TABLE: Final = re.compile(r"\| key \| default \| \|\n\| --- \| --- \| --- \|\n((?:\|.*\n)+)")
_ROW: Final = re.compile(r"^\| `(\w+)` \| (.+?) \| .+ \|$", re.MULTILINE)


def kind_of(name: str) -> type[Plugin]:
    module, _, attribute = BUILT_IN[name].partition(":")
    found: type[Plugin] = getattr(importlib.import_module(module), attribute)
    return found


def page_of(name: str) -> tuple[str, str]:
    """Its page and, of that, its section; a page that is called so has no other plugin on it."""
    if (page := PAGES.get(f"{name}.md")) is not None:
        return page, page
    for page in PAGES.values():
        if found := re.search(rf"^## `?{name}`?\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE):
            return page, found[1]
    pytest.fail(f"no page has a section ## {name}")


def tables_of(kind: type[Table]) -> Iterator[type[Table]]:
    """Its settings, and all tables in them."""
    yield kind
    for field in msgspec.structs.fields(kind):
        for each in _types_in(field.type):
            if isinstance(each, type) and issubclass(each, Table):
                yield from tables_of(each)


def _types_in(kind: object) -> Iterator[object]:
    yield kind
    for each in get_args(kind):
        yield from _types_in(each)


def keys(kind: type[Table]) -> dict[str, object]:
    """The keys of a table and their defaults, as YAML has them."""
    found: dict[str, object] = {}
    for field in msgspec.structs.fields(kind):
        default: object = field.default
        if default is NODEFAULT and field.default_factory is not NODEFAULT:
            default = field.default_factory()
        if default is NODEFAULT:
            default = "must be there"
        elif isinstance(default, Table):
            default = {}
        elif isinstance(default, (Service, Path)):
            default = str(default)
        found[field.name] = _plain(getattr(default, "written", default))
    return found


def documented(table: str) -> dict[str, object]:
    rows: list[tuple[str, str]] = _ROW.findall(table)
    assert len(rows) == table.count("\n"), table
    return {key: _plain(default.strip("`")) for key, default in rows}


def _plain(value: object) -> object:
    if isinstance(value, str) and value not in ("", "none"):
        value = yaml.safe_load(value)
    if isinstance(value, tuple):
        return list(value)
    return None if value in ("", "none") else value


def test_all_that_is_a_plugin_is_registered() -> None:
    modules = [f"elemta.plugins.built_in.{path.stem}" for path in HERE.glob("*.py")]
    named = {
        f"{module}:{each.__name__}"
        for module in modules
        for each in vars(importlib.import_module(module)).values()
        if isinstance(each, type) and issubclass(each, Plugin)
        if each.__module__ == module and "name" in vars(each)  # else a base that several share
    }
    assert named == {*BUILT_IN.values()}
    assert list(BUILT_IN) == sorted(BUILT_IN)


@pytest.mark.parametrize("name", BUILT_IN)
def test_it_is_called_and_described_as_it_should_be_and_has_tests(name: str) -> None:
    kind, file = kind_of(name), name.replace("-", "_")
    assert kind.name == name
    assert kind.__module__ == f"elemta.plugins.built_in.{file}"
    assert re.fullmatch(r"[A-Z].{20,90}\.", (kind.__doc__ or "").partition("\n")[0])
    assert Path(__file__).with_name(f"test_{file}.py").is_file()
    assert f"[`{name}`](" in PAGES["plugins.md"]


@pytest.mark.parametrize("name", BUILT_IN)
def test_its_page_has_each_setting_with_its_default_and_no_other(name: str) -> None:
    kind = kind_of(name)
    page, section = page_of(name)
    if not issubclass(kind, PluginWith):
        assert not _TABLE.search(section)
        return
    settings: type[Table] = _schema(kind)
    # What a table of settings shares with another plugin's may stand there.
    told = [documented(each) for each in _TABLE.findall(page)]
    wanted = {each: keys(each) for each in tables_of(settings)}
    if set(wanted[settings]) == {"rules"}:
        del wanted[settings]  # nothing but a list, which needs no table
    for table, rows in wanted.items():
        assert rows in told, table
    assert all(documented(each) in wanted.values() for each in _TABLE.findall(section))


@pytest.mark.parametrize(
    "example",
    [
        pytest.param(example, id=page)
        for page in sorted({next(p for p in PAGES if PAGES[p] == page_of(n)[0]) for n in BUILT_IN})
        for example in re.findall(r"```yaml\n(.*?)```", PAGES[page], re.DOTALL)
    ],
)
def test_each_example_is_a_configuration(example: str, tmp_path: Path) -> None:
    (key := tmp_path / "key").touch(0o600)
    key.write_bytes(rsa_key()[0])
    # Files of the reader's own.
    found = yaml.safe_load(re.sub(r"key: /[^\s}]+", f"key: {key}", example))
    entries = found["plugins"] if isinstance(found, dict) else found
    known = [each for each in entries if each["name"] in BUILT_IN]
    for each in known:
        each.pop("listeners", None)  # of the reader's own
    head = {"hostname": "mx.us.example", "listeners": [{"name": "mx", "address": ":25"}]}
    assert load(config.load(yaml.safe_dump({**head, "plugins": known})).plugins)


def test_the_plugins_that_the_shipped_configuration_shows_are_some(tmp_path: Path) -> None:
    text = (ROOT / "packaging" / "elemta.yaml").read_text()
    shown = re.findall(r"^#   (- \{name: .*\})$", text, re.MULTILINE)
    assert len(shown) > 1
    test_each_example_is_a_configuration("\n".join(shown), tmp_path)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("harvest-guard", {"barred": "0 s"}),
        ("dkim", {"size": "0 B"}),
        ("arc", {"size": "0 B"}),
        ("clamav", {"connect_timeout": "0 s"}),
        ("early-talker", {"wait": "0 s"}),
    ],
)
def test_no_setting_switches_a_plugin_off_in_silence(name: str, settings: dict[str, str]) -> None:
    with pytest.raises(config.ConfigError, match=r"must be more than (0|none)"):
        load([config.PluginEntry(name=name, settings={**settings})])
