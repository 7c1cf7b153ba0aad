from __future__ import annotations

import trio
import trio.testing

from elemta import systemd


class Server:
    """What is reported on."""

    def __init__(self) -> None:
        self.status = "all is well"
        self.answering = True
        self.told: list[tuple[float, str]] = []

    async def answers(self) -> None:
        if not self.answering:
            await trio.sleep_forever()

    def tell(self, what: str) -> None:
        self.told.append((trio.current_time(), what))

    async def report(self, within: float | None) -> None:
        await systemd.report(lambda: self.status, self.answers, within=within, tell=self.tell)


async def test_how_we_are_is_said_when_it_changes(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    server = Server()
    nursery.start_soon(server.report, None)
    await trio.sleep(25)
    server.status = "the disk is full"
    await trio.sleep(25)
    assert server.told == [(0, "STATUS=all is well"), (30, "STATUS=the disk is full")]
    nursery.cancel_scope.cancel()


async def test_the_watchdog_hears_us_at_half_its_time_while_the_writer_answers(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    server = Server()
    nursery.start_soon(server.report, 6.0)
    await trio.sleep(10)
    fed = [at for at, what in server.told if what == "WATCHDOG=1"]
    assert fed == [0, 3, 6, 9]
    server.answering = False
    await trio.sleep(60)
    assert [at for at, what in server.told if what == "WATCHDOG=1"] == fed
    server.answering = True
    await trio.sleep(6)
    assert server.told[-1][1] == "WATCHDOG=1"
    nursery.cancel_scope.cancel()
