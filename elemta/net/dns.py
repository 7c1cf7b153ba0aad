"""Names in the DNS: what mail asks of it, and a cache in front of it.

Rules of this file:

- Nothing is asked twice: not while the answer is fresh, and not while it is on its way.
- What is remembered is bounded, in number and in time: a forged or mistaken answer must go away.
- "It does not exist" and "nobody could say" are never mixed up: the first bounces mail.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias

import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.nameserver
import dns.rdata
import dns.rdatatype
import dns.resolver
import trio
from msgspec import Struct

from elemta import config
from elemta.metrics.meters import LATENCY, Distribution

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: Seconds that an answer is remembered at most, whatever its TTL.
LONGEST: Final = 86400.0
#: The same for "there is none" (RFC 2308 §5 allows hours; a new domain should not wait for them).
LONGEST_ABSENCE: Final = 300.0
#: Seconds for which a failure is remembered (RFC 9520 §3.2: 1 s to 5 min), so that a thousand
#: messages to one broken domain do not ask a thousand times.
FAILURE: Final = 5.0

#: Octets of an answer by UDP that arrive everywhere unfragmented (dnsflagday.net/2020).
_PAYLOAD: Final = 1232
#: CNAMEs that are followed when the server does not do it for us.
_ALIASES: Final = 8

_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_CHARACTER: Final = re.compile(r"([^\\]+)|\\(?:([01]\d\d|2[0-4]\d|25[0-5])|(.))")


class MX(NamedTuple):
    """A mail exchanger.

    Attributes:
        preference: the lowest is tried first.
        host: lower case, without the final dot. Empty for the null MX, which says that the
            domain takes no mail (RFC 7505).
    """

    preference: int
    host: str


class DnsError(Exception):
    """A question has no answer. Abstract: catch this, raise one of those below."""


class NoSuchDomainError(DnsError):
    """The name does not exist (NXDOMAIN), and none below it either (RFC 8020)."""


class NoRecordsError(DnsError):
    """The name exists, but has no records of that type."""


class DnsTemporaryError(DnsError):
    """Nobody could say: SERVFAIL, no answer in time, or an answer that makes no sense."""


class Resolver(Protocol):
    """What mail asks of the DNS.

    Names are given as A-labels, with or without the final dot. Both methods raise one of
    `NoSuchDomainError`, `NoRecordsError` and `DnsTemporaryError`.
    """

    async def mx(self, domain: str) -> list[MX]:
        """The mail exchangers of a domain, lowest preference first; never an empty list."""
        ...

    async def addresses(self, host: str) -> list[str]:
        """The IPv6 and IPv4 addresses of a host, in this order; never an empty list.

        What one of the two questions brought is returned though the other failed.
        """
        ...


class Kind(enum.Enum):
    """What can be asked for."""

    MX = "MX"
    A = "A"
    AAAA = "AAAA"
    TXT = "TXT"
    PTR = "PTR"


class Records(Protocol):
    """What is asked of the DNS to judge mail.

    Names are given as A-labels, with or without the final dot. All methods raise one of
    `NoSuchDomainError`, `NoRecordsError` and `DnsTemporaryError`.
    """

    async def records(self, name: str, kind: Kind) -> tuple[str, ...]:
        """All records of a kind, each in the text form of a zone file; never none."""
        ...

    def recall(self, name: str, kind: Kind) -> Answer | None:
        """What is known of it by now; None: it must be asked. So nobody waits who need not."""
        ...

    async def texts(self, name: str) -> list[bytes]:
        """The TXT records of a name, the strings of each put together (RFC 7208 §3.3)."""
        ...

    async def names(self, address: str) -> list[str]:
        """What the PTR records of an IP address say: claims (lower case, without final dots)."""
        ...


class Found(Struct, frozen=True):
    """Records, each in the text form of a zone file, and the seconds that they say they hold."""

    records: tuple[str, ...]
    ttl: float

    @property
    def lifetime(self) -> float:
        """Seconds for which we remember it."""
        return min(self.ttl, LONGEST)


class Absent(Struct, frozen=True):
    """There are none.

    Attributes:
        domain: not even the name exists.
        ttl: seconds that the zone says this holds.
    """

    domain: bool
    ttl: float

    @property
    def lifetime(self) -> float:
        """Seconds for which we remember it."""
        return min(self.ttl, LONGEST_ABSENCE)


class Failed(Struct, frozen=True):
    """Nobody could say.

    Attributes:
        why: for our log.
        timed_out: as nobody answered in time.
    """

    why: str
    timed_out: bool = False

    @property
    def lifetime(self) -> float:
        """Seconds for which we remember it."""
        return FAILURE


#: What comes of a question.
Answer: TypeAlias = Found | Absent | Failed


class Backend(Protocol):
    """Who is asked what is not in the cache. Never raises a DNS error: it answers `Failed`."""

    async def ask(self, name: str, kind: Kind) -> Answer:
        """Ask for the records of a lower-case name without a final dot; CNAMEs are followed."""
        ...


class _UnderWay:
    """A question that somebody is asking. `answer` is None for as long, and if they gave up."""

    def __init__(self) -> None:
        self.over = trio.Event()
        self.answer: Answer | None = None


class DnsResolver:
    """A `Resolver` with a cache.

    Time is Trio's, so that it can be virtual.

    Args:
        nameservers: ``HOST``, ``HOST:PORT`` or ``[HOST]:PORT`` each, HOST an IP address; none
            for those of ``/etc/resolv.conf``.
        timeout: seconds that one question may take, repetitions included.
        entries: answers that are remembered; the one not used for longest is forgotten.
        backend: asked instead of nameservers.

    Attributes:
        hits: questions answered from the cache.
        joined: questions answered by one that was under way.
        misses: questions asked.
        answers: what came of those: ``found``, ``absent``, ``failed`` or ``timed_out``.
        seconds: how long these took.

    Raises:
        ValueError: no such nameserver, or none at all.
    """

    def __init__(
        self,
        nameservers: Sequence[str] = (),
        *,
        timeout: float = 10,
        entries: int = 20_000,
        backend: Backend | None = None,
    ) -> None:
        self.hits = 0
        self.joined = 0
        self.misses = 0
        self.answers = Counter[str]()
        self.seconds = Distribution(LATENCY)
        self._backend = backend or Nameservers(nameservers, timeout=timeout)
        self._entries = entries
        self._cache: OrderedDict[tuple[str, Kind], tuple[float, Answer]]
        self._cache = OrderedDict()
        self._under_way: dict[tuple[str, Kind], _UnderWay] = {}

    async def mx(self, domain: str) -> list[MX]:
        """See `Resolver`."""
        exchangers: list[MX] = []
        for record in await self.records(domain, Kind.MX):
            preference, _, host = record.partition(" ")
            exchangers.append(MX(int(preference), host.lower().removesuffix(".")))
        return sorted(exchangers)

    async def addresses(self, host: str) -> list[str]:
        """See `Resolver`."""
        found: dict[Kind, tuple[str, ...]] = {}
        problems: list[DnsError] = []

        async def ask(kind: Kind) -> None:
            try:
                found[kind] = await self.records(host, kind)
            except DnsError as error:
                problems.append(error)

        async with trio.open_nursery() as nursery:
            for kind in (Kind.AAAA, Kind.A):
                nursery.start_soon(ask, kind)
        if found:
            return [*found.get(Kind.AAAA, ()), *found.get(Kind.A, ())]
        # Only if nobody failed is it certain that there is nothing.
        raise min(problems, key=lambda error: not isinstance(error, DnsTemporaryError))

    def forget(self) -> None:
        """Empty the cache."""
        self._cache.clear()

    @property
    def remembered(self) -> int:
        """How many answers the cache holds, fresh or not."""
        return len(self._cache)

    async def texts(self, name: str) -> list[bytes]:
        """See `Records`."""
        return [text_of(record) for record in await self.records(name, Kind.TXT)]

    async def names(self, address: str) -> list[str]:
        """See `Records`.

        Raises:
            ValueError: that is no IP address.
        """
        # The zone of a link-local address is ours, and no name server's (RFC 4007 §6).
        ip = ipaddress.ip_address(address.partition("%")[0])
        found = await self.records(ip.reverse_pointer, Kind.PTR)
        return [name.lower().removesuffix(".") for name in found]

    async def records(self, name: str, kind: Kind) -> tuple[str, ...]:
        """See `Records`."""
        name = name.lower().removesuffix(".")
        match await self._answer((name, kind)):
            case Found(records):
                return records
            case Absent(domain=True):
                raise NoSuchDomainError(f"{name} does not exist")
            case Absent():
                raise NoRecordsError(f"{name} has no {kind.value} records")
            case Failed(why):
                raise DnsTemporaryError(f"cannot find {kind.value} records of {name}: {why}")

    def recall(self, name: str, kind: Kind) -> Answer | None:
        """See `Records`."""
        return self._recall((name.lower().removesuffix("."), kind))

    def _recall(self, question: tuple[str, Kind]) -> Answer | None:
        found = self._cache.get(question)
        if found is None or trio.current_time() >= found[0]:
            return None
        self._cache.move_to_end(question)
        self.hits += 1
        return found[1]

    async def _answer(self, question: tuple[str, Kind]) -> Answer:
        remembered = self._recall(question)
        if remembered is not None:
            await trio.lowlevel.checkpoint()
            return remembered
        while (other := self._under_way.get(question)) is not None:
            await other.over.wait()
            if other.answer is not None:
                self.joined += 1
                return other.answer
            # Whoever asked was cancelled. We ask ourselves, or join another who does by now.
        return await self._ask(question)

    async def _ask(self, question: tuple[str, Kind]) -> Answer:
        self.misses += 1
        under_way = self._under_way[question] = _UnderWay()
        began = trio.current_time()
        try:
            answer = under_way.answer = await self._backend.ask(*question)
        finally:
            del self._under_way[question]
            under_way.over.set()
        self.seconds.observe(trio.current_time() - began)
        self.answers[_kind(answer)] += 1
        self._remember(question, answer)
        return answer

    def _remember(self, question: tuple[str, Kind], answer: Answer) -> None:
        if answer.lifetime <= 0:
            self._cache.pop(question, None)
            return
        self._cache[question] = (trio.current_time() + answer.lifetime, answer)
        self._cache.move_to_end(question)
        if len(self._cache) > self._entries:
            self._cache.popitem(last=False)


class Nameservers:
    """A `Backend`: asks recursive nameservers, by UDP and, where the answer is long, by TCP.

    Args:
        addresses: see `DnsResolver`.
        timeout: seconds that one question may take, repetitions included.
        resolv_conf: the file that names nameservers if `addresses` does not.

    Raises:
        ValueError: no such nameserver, or none at all.
    """

    def __init__(
        self,
        addresses: Sequence[str] = (),
        *,
        timeout: float = 10,
        resolv_conf: str = "/etc/resolv.conf",
    ) -> None:
        try:
            self._resolver = dns.asyncresolver.Resolver(resolv_conf, configure=not addresses)
        except dns.resolver.NoResolverConfiguration as error:
            raise ValueError(f"no nameservers in {resolv_conf}") from error
        if addresses:
            self._resolver.nameservers = [nameserver(address) for address in addresses]
        self._resolver.use_edns(0, 0, _PAYLOAD)
        self._resolver.lifetime = timeout
        # One lost datagram must not cost the whole time: ask again, or the next server.
        self._resolver.timeout = timeout / 4

    async def ask(self, name: str, kind: Kind) -> Answer:
        """See `Backend`."""
        try:
            target = dns.name.from_text(name)
        except dns.exception.DNSException:
            # A label of 64 octets, an empty one: no such thing can be.
            return Absent(domain=True, ttl=LONGEST_ABSENCE)
        ttl = LONGEST
        for _ in range(_ALIASES):
            try:
                answer = await self._resolver.resolve(
                    target,
                    dns.rdatatype.from_text(kind.value),
                    raise_on_no_answer=False,
                    search=False,
                )
            except dns.resolver.NXDOMAIN as error:
                # dnspython has left this attribute untyped.
                response = error.kwargs["responses"][target]  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
                ttl = _ttl(response)  # pyright: ignore[reportUnknownArgumentType]
                return Absent(domain=True, ttl=ttl)
            except dns.exception.DNSException as error:
                return Failed(str(error), timed_out=isinstance(error, dns.exception.Timeout))
            chain = answer.chaining_result
            if answer.rrset is not None:
                return Found(_texts(answer.rrset), min(ttl, chain.minimum_ttl))
            if not chain.cnames and _refers(answer.response):
                return Failed("the name server knows nothing of it, and refers us to others")
            if not chain.cnames or _knows_end(answer.response):
                return Absent(domain=False, ttl=min(ttl, chain.minimum_ttl))
            # The server is not responsible for where the alias leads, and did not look.
            target = chain.canonical_name
            ttl = min(ttl, *(alias.ttl for alias in chain.cnames))
        return Failed("too many aliases")


def text_of(record: str) -> bytes:
    """What a TXT record says, from its form in a zone file (RFC 1035 §5.1)."""
    if "\\" not in record:  # as in nearly all: what stands between quotes stands for itself
        return "".join(record.split('"')[1:-1:2]).encode("utf-8")
    found = bytearray()
    for string in _STRING.findall(record):
        for plain, code, escaped in _CHARACTER.findall(string[1:-1]):
            found += bytes([int(code)]) if code else (plain or escaped).encode("utf-8")
    return bytes(found)


def _kind(answer: Answer) -> str:
    match answer:
        case Found():
            return "found"
        case Absent():
            return "absent"
        case Failed(timed_out=True):
            return "timed_out"
        case Failed():
            return "failed"


def _texts(records: Iterable[dns.rdata.Rdata]) -> tuple[str, ...]:
    return tuple(record.to_text() for record in records)


def _ttl(response: dns.message.QueryMessage) -> float:
    """Seconds for which a name does not exist."""
    return response.resolve_chaining().minimum_ttl


def _knows_end(response: dns.message.Message) -> bool:
    """Whether the server says that there is nothing, instead of not saying (RFC 2308 §2.2)."""
    return any(records.rdtype == dns.rdatatype.SOA for records in response.authority)


def _refers(response: dns.message.Message) -> bool:
    """Whether the server names others to ask: a lame one, which proves nothing (RFC 2308 §2.2)."""
    return not _knows_end(response) and any(
        records.rdtype == dns.rdatatype.NS for records in response.authority
    )


def nameserver(text: str) -> dns.nameserver.Nameserver:
    """A nameserver from its written form, as the configuration has it.

    Raises:
        ValueError: it is none.
    """
    found = config.nameserver(text)
    return dns.nameserver.Do53Nameserver(found.host, found.port)
