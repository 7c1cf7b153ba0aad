"""Fields, tags and priorities by rule: for mail of some listener, network, sender or recipient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import field
from typing_extensions import override

from elemta.config import Table
from elemta.plugins import (
    CONTINUE,
    AddHeader,
    Continue,
    PluginWith,
    Prioritise,
    RemoveHeader,
    Tag,
    Transaction,
    Verdict,
)
from elemta.plugins.built_in.actions import check_tag
from elemta.plugins.built_in.conditions import Condition, Match
from elemta.queue import Priority

if TYPE_CHECKING:
    from elemta.plugins import Change


class Rule(Table, frozen=True, kw_only=True):
    """An entry of ``rules``."""

    #: Which messages it is for.
    match: Match = Match()
    #: Fields that go, all of a name.
    remove: list[str] = field(default_factory=list[str])
    #: Fields that are added at the top of the header, by name.
    add: dict[str, str] = field(default_factory=dict[str, str])
    #: Words by which operators find the message.
    tags: list[str] = field(default_factory=list[str])
    #: How soon it goes: ``low``, ``normal``, ``high`` or ``critical``. None: as it is.
    priority: Literal["low", "normal", "high", "critical"] | None = None
    #: No further rule is looked at.
    last: bool = False

    def __post_init__(self) -> None:
        for word in self.tags:
            check_tag("tags", word)
        if not (self.changes or self.last):
            raise ValueError("the rule does nothing: give it `add`, `remove`, `tags` or `priority`")

    @property
    def changes(self) -> tuple[Change, ...]:
        """What it does.

        Raises:
            ValueError: a field is none.
        """
        changes: list[Change] = [RemoveHeader(name) for name in self.remove]
        changes += [AddHeader(name, value) for name, value in self.add.items()]
        changes += [Tag(word) for word in self.tags]
        if self.priority is not None:
            changes.append(Prioritise(Priority[self.priority.upper()]))
        return tuple(changes)


class Settings(Table, frozen=True, kw_only=True):
    """The ``settings`` of ``rules``."""

    #: The rules: all that match are followed, in their order.
    rules: list[Rule]


class Rules(PluginWith[Settings]):
    """Adds and removes header fields, tags and priorities by rules of your own."""

    name = "rules"
    dry = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._rules = [(Condition(rule.match), rule.changes, rule.last) for rule in settings.rules]

    @override
    async def on_data(self, transaction: Transaction) -> Verdict:
        changes: list[Change] = []
        for condition, of_rule, last in self._rules:
            if condition.holds(transaction):
                changes += of_rule
                if last:
                    break
        return Continue(tuple(changes)) if changes else CONTINUE
