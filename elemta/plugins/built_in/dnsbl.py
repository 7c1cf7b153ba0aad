"""Lists of addresses and domains in the DNS, black and white (RFC 5782), with weights.

Rules of this file:

- Nobody is listed by accident: only answers in 127/8 count, and none by which a list says that it
  does not answer us, or is no more.
- A list that cannot be asked has nobody on it: else whoever can hinder it could stop all mail.
- What a client says of itself (its name, its sender) may only weigh against it.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import trio
from msgspec import Struct, field
from msgspec.structs import replace
from typing_extensions import override

from elemta.config import Table
from elemta.log import logger
from elemta.net.dns import DnsError, DnsTemporaryError, Kind, NoRecordsError, NoSuchDomainError
from elemta.plugins import CONTINUE, Allowed, Session, Transaction, Verdict
from elemta.plugins.built_in.actions import (
    Action,
    Objection,
    Objects,
    check_tag,
    check_text,
    refusal,
)
from elemta.plugins.built_in.answers import Answers
from elemta.plugins.built_in.clients import is_inner
from elemta.plugins.built_in.entries import name_of
from elemta.protocol import parse_domain
from elemta.units import Seconds

log = logger(__name__)

#: How long `timeout` may be: the plugin as a whole has 30 s for an answer, and then defers.
LONGEST: Final = Seconds(10)
#: Seconds after which the same trouble of a zone is worth another line in the log.
_QUIET: Final = 600.0
#: Characters of a list's own words that are noted.
_SHOWN: Final = 200
#: Characters of what a client is told: with a long name in it twice, no reply could have it all.
_TOLD: Final = 480


_Of: TypeAlias = Literal["address", "sender", "helo"]


class Zone(Table, frozen=True, kw_only=True):
    """An entry of ``zones``: one list."""

    #: Where it is asked, e.g. ``zen.spamhaus.org``.
    zone: str
    #: What being on it adds to the score; below 0: it is a white list.
    weight: float = 1.0
    #: Which answers count, and what each adds: ``127.0.0.2``, ``127.0.0.2-11``, ``127.0.*.1-3``,
    #: ``127.0.0.0/28``, or ``&4`` for a bit of the last number. Of several the weightiest counts.
    #: Empty: all but 127.0.0.1 and 127.255.255.0/24, by which lists refuse to answer.
    answers: dict[str, float] = field(default_factory=dict[str, float])
    #: What is looked up: the client's ``address``, or the domain of the ``sender``, or ``helo``.
    of: list[_Of] = field(default_factory=lambda: ["address"])
    #: What a refused client is told: ``{address}``, ``{name}`` and ``{zone}`` are filled in.
    text: str = "blocked, {name} is listed in {zone}"

    def __post_init__(self) -> None:
        zone = parse_domain(self.zone)
        if zone.startswith("["):
            raise ValueError(f"`zone` must be a domain, not {self.zone!r}")
        if len(self.text) > 200:
            raise ValueError("`text` must have at most 200 characters")
        if not self.of:
            raise ValueError("`of` must say what is looked up")
        check_text("text", self.told("2001:db8::1", "example.net"))
        Answers(self.answers, self.weight)
        if self.lowest < 0 and self.of != ["address"]:
            raise ValueError("a white list can vouch for an `address` alone: names are but claims")

    @property
    def lowest(self) -> float:
        """The least that being on it adds."""
        return min([*self.answers.values()] or [self.weight])

    def told(self, address: str, name: str) -> str:
        """What a refused client is told."""
        text = self.text.replace("{address}", address).replace("{name}", name)
        text = text.replace("{zone}", self.zone)
        if "{" in text or "}" in text:
            raise ValueError("`text` may have {address}, {name} and {zone} between braces")
        return text[:_TOLD].rstrip()


class Settings(Table, frozen=True, kw_only=True):
    """The ``settings`` of ``dnsbl``."""

    #: The lists.
    zones: list[Zone]
    #: The score from which mail is refused; None: never.
    reject_at: float | None = 1.0
    #: The score from which mail is deferred; None: never.
    defer_at: float | None = None
    #: The score from which mail is held; None: never.
    quarantine_at: float | None = None
    #: The score from which mail gets `tag`; None: never.
    tag_at: float | None = None
    #: A word by which operators find it.
    tag: str = "dnsbl"
    #: The score of a client's address, below 0, up to which it is `Allowed`: others who guess at
    #: spam leave it alone. None: never.
    allow_at: float | None = -1.0
    #: When clients are refused: ``rcpt``, when they name a recipient; or ``connect``, at once: that
    #: saves work, but nobody who could log in, or wants the postmaster, gets further then.
    when: Literal["rcpt", "connect"] = "rcpt"
    #: How long all lists together may take; who has not answered by then has nobody on it.
    timeout: Seconds = Seconds(5)

    def __post_init__(self) -> None:
        check_tag("tag", self.tag)
        if not self.zones:
            raise ValueError("`zones` must name at least one list")
        for key, score in (
            ("reject_at", self.reject_at),
            ("defer_at", self.defer_at),
            ("quarantine_at", self.quarantine_at),
            ("tag_at", self.tag_at),
        ):
            if score is not None and score <= 0:
                raise ValueError(
                    f"`{key}` must be above 0, which is the score of who is not listed"
                )
        if self.allow_at is not None and self.allow_at >= 0:
            raise ValueError("`allow_at` must be below 0, which is the score of who is not listed")
        if not 0 < self.timeout <= LONGEST:
            raise ValueError(f"`timeout` must be more than 0 s, and at most {LONGEST.written}")


class Listing(Struct, frozen=True):
    """Somebody is on a list.

    Attributes:
        zone: which.
        weight: what that adds.
        name: who: the address, or the domain.
        answers: what it said.
        why: its own words, if they were asked for.
    """

    zone: str
    weight: float
    name: str
    answers: tuple[str, ...]
    why: str = ""

    @override
    def __str__(self) -> str:
        """For the log and the timeline."""
        why = f" ({self.why})" if self.why else ""
        return f"{self.name} in {self.zone}: {', '.join(self.answers)}{why}"


class Listed(Struct, frozen=True):
    """What lists say of a client, or of the names that it gives with a message.

    Attributes:
        score: the weights together.
        zones: where it is listed.
        unknown: the lists that could not be asked.
    """

    score: float
    zones: tuple[Listing, ...] = ()
    unknown: tuple[str, ...] = ()

    @override
    def __str__(self) -> str:
        """For the timeline."""
        told = [f"score {self.score:g}", *map(str, self.zones)]
        if self.unknown:
            told.append(f"no answer of {', '.join(self.unknown)}")
        return "; ".join(told)


class _Known:
    """What is known by now, by plugin: there may be several entries of it."""

    def __init__(self) -> None:
        self.found: dict[Dnsbl, Listed | None] = {}


class _Question(Struct, frozen=True, eq=False):
    """One name to look up.

    Attributes:
        label: what stands before the zone.
        name: what that means.
    """

    zone: Zone
    answers: Answers
    label: str
    name: str


class Dnsbl(Objects[Settings]):
    """Adds up what DNS lists say of a client's address, HELO name and sender domain."""

    name = "dnsbl"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._lists = [(each, Answers(each.answers, each.weight)) for each in settings.zones]
        self._told: dict[str, float] = {}

    @override
    async def on_connect(self, session: Session) -> Verdict:
        if self.settings.when == "rcpt" or session.exempt:
            return CONTINUE
        found = await self._of_client(session)
        return CONTINUE if found is None else refusal(self._objections(session, found))

    @override
    async def _judge(self, transaction: Transaction) -> list[Objection]:
        if transaction.exempt:
            return []
        session = transaction.session
        client = await self._of_client(session)
        if client is None:
            return []
        return self._objections(session, client, await self._of_names(transaction))

    def _objections(self, session: Session, *listed: Listed) -> list[Objection]:
        """What the score costs."""
        settings = self.settings
        score = sum(each.score for each in listed)
        levels: tuple[tuple[Action, float | None], ...] = (
            ("reject", settings.reject_at),
            ("defer", settings.defer_at),
            ("quarantine", settings.quarantine_at),
            ("tag", settings.tag_at),
        )
        actions: list[Action] = [word for word, at in levels if at is not None and score >= at]
        if not actions:
            return []
        listings = [each for one in listed for each in one.zones]
        worst = max(listings, key=lambda each: each.weight)
        zone = next(each for each in settings.zones if each.zone == worst.zone)
        return [
            Objection(
                actions[0],
                text=zone.told(session.address, worst.name),
                note=f"score {score:g}: {'; '.join(map(str, listings))}",
                tag=settings.tag,
            )
        ]

    # What lists know.

    async def _of_client(self, session: Session) -> Listed | None:
        """What they know of the address, asked once a session; None: it is `Allowed` by them."""
        known = session.kept.of(_Known).found
        if self in known:
            return known[self]
        address = session.ip
        if address is None or is_inner(address):
            known[self] = _NOT_ASKED
            return _NOT_ASKED
        label = address.reverse_pointer.rpartition(".")[0].rpartition(".")[0]
        found = await self._look_up(
            [
                _Question(zone, answers, label, str(address))
                for zone, answers in self._lists
                if "address" in zone.of
            ]
        )
        session.results.add(found, self.tools.name)
        allow_at = self.settings.allow_at
        if allow_at is not None and found.score <= allow_at:
            session.results.add(Allowed(self.tools.name), self.tools.name)
            self.tools.count("allowed")
            known[self] = None
            return None
        known[self] = found
        return found

    async def _of_names(self, transaction: Transaction) -> Listed:
        """What they know of the names that a client gives, asked once a message."""
        known = transaction.kept.of(_Known).found
        if (former := known.get(self)) is not None:
            return former
        sender, helo = transaction.sender, transaction.session.helo
        names = {"sender": "" if sender is None else sender.domain, "helo": helo}
        asked = {
            (number, name): _Question(zone, answers, name, name)
            for number, (zone, answers) in enumerate(self._lists)
            for kind in zone.of
            if (name := self._askable(names.get(kind, "")))
        }
        if not asked:
            known[self] = _NOT_ASKED
            return _NOT_ASKED
        found = known[self] = await self._look_up([*asked.values()])
        transaction.results.add(found, self.tools.name)
        return found

    def _askable(self, name: str) -> str:
        """A domain that may be on a list, as the DNS writes it, or nothing.

        Some lists of domains answer questions for addresses as if these were listed.
        """
        found = name_of(name)
        domain = "." in found and "[" not in found and not found.rpartition(".")[2].isdigit()
        return found if domain and not self.tools.ours(found) else ""

    async def _look_up(self, questions: list[_Question]) -> Listed:
        """Ask all at once."""
        found: dict[_Question, Listing | None] = {}
        with trio.move_on_after(self.settings.timeout):
            async with trio.open_nursery() as nursery:
                for question in questions:
                    nursery.start_soon(self._ask, question, found)
        unknown = dict.fromkeys(each.zone.zone for each in questions if each not in found)
        for zone in unknown:
            self._complain(zone, "no answer")
        zones = tuple([listing for each in questions if (listing := found.get(each)) is not None])
        return Listed(sum(each.weight for each in zones), zones, tuple(unknown))

    async def _ask(self, question: _Question, found: dict[_Question, Listing | None]) -> None:
        zone = question.zone.zone
        name = f"{question.label}.{zone}"
        try:
            answers = await self.tools.resolver.records(name, Kind.A)
        except (NoSuchDomainError, NoRecordsError):
            found[question] = None
            return
        except DnsTemporaryError as error:
            self._complain(zone, str(error))
            return
        weight, odd = question.answers.judge(answers)
        if odd:
            self._complain(zone, f"no listing, but {', '.join(odd)}")
        if weight is None:
            if not odd:
                found[question] = None
            return
        listing = found[question] = Listing(zone, weight, question.name, answers)
        self.tools.count("listed" if weight > 0 else "listed_white")
        if weight > 0:
            found[question] = replace(listing, why=await self._why(name))

    async def _why(self, name: str) -> str:
        """What a list says of it."""
        try:
            texts = await self.tools.resolver.texts(name)
        except DnsError:
            return ""
        text = b" ".join(texts)[:_SHOWN].decode("ascii", "replace")
        return "".join(each for each in text if each.isprintable())

    def _complain(self, zone: str, problem: str) -> None:
        """A list is of no use: count that, and say it now and then."""
        self.tools.count("unknown")
        now = self.tools.clock()
        if now >= self._told.get(zone, 0.0) + _QUIET:
            self._told[zone] = now
            log.warning("dnsbl.no_use", plugin=self.tools.name, zone=zone, problem=problem)


_NOT_ASKED: Final = Listed(0.0)
