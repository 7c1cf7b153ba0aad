"""What goes over the control socket: one line of JSON each (`elemta.control.server`).

A request is one of `Request`; its answers are any number of `Answer`, the last of which is `Done`
or `Refused`. Which is which says the key ``is``. What has a default may be left out.
"""

from __future__ import annotations

import enum
from typing import Annotated, Final, TypeAlias

from msgspec import Meta, Struct

from elemta.config import Change, Mistake
from elemta.control.facts import (
    Configuration,
    Explanation,
    Hypothesis,
    LogEntry,
    Metric,
    PluginStatus,
    Scale,
    SessionStatus,
    Spoken,
    Statistics,
    Submission,
    Submitted,
    TraceFilter,
    Transcript,
)
from elemta.control.interface import Happening, Saved, Status
from elemta.queue import (
    Action,
    Destination,
    Filter,
    Finding,
    Message,
    MessageId,
    Missed,
    Stats,
    Suspension,
    Tally,
    Timeline,
)

#: Messages of one answer to `Search` at most; ask for what comes after the last.
PAGE: Final = 1000

Text: TypeAlias = Annotated[str, Meta(max_length=1000)]


class Ask(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="is"):
    """Base of every request; `Control` says what each does."""


class SpeakFor(Ask, frozen=True, kw_only=True, tag="for"):
    """What follows is asked in another's name: the first process of a server asks its nodes so.

    Only the user whom the server runs as may do so, and root.
    """

    who: Text


class AskStatus(Ask, frozen=True, kw_only=True, tag="status"):
    """Answered by `Told`."""


class Search(Ask, frozen=True, kw_only=True, tag="search"):
    """Answered by a `Found` for each message."""

    filter: Filter = Filter()
    limit: Annotated[int, Meta(ge=1, le=PAGE)] = 100
    after: MessageId | None = None
    newest: bool = False


class AskTimeline(Ask, frozen=True, kw_only=True, tag="timeline"):
    """Answered by `Story`."""

    id: MessageId


class AskRaw(Ask, frozen=True, kw_only=True, tag="raw"):
    """Answered by a `Piece` after the other."""

    id: MessageId


class AskStats(Ask, frozen=True, kw_only=True, tag="stats"):
    """Answered by `Fullness`."""


class AskDestinations(Ask, frozen=True, kw_only=True, tag="destinations"):
    """Answered by `Destinations`."""


class Act(Ask, frozen=True, kw_only=True, tag="act"):
    """Answered by `Counted`. A filter must be there, even if it has no condition."""

    action: Action
    filter: Filter
    reason: Text = ""
    dry_run: bool = False


class Count(Ask, frozen=True, kw_only=True, tag="count"):
    """Answered by `Counted`."""

    filter: Filter


class Suspend(Ask, frozen=True, kw_only=True, tag="suspend"):
    """Answered by `Counted` if it is a dry run."""

    scope: Text
    reason: Text = ""
    until: float | None = None
    dry_run: bool = False


class Resume(Ask, frozen=True, kw_only=True, tag="resume"):
    """Answered by `Counted` if it is a dry run."""

    scope: Text
    dry_run: bool = False


class AskSuspensions(Ask, frozen=True, kw_only=True, tag="suspensions"):
    """Answered by `Suspensions`."""


class Watch(Ask, frozen=True, kw_only=True, tag="events"):
    """Answered by a `Happened` for each event, until the client leaves."""

    since: Annotated[int, Meta(ge=0)] | None = None


class Reload(Ask, frozen=True, kw_only=True, tag="reload"):
    """Answered by `Changed`."""

    dry_run: bool = False


class Check(Ask, frozen=True, kw_only=True, tag="check"):
    """Answered by `Findings`."""


class Backup(Ask, frozen=True, kw_only=True, tag="backup"):
    """Answered by `Copied`.

    Attributes:
        target: a folder that is not there yet, absolute.
    """

    target: Annotated[str, Meta(max_length=4096)]


class AskSessions(Ask, frozen=True, kw_only=True, tag="sessions"):
    """Answered by `Sessions`."""


class AskTranscripts(Ask, frozen=True, kw_only=True, tag="transcripts"):
    """Answered by a `Recorded` for each."""

    id: MessageId


class Trace(Ask, frozen=True, kw_only=True, tag="trace"):
    """Answered by an `Overheard` for each line, until the client leaves."""

    filter: TraceFilter = TraceFilter()


class AskFailures(Ask, frozen=True, kw_only=True, tag="failures"):
    """Answered by a `Happened` for each."""

    limit: Annotated[int, Meta(ge=1, le=PAGE)] = 100


class AskLog(Ask, frozen=True, kw_only=True, tag="log"):
    """Answered by a `Logged` for each."""

    level: Text = "debug"
    limit: Annotated[int, Meta(ge=1, le=PAGE)] = 100


class Follow(Ask, frozen=True, kw_only=True, tag="follow"):
    """Answered by a `Logged` for each event, until the client leaves."""

    level: Text = "debug"


class AskLogLevel(Ask, frozen=True, kw_only=True, tag="log-level"):
    """Answered by `LogLevel`."""

    level: Text | None = None


class AskStatistics(Ask, frozen=True, kw_only=True, tag="statistics"):
    """Answered by `Summed`."""

    scale: Scale


class AskConfiguration(Ask, frozen=True, kw_only=True, tag="configuration"):
    """Answered by `Configured`."""


class AskPlugins(Ask, frozen=True, kw_only=True, tag="plugins"):
    """Answered by `Plugins`."""


class SwitchPlugin(Ask, frozen=True, kw_only=True, tag="plugin"):
    """Answered by nothing but `Done`."""

    name: Text
    enabled: bool


