"""Rules over the fields of a header: what must be there, or not, or says something.

Fields that a message may have once only (RFC 5322 §3.6) are looked at without a rule: of two From
fields one is checked by DMARC, and the other is shown.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import trio
from msgspec import Struct, field
from typing_extensions import override

from elemta.config import Table
from elemta.message import hidden_author
from elemta.plugins import (
    CONTINUE,
    AddHeader,
    Change,
    Continue,
    Defer,
    Discard,
    PluginWith,
    Quarantine,
    Reject,
    Tag,
    Transaction,
    Verdict,
)
from elemta.plugins.built_in.actions import check_tag, check_text
from elemta.plugins.built_in.decoding import decoded
from elemta.plugins.built_in.patterns import Pattern

if TYPE_CHECKING:
    from elemta.message import HeaderScanner

#: As `elemta.plugins.built_in.actions` has it, or nobody gets it though its client hears 250.
Action: TypeAlias = Literal["reject", "defer", "quarantine", "discard", "tag", "none"]

_NAME: Final = re.compile(r"[!-9;-~]{1,77}")
#: Characters that are searched at once; after a longer value others get their turn.
_SHORT: Final = 200
#: Wrong message format (RFC 3463 §3.7): policy on content.
_CONTENT: Final = (6, 0)
#: Fields that are there once at most (RFC 5322 §3.6); From has a setting of its own.
_ONCE: Final = (
    *("date", "sender", "reply-to", "to", "cc", "bcc", "message-id", "in-reply-to"),
    *("references", "subject"),
)


class Rule(Table, frozen=True, kw_only=True):
    """An entry of ``rules``: a condition on fields of one name, and what follows."""

    #: The name of the fields, in any case.
    header: str
    #: It holds if one of them matches: a regular expression, searched for anywhere in the value.
    #: None: it holds if there is one at all.
    matches: str | None = None
    #: Capitals are no small letters.
    case: bool = False
    #: Search what was sent, not what a mail program shows (encoded words decoded).
    raw: bool = False
    #: It holds if there is none: of that name, or that matches.
    absent: bool = False
    #: What becomes of the message; after ``reject``, ``defer`` and ``discard`` no further rule is
    #: looked at.
    action: Action = "none"
    #: What the client is told if it is refused.
    text: str = "this message is refused by local policy"
    #: A word by which operators find it: with ``quarantine`` and ``tag``.
    tag: str = "header"
    #: Fields that are added, by name.
    add: dict[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.header):
            raise ValueError(f"`header` must be the name of a header field, not {self.header!r}")
        if self.matches is not None:
            try:
                Pattern(self.matches, case=self.case)
            except ValueError as error:
                raise ValueError(f"`matches` is no expression: {error}") from None
        check_text("text", self.text)
        check_tag("tag", self.tag)
        for name, value in self.add.items():
            AddHeader(name, value)
        if self.action == "none" and not self.add:
            raise ValueError("nothing follows: give it an `action`, or something to `add`")


class Settings(Table, frozen=True, kw_only=True):
    """The ``settings`` of ``header-checks``."""

    #: The rules, looked at in their order.
    rules: list[Rule] = field(default_factory=list[Rule])
    #: There are several From fields, or what some programs may take for another one.
    several_from: Action = "reject"
    #: There are several of another field that may be there once, such as Subject or Date.
    repeated: Action = "tag"
    #: There is no From, or no Date.
    missing: Action = "none"
    #: A word by which operators find what these three mean.
    tag: str = "malformed"
    #: Also look at mail of clients that may relay, and of those that somebody vouches for.
    everybody: bool = False
    #: Octets of a value that are searched.
    octets: int = 1000
    #: Fields of one name that are searched.
    fields: int = 30

    def __post_init__(self) -> None:
        check_tag("tag", self.tag)
        if not 1 <= self.octets <= 10_000:
            raise ValueError("`octets` must be between 1 and 10000")
        if not 1 <= self.fields <= 1000:
            raise ValueError("`fields` must be between 1 and 1000")


class _Outcome(Struct):
    """What was found so far."""

    changes: list[Change] = field(default_factory=list[Change])
    held: str = ""
    notes: list[str] = field(default_factory=list[str])

    @property
    def verdict(self) -> Verdict:
        changes, note = tuple(self.changes), "; ".join(self.notes)
        if self.held:
            return Quarantine(self.held, changes=changes, note="" if note == self.held else note)
        return Continue(changes, note) if changes or note else CONTINUE


class HeaderChecks(PluginWith[Settings]):
    """Looks at header fields by rules of your own, and for those that are there twice."""

    name = "header-checks"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._rules = [
            (rule, None if rule.matches is None else Pattern(rule.matches, case=rule.case))
            for rule in settings.rules
        ]

    @override
    async def on_header(self, transaction: Transaction, header: HeaderScanner) -> Verdict:
        if transaction.exempt and not self.settings.everybody:
            return CONTINUE
        outcome = _Outcome()
        for action, note in self._malformed(header):
            text = f"this message is not as RFC 5322 wants it: {note}"
            decided = _heed(outcome, action, text, note, self.settings.tag)
            if decided is not None:
                return decided
        for rule, pattern in self._rules:
            if await self._holds(rule, pattern, header) == rule.absent:
                continue
            outcome.changes += [AddHeader(name, value) for name, value in rule.add.items()]
            about = "no " if rule.absent else ""
            like = "" if rule.matches is None else f" like {rule.matches}"
            note = f"{about}{rule.header}{like}"
            decided = _heed(outcome, rule.action, rule.text, note, rule.tag)
            if decided is not None:
                return decided
        return outcome.verdict

    def _malformed(self, header: HeaderScanner) -> list[tuple[Action, str]]:
        """What is wrong with a header whatever it says."""
        settings = self.settings
        counts = Counter(name for name, _ in header.fields)
        found: list[tuple[Action, str]] = []
        if counts[b"from"] > 1:
            found.append((settings.several_from, f"{counts[b'from']} From fields"))
        elif hidden := hidden_author(header):
            found.append((settings.several_from, hidden))
        repeated = [name for name in _ONCE if counts[name.encode()] > 1]
        if repeated:
            found.append((settings.repeated, f"more than one of {', '.join(repeated)}"))
        missing = [name for name in ("from", "date") if not counts[name.encode()]]
        if missing:
            found.append((settings.missing, f"no {' and no '.join(missing)}"))
        return found

    async def _holds(self, rule: Rule, pattern: Pattern | None, header: HeaderScanner) -> bool:
        """Whether there is such a field."""
        name, settings = rule.header.lower().encode(), self.settings
        values = [value for each, value in header.fields if each == name]
        if pattern is None:
            return bool(values)
        for value in values[: settings.fields]:
            octets = value[: settings.octets]
            text = octets.decode("utf-8", "replace") if rule.raw else _decoded(octets)
            if pattern.search(text):
                return True
            if len(text) > _SHORT:
                await trio.lowlevel.checkpoint()
        return False


@lru_cache(maxsize=64)  # several rules look at one field
def _decoded(octets: bytes) -> str:
    return decoded(octets)


def _heed(
    outcome: _Outcome, action: Action, text: str, note: str, tag: str
) -> Defer | Reject | Discard | None:
    """Do what an action says; returns what ends the looking."""
    match action:
        case "reject":
            return Reject(_CONTENT, text, note)
        case "defer":
            return Defer(_CONTENT, text, note)
        case "discard":
            return Discard(note)
        case "quarantine" | "tag":
            if Tag(tag) not in outcome.changes:
                outcome.changes.append(Tag(tag))
            outcome.notes.append(note)
            if action == "quarantine" and not outcome.held:
                outcome.held = note
        case "none":
            pass
    return None
