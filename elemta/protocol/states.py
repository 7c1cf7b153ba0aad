"""Where a conversation stands, and what moves it: the whole state machine, as data.

Rule 1: whatever changes a server's state is in this file.
Rule 2: an absent cell is a bad sequence (503). A refusal changes nothing unless the cell says so.
Rule 3: an absent outcome of a cell is a reply that cannot answer this: a bug of the caller.

That a second AUTH is a bad sequence, once somebody is logged in (RFC 4954 §4), is the one fact
beside the state: it lasts as long as the connection and would double the table.

SMTP and LMTP share the table: what differs (LHLO, a reply for each recipient) moves no state.
`fuzz/test_states.py` walks it.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple


class State(enum.Enum):
    """What the server is waiting for."""

    __hash__ = object.__hash__  # there is one of each: as right as Enum's own, and not in Python

    GREETING = enum.auto()  #: our own 220 or 554
    START = enum.auto()  #: EHLO, HELO or LHLO
    READY = enum.auto()  #: MAIL
    MAIL = enum.auto()  #: the first RCPT that we accept
    RCPT = enum.auto()  #: more RCPT, DATA or BDAT
    DATA = enum.auto()  #: content, up to the final dot
    CHUNK = enum.auto()  #: content, up to the end of the chunk
    BDAT = enum.auto()  #: the next chunk
    LOGIN = enum.auto()  #: the response to a challenge
    TLS = enum.auto()  #: a handshake on the raw stream
    CLOSED = enum.auto()  #: nothing


class Verb(enum.Enum):
    """What asks for a state change. The first five are no commands of the wire."""

    __hash__ = object.__hash__  # as above

    NONSENSE = enum.auto()  #: what the engine turns down
    CONNECT = enum.auto()
    END_OF_DATA = enum.auto()
    END_OF_CHUNK = enum.auto()
    RESPONSE = enum.auto()
    HELLO = enum.auto()  #: EHLO, HELO or LHLO
    MAIL = enum.auto()
    RCPT = enum.auto()
    DATA = enum.auto()
    BDAT = enum.auto()
    STARTTLS = enum.auto()
    AUTH = enum.auto()
    VRFY = enum.auto()
    HELP = enum.auto()
    RSET = enum.auto()
    NOOP = enum.auto()
    QUIT = enum.auto()


class Step(NamedTuple):
    """The state after a 2xx, after a 3xx, and after a 4xx or 5xx.

    None for the first two: no such reply can be given. None for the third: the state stays.
    """

    done: State | None = None
    more: State | None = None
    no: State | None = None


S, V = State, Verb


def _row(here: State, *, reset: State, **cells: Step) -> dict[Verb, Step]:
    """What may come whenever the client may speak (RFC 5321 §4.1.4), and what may come `here`."""
    stay = Step(done=here)
    always = {
        V.NONSENSE: Step(),
        V.QUIT: Step(done=S.CLOSED, no=S.CLOSED),
        V.HELLO: Step(done=S.READY),
        V.RSET: Step(done=reset),
        V.NOOP: stay,
        V.VRFY: stay,
        V.HELP: stay,
    }
    return always | {Verb[name]: step for name, step in cells.items()}


_CHALLENGE: Final = Step(done=S.READY, more=S.LOGIN, no=S.READY)

TABLE: Final[dict[State, dict[Verb, Step]]] = {
    S.GREETING: {V.CONNECT: Step(done=S.START, no=S.CLOSED)},
    S.START: _row(S.START, reset=S.START),
    S.READY: _row(
        S.READY,
        reset=S.READY,
        MAIL=Step(done=S.MAIL),
        STARTTLS=Step(done=S.TLS),
        AUTH=_CHALLENGE,
    ),
    S.MAIL: _row(S.MAIL, reset=S.READY, RCPT=Step(done=S.RCPT)),
    S.RCPT: _row(
        S.RCPT,
        reset=S.READY,
        RCPT=Step(done=S.RCPT),
        DATA=Step(more=S.DATA),
        # Takes no reply: the chunk is on its way already.
        BDAT=Step(done=S.CHUNK),
    ),
    # The transaction ends with the dot, taken or not (RFC 5321 §4.1.1.4).
    S.DATA: {V.END_OF_DATA: Step(done=S.READY, no=S.READY)},
    # A refused chunk ends it as well (RFC 3030 §2), so that chunks pipelined behind it are 503s.
    S.CHUNK: {
        V.END_OF_CHUNK: Step(done=S.BDAT, no=S.READY),
        V.END_OF_DATA: Step(done=S.READY, no=S.READY),
    },
    S.BDAT: _row(S.BDAT, reset=S.READY, BDAT=Step(done=S.CHUNK)),
    # What cannot be decoded ends the exchange as well (RFC 4954 §4).
    S.LOGIN: {V.RESPONSE: _CHALLENGE, V.NONSENSE: Step(no=S.READY)},
    S.TLS: {},
    S.CLOSED: {},
}

IN_TRANSACTION: Final = frozenset({S.MAIL, S.RCPT, S.DATA, S.CHUNK, S.BDAT})

#: "Service closing" ends any conversation (RFC 5321 §3.8).
CLOSING: Final = 421


def legal(state: State, verb: Verb) -> bool:
    """Whether `verb` may come now; if not, the answer is 503."""
    return verb in TABLE[state]


def after(state: State, verb: Verb, code: int) -> State | None:
    """The state that a reply of `code` to a legal `verb` leads to; None: it is no answer to it."""
    if code == CLOSING:
        return State.CLOSED
    step = TABLE[state][verb]
    if code < 300:
        return step.done
    if code < 400:
        return step.more
    return state if step.no is None else step.no
