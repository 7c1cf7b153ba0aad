"""A next hop that does as it is told: takes mail, refuses it, hangs up or says nothing."""

from __future__ import annotations

import collections
import contextlib
import enum
import re
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from typing import Self


class Step(enum.Enum):
    """Where in the conversation the sink's answer stands."""

    GREETING = "greeting"
    EHLO = "ehlo"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    DOT = "dot"


class Silence(enum.Enum):
    """Answers that are none."""

    #: Hang up.
    DROP = "drop"
    #: Say nothing, and keep the connection.
    STALL = "stall"


Answer: TypeAlias = str | Silence

_USUAL: dict[Step, str] = {
    Step.GREETING: "220 sink.example ESMTP",
    Step.EHLO: "250-sink.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 DSN",
    Step.MAIL: "250 2.1.0 OK",
    Step.RCPT: "250 2.1.5 OK",
    Step.DATA: "354 go ahead",
    Step.DOT: "250 2.0.0 taken",
}


@dataclass
class Delivery:
    """A message as it came."""

    sender: str
    recipients: list[str]
    content: bytes

    @property
    def scenario_id(self) -> str:
        """The value of the field by which scenarios know their messages."""
        found = re.search(rb"^X-Scenario-Id: (\S+)\r$", self.content, re.MULTILINE)
        return found[1].decode() if found else ""


@dataclass
class _Conversation:
    sender: str = ""
    recipients: list[str] = field(default_factory=list)


class Sink:
    """An SMTP server on `host`:`port`, in threads; a context manager.

    Attributes:
        deliveries: the messages it has answered, or would have answered, 250 for.
        connections: how many it has accepted.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._listener = socket.create_server((host, port), backlog=100)
        self.host, self.port = self._listener.getsockname()[:2]
        self.deliveries: list[Delivery] = []
        self.connections = 0
        self._answers: dict[Step, Answer] = {}
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def answer(self, step: Step, answer: Answer | None) -> None:
        """Answer like this from now on; None is as usual."""
        if answer is None:
            self._answers.pop(step, None)
            self.hang_up()  # whoever was told nothing need not wait any longer
        else:
            self._answers[step] = answer

    def hang_up(self) -> None:
        """Break every connection."""
        with self._lock:
            for client in self._open:
                _shut(client)

    @property
    def ids(self) -> collections.Counter[str]:
        """How often each message came, by its X-Scenario-Id."""
        return collections.Counter(delivery.scenario_id for delivery in list(self.deliveries))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        _shut(self._listener)
        self._thread.join(5.0)
        self._listener.close()
        self.hang_up()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with self._lock:
                self._open.add(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            with client, client.makefile("rb") as lines:
                client.settimeout(60.0)
                self._converse(client, lines)
        except (OSError, _HangUpError):
            pass
        finally:
            with self._lock:
                self._open.discard(client)

    def _converse(self, client: socket.socket, lines: socket.SocketIO) -> None:
        self._say(client, Step.GREETING)
        now = _Conversation()
        while line := lines.readline():
            verb = line[:4].upper()
            if verb in (b"EHLO", b"HELO"):
                usual = "250 sink.example" if verb == b"HELO" else None
                self._say(client, Step.EHLO, usual)
            elif verb == b"MAIL":
                now = _Conversation(sender=_path(line))
                self._say(client, Step.MAIL)
            elif verb == b"RCPT":
                if self._say(client, Step.RCPT):
                    now.recipients.append(_path(line))
            elif verb == b"DATA":
                if not now.recipients:
                    client.sendall(b"503 5.5.1 no recipients\r\n")
                elif self._say(client, Step.DATA):
                    content = _content(lines)
                    if Step.DOT not in self._answers:
                        self.deliveries.append(Delivery(now.sender, now.recipients, content))
                    self._say(client, Step.DOT)
                    now = _Conversation()
            elif verb == b"QUIT":
                client.sendall(b"221 2.0.0 bye\r\n")
                return
            else:
                client.sendall(b"250 2.0.0 OK\r\n")

    def _say(self, client: socket.socket, step: Step, usual: str | None = None) -> bool:
        """Answer; returns whether the answer was positive."""
        answer = self._answers.get(step)
        if usual is not None and not isinstance(answer, Silence):
            answer = usual  # HELO is taken where EHLO is refused
        match answer or _USUAL[step]:
            case Silence.DROP:
                raise _HangUpError
            case Silence.STALL:
                while client.recv(4096):
                    pass
                raise _HangUpError
            case str(text):
                client.sendall(text.encode() + b"\r\n")
                return text[0] in "23"


class _HangUpError(Exception):
    pass


def _path(line: bytes) -> str:
    return line.partition(b"<")[2].partition(b">")[0].decode()


def _content(lines: socket.SocketIO) -> bytes:
    content = []
    while (line := lines.readline()) != b".\r\n":
        if not line:
            raise _HangUpError
        content.append(line.removeprefix(b"."))
    return b"".join(content)


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
