from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from elemta import config

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "elemta"
MODULES = sorted(PACKAGE.rglob("*.py"))

#: Each says that somebody did not know what a thing is for.
BANNED = {
    "advanced", "common", "enhanced", "helper", "helpers", "improved", "manager", "misc", "util",
    "utils",
}  # fmt: skip


def test_imports_point_down() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rooms_are_described_as_they_are_built_the_lowest_first() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    [layers] = [
        each["layers"]
        for each in project["tool"]["importlinter"]["contracts"]
        if each["type"] == "layers"
    ]
    floor = {
        room.strip().removeprefix("elemta."): -number
        for number, layer in enumerate(layers)
        for room in layer.split("|")
    }
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| ", text, re.MULTILINE)
    told = [room for row in rows for room in re.findall(r"\w+", row)]
    assert sorted(told) == sorted(floor)
    floors = [floor[room] for room in told]
    assert floors == sorted(floors)
    drawn = (ROOT / "CONTRIBUTING.md").read_text().split("```")[3]
    assert [
        re.findall(r"\w+(?= *\|| *$)", line.split("  ")[0]) for line in drawn.split("\n")[1:-1]
    ] == [re.findall(r"(?<=elemta\.)\w+", layer) for layer in layers]


def words(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_say_what_things_are(path: Path) -> None:
    tree = ast.walk(ast.parse(path.read_text()))
    names = [path.stem, path.parent.name, *(n.name for n in tree if isinstance(n, ast.ClassDef))]
    assert [name for name in names if words(name) & BANNED] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_is_too_long_to_read(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 600


#: The tables of the configuration, by where they stand in the file.
TABLES: dict[str, type[config.Table]] = {
    "": config.Config,
    "listeners": config.Listener,
    "tls": config.Tls,
    "tls.certificates": config.Certificate,
    "limits": config.Limits,
    "login": config.Logins,
    "relay": config.Relay,
    "domains": config.Domain,
    "maps": config.Map,
    "forwarding": config.Forwarding,
    "routes": config.Route,
    "routes.login": config.Login,
    "destinations": config.Destination,
    "delivery": config.Delivery,
    "queue": config.Queue,
    "queue.history": config.History,
    "dns": config.Dns,
    "control": config.Control,
    "api": config.Api,
    "log": config.Log,
    "plugins": config.PluginEntry,
}


def documented() -> dict[str, dict[str, tuple[str, str]]]:
    """Key, default and description of every row of docs/configuration.md, by section."""
    sections: dict[str, dict[str, tuple[str, str]]] = {}
    for section in (ROOT / "docs" / "configuration.md").read_text().split("\n## ")[1:]:
        title, _, text = section.partition("\n")
        place = "" if title == "The whole file" else title.strip("`")
        rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+) \|$", text, re.MULTILINE)
        sections[place] = {key: (default.strip("`"), told) for key, default, told in rows}
    return sections


def test_every_key_of_the_configuration_is_documented_and_no_other() -> None:
    found = {place: list(rows) for place, rows in documented().items()}
    assert found == {place: list(table.__struct_fields__) for place, table in TABLES.items()}


def test_every_default_is_documented_as_it_is() -> None:
    told = documented()
    text = 'hostname: mx.example.org\nlisteners:\n  - name: mx\n    address: ":25"\n'
    text += defaults(told["listeners"], "    ") + defaults(told[""], "")
    for place in ("tls", "limits", "login", "relay", "delivery", "queue", "dns", "control", "log"):
        text += f"{place}:\n" + defaults(told[place], "  ")
        if place == "queue":
            text += "  history:\n" + defaults(told["queue.history"], "    ")
    assert config.load(text) == config.Config(
        hostname="mx.example.org", listeners=[config.Listener(name="mx", address=":25")]
    )
    entry = "plugins:\n  - name: x\n" + defaults(told["plugins"], "    ")
    domain = "domains:\n  - name: example.net\n" + defaults(told["domains"], "    ")
    head = 'hostname: mx.example.org\nlisteners: [{name: mx, address: ":25"}]\n'
    assert config.load(head + entry + domain).plugins == [config.PluginEntry(name="x")]
    assert config.load(head + entry + domain).domains == [config.Domain(name="example.net")]


def defaults(rows: dict[str, tuple[str, str]], indent: str) -> str:
    """The rows as a part of a configuration file."""
    return "".join(
        f"{indent}{key}: {default}\n"
        for key, (default, _) in rows.items()
        if default not in ("must be there", "see below")
    )


def test_the_shipped_configuration_names_every_key() -> None:
    text = (ROOT / "packaging" / "elemta.yaml").read_text()
    # The table `api` is there as a comment, since with it there is an API.
    keys = set(re.findall(r"^(?:\s*(?:- )?|#   )(\w+):", text, re.MULTILINE))
    for place, table in TABLES.items():
        # There are none of these by default.
        rare = (
            *("tls.certificates", "domains", "maps", "routes", "routes.login", "destinations"),
            "plugins",
        )
        if place not in rare:
            assert set(table.__struct_fields__) <= keys, place


def test_the_examples_in_the_documentation_are_right() -> None:
    for name in (
        "README.md",
        "docs/configuration.md",
        "docs/api-access.md",
        "docs/plugins.md",
        "docs/tls.md",
        "docs/submission.md",
        "docs/recipients.md",
        "docs/mail-server.md",
    ):
        text = (ROOT / name).read_text()
        examples = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        assert examples
        for example in examples:
            config.load(example, name)


#: Where a type comes from outside, and the event loop alone decodes it.
DECODED_BY_THE_LOOP = {"api/reading.py"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_decoders_are_made_before_any_thread_decodes(path: Path) -> None:
    """Two threads that decode the first of a kind at once crash the process (msgspec 0.22).

    A `Decoder` at the top of a module learns all of its kind when it is imported.
    """
    if str(path.relative_to(PACKAGE)) in DECODED_BY_THE_LOOP:
        return
    calls = [each for each in ast.walk(ast.parse(path.read_text())) if isinstance(each, ast.Call)]
    late = [
        call.lineno
        for call in calls
        if isinstance(call.func, ast.Attribute)
        and call.func.attr == "decode"
        and any(keyword.arg == "type" for keyword in call.keywords)
    ]
    assert not late, f"{path}:{late}: make it a Decoder at the top of the module"


def test_no_index_or_host_is_in_a_file_that_is_installed_from() -> None:
    told = re.compile(r"(?<!no-emit-)index-url|(?<!no-emit-)find-links|file:|https?://")
    for name in (*ROOT.glob("constraints*.txt"), "Makefile", ".ci/run", "pyproject.toml"):
        assert not told.search((ROOT / name).read_text())
