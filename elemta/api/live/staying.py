"""Whoever stays must still be let in: meanwhile a token may be revoked, or a session end."""

from __future__ import annotations

from contextlib import aclosing
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import trio

from elemta.api.problem import Problem

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from elemta.api.live.batch import Batch
    from elemta.api.visit import Access, Visit

#: Seconds after which somebody who stays is looked at again.
AGAIN: Final = 15.0


async def until_let_go(access: Access, visit: Visit) -> None:
    """Return once somebody who was let in would not be any more."""
    while True:
        await trio.sleep(AGAIN)
        if not await still_let_in(access, visit):
            return


async def while_let_in(
    told: AsyncGenerator[Batch], access: Access, visit: Visit
) -> AsyncGenerator[Batch]:
    """What a stream tells, until who listens would not be let in any more."""
    looked = trio.current_time()
    async with aclosing(told):
        async for batch in told:
            if (now := trio.current_time()) - looked >= AGAIN:
                looked = now
                if not await still_let_in(access, visit):
                    return
            yield batch


async def still_let_in(access: Access, visit: Visit) -> bool:
    """Whether they would be let in; where nobody can tell just now, they were."""
    try:
        await access.identify(visit)
    except Problem as problem:
        return problem.status not in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
    return True
