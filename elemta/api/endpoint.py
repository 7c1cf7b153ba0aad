"""How an endpoint is declared: its route, its checks and its documentation come from that.

Rules of this file:

- Who answers never sees a request that is not allowed, or does not fit what is declared.
- What is answered is a Struct, or content in pieces; what goes wrong is raised.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final, Generic, Literal, TypeAlias, TypeVar

from msgspec import Struct

from elemta.api.arrival import Arrival
from elemta.api.reading import read_body, read_query
from elemta.api.visit import Scope

if TYPE_CHECKING:
    from elemta.api.site import Site
    from elemta.api.visit import Caller, Visit
    from elemta.control.interface import Control

Method: TypeAlias = Literal["GET", "POST", "PUT", "DELETE"]

JSON: Final = "application/json"


class Nothing(Struct, frozen=True, forbid_unknown_fields=True):
    """No parameters, no body, or no answer but that it is done."""


class Content(Struct, frozen=True, eq=False):
    """An answer that is not JSON.

    Attributes:
        pieces: of it. Whatever can be asked wrongly is raised before there are any.
        length: octets; None if nobody knows.
    """

    pieces: AsyncGenerator[bytes]
    length: int | None = None


Q = TypeVar("Q", bound=Struct)
B = TypeVar("B", bound=Struct)
A = TypeVar("A", bound=Struct)


class Asked(Struct, Generic[Q, B], frozen=True, eq=False):
    """What an endpoint is asked.

    Attributes:
        arrival: the request as it came in.
        query: its parameters.
        body: as it was declared; says nothing where the content is of another media type.
    """

    arrival: Arrival
    query: Q
    body: B

    @property
    def site(self) -> Site:
        """The server, as the API shows it."""
        return self.arrival.site

    @property
    def visit(self) -> Visit:
        """The request, as far as it tells who makes it."""
        return self.arrival.visit

    @property
    def caller(self) -> Caller:
        """Who makes it. Only for endpoints that are not open."""
        assert self.arrival.caller is not None, "who asks an endpoint that is not open is known"
        return self.arrival.caller

    @property
    def control(self) -> Control:
        """The server, as the caller steers it."""
        return self.site.steered_by(self.caller.who)

    @property
    def path(self) -> Mapping[str, str]:
        """What stands for the names in the path."""
        return self.arrival.path

    def tell(self, text: str) -> None:
        """Let the audit log have this of the request, instead of its body."""
        self.arrival.told = text

    def promise_no_change(self) -> None:
        """Keep the request out of the audit log, unless it is refused."""
        self.arrival.harmless = True

    def add_header(self, name: str, value: str) -> None:
        """Let the answer have this header, too."""
        self.arrival.headers.append((name, value))


class Endpoint(Struct, frozen=True, kw_only=True, eq=False):
    """One method of one path. Made by `endpoint`.

    Attributes:
        method: of HTTP.
        path: with names of one segment each in braces.
        scope: that the caller must have; None: any caller will do.
        open: nobody is asked who they are.
        tag: what it is about, in a word.
        summary, about: what it does, in a sentence; and the rest that is to be said.
        query, body, answer: their schemas.
        gives: media type of the answer.
        takes: media types that the body may have beside JSON; it is then not looked into.
        status: of success.
        secret: the body must not get into the audit log.
        costly: it takes part in the limit on what may be under way at a time.
        polled: a page asks it again and again: the audit log is not told who.
        example: of a body.
        problems: statuses that it may answer with, beside those that any may.
        headers: that may be sent, and what they say.
        respond: answers a request.
    """

    method: Method
    path: str
    scope: Scope | None
    open: bool
    tag: str
    summary: str
    about: str
    query: type[Struct]
    body: type[Struct]
    answer: type[Struct]
    gives: str
    takes: tuple[str, ...]
    status: int
    secret: bool
    costly: bool
    polled: bool
    example: Struct | None
    problems: tuple[int, ...]
    headers: Mapping[str, str]
    respond: Callable[[Arrival], Awaitable[Struct]]

    @property
    def name(self) -> str:
        """One word for it, e.g. ``get_v1_messages_id``."""
        words = self.path.replace("{", "").replace("}", "").replace(".", "_").strip("/")
        return f"{self.method.lower()}_{words.replace('/', '_').replace('-', '_')}"

    @property
    def audited(self) -> bool:
        """Whether it is remembered who asked: it changes something, or shows somebody's mail."""
        return self.method != "GET" or (self.scope is Scope.CONTENT and not self.polled)


def endpoint(
    method: Method,
    path: str,
    *,
    scope: Scope | None,
    query: type[Q],
    body: type[B],
    answer: type[A],
    tag: str,
    open: bool = False,  # noqa: A002 # the word of people
    gives: str = JSON,
    takes: tuple[str, ...] = (),
    status: int = 200,
    secret: bool = False,
    costly: bool = False,
    polled: bool = False,
    example: B | None = None,
    instead: B | None = None,
    problems: tuple[int, ...] = (),
    headers: Mapping[str, str] | None = None,
) -> Callable[[Callable[[Asked[Q, B]], Awaitable[A]]], Endpoint]:
    """Make an endpoint of a function, whose docstring becomes its documentation.

    What stands for a body of another type is `instead`, or else what `body` is by default. All else
    is as of `Endpoint`.
    """

    def declare(ask: Callable[[Asked[Q, B]], Awaitable[A]]) -> Endpoint:
        async def respond(arrival: Arrival) -> Struct:
            asked = Asked(arrival, read_query(arrival.query, query), _body(arrival))
            if any(getattr(each, "dry_run", False) is True for each in (asked.query, asked.body)):
                asked.promise_no_change()
            return await ask(asked)

        def _body(arrival: Arrival) -> B:
            if arrival.media_type in takes:
                return body() if instead is None else instead
            return read_body(arrival.content or b"{}", body)

        summary, _, about = (inspect.getdoc(ask) or "").partition("\n")
        return Endpoint(
            method=method,
            path=path,
            scope=scope,
            open=open,
            tag=tag,
            summary=summary.strip().removesuffix("."),
            about=about.strip(),
            query=query,
            body=body,
            answer=answer,
            gives=gives,
            takes=takes,
            status=status,
            secret=secret,
            costly=costly,
            polled=polled,
            example=example,
            problems=problems,
            headers=headers or {},
            respond=respond,
        )

    return declare
