from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from elemta.config import Change, ConfigError, Mistake
from elemta.control.client import Client, NotRunningError, connect
from elemta.control.facts import Hypothesis, PluginStatus, Submission, Submitted
from elemta.control.interface import ControlError, RequestError, UnavailableError, UnknownError
from elemta.control.messages import PAGE
from elemta.control.place import listening
from elemta.protocol import parse_mailbox
from elemta.queue import Filter, Finished, Hold, Missed, Priority, Suspension, Tally, Timeline
from tests.control.fake import FakeControl, client_of, message

if TYPE_CHECKING:
    from elemta.control.interface import Control, Happening

ROOT = Path(__file__).parents[2]


async def test_what_is_asked_comes_back_as_it_was_answered() -> None:
    server = FakeControl()
    server.changes = (Change("dns.timeout", "1.0", None),)
    server.suspended = [Suspension(scope="all", reason="x", who="operator:me", since=1.0)]
    server.messages = [message(1, recipients=3)]
    async with client_of(server) as client:
        control: Control = client
        assert await control.status() == await server.status()
        assert await control.stats() == await server.stats()
        assert await control.search(Filter()) == server.messages
        assert await control.reload() == server.changes
        assert await control.suspensions() == server.suspended
        assert await control.destinations() == []
        assert await control.check() == []
        assert (await control.backup(Path("/x"))).target == "/x"
        assert await control.count(Filter()) == Tally()
        assert (await control.act(Hold(), Filter(), reason="y")).recipients == 2
        assert await control.suspend("all") is None
        assert await control.suspend("all", dry_run=True) == Tally()
        assert await control.resume("all") is None
        assert await control.resume("all", dry_run=True) == Tally()
    (acted,) = server.acted
    assert (acted.action, acted.reason, acted.dry_run) == (Hold(), "y", False)


async def test_what_is_asked_of_the_server_itself_comes_back_as_it_was_answered() -> None:
    server = FakeControl()
    server.known = Timeline(message=message(3), finished_at=None, attempts=())
    server.installed = [
        PluginStatus(name="p", about="x", enabled=True, hooks=("on_rcpt",), timeout=0.5, asked=3)
    ]
    submission = Submission(
        sender=None,
        recipients=(parse_mailbox("jörg@x.example"),),
        content=bytes(range(256)),
        priority=Priority.HIGH,
        due=5.5,
        key="k",
    )
    asked = Hypothesis(recipient=parse_mailbox("a@b.example"), login="jane", size=5)
    async with client_of(server) as client:
        control: Control = client
        assert await control.configuration() == await server.configuration()
        assert await control.plugins() == server.installed
        await control.switch_plugin("p", enabled=False)
        assert not server.installed[0].enabled
        with pytest.raises(UnknownError):
            await control.switch_plugin("q", enabled=False)
        assert await control.explain(asked) == await server.explain(asked)
        assert server.supposed == [asked, asked]
        assert await control.why(message(3).id) == await server.why(message(3).id)
        assert await control.submit(submission) == Submitted(id=message(1).id)
        assert server.submitted == [submission]


async def test_more_messages_than_one_answer_has_are_asked_for_page_by_page() -> None:
    server = FakeControl()
    server.messages = [message(number) for number in range(2 * PAGE + 10)]
    async with client_of(server) as client:
        assert await client.search(Filter(), limit=10_000) == server.messages
        assert await client.search(Filter(), limit=PAGE + 5) == server.messages[: PAGE + 5]
        assert await client.search(Filter(), limit=PAGE) == server.messages[:PAGE]
        backwards = server.messages[::-1]
        assert await client.search(Filter(), limit=10_000, newest=True) == backwards


async def test_content_comes_in_pieces() -> None:
    server = FakeControl()
    server.pieces = [b"\xff\x00", b"x" * 100_000]
    async with client_of(server) as client:
        assert [piece async for piece in client.raw("x")] == server.pieces
        assert (await client.stats()).messages == 7


async def test_events_come_until_they_are_left_and_the_connection_with_them() -> None:
    server = FakeControl()
    server.happenings = [Finished(5, 2.0, "x")]
    found: list[Happening] = []
    async with client_of(server) as client:
        async with aclosing(client.events(since=4)) as events:
            async for event in events:
                found.append(event)
                if isinstance(event, Finished):
                    break
        with pytest.raises(UnavailableError, match="went away"):
            await client.stats()
    assert found == [Missed(4), Finished(5, 2.0, "x")]
    assert server.closed == 1


async def test_what_is_refused_is_raised() -> None:
    server = FakeControl()
    async with client_of(server) as client:
        for failure, kind in (
            (RequestError("bad", "filter.domain"), RequestError),
            (UnavailableError("later"), UnavailableError),
            (ValueError("ours"), ControlError),
        ):
            server.failure = failure
            with pytest.raises(kind) as caught:
                await client.stats()
            if isinstance(failure, ControlError):
                assert str(caught.value) == str(failure)
                assert isinstance(caught.value, ControlError)
                assert caught.value.place == failure.place
        server.failure = ConfigError(Mistake("dns", "wrong", 1, 2), where="a.yaml")
        with pytest.raises(ConfigError, match=r"a\.yaml:1:2: dns: wrong"):
            await client.reload()
        server.failure = None
        with pytest.raises(UnknownError):
            await client.timeline("x")
        assert (await client.stats()).messages == 7


async def test_a_server_that_goes_away_or_talks_nonsense_is_told() -> None:
    for said, text in (
        (b"", "went away"),
        (b"hello\n", "of one version"),
        (b'{"is":"done"}\n', "gives 0 answers"),
    ):
        ours, theirs = trio.testing.memory_stream_pair()
        await theirs.send_all(said)
        await theirs.send_stream.aclose()
        with pytest.raises(UnavailableError, match=text):
            await Client(ours).stats()
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(b'{"is":"saved","saved":{"target":"x"}}\n')
    with pytest.raises(UnavailableError, match="the server answers Copied"):
        await Client(ours).stats()


async def test_a_server_that_is_down_is_told(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with pytest.raises(NotRunningError, match="nobody listens"):
        async with connect(path):
            pass
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(NotRunningError, match="nobody listens"):
        async with connect(path):
            pass
    with pytest.raises(UnavailableError, match="Not a directory"):
        async with connect(path / "below"):
            pass


AS_NOBODY = """
import os, sys, trio
from pathlib import Path
from elemta.control.client import connect
from elemta.control.interface import ForbiddenError
os.setgroups([]); os.setgid(65534); os.setuid(65534)
async def main():
    async with connect(Path(sys.argv[1])):
        pass
try:
    trio.run(main)
except ForbiddenError as error:
    print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_somebody_else_may_not_steer() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # they come as far as the socket
        path = Path(folder) / "control.sock"
        with listening(path):
            done = subprocess.run(
                [sys.executable, "-c", AS_NOBODY, str(path)],
                capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
            )  # fmt: skip
    assert done.stdout == f"you may not use {path}: become its owner, or root\n", done.stderr
