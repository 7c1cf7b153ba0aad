from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

import pytest
from typing_extensions import override

from elemta.config import Config, ConfigError, PluginEntry, Table, load
from elemta.plugins import (
    CONTINUE,
    Accept,
    Continue,
    Letter,
    Plugin,
    PluginWith,
    Session,
    Tag,
    Verdict,
    load_for,
)
from elemta.plugins import load as load_plugins
from elemta.plugins.built_in.recipient_limit import RecipientLimit

if TYPE_CHECKING:
    from collections.abc import Mapping


class Whole(Plugin):
    """A plugin of somebody else, without settings."""

    name = "whole"

    @override
    async def on_connect(self, session: Session) -> Verdict:
        return CONTINUE


@dataclass
class Equal(Plugin):
    name = "equal"
    limit: int = 5


class Misspelt(Plugin):
    name = "misspelt"

    async def on_rctp(self) -> Verdict:
        return CONTINUE


class Exiting(Whole):
    def __init__(self) -> None:
        raise SystemExit(3)


class NotAsync(Plugin):
    name = "not-async"

    def on_connect(self, session: Session) -> Verdict:  # type: ignore[override] # the mistake
        return CONTINUE


class Forgiving(Whole):
    on_error = "defer"  # type: ignore[assignment] # the mistake


class Misspelling(Whole):
    on_error: ClassVar[Mapping[str, Verdict]] = {"on_conect": CONTINUE}  # type: ignore[misc]


class Commaless(Whole):
    on_error: ClassVar[Mapping[str, Verdict]] = {  # type: ignore[misc]
        "on_connect": Continue(changes=Tag("x"))  # type: ignore[arg-type] # the mistake
    }


class Nameless(Plugin):
    pass


class Failing(Plugin):
    name = "failing"

    def __init__(self) -> None:
        raise OSError("no such socket")


def configured(plugins: str) -> Config:
    return load(f"""
hostname: mx.example
listeners: [{{name: mx, address: "127.0.0.1:0"}}]
plugins:
{plugins}
""")


def test_plugins_are_asked_in_the_order_of_the_file() -> None:
    here = "tests.plugins.test_loader"
    config = configured(f"""
  - name: {here}:Whole
    timeout: 5 s
  - name: recipient-limit
    settings: {{recipients: 200}}
""")
    first, second = load_plugins(config.plugins)
    assert (type(first.plugin).__name__, first.timeout) == ("Whole", 5)
    assert isinstance(second.plugin, RecipientLimit)
    assert second.timeout == 30


def problem_with(plugins: str) -> str:
    config = configured(plugins)
    with pytest.raises(ConfigError) as caught:
        load_plugins(config.plugins)
    return str(caught.value)


def test_an_unknown_plugin_is_told_with_its_place() -> None:
    problem = problem_with("  - name: recipient-limit\n  - name: greylost")
    assert problem.startswith("plugins[1].name: there is no plugin 'greylost'")
    assert "did you mean 'greylisting'?" in problem
    assert "did you mean 'rate-limit'?" in problem_with("  - name: Rate_limit")
    assert "did you mean" not in problem_with("  - name: something")
    assert "recipient-limit" in problem


@pytest.mark.parametrize(
    ("settings", "want"),
    [
        ("{recipients: 5}", "plugins[0].settings.recipients: "),
        ("{recipient: 500}", "plugins[0].settings"),
    ],
)
def test_settings_that_a_plugin_does_not_take_are_told_with_their_place(
    settings: str, want: str
) -> None:
    assert problem_with(f"  - name: recipient-limit\n    settings: {settings}").startswith(want)


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("tests.plugins.test_loader:Gone", "AttributeError"),
        ("tests.plugins.gone:Gone", "ModuleNotFoundError"),
        ("tests.plugins.test_loader:problem_with", "is no elemta.plugins.Plugin"),
        ("tests.plugins.test_loader:Nameless", "has no `name`"),
        ("tests.plugins.test_loader:Misspelt", "on_rctp: there is no such hook"),
        ("tests.plugins.test_loader:NotAsync", "is no `async def`"),
        ("tests.plugins.test_loader:Equal", "Equal must not have an `__eq__` of its own"),
        ("tests.plugins.test_loader:Forgiving", "on_error is no verdict: 'defer'"),
        ("tests.plugins.test_loader:Misspelling", "on_error: there is no hook 'on_conect'"),
        ("tests.plugins.test_loader:Commaless", "on_error is no verdict: Continue("),
    ],
)
def test_what_is_no_plugin_is_told(name: str, want: str) -> None:
    problem = problem_with(f'  - name: "{name}"')
    assert problem.startswith("plugins[0].name: ")
    assert want in problem


def test_a_plugin_that_cannot_start_is_told() -> None:
    problem = problem_with('  - name: "tests.plugins.test_loader:Failing"')
    assert "plugins[0].settings: the plugin cannot start: OSError: no such socket" in problem


