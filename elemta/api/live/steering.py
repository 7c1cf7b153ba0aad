"""The protocol of the control socket, over a websocket, for whoever has a token.

So whatever steers a server on its own machine does so from elsewhere: the command line, the
monitor. What a caller may do is asked anew for each request.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import trio
from typing_extensions import override

from elemta.api.failing import problem_of
from elemta.api.live.scopes import is_noted, scope_of, told_of
from elemta.api.live.staying import until_let_go
from elemta.api.live.websocket import GOING_AWAY, close
from elemta.api.visit import GONE
from elemta.control.conversation import Conversation
from elemta.control.interface import ForbiddenError
from elemta.control.responses import respond

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from quart.wrappers import Websocket

    from elemta.api.site import Site
    from elemta.api.visit import Caller, Visit
    from elemta.control.interface import Control
    from elemta.control.messages import Question
    from elemta.control.responses import Give

#: What the audit log has for the status of what was done; of what was not, as of a request.
DONE: Final = 200


async def steer(websocket: Websocket, site: Site, caller: Caller, visit: Visit) -> None:
    """Serve one client until it leaves, is let go or silent for too long, or the server stops."""
    await websocket.accept()  # pyright: ignore # its `dict` says not of what
    guard = Guard(site, caller, visit)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_end_after, site.stopping.wait, nursery.cancel_scope)
        let_go = partial(until_let_go, site.access, visit)
        nursery.start_soon(_end_after, let_go, nursery.cancel_scope)
        conversation = Conversation(
            WebsocketStream(websocket), site.steered_by, caller.who, answer=guard.respond
        )
        await conversation.run()
        nursery.cancel_scope.cancel()
    await close(websocket, GOING_AWAY)


class Guard:
    """Lets a caller do what it may do, and has the rest remembered.

    Args:
        site: whose audit log it is.
        caller: who asks.
        visit: how they came.
    """

    def __init__(self, site: Site, caller: Caller, visit: Visit) -> None:
        self._site = site
        self._caller = caller
        self._visit = visit

    async def respond(self, request: Question, control: Control, give: Give) -> None:
        """As `elemta.control.responses.respond`.

        Raises:
            ForbiddenError: the caller lacks the scope.
        """
        status = GONE
        try:
            self._check(request)
            await respond(request, control, give)
            status = DONE
        except Exception as error:  # whatever it is: the audit log has to know how it ended
            status = problem_of(error).status.value
            raise
        finally:
            if is_noted(request, done=status == DONE):
                self._site.audit.note(self._caller, self._visit, status, told_of(request))

    def _check(self, request: Question) -> None:
        scope = scope_of(request)
        if not self._caller.may(scope):
            raise ForbiddenError(f"this needs the scope `{scope.value}`")


class WebsocketStream(trio.abc.Stream):
    """A websocket as a stream of octets: frames may be cut anywhere, or hold several lines.

    Resource handling:
        The websocket is the caller's to close. When the client leaves, its task is cancelled.
    """

    def __init__(self, websocket: Websocket) -> None:
        self._websocket = websocket

    @override
    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send a frame of text."""
        await self._websocket.send(bytes(data).decode())

    @override
    async def wait_send_all_might_not_block(self) -> None:
        """Nobody knows when that is."""
        await trio.lowlevel.checkpoint()

    @override
    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The content of a frame, however large."""
        frame = await self._websocket.receive()
        return frame.encode() if isinstance(frame, str) else frame

    @override
    async def aclose(self) -> None:
        """Leave it to whose it is."""
        await trio.lowlevel.checkpoint()


async def _end_after(wait: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
    await wait()
    scope.cancel()
