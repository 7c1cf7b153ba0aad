"""A request as it came in, before anybody knows what it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from msgspec import Struct
from typing_extensions import override

from elemta.api.problem import Problem
from elemta.api.site import Site
from elemta.api.visit import WEBSOCKET, Caller, Visit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quart.wrappers import Request, Websocket
    from werkzeug.datastructures import Headers

#: Parameters of a query at most; a filter may name as many ids.
MAX_PARAMETERS: Final = 1000


class Names(Mapping[str, str]):
    """Headers, found by their names in letters of any case.

    One that came several times is one, its values joined by commas (RFC 9110 §5.3).
    """

    def __init__(self, headers: Headers) -> None:
        self._values: dict[str, str] = {}
        for name, value in headers.items():
            folded = name.lower()
            before = self._values.get(folded)
            self._values[folded] = value if before is None else f"{before}, {value}"

    @override
    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    @override
    def __len__(self) -> int:
        return len(self._values)


class Arrival(Struct, kw_only=True, eq=False):
    """A request for an endpoint.

    Attributes:
        caller: who makes it; None where nobody is asked. Whoever finds out who it is says so here.
        path: what stands for the names in the endpoint's path.
        query: names and values, in order.
        media_type: of the content, in small letters, without parameters; empty if not told.
        content: the body of the request.
        headers: of the answer, to be added to.
        told: what the audit log is told of it.
        harmless: what is asked changes nothing, though it could have been asked to.
    """

    site: Site
    visit: Visit
    caller: Caller | None = None
    path: Mapping[str, str]
    query: tuple[tuple[str, str], ...] = ()
    media_type: str = ""
    content: bytes = b""
    headers: list[tuple[str, str]] = []
    told: str = ""
    harmless: bool = False


def visit_of(request: Request | Websocket) -> Visit:
    """A request, as far as it tells who makes it."""
    # Not `remote_addr`: Quart keeps it among the headers, where the client may have put one too.
    # ASGI lets a server leave it out.
    client = request.scope.get("client", None)  # pyright: ignore # of two kinds of scope
    return Visit(
        method=request.method if request.scope["type"] == "http" else WEBSOCKET,
        path=request.path,
        client=str(client[0]) if client else "",
        headers=Names(request.headers),
        cookies=dict(request.cookies),
    )


def query_of(request: Request | Websocket) -> tuple[tuple[str, str], ...]:
    """The parameters of a query, in order.

    Raises:
        Problem: it is no UTF-8, or too long.
    """
    try:
        text = request.query_string.decode("utf-8")
        pairs = parse_qsl(
            text, keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS
        )
    except UnicodeDecodeError:
        raise Problem(HTTPStatus.BAD_REQUEST, "the query is no UTF-8") from None
    except ValueError:
        raise Problem(
            HTTPStatus.BAD_REQUEST, f"expected a query of at most {MAX_PARAMETERS} parameters"
        ) from None
    return tuple(pairs)
