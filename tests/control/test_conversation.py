from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from elemta.config import ConfigError, Mistake
from elemta.control.conversation import IDLE, LONGEST, PATIENCE, UPLOAD, Conversation
from elemta.control.facts import Submission
from elemta.control.framing import MAX_REQUEST, MAX_SUBMISSION, encode
from elemta.control.interface import ControlError, RequestError, UnavailableError
from elemta.control.messages import Submit
from elemta.protocol import parse_mailbox
from elemta.queue import Finished, Hold, View
from tests.control.fake import FakeControl, client_of, message, served

if TYPE_CHECKING:
    from typing import Any

    from trio.testing import MockClock


class Talk:
    """Says a line, hears a line."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._heard = b""

    async def say(self, line: str | bytes) -> None:
        await self._stream.send_all((line.encode() if isinstance(line, str) else line) + b"\n")

    async def hear(self) -> dict[str, Any]:
        while b"\n" not in self._heard:
            octets = await self._stream.receive_some()
            assert octets, "it hung up"
            self._heard += octets
        line, _, self._heard = self._heard.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    async def ask(self, line: str | bytes) -> list[dict[str, Any]]:
        """All that is answered."""
        await self.say(line)
        answers = [await self.hear()]
        while answers[-1]["is"] not in ("done", "refused"):
            answers.append(await self.hear())
        return answers


def submission(size: int) -> bytes:
    asked = Submission(sender=None, recipients=(parse_mailbox("a@x.example"),), content=bytes(size))
    return encode(Submit(submission=asked)).removesuffix(b"\n")


async def test_a_large_message_can_be_handed_in_by_those_who_may() -> None:
    control = FakeControl()
    async with served(control, trusted=True) as stream:
        talk = Talk(stream)
        for _ in range(2):
            (taken, done) = await talk.ask(submission(3 * MAX_REQUEST))
            assert (taken["is"], done) == ("submitted", {"is": "done"})
        (stats, _) = await talk.ask('{"is": "stats"}')
        assert stats["is"] == "stats"
    assert [len(each.content) for each in control.submitted] == [3 * MAX_REQUEST] * 2


async def test_what_follows_a_large_request_at_once_is_answered_after_it() -> None:
    control = FakeControl()
    async with served(control, trusted=True) as stream:
        talk = Talk(stream)
        lines = (submission(MAX_REQUEST), b'{"is": "stats"}', submission(MAX_REQUEST))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk.say, b"\n".join(lines))
            heard = [(await talk.hear())["is"] for _ in range(6)]
    assert heard == ["submitted", "done", "stats", "done", "submitted", "done"]


async def test_there_is_an_end_to_large_requests_too() -> None:
    control = FakeControl()
    async with served(control, trusted=True) as stream:
        talk = Talk(stream)
        piece = b"x" * 2**20
        for _ in range(MAX_SUBMISSION // len(piece) + 1):
            await stream.send_all(piece)
        (refused,) = await talk.ask(b"")
        assert f"at most {MAX_SUBMISSION} octets" in refused["text"]
        (stats, _) = await talk.ask('{"is": "stats"}')
        assert stats["is"] == "stats"


async def test_few_large_requests_are_in_memory_at_a_time(autojump_clock: MockClock) -> None:
    control, large = FakeControl(), trio.Semaphore(1)
    async with (
        served(control, trusted=True, large=large) as first,
        served(control, trusted=True, large=large) as second,
    ):
        one, other = Talk(first), Talk(second)
        line = submission(MAX_REQUEST)
        await first.send_all(line[:-1])
        await trio.testing.wait_all_tasks_blocked()
        assert large.value == 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.ask, line)
            await trio.testing.wait_all_tasks_blocked()
            assert control.submitted == []
            await one.ask(line[-1:])
        assert len(control.submitted) == 2
        assert large.value == 1


async def test_who_does_not_end_a_large_request_makes_room_for_others(
    autojump_clock: MockClock,
) -> None:
    control, large = FakeControl(), trio.Semaphore(1)
    async with (
        served(control, trusted=True, large=large) as first,
        served(control, trusted=True, large=large) as second,
    ):
        line = submission(MAX_REQUEST)
        await first.send_all(line[:-1])
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        await Talk(second).ask(line)
        assert trio.current_time() - began == pytest.approx(UPLOAD, abs=1)


async def test_who_leaves_within_a_large_request_is_gone() -> None:
    control, large = FakeControl(), trio.Semaphore(1)
    async with served(control, trusted=True, large=large) as stream:
        await stream.send_all(submission(MAX_REQUEST)[:-1])
        await trio.testing.wait_all_tasks_blocked()
    assert large.value == 1
    assert control.submitted == []


async def test_a_request_is_answered_and_then_the_next_one() -> None:
    control = FakeControl()
    control.messages = [message(1), message(2)]
    async with served(control) as stream:
        talk = Talk(stream)
        (stats, done) = await talk.ask('{"is": "stats"}')
        assert (stats["is"], stats["stats"]["messages"], done) == ("stats", 7, {"is": "done"})
        found = await talk.ask('{"is": "search", "filter": {"views": ["hold"]}}')
        assert [each["is"] for each in found] == ["message", "message", "done"]
        (tally, done) = await talk.ask(
            '{"is": "act", "action": {"type": "hold"}, "filter": {"views": ["deferred"]},'
            ' "reason": "why not", "dry_run": true}'
        )
        assert tally["tally"] == {"messages": 1, "recipients": 2, "octets": 3, "busy": 0}
        (acted,) = control.acted
        assert (acted.action, acted.filter.views) == (Hold(), (View.DEFERRED,))
        assert (acted.reason, acted.dry_run) == ("why not", True)


async def test_a_bad_request_is_told_with_its_place_and_the_next_one_is_answered() -> None:
    async with served(FakeControl()) as stream:
        talk = Talk(stream)
        for bad, place in (
            ('{"is": "search", "limit": "many"}', "limit"),
            ("nonsense", ""),
            (b"x" * (MAX_REQUEST + 1), ""),
            ('{"is": "suspend", "scope": 1}', "scope"),
        ):
            (refused,) = await talk.ask(bad)
            assert (refused["is"], refused["why"]) == ("refused", "request")
            assert refused["text"]
            assert refused.get("place", "") == place
        assert len(await talk.ask('{"is": "stats"}')) == 2


async def test_why_something_was_not_done_is_told() -> None:
    control = FakeControl()
    async with served(control) as stream:
        talk = Talk(stream)
        for failure, why in (
            (RequestError("no such scope", "scope"), "request"),
            (UnavailableError("the disk is full"), "unavailable"),
            (ControlError("whatever"), "fault"),
        ):
            control.failure = failure
            (refused,) = await talk.ask('{"is": "stats"}')
            assert (refused["why"], refused["text"]) == (why, str(failure))
            assert refused.get("place", "") == failure.place
        control.failure = None
        (refused,) = await talk.ask('{"is": "timeline", "id": "nonsense"}')
        assert (refused["why"], refused["text"]) == ("unknown", "no message 'nonsense'")


async def test_mistakes_of_a_configuration_are_told_one_by_one() -> None:
    control = FakeControl()
    control.failure = ConfigError(Mistake("dns.timeout", "expected more", 7, 3), where="a.yaml")
    async with served(control) as stream:
        (refused,) = await Talk(stream).ask('{"is": "reload"}')
    assert (refused["why"], refused["file"]) == ("configuration", "a.yaml")
    (mistake,) = refused["mistakes"]
    assert (mistake["place"], mistake["line"]) == ("dns.timeout", 7)


async def test_a_fault_of_ours_ends_its_request_alone_and_tells_nothing_of_itself() -> None:
    control = FakeControl()
    async with served(control) as stream:
        talk = Talk(stream)
        for failure in (KeyError("secret"), ExceptionGroup("secret", [ValueError("secret")])):
            control.failure = failure
            (refused,) = await talk.ask('{"is": "stats"}')
            assert refused["why"] == "fault"
            assert "secret" not in refused["text"]
        control.failure = None
        assert len(await talk.ask('{"is": "stats"}')) == 2


async def test_a_client_that_leaves_ends_what_it_asked_for() -> None:
    control = FakeControl()
    control.slow = True
    async with served(control) as stream:
        await stream.send_all(b'{"is": "check"}\n')
        await trio.testing.wait_all_tasks_blocked()
        assert control.cancelled == 0
    assert control.cancelled == 1


async def test_a_client_that_leaves_ends_also_what_it_asked_for_ahead() -> None:
    control = FakeControl()
    control.slow = True
    async with served(control) as stream:
        await stream.send_all(b'{"is": "check"}\n' * 3)
        await trio.testing.wait_all_tasks_blocked()
    assert control.cancelled == 1


async def test_events_are_told_until_the_client_leaves() -> None:
    control = FakeControl()
    control.happenings = [Finished(1, 2.0, "x"), Finished(2, 3.0, "y")]
    async with served(control) as stream:
        talk = Talk(stream)
        await talk.say('{"is": "events", "since": 5}')
        assert (await talk.hear())["event"] == {"type": "Missed", "count": 5}
        assert [(await talk.hear())["event"]["id"] for _ in range(2)] == ["x", "y"]
        assert control.closed == 0
    assert control.closed == 1


async def test_a_client_that_asks_nothing_is_left(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with served(FakeControl()) as stream:
        talk = Talk(stream)
        await trio.sleep(IDLE - 1)
        await talk.ask('{"is": "stats"}')
        await stream.send_all(b'{"is": "sta')  # half a request is none
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
    # Leaving `served` waits for the conversation; it would hang if that went on for ever.
    assert trio.current_time() - began <= IDLE


async def test_a_conversation_ends_by_itself_when_nothing_is_asked(
    autojump_clock: trio.testing.MockClock,
) -> None:
    _, theirs = trio.testing.memory_stream_pair()
    await Conversation(theirs, FakeControl().steered_by, "operator:test").run()
    assert trio.current_time() == IDLE


async def test_a_client_that_does_not_take_its_answer_is_left(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Conversation(theirs, FakeControl().steered_by, "operator:test").run)
        await ours.send_all(b'{"is": "stats"}\n')
    assert trio.current_time() == PATIENCE


async def test_a_request_that_takes_too_long_is_stopped_but_for_events(
    autojump_clock: trio.testing.MockClock,
) -> None:
    control = FakeControl()
    async with served(control) as stream:
        talk = Talk(stream)
        control.slow = True
        (refused,) = await talk.ask('{"is": "check"}')
        assert refused["why"] == "unavailable"
        assert trio.current_time() == LONGEST
        assert control.cancelled == 1
        await talk.say('{"is": "events"}')
        await trio.sleep(10 * LONGEST)
        assert control.closed == 0


async def test_the_servers_own_user_may_speak_for_others() -> None:
    server = FakeControl()
    async with client_of(server, trusted=True) as client:
        await client.stats()
        assert server.who == "operator:test"
        await client.speak_for("operator:bob")
        assert server.who == "operator:bob"


async def test_nobody_else_may() -> None:
    server = FakeControl()
    async with client_of(server) as client:
        with pytest.raises(RequestError, match="operator:test may not speak for others"):
            await client.speak_for("operator:bob")
        assert server.who == "operator:test"
