from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from elemta.cli import codes, main
from elemta.cli.new_plugin import CannotBeCalledError, write
from elemta.cli.plugins import KINDS
from elemta.config import ConfigError, PluginEntry
from elemta.plugins import KINDS as ALL
from elemta.plugins import hooks, load
from elemta.plugins.loader import GROUP

ROOT = Path(__file__).parent.parent
ENVIRON = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}


def new(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["plugins", "new", *arguments])


def test_there_is_a_skeleton_of_each_kind() -> None:
    assert tuple(ALL) == KINDS


def test_the_tests_of_a_new_package_pass(tmp_path: Path) -> None:
    kinds = [part for kind in KINDS for part in ("--kind", kind)]
    done = new("quiet-hours", *kinds, "--into", str(tmp_path))
    assert done.exit_code == 0, done.output
    package = tmp_path / "quiet-hours"
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:anyio"],
        cwd=package,
        env=ENVIRON,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"\n{len(KINDS) + 1} passed" in ran.stdout


def test_each_kind_alone_has_what_it_uses_and_no_more(tmp_path: Path) -> None:
    for kind in KINDS:
        write(f"one-{kind}", [kind], tmp_path)
    write("of-no-kind", [], tmp_path)
    ruff = Path(sys.executable).with_name("ruff")
    for arguments in (["check", "--select", "E,F,I,UP,ANN"], ["format", "--check"]):
        ran = subprocess.run(
            [ruff, *arguments, "--no-cache", "."], cwd=tmp_path, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stdout
    plugin = (tmp_path / "of-no-kind" / "src" / "elemta_of_no_kind" / "plugin.py").read_text()
    assert "on_message" in plugin


def test_once_installed_the_configuration_finds_it_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write("quiet-hours", ["data"], tmp_path)
    package = tmp_path / "quiet-hours"
    assert package / "src" / "elemta_quiet_hours" / "py.typed" in written
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    [(name, path)] = project["entry-points"][GROUP].items()
    # What pip makes of it.
    installed = package / "src" / f"{project['name']}-{project['version']}.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(f"Name: {project['name']}\nVersion: 0.1.0\n")
    (installed / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = {path}\n")
    monkeypatch.syspath_prepend(package / "src")
    [loaded] = load([PluginEntry(name="quiet-hours", settings={"suspect": "SPAM"})])
    assert (loaded.name, hooks(loaded.plugin)) == ("quiet-hours", ("on_message",))
    with pytest.raises(ConfigError, match=r"plugins\[0\]\.settings"):
        load([PluginEntry(name="quiet-hours", settings={"suspects": "SPAM"})])


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "tarpit").mkdir()
    done = new("tarpit", "--into", str(tmp_path))
    assert (done.exit_code, done.output) == (
        codes.USAGE,
        f"{tmp_path}/tarpit is there already; nothing was written\n",
    )
    assert list((tmp_path / "tarpit").iterdir()) == []


def test_where_nothing_can_be_written_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    done = new("tarpit", "--into", str(tmp_path))
    assert (done.exit_code, done.output) == (
        codes.UNREADABLE,
        f"{tmp_path}/tarpit cannot be written: No space left on device\n",
    )


@pytest.mark.parametrize(
    "name",
    [
        *("", "-x", "x-", "a--b", "../x", "a/b", "a.b", "Tarpit", "tar_pit", "ä", "1st", "x" * 41),
        *("greylisting", "settings", "reject", "session"),
    ],
)
def test_what_is_no_name_is_told(name: str, tmp_path: Path) -> None:
    with pytest.raises(CannotBeCalledError):
        write(name, [], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_how_it_is_called_wrongly_is_told() -> None:
    for arguments in ([], ["X"], ["x", "--kind", "other"], ["x", "--into", "/nowhere"]):
        assert new(*arguments).exit_code == codes.USAGE
