"""The dashboard's pages and files, each a file of the package as it stands, read once at the start.

Rules of this file:

- A page may load what we serve and nothing else: no script or style stands in a page, and none of
  another site could be named by one.
- What is served is looked up by its name in a table made at the start; no name of a client ever
  becomes a path.
"""

from __future__ import annotations

import hashlib
from functools import cache, partial
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from quart import Response, request

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.resources.abc import Traversable

    from quart_trio import QuartTrio

    from elemta.api.site import Site

#: What a page of ours may load, run and be framed by.
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "frame-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)

#: Of every page and file.
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

#: Pages by their paths.
PAGES: Final[Mapping[str, str]] = {
    "/": "index.html",
    "/login": "login.html",
    "/docs": "docs.html",
}

_TYPES: Final[Mapping[str, str]] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

#: A name with the version in it never means anything else: a browser may keep it for a year.
FOR_EVER: Final = "public, max-age=31536000, immutable"
#: Anything else is asked for again each time; if it is the same, that costs no more than a line.
ASK_AGAIN: Final = "no-cache"


class File(Struct, frozen=True):
    """Something that is served as it stands.

    Attributes:
        media_type: of HTTP.
        tag: a strong entity tag, quotes included (RFC 9110, section 8.8.3).
    """

    content: bytes
    media_type: str
    tag: str


class Files:
    """What is served beside the API.

    Attributes:
        version: of all of it together: other content, other version.
    """

    def __init__(self, *, inbox: bool) -> None:
        found = contents()
        digest = hashlib.sha256()
        for name in sorted(found):
            digest.update(name.encode() + b"\0" + hashlib.sha256(found[name]).digest())
        self.version: Final = digest.hexdigest()[:16]
        values = {b"%version%": self.version.encode(), b"%inbox%": b"yes" if inbox else b"no"}
        self._files: Final = {name: _file(name, content, values) for name, content in found.items()}

    def page(self, name: str) -> File:
        """A page. Raises KeyError: there is none of this name."""
        return self._files[name]

    def asset(self, name: str) -> tuple[File, str] | None:
        """What a name below ``/static/`` means, and how long a browser may keep it.

        Pages are none of them: a page has one address.
        """
        version, _, rest = name.partition("/")
        kept = ASK_AGAIN
        if version == self.version:
            name, kept = rest, FOR_EVER
        file = self._files.get(name)
        return None if file is None or name.endswith(".html") else (file, kept)


@cache
def contents() -> Mapping[str, bytes]:
    """All files as they stand. Asked for first while we may still read where they lie."""
    return dict(_found(files("elemta.api") / "static"))


def add_pages(app: QuartTrio, site: Site) -> None:
    """Serve the dashboard.

    Args:
        app: gets the pages and the files.
        site: tells whether there is an inbox.
    """
    found = Files(inbox=site.inbox is not None)

    async def page(name: str) -> Response:
        return _answer(found.page(name), ASK_AGAIN)

    async def asset(name: str) -> Response:
        known = found.asset(name)
        if known is None:
            return Response(
                b"There is no such file.\n", 404, HEADERS, content_type="text/plain; charset=utf-8"
            )
        return _answer(*known)

    for path, name in PAGES.items():
        app.add_url_rule(path, f"page_{name}", partial(page, name), methods=["GET"])
    app.add_url_rule("/static/<path:name>", "static_file", asset, methods=["GET"])


def _answer(file: File, kept: str) -> Response:
    headers = {**HEADERS, "ETag": file.tag, "Cache-Control": kept}
    if file.tag in request.headers.get("If-None-Match", ""):
        return Response(b"", 304, headers)
    return Response(file.content, 200, headers, content_type=file.media_type)


def _found(folder: Traversable, above: str = "") -> list[tuple[str, bytes]]:
    """All files of a folder and those below, by their names with slashes."""
    found: list[tuple[str, bytes]] = []
    for entry in folder.iterdir():
        name = above + entry.name
        if entry.is_dir():
            found += _found(entry, name + "/")
        elif any(name.endswith(suffix) for suffix in _TYPES):
            found.append((name, entry.read_bytes()))
    return found


def _file(name: str, content: bytes, values: Mapping[bytes, bytes]) -> File:
    if name.endswith(".html"):
        for key, value in values.items():
            content = content.replace(key, value)
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return File(content, _TYPES["." + name.rpartition(".")[2]], tag)
