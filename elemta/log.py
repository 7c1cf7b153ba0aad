"""What happened, as lines on standard error: an event's name and typed fields, never prose.

One process has one output, configured once by the daemon. While `run` runs, lines are gathered and
written together, since a write each costs more than all else; otherwise, and for a warning or
worse, a line is written at once. Writing blocks when its reader does: give it a reader that reads.

No field can forge a line or move a terminal's cursor: what is not printable is escaped.
"""

from __future__ import annotations

import atexit
import enum
import select
import sys
import threading
import time
import traceback
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TextIO, TypeAlias, final

import msgspec
import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

#: What a field of an event may be.
Field: TypeAlias = str | int | float | bool | None

#: Seconds that a line may wait for others.
INTERVAL: Final = 0.2
#: Characters that are written as soon as they have gathered.
BATCH: Final = 65536
#: Events that are remembered once they are written.
KEPT: Final = 1000


class Level(enum.IntEnum):
    """How much an event matters."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40


class Entry(NamedTuple):
    """An event.

    Attributes:
        at: seconds since the epoch.
        logger: the module that wrote it.
        event: its name.
    """

    at: float
    level: int
    logger: str
    event: str
    fields: dict[str, Field]


_Line: TypeAlias = "Callable[[Entry], str]"


class _Output:
    """Where the lines of this process go. Used from any thread."""

    def __init__(self) -> None:
        self.level: int = Level.INFO
        #: As the configuration has it; `level` may be another for a while.
        self.configured: int = Level.INFO
        self.gathering = False
        self.hearers: tuple[Callable[[Entry], None], ...] = ()
        self.always: dict[str, Field] = {}
        self._stream: TextIO | None = None
        self._line: _Line = _console_line
        self._lines: list[str] = []
        self._size = 0
        self._last: deque[Entry] = deque(maxlen=KEPT)
        self._lock = threading.Lock()

    def configure(self, *, line: _Line, level: int, stream: TextIO | None) -> None:
        self.flush()
        self._line, self._stream = line, stream
        self.level = self.configured = level

    def last(self) -> list[Entry]:
        with self._lock:
            return list(self._last)

    def write(self, level: int, name: str, event: str, fields: dict[str, Field]) -> None:
        if self.always:
            fields = {**self.always, **fields}
        entry = Entry(time.time(), level, name, event, fields)
        line = self._line(entry)
        with self._lock:
            self._last.append(entry)
            self._lines.append(line)
            self._size += len(line)
        for hear in self.hearers:
            hear(entry)
        if not self.gathering or level >= Level.WARNING or self._size >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Write what has gathered. A reader that is gone costs its lines, never the mail."""
        with self._lock:
            if not self._lines:
                return
            lines, self._lines, self._size = self._lines, [], 0
            stream = self._stream or sys.stderr
            try:
                for text in _pieces(lines) if self.always else ("".join(lines),):
                    stream.write(text)
                    stream.flush()
            except (OSError, ValueError):
                pass


@final
class Logger:
    """Writes the events of one module. Made by `logger` and by `bind`."""

    __slots__ = ("_bound", "_name")

    def __init__(self, name: str, bound: dict[str, Field]) -> None:
        self._name = name
        self._bound = bound

    def bind(self, **fields: Field) -> Logger:
        """A logger that adds these fields to each of its events."""
        return Logger(self._name, {**self._bound, **fields})

    def debug(self, event: str, /, **fields: Field) -> None:
        """What only helps to find a fault of ours."""
        if _output.level <= 10:
            _output.write(10, self._name, event, {**self._bound, **fields})

    def info(self, event: str, /, **fields: Field) -> None:
        """What is in order."""
        if _output.level <= 20:
            _output.write(20, self._name, event, {**self._bound, **fields})

    def warning(self, event: str, /, **fields: Field) -> None:
        """What somebody should look at."""
        if _output.level <= 30:
            _output.write(30, self._name, event, {**self._bound, **fields})

    def error(self, event: str, /, **fields: Field) -> None:
        """What must be mended."""
        _output.write(40, self._name, event, {**self._bound, **fields})

    def exception(self, event: str, /, **fields: Field) -> None:
        """The same with the traceback of the exception that is being handled."""
        self.error(event, **fields, traceback=traceback.format_exc())


def logger(name: str) -> Logger:
    """What a module writes its events with; made once, at its top."""
    return Logger(name, {})


