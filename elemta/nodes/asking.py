"""What all nodes of a server are asked at once, and what comes of it.

What is looked at is what those nodes have that run; what is changed is changed on all or, if one of
them cannot be reached, on none. A node that goes away in between is told of.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import trio

from elemta.control.interface import ControlError, RequestError, UnavailableError
from elemta.nodes import merging

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from elemta.control.interface import Control
    from elemta.queue import MessageId

#: Reaches one node, to steer it in somebody's name. Raises ControlError if it cannot be reached.
Reach: TypeAlias = "Callable[[str], AbstractAsyncContextManager[Control]]"

T = TypeVar("T")


class Nodes:
    """Asks nodes.

    Args:
        reach: for each of them, in their order.
        who: in whose name.
    """

    def __init__(self, reach: Sequence[Reach], who: str) -> None:
        self._reach = reach
        self._who = who

    async def each(self, ask: Callable[[Control], Awaitable[T]]) -> list[T | ControlError]:
        """What each node answers, or why it does not; all are asked at once."""
        answers: dict[int, T | ControlError] = {}

        async def one(number: int, reach: Reach) -> None:
            try:
                async with reach(self._who) as node:
                    answers[number] = await ask(node)
            except ControlError as error:
                answers[number] = error

        async with trio.open_nursery() as nursery:
            for number, reach in enumerate(self._reach):
                nursery.start_soon(one, number, reach)
        return [answers[number] for number in range(len(self._reach))]

    async def those(self, ask: Callable[[Control], Awaitable[T]]) -> list[T]:
        """What those nodes answer that can be reached.

        Raises:
            ControlError: none can; or what one of them says is wrong with the question.
        """
        found: list[T] = []
        trouble: ControlError | None = None
        for answer in await self.each(ask):
            if isinstance(answer, RequestError):
                raise answer
            if isinstance(answer, ControlError):
                trouble = answer
            else:
                found.append(answer)
        if trouble is not None and not found:
            raise trouble
        return found

    async def all(self, ask: Callable[[Control], Awaitable[T]]) -> list[T]:
        """What all nodes answer, one after the other: none is asked unless all are there.

        Raises:
            ControlError: as one of them says.
        """
        async with AsyncExitStack() as held:
            return [await ask(node) for node in await self.reach_all(held)]

    async def reach_all(self, held: AsyncExitStack) -> list[Control]:
        """All nodes, in their order, for as long as `held` is.

        Raises:
            UnavailableError: one of them cannot be reached.
        """
        nodes: list[Control] = []
        for number, reach in enumerate(self._reach, 1):
            try:
                nodes.append(await held.enter_async_context(reach(self._who)))
            except ControlError as error:
                text = f"node {number} cannot be reached, so nothing was done: {error}"
                raise UnavailableError(text) from error
        return nodes

    async def where(self, id: MessageId) -> int:  # noqa: A002 # the word of people
        """Which node has a message, from 0."""
        answers = await self.each(lambda node: node.timeline(id))
        return merging.one_of(
            answer if isinstance(answer, ControlError) else number
            for number, answer in enumerate(answers)
        )
