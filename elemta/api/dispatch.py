"""One request: who asks, whether they may, what they ask for, and that it stays within bounds."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import trio
from quart import Response, request

from elemta.api.arrival import Arrival, query_of, visit_of
from elemta.api.endpoint import JSON, Content, Endpoint, Nothing
from elemta.api.failing import problem_of, unavailable
from elemta.api.problem import MEDIA_TYPE, Problem
from elemta.api.visit import GONE
from elemta.api.writing import PIECE, in_pieces, written

if TYPE_CHECKING:
    from collections.abc import AsyncIterable

    from elemta.api.site import Site

#: Octets of a body at most: of JSON, and of one that carries a message.
MAX_BODY: Final = 2**20
MAX_MESSAGE: Final = 75 * 2**20
#: Seconds that a client may take to send its body.
BODY_TIME: Final = 60.0
#: Seconds that an answer may take to be found, the body left out.
ANSWER_TIME: Final = 60.0
#: Seconds that an answer may take to be sent.
SENDING_TIME: Final = 600.0
#: Costly requests at a time, and seconds that one waits for its turn.
COSTLY: Final = 8
TURN_TIME: Final = 10.0
#: Messages that are handed in at a time.
LARGE: Final = 4
#: Characters of a body that the audit log has.
TOLD: Final = 1000


class Dispatch:
    """Answers requests for endpoints.

    Args:
        site: what it is about.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._costly = trio.CapacityLimiter(COSTLY)
        self._large = trio.CapacityLimiter(LARGE)

    async def answer(self, endpoint: Endpoint, path: dict[str, str]) -> Response:
        """Answer Quart's current request."""
        arrival = Arrival(site=self._site, visit=visit_of(request), path=path)
        status = GONE
        try:
            response = await self._answer(endpoint, arrival)
            status = response.status_code
        except Exception as error:  # whatever it is: it is an answer, and stands in the audit log
            problem = problem_of(error)
            status = problem.status.value
            response = refusal(problem)
        finally:
            # Who tries what they may not is of interest even if it would have changed nothing.
            if endpoint.audited and not (arrival.harmless and status < HTTPStatus.BAD_REQUEST):
                self._site.audit.note(arrival.caller, arrival.visit, status, arrival.told)
        for name, value in arrival.headers:
            response.headers.add(name, value)
        return response

    async def _answer(self, endpoint: Endpoint, arrival: Arrival) -> Response:
        if not endpoint.open:
            arrival.caller = await self._site.access.identify(arrival.visit)
            if endpoint.scope is not None:
                arrival.caller.check(endpoint.scope)
        arrival.query = query_of(request)
        limiter = self._limiter(endpoint)
        if limiter is None:
            return await self._respond(endpoint, arrival)
        await self._turn(limiter)
        try:
            return await self._respond(endpoint, arrival)
        finally:
            limiter.release()

    def _limiter(self, endpoint: Endpoint) -> trio.CapacityLimiter | None:
        """What a request takes part in."""
        if endpoint.takes:
            small = request.content_length is not None and request.content_length <= MAX_BODY
            return None if small else self._large
        return self._costly if endpoint.costly else None

    async def _turn(self, limiter: trio.CapacityLimiter) -> None:
        """Wait for a place.

        Raises:
            Problem: 503, there is none.
        """
        try:
            limiter.acquire_nowait()
        except trio.WouldBlock:
            # A request that brings much does not wait: what it brings would gather in memory.
            if limiter is not self._large:
                with trio.move_on_after(TURN_TIME):
                    await limiter.acquire()
                    return
            raise unavailable("too much of this is asked for at once") from None

    async def _respond(self, endpoint: Endpoint, arrival: Arrival) -> Response:
        arrival.media_type = request.mimetype
        arrival.content = await _body(endpoint)
        if not endpoint.secret and not endpoint.takes:
            arrival.told = arrival.content[:TOLD].decode("utf-8", "replace")
        with trio.move_on_after(ANSWER_TIME) as limit:
            answer = await endpoint.respond(arrival)
            if isinstance(answer, Content):
                return _streamed(answer, endpoint)
            if endpoint.status == HTTPStatus.NO_CONTENT or isinstance(answer, Nothing):
                return Response(b"", status=HTTPStatus.NO_CONTENT)
            return _told(await written(answer), endpoint)
        assert limit.cancelled_caught, "every other way out of the block returns or raises"
        raise unavailable(f"no answer was found in {ANSWER_TIME:g} s")


def refusal(problem: Problem) -> Response:
    """The answer that a problem is."""
    return Response(
        problem.encode(),
        status=problem.status,
        headers=problem.headers,
        content_type=MEDIA_TYPE,
    )


async def _body(endpoint: Endpoint) -> bytes:
    """The body of the current request.

    Raises:
        Problem: 413, it is too large; 408, it does not come; 415, it is of another type.
    """
    most = MAX_MESSAGE if endpoint.takes else MAX_BODY
    too_large = Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected a body of at most {most} octets"
    )
    if (request.content_length or 0) > most:
        raise too_large
    pieces: list[bytes] = []
    size = 0
    with trio.move_on_after(BODY_TIME) as limit:
        body: AsyncIterable[bytes] = request.body
        async for piece in body:
            pieces.append(piece)
            size += len(piece)
            if size > most:
                raise too_large
    if limit.cancelled_caught:
        raise Problem(HTTPStatus.REQUEST_TIMEOUT, f"the body did not come in {BODY_TIME:g} s")
    if size and request.mimetype not in (JSON, *endpoint.takes):
        expected = " or ".join((JSON, *endpoint.takes))
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"expected a body of the type {expected}",
            headers={"Accept": ", ".join((JSON, *endpoint.takes))},
        )
    return b"".join(pieces)


def _told(content: bytes, endpoint: Endpoint) -> Response:
    response = Response(
        content if len(content) <= PIECE else in_pieces(content),
        status=endpoint.status,
        content_type=endpoint.gives,
    )
    response.content_length = len(content)
    response.timeout = SENDING_TIME
    return response


def _streamed(answer: Content, endpoint: Endpoint) -> Response:
    response = Response(answer.pieces, status=endpoint.status, content_type=endpoint.gives)
    if answer.length is not None:
        response.content_length = answer.length
    response.timeout = SENDING_TIME
    return response
