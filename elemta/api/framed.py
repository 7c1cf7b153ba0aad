"""HTML of strangers, as a page of its own for a sandboxed frame of the dashboard.

The policy is sent with the page, so that it holds however the page is opened: nothing runs, nothing
is loaded, nothing can be sent, and it has no origin. What policies do not reach is taken out: a
``link`` that has a browser look up or connect to somebody, a ``meta`` that goes elsewhere, and
``base``.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from elemta.api.endpoint import Content
from elemta.api.problem import Problem

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from elemta.api.arrival import Arrival

#: The media type.
PAGE: Final = "text/html; charset=utf-8"

#: Of such a page: its own styles and pictures that stand in it, and no more.
POLICY: Final = "; ".join(
    (
        "sandbox",
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'self'",
    )
)

_HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "no-referrer",
    "X-DNS-Prefetch-Control": "off",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

#: Stands before it: a link cannot be followed in a frame that may load nothing, so nobody should
#: be able to try. The first doctype of a page is the one that counts.
_BEFORE: Final = "<!doctype html><style>a, area { pointer-events: none }</style>\n"

#: The name of an element ends at white space, ``/`` or ``>`` (HTML, section 13.2.5.8).
_REACHING: Final = re.compile(r"<(?=(?:link|meta|base)[\s/>])", re.IGNORECASE)


def framed(arrival: Arrival, html: str | None) -> Content:
    """Answer a request with HTML of a stranger.

    Raises:
        Problem: 404, there is none.
    """
    if html is None:
        raise Problem(HTTPStatus.NOT_FOUND, "this message has no HTML")
    for name, value in _HEADERS.items():
        arrival.headers.append((name, value))
    page = (_BEFORE + _REACHING.sub("<x-", html)).encode("utf-8", "replace")
    return Content(_once(page), len(page))


async def _once(page: bytes) -> AsyncGenerator[bytes]:
    yield page
