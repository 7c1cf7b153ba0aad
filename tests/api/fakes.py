"""Who comes in, and who remembers it, where a test needs no more than that."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar

from msgspec import Struct

from elemta.api.problem import Problem
from elemta.api.site import Site
from elemta.api.visit import Caller, Scope, Visit

if TYPE_CHECKING:
    from collections.abc import Callable

    import trio

    from elemta.api.visit import Access, Audit
    from tests.control.fake import FakeControl

T = TypeVar("T")


async def at_once(call: Callable[[], T], limiter: trio.CapacityLimiter, /) -> T:
    """For `InThread` on virtual time, which does not wait for threads."""
    async with limiter:
        return call()


class Noted(Struct, frozen=True):
    """What the audit log was told."""

    who: str | None
    method: str
    path: str
    status: int
    told: str


class FakeAccess:
    """Knows a token for each scope, called as the scope is, and ``all``, which has them all.

    Attributes:
        visits: that were looked at.
    """

    def __init__(self) -> None:
        self.visits: list[Visit] = []

    async def identify(self, visit: Visit) -> Caller:
        self.visits.append(visit)
        token = visit.headers.get("Authorization", "").removeprefix("Bearer ")
        if token == "all":
            return Caller("token:all", frozenset(Scope))
        if token in {scope.value for scope in Scope}:
            return Caller(f"token:{token}", frozenset({Scope(token)}))
        raise Problem(HTTPStatus.UNAUTHORIZED, "no token, or none that is known")


class FakeAudit:
    """Remembers in memory."""

    def __init__(self) -> None:
        self.noted: list[Noted] = []

    def note(self, caller: Caller | None, visit: Visit, status: int, told: str = "") -> None:
        who = None if caller is None else caller.who
        self.noted.append(Noted(who, visit.method, visit.path, status, told))


#: Headers of somebody who may do everything.
ALL = {"Authorization": "Bearer all"}


def site_of(control: FakeControl, access: Access | None = None, audit: Audit | None = None) -> Site:
    """A site whose clock stands at 1000."""
    return Site(
        steered_by=control.steered_by,
        access=access or FakeAccess(),
        audit=audit or FakeAudit(),
        clock=lambda: 1000.0,
    )
