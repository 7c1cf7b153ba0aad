"""From the ``plugins`` of the configuration to plugins."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final

from msgspec import Struct, field
from msgspec.structs import force_setattr

from elemta.config import ConfigError, Mistake, Storage
from elemta.metrics.meters import LATENCY, Distribution
from elemta.plugins.asking import is_verdict, waiting_hooks
from elemta.plugins.plugin import AT_ONCE, HOOKS, KINDS, Plugin, hooks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from elemta.config import Config, PluginEntry

_ROOM: Final = "elemta.plugins.built_in"
#: What ships with Elemta; imported when the configuration asks for it, since some bring libraries.
#: Others register a `Plugin` under the entry point group `GROUP`.
BUILT_IN: Final[Mapping[str, str]] = {
    "allow-deny": f"{_ROOM}.allow_deny:AllowDeny",
    "arc": f"{_ROOM}.arc:ArcPlugin",
    "arc-seal": f"{_ROOM}.arc_seal:ArcSeal",
    "authentication-results": f"{_ROOM}.authentication_results:AuthenticationResults",
    "bcc-archive": f"{_ROOM}.bcc_archive:BccArchive",
    "clamav": f"{_ROOM}.clamav:ClamAv",
    "dkim": f"{_ROOM}.dkim:DkimPlugin",
    "dkim-sign": f"{_ROOM}.dkim_sign:DkimSign",
    "dmarc": f"{_ROOM}.dmarc:DmarcPlugin",
    "dnsbl": f"{_ROOM}.dnsbl:Dnsbl",
    "early-talker": f"{_ROOM}.early_talker:EarlyTalker",
    "fcrdns": f"{_ROOM}.fcrdns:Fcrdns",
    "greylisting": f"{_ROOM}.greylisting:Greylisting",
    "harvest-guard": f"{_ROOM}.harvest_guard:HarvestGuard",
    "header-checks": f"{_ROOM}.header_checks:HeaderChecks",
    "helo-checks": f"{_ROOM}.helo_checks:HeloChecks",
    "iprev": f"{_ROOM}.iprev:IprevPlugin",
    "milter": f"{_ROOM}.milter:Milter",
    "oauth": f"{_ROOM}.oauth:OAuth",
    "rate-limit": f"{_ROOM}.rate_limit:RateLimit",
    "recipient-limit": f"{_ROOM}.recipient_limit:RecipientLimit",
    "rspamd": f"{_ROOM}.rspamd:Rspamd",
    "rules": f"{_ROOM}.rules:Rules",
    "sending-limits": f"{_ROOM}.sending_limits:SendingLimits",
    "spf": f"{_ROOM}.spf:SpfPlugin",
    "users-file": f"{_ROOM}.users_file:UsersFile",
    "users-http": f"{_ROOM}.users_http:UsersHttp",
    "users-ldap": f"{_ROOM}.users_ldap:UsersLdap",
    "users-sql": f"{_ROOM}.users_sql:UsersSql",
}
GROUP: Final = "elemta.plugins"
#: What may come out of a third party's code; that of a program which is no plugin may end itself.
_ANYTHING: Final = (Exception, SystemExit)


class Counts(Struct):
    """How often a plugin was asked, objected, or failed to answer.

    Attributes:
        quick: how often a hook took so little that it belongs in the first bucket of `seconds`, as
            nearly all do: counting these takes a third of what a `Distribution` would.
        quick_seconds: the sum of those.
        slow: the other ones.
        events: what it counts itself, by word.
    """

    objected: int = 0
    failed: int = 0
    quick: int = 0
    quick_seconds: float = 0.0
    slow: Distribution = field(default_factory=lambda: Distribution(LATENCY))
    events: Counter[str] = field(default_factory=Counter[str])

    @property
    def asked(self) -> int:
        """How often it was asked, and has answered or failed."""
        return self.quick + sum(self.slow.counts)

    @property
    def seconds(self) -> Distribution:
        """How long it took."""
        found = Distribution(LATENCY)
        found.add(self.slow)
        found.counts[0] += self.quick
        found.total += self.quick_seconds
        return found


class Loaded(Struct, frozen=True):
    """A plugin, ready to be asked.

    Attributes:
        timeout: seconds that one hook may take.
        entry: what the configuration calls it; empty: as it calls itself.
        enabled: whether it is asked.
        listeners: whose clients it is asked about; none: all.
        on_failure: what the configuration says of its failures.
        settings: what it was made of.
        counts: what became of it.
        waits: those of its hooks that may take time.
    """

    plugin: Plugin
    timeout: float = 30.0
    entry: str = ""
    enabled: bool = True
    listeners: tuple[str, ...] = ()
    on_failure: str | None = None
    settings: dict[str, object] = field(default_factory=dict[str, object])
    counts: Counts = field(default_factory=Counts)
    waits: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        force_setattr(self, "waits", waiting_hooks(type(self.plugin)))

    def judges(self, listener: str) -> bool:
        """Whether it is asked about clients of this listener."""
        return not self.listeners or listener in self.listeners

    @property
    def name(self) -> str:
        """What the configuration calls it."""
        return self.entry or self.plugin.name


#: The mechanisms that each of them judges.
_ASKED: Final = {
    "on_authenticate": ("PLAIN", "LOGIN"),
    "on_verifier": ("SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"),
    "on_token": ("OAUTHBEARER", "XOAUTH2"),
}
#: One of them lets people log in.
_LOGINS: Final = frozenset(_ASKED)


def load(entries: Sequence[PluginEntry], before: Iterable[Loaded] = ()) -> list[Loaded]:
    """Make the plugins that the configuration asks for, in its order.

    Args:
        entries: of the configuration.
        before: those that ran until now: who is among the new ones, too, goes on counting; with
            the same settings it goes on altogether.

    Raises:
        ConfigError: there is no such plugin, it cannot be loaded, or it does not take its settings.
    """
    known: dict[str, list[Loaded]] = {}
    for each in before:
        known.setdefault(each.name, []).append(each)
    loaded: list[Loaded] = []
    for index, entry in enumerate(entries):
        former = known.get(entry.name)
        loaded.append(_load(entry, f"plugins[{index}]", former.pop(0) if former else None))
    return loaded


def load_for(config: Config, before: Iterable[Loaded] = ()) -> list[Loaded]:
    """The same, and see that those keep mail that are to keep some, and who may log in can.

    Args:
        config: all of it.
        before: as for `load`.

    Raises:
        ConfigError: as `load`; or a plugin is a target, and has no `Plugin.on_store`; or a listener
            wants everybody to log in, and no plugin there could let anybody.
    """
    loaded = load(config.plugins, before)
    stores = {each.name for each in loaded if "on_store" in hooks(each.plugin)}
    targets = [(f"domains[{n}].deliver", each.target) for n, each in enumerate(config.domains)]
    targets += [
        (f"routes[{n}].via[{m}]", target)
        for n, each in enumerate(config.routes)
        for m, target in enumerate(each.targets)
    ]
    mistakes = [
        Mistake(where, f"the plugin {target.plugin} keeps no mail: it has no `on_store`")
        for where, target in targets
        if isinstance(target, Storage) and target.plugin not in stores
    ]
    mistakes += _closed(config, loaded)
    if mistakes:
        raise ConfigError(*mistakes)
    return loaded


def _closed(config: Config, loaded: Sequence[Loaded]) -> Iterator[Mistake]:
    """Submission listeners where nobody can log in. A plugin that is switched off may be again."""
    knowing = [each for each in loaded if not _LOGINS.isdisjoint(hooks(each.plugin))]
    wanted = frozenset(config.login.mechanisms)
    asked = {hook for hook, names in _ASKED.items() if not wanted.isdisjoint(names)}
    usable = [each for each in knowing if not asked.isdisjoint(hooks(each.plugin))]
    for index, table in enumerate(config.listeners):
        if table.submission and not any(each.judges(table.name) for each in knowing):
            yield Mistake(
                f"listeners[{index}].kind",
                "nobody can log in here: none of `plugins` for this listener knows people "
                f"({', '.join(KINDS['authentication'])})",
            )
        elif table.submission and not any(each.judges(table.name) for each in usable):
            yield Mistake(
                "login.mechanisms",
                f"nobody can log in at {table.name}: none of `plugins` there judges one of these",
            )


def _load(entry: PluginEntry, where: str, former: Loaded | None) -> Loaded:
    if former is not None and former.settings == entry.settings and not _outdated(former.plugin):
        plugin = former.plugin  # what it has open and what it remembers stay
    else:
        plugin = _make(entry, where)
    return Loaded(
        plugin,
        float(entry.timeout),
        entry.name,
        entry.enabled,
        tuple(entry.listeners),
        entry.on_failure,
        entry.settings,
        Counts() if former is None else former.counts,
    )


def _outdated(plugin: Plugin) -> bool:
    try:
        return plugin.outdated()
    except _ANYTHING:  # made anew, it says what is wrong
        return True


def _make(entry: PluginEntry, where: str) -> Plugin:
    kind = _find(entry.name, f"{where}.name")
    try:
        return kind.configured(entry.settings, f"{where}.settings")
    except ConfigError:
        raise
    except _ANYTHING as error:  # a third party's constructor: its bug is a mistake of the file
        raise _mistake(f"{where}.settings", f"the plugin cannot start: {_say(error)}") from error


def _find(name: str, where: str) -> type[Plugin]:
    registered = {point.name: point.value for point in entry_points(group=GROUP)}
    path = BUILT_IN.get(name) or registered.get(name, name)
    module, found, attribute = path.partition(":")
    if not found:
        known = ", ".join(sorted({*BUILT_IN, *registered}))
        near = difflib.get_close_matches(name.lower(), [*BUILT_IN, *registered], n=1)
        hint = f"did you mean {near[0]!r}? There" if near else "there"
        problem = f"there is no plugin {name!r}; {hint} are {known}, and any package.module:Class"
        raise _mistake(where, problem)
    try:
        kind: object = getattr(importlib.import_module(module), attribute)
    except _ANYTHING as error:  # importing runs a third party's code
        raise _mistake(where, f"{path} cannot be loaded: {_say(error)}") from error
    if not (inspect.isclass(kind) and issubclass(kind, Plugin)):
        raise _mistake(where, f"{path} is no elemta.plugins.Plugin")
    check_hooks(kind, where)
    return kind


def check_hooks(kind: type[Plugin], where: str) -> None:
    """Refuse a misspelt hook: it would never be called, and nobody would notice."""
    if not isinstance(getattr(kind, "name", None), str):
        raise _mistake(where, f"{kind.__qualname__} has no `name`")
    if kind.__hash__ is not object.__hash__:
        # A dataclass, say: two entries with the same settings would be taken for one.
        raise _mistake(where, f"{kind.__qualname__} must not have an `__eq__` of its own")
    for attribute in dir(kind):
        if not attribute.startswith("on_"):
            continue
        if not hasattr(Plugin, attribute):
            raise _mistake(where, f"{kind.__qualname__}.{attribute}: there is no such hook")
        if attribute == "on_error":
            _check_failure(kind, where)
            continue
        hook, told = getattr(kind, attribute), f"{kind.__qualname__}.{attribute}"
        if attribute in AT_ONCE:
            if inspect.iscoroutinefunction(hook):
                raise _mistake(where, f"{told} must not be `async def`: it answers at once")
        elif not inspect.iscoroutinefunction(hook):
            raise _mistake(where, f"{told} is no `async def`")


def _check_failure(kind: type[Plugin], where: str) -> None:
    """Refuse what would be found out when a hook fails, which is late."""
    told, declared = f"{kind.__qualname__}.on_error", kind.on_error
    by_hook: Mapping[str, object] = declared if isinstance(declared, Mapping) else {"": declared}
    for hook, verdict in by_hook.items():
        if hook and hook not in HOOKS:
            raise _mistake(where, f"{told}: there is no hook {hook!r}")
        if not is_verdict(verdict):
            raise _mistake(where, f"{told} is no verdict: {verdict!r}")


def _say(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _mistake(where: str, problem: str) -> ConfigError:
    return ConfigError(Mistake(where, problem))
