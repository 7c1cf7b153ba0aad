"""A next hop that does as it is told: takes mail, refuses it, hangs up or says nothing."""

from __future__ import annotations

import collections
import contextlib
import enum
import re
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from typing import Self


class Step(enum.Enum):
    """Where in the conversation the sink's answer stands."""

    GREETING = "greeting"
    EHLO = "ehlo"
    STARTTLS = "starttls"
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
    #: At the dot: take the message, and hang up instead of saying so.
    LOSE = "lose"


Answer: TypeAlias = str | Silence
#: Makes an answer to a command line; None: as usual.
Answers: TypeAlias = "Callable[[str], Answer | None]"

_USUAL: dict[Step, str] = {
    Step.GREETING: "220 sink.example ESMTP",
    Step.EHLO: "250-sink.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 DSN",
    Step.STARTTLS: "220 2.0.0 go ahead",
    Step.MAIL: "250 2.1.0 OK",
    Step.RCPT: "250 2.1.5 OK",
    Step.DATA: "354 go ahead",
    Step.DOT: "250 2.0.0 taken",
}


def offering(*extensions: str) -> str:
    """An answer to EHLO that announces these and no other."""
    lines = ["sink.example", *extensions]
    return "\r\n".join([*(f"250-{line}" for line in lines[:-1]), f"250 {lines[-1]}"])


def greylisting() -> Answers:
    """An answer to RCPT: whoever comes for the first time shall come again."""
    known: set[str] = set()

    def answer(line: str) -> Answer | None:
        if line in known:
            return None
        known.add(line)
        return "451 4.7.1 greylisted, come again"

    return answer


def once(answer: Answer) -> Answers:
    """This answer the first time, and then as usual."""
    left = [answer]
    return lambda _: left.pop() if left else None


@dataclass
class Delivery:
    """A message as it came.

    Attributes:
        commands: its MAIL, and each RCPT that was taken, as they were said.
        hello: the last EHLO or HELO before it.
        encrypted: whether it came by TLS.
    """

    sender: str
    recipients: list[str]
    content: bytes
    commands: list[str]
    hello: str
    encrypted: bool

    @property
    def scenario_id(self) -> str:
        """The value of the field by which scenarios know their messages."""
        found = re.search(rb"^X-Scenario-Id: (\S+)\r$", self.content, re.MULTILINE)
        return found[1].decode() if found else ""


@dataclass
class _Conversation:
    sender: str = ""
    recipients: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)


class Sink:
    """An SMTP server on `host`:`port`, in threads; a context manager.

    Args:
        tls: what STARTTLS begins; None: it answers, and then does not know how to go on.

    Attributes:
        deliveries: the messages it has answered, or would have answered, 250 for.
        connections: how many it has accepted.
    """

    def __init__(
        self, host: str = "127.0.0.1", port: int = 0, *, tls: ssl.SSLContext | None = None
    ) -> None:
        self._listener = socket.create_server((host, port), backlog=100)
        self.host, self.port = self._listener.getsockname()[:2]
        self.deliveries: list[Delivery] = []
        self.connections = 0
        self._tls = tls
        self._answers: dict[Step, Answer | Answers] = {}
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def answer(self, step: Step, answer: Answer | Answers | None) -> None:
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
            client.settimeout(60.0)
            if self._converse(client, encrypted=False):
                with (
                    self._secured(client) as secured,
                    contextlib.suppress(OSError, _HangUpError),
                ):
                    self._converse(secured, encrypted=True)
        except (OSError, _HangUpError):
            pass
        finally:
            with self._lock:
                self._open.discard(client)
            client.close()

    def _secured(self, client: socket.socket) -> ssl.SSLSocket:
        if self._tls is None:
            client.sendall(b"554 5.7.0 this is not TLS\r\n")
            raise _HangUpError
        return self._tls.wrap_socket(client, server_side=True)

    def _converse(self, client: socket.socket, *, encrypted: bool) -> bool:
        """Answer until the client has had enough; returns whether it wants TLS."""
        if not encrypted:
            self._say(client, Step.GREETING)
        now, hello = _Conversation(), ""
        with client.makefile("rb") as lines:
            while octets := lines.readline():
                line = octets.decode("utf-8", "replace").rstrip("\r\n")
                match line[:4].upper():
                    case "EHLO" | "HELO" as verb:
                        hello = line
                        usual = "250 sink.example" if verb == "HELO" else None
                        self._say(client, Step.EHLO, line, usual)
                    case "STAR":
                        if self._say(client, Step.STARTTLS, line):
                            return True
                    case "MAIL":
                        now = _Conversation(sender=_path(line), commands=[line])
                        self._say(client, Step.MAIL, line)
                    case "RCPT":
                        if self._say(client, Step.RCPT, line):
                            now.recipients.append(_path(line))
                            now.commands.append(line)
                    case "DATA":
                        if not now.recipients:
                            client.sendall(b"503 5.5.1 no recipients\r\n")
                        elif self._say(client, Step.DATA, line):
                            self._take(client, _content(lines), now, hello, encrypted)
                            now = _Conversation()
                    case "QUIT":
                        client.sendall(b"221 2.0.0 bye\r\n")
                        return False
                    case _:
                        client.sendall(b"250 2.0.0 OK\r\n")
        return False

    def _take(
        self, client: socket.socket, content: bytes, now: _Conversation, hello: str, encrypted: bool
    ) -> None:
        answer = self._answer(Step.DOT, now.sender)
        taken = answer[0] == "2" if isinstance(answer, str) else answer is Silence.LOSE
        if taken:
            self.deliveries.append(
                Delivery(now.sender, now.recipients, content, now.commands, hello, encrypted)
            )
        self._give(client, answer)

    def _answer(self, step: Step, line: str) -> Answer:
        answer = self._answers.get(step)
        if callable(answer):
            answer = answer(line)
        return answer or _USUAL[step]

    def _say(
        self, client: socket.socket, step: Step, line: str = "", usual: str | None = None
    ) -> bool:
        """Answer; returns whether the answer was positive."""
        answer = self._answer(step, line)
        if usual is not None and not isinstance(answer, Silence):
            answer = usual  # HELO is taken where EHLO is refused
        return self._give(client, answer)

    def _give(self, client: socket.socket, answer: Answer) -> bool:
        match answer:
            case Silence.DROP | Silence.LOSE:
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


def _path(line: str) -> str:
    return line.partition("<")[2].partition(">")[0]


def _content(lines: BinaryIO) -> bytes:
    content = []
    while (line := lines.readline()) != b".\r\n":
        if not line:
            raise _HangUpError
        content.append(line.removeprefix(b"."))
    return b"".join(content)


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
