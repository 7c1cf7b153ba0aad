"""What is told of a running server, beside its queue: facts, as they go over the wire."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Literal, TypeAlias

from msgspec import Struct

from elemta.metrics.catalogue import Kind, Together
from elemta.protocol import Mailbox, ReversePath
from elemta.queue import MessageId, Priority

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Into us, or from us.
Direction: TypeAlias = Literal["in", "out"]
#: Who said something: the client of a conversation, or its server.
Speaker: TypeAlias = Literal["C", "S"]


class SessionStatus(Struct, frozen=True, kw_only=True):
    """An SMTP or LMTP conversation that is going on.

    Attributes:
        id: of the session, as logs have it.
        place: the listener that took it, or the lane that it is for.
        peer: the other end: ``address:port``, or a host as timelines show it.
        name: what the client called itself; empty until it did. What the host calls itself, of one
            that goes out.
        state: where it stands, in the engine's words.
        tls: how it is encrypted; empty if it is not.
        login: who is logged in; empty if nobody is.
        since: when it began, seconds since the epoch.
        messages: taken or given so far.
        message: what is under way; None between messages.
        sender, recipients, octets: of what is under way.
    """

    id: str
    direction: Direction
    place: str
    peer: str
    name: str
    state: str
    tls: str
    login: str
    since: float
    messages: int
    message: MessageId | None = None
    sender: str | None = None
    recipients: int = 0
    octets: int = 0


class Said(Struct, frozen=True):
    """A line of a conversation. Secrets are masked, and content is only counted.

    Attributes:
        at: seconds since the epoch.
        text: without its line end; what is not printable is escaped.
    """

    at: float
    speaker: Speaker
    text: str


class Transcript(Struct, frozen=True, kw_only=True):
    """What was said in a conversation, as far as it is remembered.

    Attributes:
        id, direction, place, peer: as of `SessionStatus`.
        began, ended: seconds since the epoch; None: it goes on.
        messages: that it was about.
        said: in order.
        cut: lines that are forgotten, as there were too many.
    """

    id: str
    direction: Direction
    place: str
    peer: str
    began: float
    ended: float | None
    messages: tuple[MessageId, ...]
    said: tuple[Said, ...]
    cut: int = 0


class TraceFilter(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Which conversations are meant: those for which all conditions hold; none means all.

    Attributes:
        direction: only those in, or out.
        place: this listener or lane.
        peer: found in the other end's address or name, case ignored.
        session: this one.
        address: a line has this in it, case ignored; from that line on the conversation is meant.
    """

    direction: Direction | None = None
    place: str | None = None
    peer: str | None = None
    session: str | None = None
    address: str | None = None


class Spoken(Struct, frozen=True, kw_only=True, tag=True):
    """A line, as it is said.

    Attributes:
        session, direction, place, peer: of the conversation, as of `SessionStatus`.
        at, speaker, text: as of `Said`.
    """

    session: str
    direction: Direction
    place: str
    peer: str
    at: float
    speaker: Speaker
    text: str


class LogEntry(Struct, frozen=True, kw_only=True, tag=True):
    """An event of the log.

    Attributes:
        at: seconds since the epoch.
        level: ``debug``, ``info``, ``warning`` or ``error``.
        event: its name.
        logger: the module that wrote it.
        fields: what it tells.
    """

    at: float
    level: str
    event: str
    logger: str
    fields: dict[str, str | int | float | bool | None]


class Scale(enum.Enum):
    """How far statistics look back, and in which steps."""

    #: 60 minutes.
    HOUR = "hour"
    #: 24 hours.
    DAY = "day"
    #: 7 days.
    WEEK = "week"
    #: 30 days.
    MONTH = "month"


class Bucket(Struct, frozen=True):
    """How much happened in a step.

    Attributes:
        start: seconds since the epoch.
        counts: by the names of events, in small letters: ``queued``, ``delivered``, ``deferred``,
            ``failed``, ``expired``; what did not happen is left out.
    """

    start: float
    counts: dict[str, int]


class Statistics(Struct, frozen=True, kw_only=True):
    """How much happened, step by step, the oldest first; steps in which nothing did are there too.

    Attributes:
        step: seconds.
        total: of all buckets.
    """

    scale: Scale
    step: float
    buckets: tuple[Bucket, ...]
    total: dict[str, int]


