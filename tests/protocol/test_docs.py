"""docs/protocol.md says what is: its programs run, its tables are those of the code.

``python -m tests.protocol.test_docs`` draws the tables anew.
"""

from __future__ import annotations

import pathlib
import re
import socket
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, TypeAlias, get_args

import pytest

from elemta.protocol import Answer, Event, Mailbox, Reply, client_states, states

if TYPE_CHECKING:
    import enum

PAGE: Final = pathlib.Path(__file__).parents[2] / "docs" / "protocol.md"

Message: TypeAlias = tuple[Mailbox | None, list[Mailbox], bytes]
Step: TypeAlias = states.Step | client_states.Step
Keep: TypeAlias = Callable[[Mailbox | None, list[Mailbox], bytes], object]
Serve: TypeAlias = Callable[[socket.socket, str, Keep], None]
Deliver: TypeAlias = Callable[[socket.socket, str, list[str], bytes], dict[str, Reply]]


def programs() -> tuple[Serve, Deliver]:
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)
    serve, deliver = names["serve"], names["deliver"]
    assert callable(serve)
    assert callable(deliver)
    return serve, deliver


def play(serve: Serve, talk: Callable[[socket.socket], None]) -> list[Message]:
    """What the page's server keeps of a conversation."""
    kept: list[Message] = []
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(10)
        theirs.settimeout(10)

        def run() -> None:
            serve(theirs, "mx.example", lambda *message: kept.append(message))
            theirs.shutdown(socket.SHUT_RDWR)

        server = threading.Thread(target=run)
        server.start()
        talk(ours)
        server.join(10)
        assert not server.is_alive()
    return kept


def test_the_two_programs_understand_each_other() -> None:
    serve, deliver = programs()
    replies: dict[str, Reply] = {}
    content = b"Subject: hi\r\n\r\n.\r\nbye\r\n"

    def talk(sock: socket.socket) -> None:
        people = ["bob@b.example", "cid@b.example"]
        replies.update(deliver(sock, "ann@a.example", people, content))

    bob, cid = Mailbox("bob", "b.example"), Mailbox("cid", "b.example")
    assert play(serve, talk) == [(Mailbox("ann", "a.example"), [bob, cid], content)]
    kept = Reply(250, (0, 0), ("kept",))
    assert replies == {"bob@b.example": kept, "cid@b.example": kept}


def test_the_server_of_the_page_takes_what_a_client_may_say() -> None:
    serve, _ = programs()
    codes: list[bytes] = []

    def talk(sock: socket.socket) -> None:
        sock.sendall(
            b"EHLO a.example\r\nMAIL FROM:<>\r\nRCPT TO:<bob@b.example>\r\n"
            b"BDAT 2\r\nhiBDAT 2 LAST\r\n\r\nNOOP\r\nFROB\r\nRSET\r\n"
            b"MAIL FROM:<>\r\nRCPT TO:<bob@b.example>\r\nDATA\r\n"
        )
        heard = b""
        while b"354 " not in heard:
            heard += sock.recv(65536)
        sock.sendall(b"bare\nnewline\r\n.\r\nQUIT\r\n")
        while octets := sock.recv(65536):
            heard += octets
        codes.extend(re.findall(rb"^(\d+) ", heard, re.MULTILINE))

    assert play(serve, talk) == [(None, [Mailbox("bob", "b.example")], b"hi\r\n")]
    assert b" ".join(codes) == (b"220 250 250 250 250 250 502 500 250 250 250 354 550 221")


@pytest.mark.parametrize("union", [Event, Answer])
def test_every_event_is_on_the_page(union: object) -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    told = {name for row in rows for name in re.findall(r"`([A-Z]\w+)`", row.split("|")[1])}
    assert {kind.__name__ for kind in get_args(union)} <= told


def drawn(table: Mapping[enum.Enum, Mapping[enum.Enum, Step]]) -> str:
    lines = ["| in | what leads on |", "|---|---|"]
    for state, row in table.items():
        cells = "; ".join(f"{verb.name} → {_cell(state, step)}" for verb, step in row.items())
        lines.append(f"| `{state.name}` | {cells or 'nothing'} |")
    return "\n".join(lines)


def _cell(state: enum.Enum, step: Step) -> str:
    done = step.done.name if step.done else ""
    more = f" / {step.more.name}" if step.more else ""
    no = f" ! {step.no.name}" if step.no and step.no is not state else ""
    return (done + more + no).strip() or state.name


def page() -> str:
    """The page as it should be."""
    text = PAGE.read_text()
    for mark, table in (("server", states.TABLE), ("client", client_states.TABLE)):
        place = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- end -->)", re.DOTALL)
        body = drawn(table)
        text = place.sub(lambda found, body=body: f"{found[1]}{body}\n{found[2]}", text)
    return text


def test_the_tables_of_states_are_those_of_the_code() -> None:
    assert PAGE.read_text() == page(), "run python -m tests.protocol.test_docs"


if __name__ == "__main__":
    PAGE.write_text(page())
