"""SPF: whether an address may send mail of a domain (RFC 7208).

pyspf judges; where it ends in an error that the RFC does not have, or asks more than is needed, its
methods are overridden here.
"""

from __future__ import annotations

import ipaddress
import re
import warnings
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

import trio
from msgspec import Struct
from typing_extensions import override

from elemta.mailauth.asking import (
    Answers,
    MissingError,
    TemporaryError,
    TooManyQuestionsError,
    replay,
)
from elemta.mailauth.results import comment, value
from elemta.net.dns import Kind, text_of

with warnings.catch_warnings():
    # Of an escape in a docstring of its, where it was not compiled when it was installed.
    warnings.simplefilter("ignore")
    import spf

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from elemta.mailauth.asking import Follow, Question
    from elemta.net.dns import Records
    from elemta.threads import InThread

SpfResult: TypeAlias = Literal[
    "none", "neutral", "pass", "fail", "softfail", "temperror", "permerror"
]

#: Seconds that one check may take (RFC 7208 §4.6.4: at least 20).
SECONDS: Final = 20.0

#: Octets of a record, and of a term of it: real ones have a quarter. Time grows with the square.
_LONGEST_RECORD: Final = 4096
_LONGEST_TERM: Final = 512
_LONGEST_EXPLANATION: Final = 1024
#: What pyspf says where a domain explains nothing itself.
_NOTHING: Final = "DEFAULT"
_RESULTS: Final[dict[str, SpfResult]] = {
    "none": "none",
    "neutral": "neutral",
    "pass": "pass",
    "fail": "fail",
    "softfail": "softfail",
    "temperror": "temperror",
    "permerror": "permerror",
}
#: Exchangers, and names of an address, that may be looked at (RFC 7208 §4.6.4).
_MANY: Final = 10
#: What is looked at next; with macros, nobody knows yet what that is.
_INCLUDED: Final = re.compile(
    rb" [+?~-]?(?:include:|redirect=)([\w.-]{1,253})(?= |$)", re.IGNORECASE
)
#: Octets of answers, and so many for each and each term, with which pyspf takes a millisecond.
_LIGHT: Final = 512
_ONE: Final = 32
_TERM: Final = 8
#: Of those whose result is remembered, and for how many cases: ten megabytes or so at worst.
_LONGEST_CASE: Final = 2048
_CASES: Final = 4096
_PREFIXES: Final = ("SPF Permanent Error: ", "SPF Temporary Error: ")


class Spf(Struct, frozen=True):
    """What SPF says of a client and a domain.

    Attributes:
        domain: the one that was looked at.
        scope: where it was said.
        reason: why it is an error, for operators.
        explanation: what the domain says to those whom it does not let send (RFC 7208 §6.2); it may
            be anything.
    """

    result: SpfResult
    domain: str
    scope: Literal["mailfrom", "helo"] = "mailfrom"
    reason: str = ""
    explanation: str = ""

    @override
    def __str__(self) -> str:
        """As RFC 8601 §2.7.2 has it."""
        domain = f" smtp.{self.scope}={value(self.domain)}" if self.domain else ""
        return f"spf={self.result}{comment(self.reason)}{domain}"


async def check_spf(
    address: str,
    sender: str,
    helo: str,
    *,
    resolver: Records,
    in_thread: InThread,
    receiver: str = "unknown",
    seconds: float = SECONDS,
) -> Spf:
    """Whether a client may use the domain of a sender; or that of its HELO for the null sender.

    Ten look-ups and two void ones are allowed (RFC 7208 §4.6.4). Never raises: what goes wrong is a
    permerror, what the DNS cannot say in `seconds` is a temperror.

    Args:
        address: the client's IP address; empty if it has none, and then there is no result.
        sender: the reverse-path; empty for the null sender.
        helo: what the client calls itself.
        resolver: asks the DNS.
        in_thread: where pyspf runs.
        receiver: our own name.
        seconds: for all of it.
    """
    scope: Literal["mailfrom", "helo"] = "mailfrom" if sender else "helo"
    domain = sender.rpartition("@")[2] if sender else helo
    domain = domain.lower().removesuffix(".")
    if not (address and domain) or domain.startswith("["):
        return Spf("none", domain, scope)
    kind = Kind.AAAA if _is_ip6(address) else Kind.A
    asked = _Asked(address, sender, helo, receiver, domain, scope)
    try:
        return await replay(
            partial(_judge, asked),
            resolver=resolver,
            in_thread=in_thread,
            first=[(domain, Kind.TXT)],
            follow=_follow(kind),
            light=partial(_light, asked),
            seconds=seconds,
        )
    except TemporaryError as error:
        return Spf("temperror", domain, scope, str(error))
    except trio.TooSlowError:
        return Spf("temperror", domain, scope, f"no answer in {seconds:g} s")
    except TooManyQuestionsError as error:
        return Spf("permerror", domain, scope, str(error))
    except Exception as error:  # of a library that was given what an attacker wrote
        return Spf("permerror", domain, scope, f"{type(error).__name__}: {error}")