def test_a_program_that_is_no_plugin_ends_nobody_but_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_program.py").write_text("raise SystemExit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert problem_with('  - name: "a_program:Main"') == (
        "plugins[0].name: a_program:Main cannot be loaded: SystemExit: 0"
    )


def test_a_plugin_that_ends_itself_as_it_is_made_is_told() -> None:
    problem = problem_with('  - name: "tests.plugins.test_loader:Exiting"')
    assert "plugins[0].settings: the plugin cannot start: SystemExit: 3" in problem


class Key(Table, frozen=True, kw_only=True):
    file: Path = Path("/etc/key")


class Paths(Table, frozen=True, kw_only=True):
    keys: list[Key] = []  # noqa: RUF012 # msgspec copies it
    by_name: dict[str, Path] = {}  # noqa: RUF012 # the same
    file: Path | None = None


class Filing(PluginWith[Paths]):
    name = "filing"


S = TypeVar("S", bound=Table)
T = TypeVar("T")


class Shared(PluginWith[S], Generic[T, S]):
    """What several plugins have in common, whose settings differ."""


class Sharing(Shared[int, Paths]):
    name = "sharing"


class Undecided(Shared[int, S]):
    name = "undecided"


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ("{file: x.pem}", "plugins[0].settings.file"),
        ("{keys: [{}, {file: ./x.pem}]}", "plugins[0].settings.keys[1].file"),
        ("{by_name: {a: /a, b: ../x.pem}}", "plugins[0].settings.by_name.b"),
    ],
)
def test_a_path_that_begins_nowhere_is_told_with_its_place(settings: str, place: str) -> None:
    here = "tests.plugins.test_loader"
    problem = problem_with(f"  - {{name: '{here}:Filing', settings: {settings}}}")
    assert problem.startswith(f"{place}: expected a whole path, as in /etc/elemta/")


def test_what_plugins_have_in_common_may_stand_in_a_base() -> None:
    plugin = Sharing.configured({"file": "/a"}, "plugins[0].settings")
    assert plugin.settings == Paths(file=Path("/a"))
    with pytest.raises(TypeError, match="Undecided must say what its settings are"):
        Undecided.configured({}, "plugins[0].settings")


def test_settings_for_a_plugin_that_has_none_are_told() -> None:
    problem = problem_with('  - name: "tests.plugins.test_loader:Whole"\n    settings: {a: 1}')
    assert problem == "plugins[0].settings: the plugin whole has no settings"


def test_a_plugin_is_called_as_the_configuration_calls_it_and_may_be_off() -> None:
    here = "tests.plugins.test_loader"
    config = configured(f"  - {{name: '{here}:Whole', enabled: false}}\n  - name: recipient-limit")
    one, two = load_plugins(config.plugins)
    assert (one.name, one.enabled) == (f"{here}:Whole", False)
    assert (two.name, two.enabled) == ("recipient-limit", True)


def test_who_is_loaded_again_goes_on_counting() -> None:
    here = "tests.plugins.test_loader"
    before = load_plugins(configured(f"  - name: {here}:Whole\n  - name: {here}:Whole").plugins)
    before[0].counts.quick, before[1].counts.quick = 3, 5
    after = load_plugins(
        configured(
            f"  - name: recipient-limit\n  - name: {here}:Whole\n  - name: {here}:Whole"
        ).plugins,
        before,
    )
    assert [each.counts.asked for each in after] == [0, 3, 5]


class Keeps(Plugin):
    """A mailbox back end."""

    name = "keeps"

    @override
    async def on_store(self, letter: Letter) -> Verdict:
        return Accept()


def test_a_plugin_that_is_to_keep_mail_must_be_able_to() -> None:
    here = "tests.plugins.test_loader"
    config = load(f"""
hostname: mx.example
listeners: [{{name: mx, address: "127.0.0.1:0"}}]
domains:
  - {{name: a.example, deliver: "plugin:{here}:Keeps"}}
  - {{name: b.example, deliver: "plugin:{here}:Whole"}}
routes:
  - {{match: c.example, via: ["plugin:{here}:Whole"]}}
  - {{match: d.example, via: ["smtp://192.0.2.1:25"]}}
plugins: [{{name: "{here}:Keeps"}}, {{name: "{here}:Whole"}}]
""")
    with pytest.raises(ConfigError) as refused:
        load_for(config)
    assert [each.place for each in refused.value.mistakes] == [
        "domains[1].deliver",
        "routes[0].via[0]",
    ]
    assert "keeps no mail" in str(refused.value)


def test_a_plugin_that_says_that_it_is_outdated_or_fails_to_say_is_made_anew() -> None:
    entry = PluginEntry(name="recipient-limit")
    first = load_plugins([entry])
    assert load_plugins([entry], first)[0].plugin is first[0].plugin

    def fails() -> bool:
        raise LookupError

    for outdated in (lambda: True, fails):
        first[0].plugin.outdated = outdated  # type: ignore[method-assign]
        assert load_plugins([entry], first)[0].plugin is not first[0].plugin