class PluginStatus(Struct, frozen=True, kw_only=True):
    """A plugin of the configuration.

    Attributes:
        name: as the configuration has it.
        about: the first line of its docstring.
        enabled: it is asked.
        hooks: that it overrides, in the order in which hooks are asked.
        timeout: seconds that one of them may take.
        asked, failed: how often, since the start.
        kinds: what it has to do with, e.g. ``connection`` or ``delivery``.
        listeners: those alone whose clients it is asked about; none: all.
        on_failure: what becomes of mail when a hook fails, by the hook, in a word, e.g. ``defer``.
        objected: how often it refused something, put it off, held it or threw it away.
        events: what it counts itself, by word.
    """

    name: str
    about: str
    enabled: bool
    hooks: tuple[str, ...]
    timeout: float
    asked: int = 0
    failed: int = 0
    kinds: tuple[str, ...] = ()
    listeners: tuple[str, ...] = ()
    on_failure: dict[str, str] = {}
    objected: int = 0
    events: dict[str, int] = {}


def asked_in_order(plugins: Sequence[PluginStatus]) -> dict[str, list[str]]:
    """By hook, in the order in which hooks are asked: the plugins that are, first to last."""
    from elemta.plugins import HOOKS  # few want it, and it brings a resolver along

    asked: dict[str, list[str]] = {}
    for hook in HOOKS:
        names = [each.name for each in plugins if each.enabled and hook in each.hooks]
        if names:
            asked[hook] = names
    return asked


class Configuration(Struct, frozen=True, kw_only=True):
    """What runs, secrets masked.

    Attributes:
        file: where it is from; empty: it is the sandbox's.
        values: as the file would have them, defaults filled in.
    """

    file: str
    values: dict[str, object]


class Hypothesis(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message that may come, or not.

    Attributes:
        sender: None: the null sender.
        client: the IP address that it comes from.
        helo: what the client calls itself.
        login: who is logged in; None: nobody.
        listener: where it comes in; None: the first, or with a login the first that lets log in.
        size: octets.
    """

    recipient: Mailbox
    sender: ReversePath = None
    client: str = "127.0.0.1"
    helo: str = "localhost"
    login: str | None = None
    listener: str | None = None
    size: int = 0


class Step(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One decision.

    Attributes:
        question: what is decided, e.g. ``relay permission``.
        answer: and how, in words for people.
        good: it goes on; False: it ends here; None: neither, but worth knowing.
        reply: what a client would hear.
        details: what there is to choose from, or what it rests on, a line each.
    """

    question: str
    answer: str
    good: bool | None = None
    reply: str = ""
    details: tuple[str, ...] = ()


class Explanation(Struct, frozen=True, kw_only=True):
    """Why something is as it is.

    Attributes:
        summary: in a sentence.
        steps: decision by decision, in their order.
        next_at: when something is tried next, seconds since the epoch; None: nothing is, or nobody
            knows.
    """

    summary: str
    steps: tuple[Step, ...]
    next_at: float | None = None


class Submission(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message that somebody hands in, not by SMTP.

    Attributes:
        content: RFC 5322, CRLF line ends.
        due: do not try it before, seconds since the epoch; None: at once.
        key: who hands in the same again, with the same key, gets the answer of the first time.
        client: the IP address of who hands it in; empty if unknown.
    """

    sender: ReversePath
    recipients: tuple[Mailbox, ...]
    content: bytes
    priority: Priority | None = None
    tags: tuple[str, ...] = ()
    due: float | None = None
    key: str = ""
    client: str = ""


class Submitted(Struct, frozen=True, kw_only=True):
    """It is ours, and durable.

    Attributes:
        again: it was handed in before, with the same key.
    """

    id: MessageId
    again: bool = False


class Sample(Struct, frozen=True, omit_defaults=True):
    """A number of a metric."""

    name: str
    value: float
    labels: dict[str, str] = {}


class Metric(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A metric as Prometheus has it.

    Attributes:
        name: of a counter without ``_total``.
        samples: of a histogram its ``_bucket``, ``_sum`` and ``_count``.
        together: what several nodes come to: the sum of what each has, the largest or the least of
            it; or all of it, told apart by a label.
    """

    name: str
    kind: Kind
    about: str
    samples: tuple[Sample, ...]
    together: Together = "sum"
