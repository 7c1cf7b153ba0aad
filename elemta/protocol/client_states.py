"""Where a conversation stands as its client sees it, and what moves it: as data.

Rule 1: whatever changes a client's state is in this file.
Rule 2: a command may be written where its cell is; an absent cell is a bug of the caller.
Rule 3: an answer moves the state by its cell. A command whose cell has gone by then, since an
earlier one of its group was refused (RFC 2920), can only be refused too, and moves nothing.

The table in `docs/protocol.md` is drawn from TABLE; `tests/protocol/test_client_states.py` walks
it to its end.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple


class ClientState(enum.Enum):
    """What a client may say next."""

    # Enum's own is a Python function, and TABLE is asked twice a command: 4 us a transaction.
    __hash__ = object.__hash__

    GREETING = enum.auto()  #: nothing: the server speaks first
    START = enum.auto()  #: EHLO, HELO or LHLO
    READY = enum.auto()  #: MAIL
    MAIL = enum.auto()  #: RCPT: nobody was accepted yet
    RCPT = enum.auto()  #: more RCPT, or the message
    DATA = enum.auto()  #: content, up to the final dot
    CHUNKS = enum.auto()  #: more BDAT
    FAILED = enum.auto()  #: RSET: nobody knows what the server made of the transaction
    LOGIN = enum.auto()  #: the answer to a challenge of AUTH
    UNWELCOME = enum.auto()  #: QUIT
    TLS = enum.auto()  #: a handshake on the raw stream
    CLOSED = enum.auto()  #: nothing


class Said(enum.Enum):
    """What a server answers. The first two are no commands of ours."""

    __hash__ = object.__hash__

    #: Nothing: what comes was not asked for.
    NOTHING = enum.auto()
    CONNECT = enum.auto()
    EHLO = enum.auto()
    HELO = enum.auto()
    STARTTLS = enum.auto()
    AUTH = enum.auto()
    AUTH_RESPONSE = enum.auto()
    MAIL = enum.auto()
    RCPT = enum.auto()
    DATA = enum.auto()
    DOT = enum.auto()
    BDAT = enum.auto()
    BDAT_LAST = enum.auto()
    RSET = enum.auto()
    NOOP = enum.auto()
    QUIT = enum.auto()


class Step(NamedTuple):
    """One cell: where each kind of answer leads.

    Attributes:
        done: after a 2xx; None: a 2xx is no answer to this.
        more: after a 3xx; None: a 3xx is no answer to this.
        no: after a 4xx or 5xx; None: the state stays.
        write: whether the command may be written here, not only answered.
    """

    done: ClientState | None
    more: ClientState | None = None
    no: ClientState | None = None
    write: bool = True


S, V = ClientState, Said

_QUIT: Final = {V.QUIT: Step(S.CLOSED, no=S.CLOSED)}
_RESET: Final = {V.RSET: Step(S.READY, no=S.UNWELCOME)}

TABLE: Final[dict[ClientState, dict[Said, Step]]] = {
    S.GREETING: {V.CONNECT: Step(S.START, no=S.UNWELCOME)},
    S.START: _QUIT | {V.EHLO: Step(S.READY), V.HELO: Step(S.READY), V.NOOP: Step(S.START)},
    S.READY: _QUIT
    | _RESET
    | {
        V.EHLO: Step(S.READY, no=S.START),
        V.HELO: Step(S.READY, no=S.START),
        V.NOOP: Step(S.READY),
        V.STARTTLS: Step(S.TLS),
        V.AUTH: Step(S.READY, more=S.LOGIN),
        V.MAIL: Step(S.MAIL),
    },
    S.LOGIN: {V.AUTH_RESPONSE: Step(S.READY, more=S.LOGIN, no=S.READY)},
    S.MAIL: _QUIT
    | _RESET
    | {
        V.NOOP: Step(S.MAIL),
        V.RCPT: Step(S.RCPT),
        # 354 although every recipient was refused: the dot is owed (RFC 2920 §3.1).
        V.DATA: Step(None, more=S.DATA, write=False),
    },
    S.RCPT: _QUIT
    | _RESET
    | {
        V.NOOP: Step(S.RCPT),
        V.RCPT: Step(S.RCPT),
        V.DATA: Step(None, more=S.DATA, no=S.FAILED),
        V.BDAT: Step(S.CHUNKS, no=S.FAILED),
        V.BDAT_LAST: Step(S.READY, no=S.FAILED),
    },
    # The transaction ends with the dot, taken or not (RFC 5321 §4.1.1.4).
    S.DATA: {V.DOT: Step(S.READY, no=S.READY)},
    S.CHUNKS: _QUIT
    | _RESET
    | {V.BDAT: Step(S.CHUNKS, no=S.FAILED), V.BDAT_LAST: Step(S.READY, no=S.FAILED)},
    S.FAILED: _QUIT | _RESET | {V.NOOP: Step(S.FAILED)},
    S.UNWELCOME: _QUIT,
    S.TLS: {},
    S.CLOSED: {},
}

#: With PIPELINING (RFC 2920 §3.1, RFC 3030 §4.2): what something may be written behind before it
#: is answered, and what may be written behind it.
LEADS: Final = frozenset({V.MAIL, V.RCPT, V.RSET, V.DOT, V.BDAT, V.BDAT_LAST})
FOLLOWS: Final = LEADS - {V.DOT} | {V.DATA, V.NOOP, V.QUIT}

#: The only code of its class that each of these takes: what another might mean, nobody can know.
EXACT: Final = {V.DATA: 354, V.AUTH: 334, V.AUTH_RESPONSE: 334, V.STARTTLS: 220}

#: "Service closing" ends any conversation (RFC 5321 §3.8).
CLOSING: Final = 421
