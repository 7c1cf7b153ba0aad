"""Where a recipient's mail goes. Pure: whom it asks, it is given.

1. What an operator or a plugin chose hosts for goes there, on the terms of its domain.
2. Where a plugin says when it is asked, it goes, on these terms, too.
3. A domain of ours goes where its ``deliver`` says.
4. Any other goes where, and as, the first entry of ``routes`` that matches says. Where an entry, or
   a domain of ours, names a map, that is looked at first; what is not in it, the next one decides.
5. What matches nothing goes to the domain's own mail exchangers.

A route is decided afresh at each attempt and never stored: a mended configuration frees stuck mail.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, TypeVar

from elemta.config import chosen_targets
from elemta.delivery.destinations import Destinations
from elemta.delivery.routes import USUAL, ByMx, Unsaid, route_of, terms_of
from elemta.delivery.senders import Senders
from elemta.delivery.tables import Table, targets_of
from elemta.log import logger
from elemta.maps import MapDownError
from elemta.plugins import Undecided
from elemta.protocol import domain_to_ascii

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from elemta.config import Config, Domain
    from elemta.delivery.routes import Route, Terms
    from elemta.delivery.tables import Asked, Found
    from elemta.plugins import Choice
    from elemta.protocol import Mailbox, ReversePath
    from elemta.queue import Destined, LaneLimits, RetryPolicy

log = logger(__name__)

#: Domains whose route is remembered.
REMEMBERED: Final = 50_000


#: A route, its lane, and how patient we are there.
_Way: TypeAlias = "tuple[Route, str, RetryPolicy]"

T = TypeVar("T")
V = TypeVar("V")


class _Entry(NamedTuple):
    """An entry of ``routes``."""

    rank: int
    #: Whose mail it is for; None: anybody's.
    senders: Senders | None
    terms: Terms
    #: None: to the MX of each domain.
    route: Route | None
    #: What says where to in its place, if it has something.
    table: Table | None


class _Step(NamedTuple):
    """An entry as it is for one domain."""

    senders: Senders | None
    place: str
    terms: Terms
    route: Route
    table: Table | None = None


class _Branch(NamedTuple):
    """A step, and what comes of it, if no map says something else."""

    step: _Step
    domain: str
    way: _Way


class Answer(NamedTuple):
    """Where a recipient's mail goes, and who says so: see `Router.entry`."""

    route: Route
    entry: str