def configure(
    format: Literal["auto", "json", "console"] = "auto",  # noqa: A002 # as the configuration says it
    level: Literal["debug", "info", "warning", "error"] = "info",
    stream: TextIO | None = None,
) -> None:
    """Say how this process logs; may be said again at any time.

    Args:
        format: ``auto`` is ``console`` on a terminal and ``json`` elsewhere.
        level: the least that is written.
        stream: where to; None: standard error.
    """
    if format == "auto":
        format = "console" if (stream or sys.stderr).isatty() else "json"  # noqa: A001 # the word of people
    line = _json_line if format == "json" else _console_line
    _output.configure(line=line, level=Level[level.upper()], stream=stream)


def identify(**fields: Field) -> None:
    """Have these fields in each line of this process: which of several it is."""
    _output.always = fields


def level() -> Level:
    """The least that is written just now."""
    return Level(_output.level)


def set_level(level: Level | None) -> None:
    """Write from this level on, until `configure`; None: what was configured last."""
    _output.level = _output.configured if level is None else level


def recent(level: Level = Level.DEBUG, limit: int = KEPT) -> list[Entry]:
    """The last events that were written, of at least a level, the newest last."""
    found = [entry for entry in _output.last() if entry.level >= level]
    return found[max(0, len(found) - limit) :]


@contextmanager
def listening(hear: Callable[[Entry], None]) -> Generator[None]:
    """Tell each event that is written from now on.

    Args:
        hear: called in whichever thread writes, at once: it must be quick, and must not log.
    """
    _output.hearers = (*_output.hearers, hear)
    try:
        yield
    finally:
        _output.hearers = tuple(each for each in _output.hearers if each is not hear)


def flush() -> None:
    """Write what has gathered."""
    _output.flush()


async def run() -> None:
    """Gather lines and write them together, until cancelled."""
    _output.gathering = True
    try:
        while True:
            await trio.sleep(INTERVAL)
            _output.flush()
    finally:
        _output.gathering = False
        _output.flush()


def _pieces(lines: list[str]) -> Iterator[str]:
    """Lines in pieces that a pipe takes as a whole: other processes write into it too."""
    piece, size = "", 0
    for line in lines:
        octets = len(line.encode("utf-8", "replace"))
        if piece and size + octets > select.PIPE_BUF:
            yield piece
            piece, size = "", 0
        piece += line
        size += octets
    yield piece


#: What levels are called.
LEVELS: Final = {10: "debug", 20: "info", 30: "warning", 40: "error"}
_encode: Final = msgspec.json.Encoder().encode
#: The second that was last written out, as strftime is a third of what a line costs.
_second: tuple[int, str] = (0, "")


def _stamp(now: float) -> str:
    """RFC 3339 in UTC, with milliseconds."""
    global _second
    whole, text = _second
    if whole != int(now):
        whole = int(now)
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
        _second = whole, text
    return f"{text}.{int(now % 1 * 1000):03d}Z"


def _json_line(entry: Entry) -> str:
    told: dict[str, Field] = {
        "time": _stamp(entry.at),
        "level": LEVELS[entry.level],
        "event": entry.event,
        "logger": entry.logger,
    }
    told.update(entry.fields)
    try:
        octets = _encode(told)
    except UnicodeEncodeError:  # half a surrogate pair, e.g. from a file name that is no UTF-8
        octets = _encode({key: whole(value) for key, value in told.items()})
    text = octets.decode()
    # JSON escapes what is below a space. DEL, and what only looks like a line end, it does not.
    return (text if text.isprintable() else _escaped(text)) + "\n"


def _console_line(entry: Entry) -> str:
    return console(entry.at, LEVELS[entry.level], entry.event, entry.fields)


def console(at: float, level: str, event: str, fields: dict[str, Field]) -> str:
    """An event as people read it, its line end included."""
    clock = time.strftime("%H:%M:%S", time.localtime(at))
    told = "".join(f" {key}={_shown(value)}" for key, value in fields.items() if key != "traceback")
    text = f"{clock} {level:7} {event}{told}\n"
    if isinstance(trace := fields.get("traceback"), str):
        text += "".join(f"    {_escaped(line)}\n" for line in trace.splitlines())
    return text


def _shown(value: Field) -> str:
    if not isinstance(value, str):
        return "-" if value is None else str(value)
    if value.isprintable() and value and not any(mark in value for mark in ' "='):
        return value
    return '"' + _escaped(value.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(mark if mark.isprintable() else f"\\u{ord(mark):04x}" for mark in text)


def whole(value: Field) -> Field:
    """A field that can be encoded: half a surrogate pair is escaped."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


_output: Final = _Output()
atexit.register(flush)