class Explain(Ask, frozen=True, kw_only=True, tag="explain"):
    """Answered by `Explained`."""

    hypothesis: Hypothesis


class AskWhy(Ask, frozen=True, kw_only=True, tag="why"):
    """Answered by `Explained`."""

    id: MessageId


class Submit(Ask, frozen=True, kw_only=True, tag="submit"):
    """Answered by `Taken`."""

    submission: Submission


class AskMetrics(Ask, frozen=True, kw_only=True, tag="metrics"):
    """Answered by `Measured`."""


#: What `Control` answers.
Question: TypeAlias = (
    AskStatus
    | Search
    | AskTimeline
    | AskRaw
    | AskStats
    | AskDestinations
    | Act
    | Count
    | Suspend
    | Resume
    | AskSuspensions
    | Watch
    | Reload
    | Check
    | Backup
    | AskSessions
    | AskTranscripts
    | Trace
    | AskFailures
    | AskLog
    | Follow
    | AskLogLevel
    | AskStatistics
    | AskConfiguration
    | AskPlugins
    | SwitchPlugin
    | Explain
    | AskWhy
    | Submit
    | AskMetrics
)
#: What is answered until the client leaves.
Endless: TypeAlias = Watch | Trace | Follow
#: What a client may ask.
Request: TypeAlias = SpeakFor | Question


class Given(Struct, frozen=True, kw_only=True, tag_field="is"):
    """Base of every answer."""


class Told(Given, frozen=True, kw_only=True, tag="status"):
    """How the server is."""

    status: Status


class Found(Given, frozen=True, kw_only=True, tag="message"):
    """One message."""

    message: Message


class Story(Given, frozen=True, kw_only=True, tag="timeline"):
    """What happened to a message."""

    timeline: Timeline


class Piece(Given, frozen=True, kw_only=True, tag="piece"):
    """Some octets, in base64."""

    content: bytes


class Fullness(Given, frozen=True, kw_only=True, tag="stats"):
    """How full the queue is."""

    stats: Stats


class Destinations(Given, frozen=True, kw_only=True, tag="destinations"):
    """Where mail goes."""

    destinations: list[Destination]


class Counted(Given, frozen=True, kw_only=True, tag="tally"):
    """How much was meant, or done; nothing, where an action has no count."""

    tally: Tally | None


class Suspensions(Given, frozen=True, kw_only=True, tag="suspensions"):
    """What is suspended."""

    suspensions: list[Suspension]


class Happened(Given, frozen=True, kw_only=True, tag="event"):
    """One event, or how many were missed."""

    event: Happening


class Changed(Given, frozen=True, kw_only=True, tag="reloaded"):
    """What a configuration changes."""

    changes: tuple[Change, ...]


class Findings(Given, frozen=True, kw_only=True, tag="findings"):
    """What is wrong with the store."""

    findings: list[Finding]


class Copied(Given, frozen=True, kw_only=True, tag="saved"):
    """Where a copy is."""

    saved: Saved


class Sessions(Given, frozen=True, kw_only=True, tag="sessions"):
    """Who is connected."""

    sessions: list[SessionStatus]


class Recorded(Given, frozen=True, kw_only=True, tag="transcript"):
    """What was said."""

    transcript: Transcript


class Overheard(Given, frozen=True, kw_only=True, tag="spoken"):
    """A line, or how many were missed."""

    line: Spoken | Missed


class Logged(Given, frozen=True, kw_only=True, tag="logged"):
    """An event of the log, or how many were missed."""

    entry: LogEntry | Missed


class LogLevel(Given, frozen=True, kw_only=True, tag="log-level"):
    """The least that is logged."""

    level: str


class Summed(Given, frozen=True, kw_only=True, tag="statistics"):
    """How much happened."""

    statistics: Statistics


class Configured(Given, frozen=True, kw_only=True, tag="configuration"):
    """What runs."""

    configuration: Configuration


class Plugins(Given, frozen=True, kw_only=True, tag="plugins"):
    """All plugins."""

    plugins: list[PluginStatus]


class Explained(Given, frozen=True, kw_only=True, tag="explanation"):
    """Why something is as it is."""

    explanation: Explanation


class Taken(Given, frozen=True, kw_only=True, tag="submitted"):
    """A message is ours."""

    submitted: Submitted


class Measured(Given, frozen=True, kw_only=True, tag="metrics"):
    """All metrics."""

    metrics: list[Metric]


class Done(Given, frozen=True, kw_only=True, tag="done"):
    """The last answer: all went well."""


class Refusal(enum.Enum):
    """Why something was not done."""

    #: The request makes no sense.
    REQUEST = "request"
    #: There is no such thing.
    UNKNOWN = "unknown"
    #: Who asks may not.
    FORBIDDEN = "forbidden"
    #: Try again later.
    UNAVAILABLE = "unavailable"
    #: The configuration has mistakes.
    CONFIGURATION = "configuration"
    #: A fault of ours; the log has more.
    FAULT = "fault"


class Refused(Given, frozen=True, kw_only=True, omit_defaults=True, tag="refused"):
    """The last answer: it was not done, or not wholly.

    Attributes:
        text: for people.
        place: what of the request is wrong, e.g. ``filter.older_than``.
        file, mistakes: of a configuration.
    """

    why: Refusal
    text: str
    place: str = ""
    file: str = ""
    mistakes: tuple[Mistake, ...] = ()


#: What a server may answer.
Answer: TypeAlias = (
    Told
    | Found
    | Story
    | Piece
    | Fullness
    | Destinations
    | Counted
    | Suspensions
    | Happened
    | Changed
    | Findings
    | Copied
    | Sessions
    | Recorded
    | Overheard
    | Logged
    | LogLevel
    | Summed
    | Configured
    | Plugins
    | Explained
    | Taken
    | Measured
    | Done
    | Refused
)