class Router:
    """Answers by domain, and by what was chosen for a recipient; remembers its answers.

    What stands in maps is told as far as it is known, so that the queue can be sorted; `ask` asks.

    Args:
        config: says it all.
        remembered: domains whose route is remembered; beyond it all are found anew.
        maps: those of the configuration; None: they cannot be asked.

    Attributes:
        choose: what plugins say; it is asked each time. None: nobody is to be asked.
        maps: as given.
        asks: whether maps have routes, so that `ask` may say something else than `route`.
    """

    def __init__(
        self, config: Config, *, remembered: int = REMEMBERED, maps: Asked | None = None
    ) -> None:
        self.choose: Callable[[Destined], Choice] | None = None
        self.maps = maps
        self.asks: Final = any(each.deliver_map for each in config.domains) or any(
            each.map for each in config.routes
        )
        own = {
            _ascii(domain.name): tuple(self._own_steps(domain, f"domains[{place}]"))
            for place, domain in enumerate(config.domains)
        }
        #: The home of a bare ``postmaster`` (RFC 5321 §4.5.1).
        self._home = next(iter(own), "")
        #: By domain: which entry, and where it leads.
        self._own: Final[dict[str, tuple[_Step, ...]]] = own
        delimiters = {
            name.lower(): domain.delimiter
            for domain in config.domains
            if domain.delimiter
            for name in (domain.name, _ascii(domain.name))
        }
        #: By pattern: the entries that are for it, in their order.
        self._routes: Final[dict[str, list[_Entry]]] = {}
        #: By name: those that maps may lead to.
        self._named: Final[dict[str, _Entry]] = {}
        for rank, entry in enumerate(config.routes):
            terms = terms_of(entry)
            route = route_of(entry.targets, terms) if entry.via else None
            senders = Senders(entry.senders, delimiters) if entry.senders else None
            found = _Entry(rank, senders, terms, route, self._table(entry.map))
            if entry.match:
                self._routes.setdefault(_ascii(entry.match), []).append(found)
            if entry.name is not None:
                self._named[entry.name] = found
        self._by_sender: Final = any(entry.senders for entry in config.routes)
        #: By domain, where its mail goes, whoever sent it.
        self._known: Final[dict[str, _Way]] = {}
        #: By domain, where that depends on the sender, or on a map: whose mail goes where, in
        #: order; the last is for all who are left.
        self._parted: Final[dict[str, tuple[_Branch, ...]]] = {}
        #: By entry and domain, what maps have and where that leads.
        self._tabled: Final[dict[tuple[str, str, tuple[str, ...]], _Way]] = {}
        self._chosen: Final[dict[tuple[str, tuple[str, ...], str], _Way]] = {}
        self._remembered = remembered
        self._destinations = Destinations(config, _ascii, _patterns)

    def route(self, recipient: Destined, sender: ReversePath) -> Route:
        """Where to deliver a recipient's mail of a sender."""
        return self._way(recipient, sender)[0]

    def way(self, recipient: Destined, sender: ReversePath) -> tuple[Route, str]:
        """Both: `route`, and its `lane`, whose name is long to be made."""
        route, lane, _ = self._way(recipient, sender)
        return route, lane

    async def ask(
        self,
        recipient: Destined,
        sender: ReversePath,
        tell: Callable[[str], None] | None = None,
    ) -> Answer:
        """Where to deliver a recipient's mail of a sender; maps are asked that must be.

        Args:
            recipient: whose.
            sender: of the mail.
            tell: hears what maps are asked, for people.
        """
        chosen = self._chosen_way(recipient, sender)
        address = recipient.address
        name = _ascii(address.domain) or self._home
        if chosen is not None:
            return Answer(chosen[0], self._chooser(recipient, name, sender))
        for step in self._matching(name, sender):
            if step.table is None:
                return Answer(step.route, step.place)
            try:
                found = await step.table.ask(address, name, tell)
            except MapDownError as error:
                if tell is not None:
                    tell(str(error))
                return Answer(step.route, step.place)
            if found is not None:
                way = self._told(step, name, found, tell)
                return Answer(way[0], step.place)
        raise AssertionError("the last is for any sender")

    def entry(self, recipient: Destined, sender: ReversePath) -> str:
        """Who says so, e.g. ``routes[0]`` or ``plugin:NAME``; empty if nobody does.

        Of a recipient that somebody chose hosts for it says whose terms hold, at most.
        """
        name = _ascii(recipient.address.domain) or self._home
        if recipient.via or self.choose is not None:
            return self._chooser(recipient, name, sender)
        for step in self._matching(name, sender):
            with suppress(MapDownError):
                if step.table is not None and step.table.known(recipient.address, name) is None:
                    continue
            return step.place
        raise AssertionError("the last is for any sender")

    def lane(self, recipient: Destined, sender: ReversePath) -> str:
        """The name of that destination: what has the same lane may share a connection."""
        return self._way(recipient, sender)[1]

    def policy(self, recipient: Destined, sender: ReversePath) -> RetryPolicy:
        """How patient the queue is with a recipient's mail of a sender."""
        return self._way(recipient, sender)[2]

    def limits(self, lane: str) -> LaneLimits:
        """What may go to a destination."""
        return self._destinations.limits(lane)

    def _way(self, recipient: Destined, sender: ReversePath) -> _Way:
        if recipient.via or self.choose is not None:
            chosen = self._chosen_way(recipient, sender)
            if chosen is not None:
                return chosen
        address = recipient.address
        return self._known.get(address.domain) or self._find(address, sender)

    def _chosen_way(self, recipient: Destined, sender: ReversePath) -> _Way | None:
        """Where somebody wants it to go; None: nobody has said so."""
        domain, via = recipient.address.domain, recipient.via
        if not via and self.choose is not None:
            match self.choose(recipient):
                case None:
                    pass
                case Undecided() as undecided:
                    name, lane = _ascii(domain) or self._home, undecided.lane
                    return undecided, lane, self._destinations.policy(name, lane)
                case chosen:
                    via = chosen.targets
        if not via:
            return None
        place = ""
        if self._by_sender:
            place = self._decide(_ascii(domain) or self._home, sender).place
        key = (domain, via, place)
        return self._chosen.get(key) or self._find_chosen(key, sender)

    def _chooser(self, recipient: Destined, domain: str, sender: ReversePath) -> str:
        """Who has chosen, or at least on whose terms that goes."""
        if not recipient.via and self.choose is not None:
            chosen = self.choose(recipient)
            if chosen is not None:
                return f"plugin:{chosen.plugin}"
        return self._decide(domain, sender).place

    def _find(self, address: Mailbox, sender: ReversePath) -> _Way:
        domain = address.domain
        parted = self._parted.get(domain)
        if parted is None:
            name = _ascii(domain) or self._home
            steps = [*self._steps(name)]
            if len(steps) == 1:
                return self._remember(self._known, domain, self._way_of(name, steps[0].route))
            ways = tuple(_Branch(step, name, self._way_of(name, step.route)) for step in steps)
            parted = self._remember(self._parted, domain, ways)
        for step, name, way in parted:
            if step.senders is None or sender in step.senders:
                if step.table is None:
                    return way
                try:
                    found = step.table.known(address, name)
                except MapDownError:
                    return way
                if found is not None:
                    return self._told(step, name, found)
        raise AssertionError("the last is for any sender")

    def _told(
        self, step: _Step, domain: str, found: Found, tell: Callable[[str], None] | None = None
    ) -> _Way:
        """Where what a map has leads; if that is not understood, it waits."""
        key = (step.place, domain, found.values)
        known = self._tabled.get(key)
        if known is None or (tell is not None and isinstance(known[0], Unsaid)):
            try:
                route = self._read(step, domain, found.values)
            except ValueError as error:
                route, problem = step.route, str(error)
            else:
                problem = ""
            if problem and known is None:
                log.error("route.unreadable", entry=step.place, key=found.key, problem=problem)
            if problem and tell is not None:
                tell(f"which is not understood: {problem}")
            known = self._remember(self._tabled, key, self._way_of(domain, route))
        return known

    def _read(self, step: _Step, domain: str, values: Sequence[str]) -> Route:
        """Where values of a map lead.

        Raises:
            ValueError: they say nothing that is understood.
        """
        named = self._named.get(values[0]) if len(values) == 1 else None
        if named is not None:
            route, terms = named.route, named.terms
        else:
            targets = targets_of(values)
            # What a map names is not told who we are: whoever writes to it would learn of that.
            terms = step.terms if targets is None else step.terms.elsewhere
            route = None if targets is None else route_of(targets, terms)
        if route is None:
            if domain in self._own:
                raise ValueError("a domain of ours has no other mail exchangers")
            return ByMx(domain, terms)
        return route

    def _find_chosen(self, key: tuple[str, tuple[str, ...], str], sender: ReversePath) -> _Way:
        domain, via, _ = key
        name = _ascii(domain) or self._home
        step = self._decide(name, sender)
        route = step.route
        with suppress(ValueError):  # another version's: then as the configuration says
            route = route_of(chosen_targets(via, discard=True), step.terms.elsewhere)
        return self._remember(self._chosen, key, self._way_of(name, route))

    def _remember(self, known: dict[T, V], key: T, found: V) -> V:
        if len(known) >= self._remembered:
            known.clear()
        known[key] = found
        return found

    def _way_of(self, domain: str, route: Route) -> _Way:
        return route, route.lane, self._destinations.policy(domain, route.lane)

    def _decide(self, domain: str, sender: ReversePath) -> _Step:
        """Which entry matches, on which terms, and where it leads, if no map says other things."""
        return next(self._matching(domain, sender))

    def _matching(self, domain: str, sender: ReversePath) -> Iterator[_Step]:
        for each in self._steps(domain):
            if each.senders is None or sender in each.senders:
                yield each

    def _steps(self, domain: str) -> Iterator[_Step]:
        """The entries that are for a domain, in order; the last is for any sender."""
        if (own := self._own.get(domain)) is not None:
            yield from own
            return
        found = [self._routes[each] for each in _patterns(domain) if each in self._routes]
        for rank, senders, terms, route, table in sorted(chain.from_iterable(found), key=_rank):
            here = ByMx(domain, terms) if route is None else route
            if table is not None:
                here = Unsaid(table.name)
            yield _Step(senders, f"routes[{rank}]", terms, here, table)
            if senders is None and table is None:
                return
        yield _Step(None, "", USUAL, ByMx(domain))

    def _own_steps(self, domain: Domain, place: str) -> Iterator[_Step]:
        if (table := self._table(domain.deliver_map, domain.delimiter)) is not None:
            yield _Step(None, place, USUAL, Unsaid(table.name), table)
        yield _Step(None, place, USUAL, route_of([domain.target], USUAL))

    def _table(self, name: str | None, delimiter: str = "") -> Table | None:
        return None if name is None else Table(name, lambda: self.maps, delimiter)


def _patterns(domain: str) -> Iterator[str]:
    """Whatever ``match`` may say of a domain: as many as it has labels, however many routes."""
    yield domain
    yield "*"
    if domain.startswith("["):
        return
    while (dot := domain.find(".")) >= 0:
        domain = domain[dot + 1 :]
        yield f"*.{domain}"


def _rank(entry: _Entry) -> int:
    return entry.rank


def _ascii(domain: str) -> str:
    """One form for the two spellings of an internationalised domain; ``*.`` stays in front."""
    star, domain = ("*.", domain[2:]) if domain.startswith("*.") else ("", domain)
    if not domain or domain == "*" or domain.startswith("["):
        return star + domain.lower()
    try:
        return star + domain_to_ascii(domain)
    except ValueError:  # no DNS name can be made of it: DNS will say so
        return star + domain.lower()