#: A question, and the records there are; None: nobody could say.
_Known: TypeAlias = "tuple[Question, tuple[str, ...] | None]"


class _Asked(NamedTuple):
    """What SPF is asked about; see `check_spf`."""

    address: str
    sender: str
    helo: str
    receiver: str
    domain: str
    scope: Literal["mailfrom", "helo"]


class _Case(NamedTuple):
    """All that the result depends on where no record has a macro."""

    address: str
    domain: str
    scope: Literal["mailfrom", "helo"]
    known: tuple[_Known, ...]


#: What came of such cases: a result, or what pyspf lacks. Most mail is of few senders, and for
#: those pyspf need not run each time. Asked in threads, too: each step leaves it whole.
settled: Final[dict[_Case, Spf | tuple[Question, ...]]] = {}


def _case(asked: _Asked, answers: Answers) -> _Case | None:
    """What is asked, without what does not matter; None: all of it may, or it is very long."""
    known = tuple(answers.all())
    domain = asked.sender.rpartition("@")[2] or asked.helo
    if "%" in domain or _size(answers) > _LONGEST_CASE:
        return None
    for (_, kind), texts in known:
        # A backslash may be that of a percent sign.
        if kind is Kind.TXT and any("%" in text or "\\" in text for text in texts or ()):
            return None
    return _Case(asked.address, domain, asked.scope, known)


def _light(asked: _Asked, answers: Answers) -> bool:
    """Whether it takes no more than a millisecond."""
    return _size(answers) <= _LIGHT or _case(asked, answers) in settled


def _size(answers: Answers) -> int:
    """Octets, and something for each answer and each term."""
    return sum(
        _ONE + sum(len(each) + _TERM * each.count(" ") for each in records or ())
        for _, records in answers.all()
    )


def _judge(asked: _Asked, answers: Answers) -> Spf:
    """What SPF says, knowing these answers."""
    case = _case(asked, answers)
    if case is None:
        return _run(asked, answers)
    found = settled.get(case)
    if found is None:
        found = _settle(case, asked, answers)
    if isinstance(found, Spf):
        return found
    answers.missed = [*found]
    raise MissingError


def _settle(case: _Case, asked: _Asked, answers: Answers) -> Spf | tuple[Question, ...]:
    """The result, or what pyspf lacks for one; so it is from now on."""
    found: Spf | tuple[Question, ...] = ()
    try:
        found = _run(asked, answers)
    except Exception:  # it may fail in any way where it lacks an answer
        if not answers.missed:
            raise
    if answers.missed:
        found = tuple(answers.missed)
    if len(settled) >= _CASES:
        settled.clear()  # seldom, and what counts is soon back
    settled[case] = found
    return found


def _run(asked: _Asked, answers: Answers) -> Spf:
    """What pyspf says."""
    query = _Query(answers, asked.address, asked.sender, asked.helo, asked.receiver)
    word, _, text = query.check()
    result, domain, scope = _RESULTS.get(word, "permerror"), asked.domain, asked.scope
    if result == "fail":
        said = query.explanation(text)
        return Spf(result, domain, scope, explanation="" if said == _NOTHING else said)
    for prefix in _PREFIXES:
        if text.startswith(prefix):
            return Spf(result, domain, scope, text.removeprefix(prefix))
    return Spf(result, domain, scope)


