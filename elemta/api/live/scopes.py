"""What somebody must be allowed to do, for each request of the control protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, assert_never

from elemta.api.visit import Scope
from elemta.control import messages as wire
from elemta.control.framing import encode

if TYPE_CHECKING:
    from elemta.control.messages import Question

#: Octets of a request that the audit log has.
TOLD: Final = 1000


def scope_of(request: Question) -> Scope:
    """The scope that a request takes."""
    match request:
        case wire.AskRaw():
            return Scope.CONTENT
        case wire.Act() | wire.Suspend() | wire.Resume():
            return Scope.OPERATE
        case wire.Submit():
            return Scope.SUBMIT
        case wire.Reload() | wire.Check() | wire.Backup() | wire.SwitchPlugin():
            return Scope.ADMIN
        case wire.AskLogLevel():
            return Scope.READ if request.level is None else Scope.ADMIN
        case (  # one by one: a new request must not be open to all who may look, by oversight
            wire.AskStatus()
            | wire.Search()
            | wire.AskTimeline()
            | wire.AskStats()
            | wire.AskDestinations()
            | wire.Count()
            | wire.AskSuspensions()
            | wire.Watch()
            | wire.AskSessions()
            | wire.AskTranscripts()
            | wire.Trace()
            | wire.AskFailures()
            | wire.AskLog()
            | wire.Follow()
            | wire.AskStatistics()
            | wire.AskConfiguration()
            | wire.AskPlugins()
            | wire.Explain()
            | wire.AskWhy()
            | wire.AskMetrics()
        ):
            return Scope.READ
        case _:
            assert_never(request)


def is_noted(request: Question, *, done: bool) -> bool:
    """Whether the audit log has to know of it: it changes something, or shows somebody's mail.

    Args:
        request: what was asked.
        done: it was not refused. Of what changes nothing, such as a dry run, only who may not ask
            for it is of interest.
    """
    match request:
        case wire.Act() | wire.Suspend() | wire.Resume() | wire.Reload():
            return not (done and request.dry_run)
        case wire.Check():
            return not done
        case _:
            return scope_of(request) is not Scope.READ


def told_of(request: Question) -> str:
    """What the audit log is told of a request: no content of mail."""
    if isinstance(request, wire.Submit):
        submission = request.submission
        to = ", ".join(map(str, submission.recipients[:20]))
        return f"submit from <{submission.sender or ''}> to {to}"
    return encode(request)[:TOLD].decode(errors="replace").strip()
