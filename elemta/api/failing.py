"""Whatever can go wrong with a request, as a problem."""

from __future__ import annotations

import traceback
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from werkzeug.exceptions import HTTPException

from elemta.api.problem import Fault, Problem
from elemta.config import ConfigError
from elemta.control.interface import (
    ControlError,
    ForbiddenError,
    RequestError,
    UnavailableError,
    UnknownError,
)
from elemta.log import logger

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logger(__name__)

#: Seconds after which it is worth asking again.
AGAIN_IN = 5
#: What `Control` calls a value, and what it is called here.
_FIELDS: Final[Mapping[str, str]] = {"after": "cursor"}
_DETAILS: Final = {
    HTTPStatus.NOT_FOUND: "there is nothing of this path",
    HTTPStatus.METHOD_NOT_ALLOWED: "this path does not know this method",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "the body is too large",
    HTTPStatus.REQUEST_TIMEOUT: "the body did not come in time",
}


def problem_of(error: Exception) -> Problem:
    """What to answer.

    What nobody has thought of is a fault of ours: it is logged, and nothing of it is told.
    """
    match _first(error):
        case Problem() as problem:
            return _challenging(problem)
        case HTTPException() as told:
            return _told_by_quart(told)
        case ConfigError() as mistaken:
            found = [
                Fault(
                    each.place,
                    f"line {each.line}: {each.problem}" if each.line else each.problem,
                )
                for each in mistaken.mistakes
            ]
            return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(mistaken), *found)
        case RequestError() as refused:
            where = [Fault(field_of(refused.place), str(refused))] if refused.place else []
            return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(refused), *where)
        case UnknownError() as unknown:
            return Problem(HTTPStatus.NOT_FOUND, str(unknown))
        case ForbiddenError() as forbidden:
            return Problem(HTTPStatus.FORBIDDEN, str(forbidden))
        case UnavailableError() | ControlError() as trouble:
            return unavailable(str(trouble))
        case _:
            log.error("api.failed", traceback="".join(traceback.format_exception(error)))
            return Problem(
                HTTPStatus.INTERNAL_SERVER_ERROR,
                "a fault of the server; its log says more",
            )


def unavailable(detail: str) -> Problem:
    """What to raise for what cannot be done just now."""
    headers = {"Retry-After": str(AGAIN_IN)}
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers=headers)


def field_of(place: str) -> str:
    """What is wrong of the request, where `Control` was given it under another name."""
    return _FIELDS.get(place, place.removeprefix("action."))


def _first(error: Exception) -> Exception:
    """What went wrong; of several things that went wrong together, the first."""
    if isinstance(error, ExceptionGroup):
        return _first(error.exceptions[0])  # pyright: ignore # a group does not say of what
    return error


def _challenging(problem: Problem) -> Problem:
    """A 401 must say how to show who one is (RFC 9110 §11.6.1)."""
    if problem.status is HTTPStatus.UNAUTHORIZED:
        problem.headers.setdefault("WWW-Authenticate", 'Bearer realm="elemta"')
    return problem


def _told_by_quart(error: HTTPException) -> Problem:
    status = HTTPStatus(error.code or 500)
    headers = {
        name: value for name, value in error.get_headers() if name in ("Allow", "Retry-After")
    }
    if status is HTTPStatus.INTERNAL_SERVER_ERROR:
        return Problem(status, "a fault of the server; its log says more")
    return Problem(status, _DETAILS.get(status, status.description), headers=headers)