class _Query(spf.query):
    """pyspf, asking what is known."""

    def __init__(
        self, answers: Answers, address: str, sender: str, helo: str, receiver: str
    ) -> None:
        self._answers = answers
        self._explaining: dict[str, tuple[str, str]] = {}
        self._longest = 0
        super().__init__(i=address, s=sender, h=helo, receiver=receiver, querytime=0)
        self.set_default_explanation(_NOTHING)
        if sender:
            # A quoted local part may have an @ in it, at which pyspf would cut.
            local, _, domain = sender.rpartition("@")
            self.l, self.o, self.d = local or "postmaster", domain, domain

    @override
    def dns(
        self,
        name: str,
        qtype: str,
        cnames: dict[str, str] | None = None,
        ignore_void: bool = False,
    ) -> Sequence[object]:
        name = str(name).lower().removesuffix(".")
        if not all(0 < len(label) < 64 for label in name.split(".")):
            return []
        try:
            found = self._records(name, Kind(qtype))
        except TemporaryError as error:
            raise spf.TempError(str(error)) from None
        if not found and not ignore_void:
            self.void_lookups += 1
            if self.void_lookups > spf.MAX_VOID_LOOKUPS:
                raise spf.PermError(f"Void lookup limit of {spf.MAX_VOID_LOOKUPS} exceeded")
        return found

    def _records(self, name: str, kind: Kind) -> Sequence[object]:
        match kind:
            case Kind.TXT:
                texts = self._answers.texts(name)
                for text in texts:
                    self._check_size(text)
                return [(text,) for text in texts]
            case Kind.MX:
                exchangers: list[tuple[int, str]] = []
                for record in self._answers.records(name, kind):
                    preference, _, host = record.partition(" ")
                    exchangers.append((int(preference), host))
                return exchangers
            case Kind.A | Kind.AAAA | Kind.PTR:
                return self._answers.records(name, kind)

    def _check_size(self, text: bytes) -> None:
        """What would take long is refused; what else stands in TXT records is not ours."""
        if self._longest and len(text) > self._longest:
            raise spf.PermError(f"an explanation of more than {self._longest} octets")
        if not _is_record(text):
            return
        if len(text) > _LONGEST_RECORD:
            raise spf.PermError(f"a record of more than {_LONGEST_RECORD} octets")
        if any(len(term) > _LONGEST_TERM for term in text.split(b" ")):
            raise spf.PermError(f"a term of more than {_LONGEST_TERM} octets")

    @override
    def validated_ptrs(self) -> list[str]:
        # A failure is no match here, and a name that nobody knows of is passed over (§5.5).
        valid: list[str] = []
        try:
            names = self.dns_ptr(self.i)[: spf.MAX_PTR]
        except spf.TempError:
            return []
        for name in names:
            try:
                addresses = self.dns_a(name, self.A)
            except spf.TempError:
                continue
            if self.cidrmatch(addresses, self.cidrmax):
                valid.append(name.lower().removesuffix("."))
        return valid

    @override
    def get_explanation(self, spec: str) -> str | None:
        # It is only needed where the result is a fail, and where it was found decides its macros.
        token = f"{self.d} {spec}"
        self._explaining[token] = (self.d, spec)
        return token

    def explanation(self, text: str) -> str:
        """What the domain says, where pyspf says `text`; `_NOTHING` if that is nothing."""
        if text not in self._explaining:
            return _NOTHING
        self.d, spec = self._explaining[text]
        self._longest = _LONGEST_EXPLANATION
        try:
            return super().get_explanation(spec) or _NOTHING
        except (spf.PermError, spf.TempError):
            return _NOTHING


def _follow(kind: Kind) -> Follow:
    """What SPF will ask next: addresses of exchangers and names, records that one includes."""

    def follow(question: Question, records: tuple[str, ...]) -> Iterable[Question]:
        match question[1]:
            case Kind.MX:
                names = [each.partition(" ")[2] for each in records[: _MANY + 1]]
                return [(_name(each), kind) for each in names]
            case Kind.PTR:
                return [(_name(each), kind) for each in records[:_MANY]]
            case Kind.TXT:
                texts = [text_of(each) for each in records]
                return [
                    (_name(found.decode("ascii")), Kind.TXT)
                    for text in texts
                    if _is_record(text) and len(text) <= _LONGEST_RECORD
                    for found in _INCLUDED.findall(text)[:_MANY]
                ]
            case _:
                return ()

    return follow


@lru_cache(maxsize=1024)
def _is_ip6(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return found.version == 6 and found.ipv4_mapped is None


def _name(text: str) -> str:
    return text.lower().removesuffix(".")


def _is_record(text: bytes) -> bool:
    return text[:6].lower() == b"v=spf1"
