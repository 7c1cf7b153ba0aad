"""What delivery would do for a recipient just now, though nothing is done."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct

from elemta.config import TlsPolicy
from elemta.delivery.hosts import Candidate
from elemta.delivery.routes import Route, ToHosts
from elemta.protocol import Reply

if TYPE_CHECKING:
    from elemta.delivery.hosts import Hosts
    from elemta.delivery.routes import Remote
    from elemta.delivery.security import Security


class Call(Struct, frozen=True):
    """A host that would be called.

    Attributes:
        tls: how it would be talked to, for people.
    """

    candidate: Candidate
    tls: str


#: Whom it would call, best first; or why nobody.
Calls: TypeAlias = "tuple[Call, ...] | Reply"


class Outlook(Struct, frozen=True, kw_only=True):
    """Where a recipient's mail would go.

    Attributes:
        entry: which of the configuration says so, e.g. ``routes[0]``; empty: none does.
        lane: what the queue calls it.
        asked: what maps were asked, and what they had, a line each.
    """

    entry: str
    route: Route
    lane: str
    asked: tuple[str, ...] = ()


class Meeting(Struct, frozen=True, kw_only=True):
    """How the hosts of a destination would be met.

    Attributes:
        hello_name: what we would call ourselves.
        source: our own addresses to connect from; none: whichever the kernel takes.
        policy: whether to encrypt.
        login: who we would say we are; empty: nobody.
        found: what there was to choose from, and what was left out, and why, a line each.
        calls: whom.
    """

    hello_name: str
    source: tuple[str, ...]
    policy: TlsPolicy
    login: str
    lmtp: bool
    found: tuple[str, ...]
    calls: Calls


async def meet(
    route: Remote, hosts: Hosts, security: Security, hello_name: str, now: float
) -> Meeting:
    """Find out how the hosts of a route would be met; DNS is asked, they are not.

    Args:
        route: where to.
        hosts: says whom to call.
        security: whether to encrypt.
        hello_name: what we call ourselves, unless the route says otherwise.
        now: Trio time.
    """
    found: list[str] = []
    plan = await hosts.plan(route, found.append)
    calls: Calls
    if isinstance(plan, Reply):
        calls = plan
    else:
        calls = tuple(Call(each, _tls(each, route, security, now)) for each in plan)
    return Meeting(
        hello_name=route.terms.hello_name or hello_name,
        source=route.terms.source,
        policy=route.terms.tls or security.policy,
        login="" if route.terms.login is None else route.terms.login.user,
        lmtp=isinstance(route, ToHosts) and route.lmtp,
        found=tuple(found),
        calls=calls,
    )


def _tls(host: Candidate, route: Remote, security: Security, now: float) -> str:
    if (refusal := security.refusal(host, route, now)) is not None:
        left = refusal.minutes(now)
        return f"not called for {left} min more, as it has refused our login: {refusal.reason}"
    try:
        wish = security.wish(host, route, now)
    except OSError as error:
        return f"not at all: {error}"
    if wish is not None:
        told = "TLS required" if wish.required else "TLS if it offers it"
        if wish.implicit:
            told = "TLS from the first octet"
        return f"{told}, and a certificate for {wish.server_name}" if wish.verified else told
    if not host.port:
        return "in clear, as it is on this machine"
    failure = security.failure(host, now)
    if failure is None:
        return "in clear"
    return f"in clear for {failure.minutes(now)} min more: {failure.reason}"
