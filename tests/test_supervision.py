from __future__ import annotations

import trio
import trio.testing

from elemta.supervision import Part, Supervision


class Machine:
    """Runs as long as it is told, then breaks; or ends, if it is told nothing more."""

    def __init__(self, *seconds: float) -> None:
        self.seconds = list(seconds)
        self.began: list[float] = []

    async def run(self) -> None:
        self.began.append(trio.current_time())
        if not self.seconds:
            return
        await trio.sleep(self.seconds.pop(0))
        raise ValueError("worn out")


async def test_what_fails_begins_anew_after_a_pause_that_doubles_up_to_a_minute(
    autojump_clock: trio.testing.MockClock,
) -> None:
    machine, supervision = Machine(*[0.0] * 9), Supervision()
    await supervision.keep("machine", machine.run)
    pauses = [b - a for a, b in zip(machine.began, machine.began[1:], strict=False)]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert supervision.parts == (
        Part(name="machine", running=False, restarts=9, failure="ValueError: worn out"),
    )


async def test_what_was_sound_for_a_minute_begins_anew_soon(
    autojump_clock: trio.testing.MockClock,
) -> None:
    machine, supervision = Machine(0, 0, 0, 61, 0), Supervision()
    await supervision.keep("machine", machine.run)
    assert machine.began == [0, 1, 3, 7, 69, 71]


async def test_a_failure_is_told_until_its_part_was_sound_for_a_minute(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    supervision = Supervision()
    nursery.start_soon(supervision.keep, "machine", Machine(10, 1000).run)
    await trio.sleep(5)
    (part,) = supervision.parts
    assert (part.running, part.failure) == (True, None)
    await trio.sleep(5.5)
    (part,) = supervision.parts
    assert (part.running, part.failure) == (False, "ValueError: worn out")
    await trio.sleep(50)
    (part,) = supervision.parts
    assert (part.running, part.restarts, part.failure) == (True, 1, "ValueError: worn out")
    await trio.sleep(20)
    (part,) = supervision.parts
    assert (part.restarts, part.failure) == (1, None)
    nursery.cancel_scope.cancel()


async def test_nothing_begins_anew_once_we_stop(autojump_clock: trio.testing.MockClock) -> None:
    waiting, running, supervision = Machine(0), Machine(10), Supervision()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervision.keep, "waiting", waiting.run)
        nursery.start_soon(supervision.keep, "running", running.run)
        await trio.sleep(0.5)
        supervision.stop()
        await trio.testing.wait_all_tasks_blocked()
        running_now = {part.name: part.running for part in supervision.parts}
        assert running_now == {"waiting": False, "running": True}
    assert trio.current_time() == 10
    assert (waiting.began, running.began) == ([0], [0])


async def test_of_what_failed_together_the_first_is_told(
    autojump_clock: trio.testing.MockClock,
) -> None:
    failed = False

    async def fail() -> None:
        nonlocal failed
        if not failed:
            failed = True
            raise ExceptionGroup("both", [ExceptionGroup("one", [OSError("no disk")]), KeyError()])

    supervision = Supervision()
    await supervision.keep("both", fail)
    (part,) = supervision.parts
    assert part.failure == "OSError: no disk"


async def test_one_that_fails_does_not_disturb_others(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    supervision, sound = Supervision(), Machine(1000)
    nursery.start_soon(supervision.keep, "failing", Machine(*[1] * 10).run)
    nursery.start_soon(supervision.keep, "sound", sound.run)
    await trio.sleep(100)
    restarted = {part.name: part.restarts > 3 for part in supervision.parts}
    assert restarted == {"failing": True, "sound": False}
    nursery.cancel_scope.cancel()
