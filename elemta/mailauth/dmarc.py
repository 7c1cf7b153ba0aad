"""DMARC: what a domain wants done with mail that is not of it (RFC 7489).

A message passes for a domain if SPF or DKIM passes for one that is aligned with it. What cannot be
found out is a temperror, never a pass and never a fail.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import trio
from msgspec import Struct
from publicsuffixlist import PublicSuffixList
from typing_extensions import override

from elemta.mailauth.asking import Answers, MissingError, TemporaryError, always, replay
from elemta.mailauth.results import comment, parse_results, value
from elemta.net.dns import DnsTemporaryError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from elemta.mailauth.arc import Arc
    from elemta.mailauth.dkim import DkimSignature
    from elemta.mailauth.spf import Spf
    from elemta.net.dns import Records

DmarcResult: TypeAlias = Literal["none", "pass", "fail", "temperror", "permerror"]
Wish: TypeAlias = Literal["none", "quarantine", "reject"]
Alignment: TypeAlias = Literal["strict", "relaxed"]

#: Seconds that looking for a policy may take.
SECONDS: Final = 20.0
#: From the mildest on.
WISHES: Final[tuple[Wish, ...]] = ("none", "quarantine", "reject")
_RANK: Final = {"none": 0, "quarantine": 1, "reject": 2, "unknown": 3}
#: Octets of a record that is worth reading.
_LONGEST: Final = 4096
#: Octets of a name in the DNS.
_LONGEST_NAME: Final = 253
_NOBODY: Final[Mapping[str, Wish]] = {}
_VERSION: Final = re.compile(rb"v[ \t]*=[ \t]*DMARC1[ \t]*(?:;|\Z)")
_PERCENT: Final = re.compile(r"[0-9]{1,3}")
_MAILTO: Final = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*:[!-+\--:<-~]+\s*")


class Policy(Struct, frozen=True, kw_only=True):
    """What a domain wants.

    Attributes:
        at: where it says so.
        wish: for mail of that very domain (``p``).
        below: for mail of domains below it (``sp``).
        dkim, spf: how close what passes must be.
        percent: of how much mail it wants that (``pct``).
    """

    at: str
    wish: Wish
    below: Wish
    dkim: Alignment = "relaxed"
    spf: Alignment = "relaxed"
    percent: int = 100

    def for_domain(self, domain: str) -> Wish:
        """What it wants for mail of a domain."""
        return self.wish if domain == self.at else self.below


class Dmarc(Struct, frozen=True):
    """What DMARC says of a message.

    Attributes:
        result: ``none``: the domain has no policy.
        domain: of the author; of several, the one whose policy counts.
        wish: what that domain wants done with mail that fails; ``unknown``: nobody could say.
        percent: of how much of it.
        done: what we did; empty if it is not about that.
        reason: why, for operators.
    """

    result: DmarcResult
    domain: str = ""
    wish: Wish | Literal["unknown"] = "none"
    percent: int = 100
    done: Wish | Literal[""] = ""
    reason: str = ""

    @override
    def __str__(self) -> str:
        """As RFC 7489 §11.2 and RFC 8601 have it."""
        said: list[str] = []
        if self.result in ("pass", "fail", "temperror") and self.domain:
            said.append(f"p={self.wish}")
            if self.percent != 100:
                said.append(f"pct={self.percent}")
        if self.done:
            said.append(f"dis={self.done}")
        domain = f" header.from={value(self.domain)}" if self.domain else ""
        return f"dmarc={self.result}{comment(self.reason, ' '.join(said))}{domain}"


async def check_dmarc(
    domains: Sequence[str],
    spf: Spf,
    signatures: Sequence[DkimSignature],
    *,
    resolver: Records,
    local: Mapping[str, Wish] = _NOBODY,
    seconds: float = SECONDS,
) -> Dmarc:
    """What the policies of a message's authors make of it. Never raises.

    Of several authors the strictest policy counts among those that the message fails (RFC 7489
    §6.6.1).

    Args:
        domains: of its authors, at least one.
        spf: what SPF found.
        signatures: what became of its signatures.
        resolver: asks the DNS.
        local: policies of our own, by domain; they hold for those below, too, and the DNS is not
            asked for others.
        seconds: for all of it.
    """
    answers = Answers()

    def judge(answers: Answers, unanswered: str = "") -> list[Dmarc]:
        found: list[Dmarc] = []
        for domain in domains:
            wish = _local(domain, local)
            try:
                policy = (
                    _policy(domain, answers)
                    if wish is None
                    else Policy(at=domain, wish=wish, below=wish)
                )
            except MissingError:  # it is asked, with those of the others, and then we are again
                found.append(Dmarc("temperror", domain, "unknown", reason=unanswered))
            except TemporaryError:
                reason = "nobody could say its policy"
                found.append(Dmarc("temperror", domain, "unknown", reason=reason))
            else:
                found.append(judged(domain, policy, spf, signatures))
        return found

    try:
        found = await replay(
            judge, resolver=resolver, light=always, seconds=seconds, answers=answers
        )
    except trio.TooSlowError:
        found = judge(answers, f"no answer in {seconds:g} s")
    order = ("fail", "temperror", "pass", "none") if len(found) > 1 else ()
    for result in order:
        of_these = [each for each in found if each.result == result]
        if of_these and result == "pass" and len(of_these) < len(found):
            continue  # an author of whom we know nothing is not vouched for by another
        if of_these:
            return max(of_these, key=lambda each: _RANK[each.wish])
    return found[0]


def _local(domain: str, local: Mapping[str, Wish]) -> Wish | None:
    while domain:
        if domain in local:
            return local[domain]
        domain = domain.partition(".")[2]
    return None


def judged(
    domain: str, policy: Policy | None, spf: Spf, signatures: Sequence[DkimSignature]
) -> Dmarc:
    """What a policy makes of a message.

    Args:
        domain: of its author.
        policy: of that domain; None: it has none.
        spf: what SPF found.
        signatures: what became of the message's signatures.
    """
    if policy is None:
        return Dmarc("none", domain)
    wish = policy.for_domain(domain)
    if (spf.result == "pass" and aligned(spf.domain, domain, policy.spf)) or any(
        each.result == "pass" and aligned(each.domain, domain, policy.dkim) for each in signatures
    ):
        return Dmarc("pass", domain, wish, policy.percent)
    unknown = spf.result == "temperror" and aligned(spf.domain, domain, policy.spf)
    if unknown or any(
        each.result == "temperror" and aligned(each.domain, domain, policy.dkim)
        for each in signatures
    ):
        return Dmarc("temperror", domain, wish, policy.percent, reason="it might yet pass")
    return Dmarc("fail", domain, wish, policy.percent)


def applied(wish: Wish, percent: int, chance: float) -> Wish:
    """What is to be done with one message that fails (RFC 7489 §6.6.4).

    Args:
        wish: what the domain wants done.
        percent: with how many of a hundred; with the rest, the next milder thing.
        chance: from 0 up to 1.
    """
    if chance * 100 < percent:
        return wish
    return WISHES[max(0, WISHES.index(wish) - 1)]


def vouched_by(domain: str, arc: Arc, trusted: Collection[str]) -> str:
    """Who of those whom we trust says that a message passed when he got it.

    What a sealer states can be believed if he and all who sealed after him are trusted: each of
    these could have made up all that was before.

    Args:
        domain: of its author.
        arc: what became of its chain.
        trusted: domains of sealers, in lower case.

    Returns:
        The domain of that sealer; empty if there is none.
    """
    if arc.result != "pass":
        return ""
    for seal in arc.seals:
        if seal.domain not in trusted:
            break
        try:
            stated = parse_results(seal.stated).stated
        except ValueError:
            continue
        for each in stated:
            author = each.properties.get("header.from", "").rpartition("@")[2].lower()
            if (each.method, each.result, author) == ("dmarc", "pass", domain):
                return seal.domain
    return ""


async def find_policy(domain: str, resolver: Records) -> Policy | None:
    """The policy for a domain's mail: its own, or that of its organisation (RFC 7489 §6.6.3).

    Args:
        domain: A-labels in lower case.
        resolver: asks the DNS.

    Raises:
        DnsTemporaryError: nobody could say.
    """
    try:
        return await replay(partial(_policy, domain), resolver=resolver, light=always)
    except TemporaryError as error:
        raise DnsTemporaryError(str(error)) from None


def _policy(domain: str, answers: Answers) -> Policy | None:
    records = _records(domain, answers)
    if not records and (organisation := organisation_of(domain)) != domain:
        domain = organisation
        records = _records(domain, answers)
    return read_policy(records[0], domain) if len(records) == 1 else None


def _records(domain: str, answers: Answers) -> list[bytes]:
    texts = answers.texts(f"_dmarc.{domain}")
    return [each for each in texts if _VERSION.match(each) and len(each) <= _LONGEST]


@lru_cache(maxsize=1024)  # of a domain it is nearly always the same one
def read_policy(record: bytes, domain: str) -> Policy | None:
    """What a record says, which begins with its version; None: nothing that counts.

    What cannot be read is as if it were not there, but for what is wanted: without that the record
    is for reports alone, if it asks for any, and else for nothing (RFC 7489 §6.6.3).

    Args:
        record: as it stands in the DNS.
        domain: whose it is.
    """
    tags: dict[str, str] = {}
    for part in record.decode("ascii", "replace").split(";"):
        name, found, text = part.partition("=")
        if found:
            tags.setdefault(name.strip().lower(), text.strip())
    wish = _wish(tags.get("p", ""))
    below = _wish(tags["sp"]) if "sp" in tags else wish
    if wish is None or below is None:
        if not any(_MAILTO.fullmatch(each) for each in tags.get("rua", "").split(",")):
            return None
        wish = below = "none"
    percent = tags.get("pct", "100")
    return Policy(
        at=domain,
        wish=wish,
        below=below,
        dkim="strict" if tags.get("adkim", "").lower() == "s" else "relaxed",
        spf="strict" if tags.get("aspf", "").lower() == "s" else "relaxed",
        percent=int(percent) if _PERCENT.fullmatch(percent) and int(percent) <= 100 else 100,
    )


def aligned(found: str, domain: str, how: Alignment) -> bool:
    """Whether what passed for one domain vouches for another (RFC 7489 §3.1)."""
    found = found.lower().removesuffix(".")
    if how == "strict" or found == domain:
        return found == domain
    return bool(found) and organisation_of(found) == organisation_of(domain)


def organisation_of(domain: str) -> str:
    """The domain that somebody registered (RFC 7489 §3.2); of a public suffix, that itself."""
    return _registered(domain) if len(domain) <= _LONGEST_NAME else domain


@lru_cache(maxsize=4096)  # the same ones over and over, and several times for each message
def _registered(domain: str) -> str:
    return _suffixes().privatesuffix(domain) or domain


@cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()


def load_suffixes() -> None:
    """Read the list of public suffixes, which takes a moment and would hold up a message."""
    _suffixes()


def _wish(text: str) -> Wish | None:
    return next((each for each in WISHES if each == text.lower()), None)
