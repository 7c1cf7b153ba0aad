"""What is wrong with a request, as ``application/problem+json`` (RFC 9457)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

if TYPE_CHECKING:
    from http import HTTPStatus

MEDIA_TYPE: Final = "application/problem+json"


class Fault(Struct, frozen=True, omit_defaults=True):
    """One thing that is wrong.

    Attributes:
        field: where: the name of a query parameter, or a path into the body such as
            ``filter.older_than`` or ``recipients[1]``.
        problem: what, and what was expected.
    """

    field: str
    problem: str


class Document(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of an answer that is no success.

    Attributes:
        type: always ``about:blank``: the status says which kind it is.
        title: of the status.
        status: as in the status line.
        detail: what is wrong, in a sentence.
        faults: each thing that is wrong, where it is in the request.
    """

    type: str = "about:blank"
    title: str
    status: int
    detail: str = ""
    faults: tuple[Fault, ...] = ()


class Problem(Exception):  # noqa: N818 # the RFC's word; it is an answer
    """Ends a request.

    Attributes:
        status: of HTTP, 400 or more.
        detail: for who asked; names nothing of ours that it may not know.
        faults: what of the request is wrong.
        headers: of the answer, e.g. ``Retry-After``.
    """

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        *faults: Fault,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.faults = faults
        self.headers = headers or {}

    def encode(self) -> bytes:
        """The body of the answer."""
        return msgspec.json.encode(
            Document(
                title=self.status.phrase,
                status=self.status.value,
                detail=self.detail,
                faults=self.faults,
            )
        )
