from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from elemta.api import audit
from elemta.api.audit import AuditLog
from elemta.api.visit import Caller, Scope, Visit
from tests.api.fakes import at_once

if TYPE_CHECKING:
    from pathlib import Path

ADMIN = Caller("token:admin", frozenset({Scope.ADMIN}))
NOW = 1_800_000_000.0


def made(folder: Path, size: int = audit.SIZE) -> AuditLog:
    return AuditLog(folder, lambda: NOW, size, at_once)


def visit(path: str = "/v1/queue/hold") -> Visit:
    return Visit(method="POST", path=path, client="192.0.2.1", headers={}, cookies={})


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def run_for(log: AuditLog, seconds: float) -> None:
    with trio.move_on_after(seconds):
        await log.run()


async def test_what_is_noted_is_a_line_for_its_owner_alone(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    log = made(tmp_path)
    log.note(ADMIN, visit(), 200, '{"filter":{}}')
    log.note(None, visit(), 401)
    await run_for(log, 1)
    assert log.path.stat().st_mode & 0o777 == 0o600
    first, second = lines(log.path)
    assert first == {
        "at": NOW,
        "who": "token:admin",
        "client": "192.0.2.1",
        "method": "POST",
        "path": "/v1/queue/hold",
        "status": 200,
        "told": '{"filter":{}}',
    }
    assert second["who"] == ""


async def test_what_was_noted_is_written_when_all_ends(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    log = made(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run)
        await trio.testing.wait_all_tasks_blocked()
        log.note(ADMIN, visit(), 200)
        nursery.cancel_scope.cancel()
    assert len(lines(log.path)) == 1


async def test_a_new_start_adds_to_what_is_there(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    for path in ("/a", "/b"):
        log = made(tmp_path)
        log.note(ADMIN, visit(path), 200)
        await run_for(log, 1)
    assert [line["path"] for line in lines(tmp_path / "audit.log")] == ["/a", "/b"]
    assert [noted.path for noted in log.last(10)] == ["/b", "/a"]
    assert [noted.path for noted in log.last(1)] == ["/b"]


async def test_a_line_that_was_written_in_part_or_is_damaged_is_passed_over(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    (tmp_path / "audit.log").write_bytes(b'{"at": 1, "who"\n{"at": 1, "who": "\xff"}\n')
    log = made(tmp_path)
    log.note(ADMIN, visit("/a"), 200)
    await run_for(log, 1)
    assert [noted.path for noted in log.last(10)] == ["/a"]


async def test_a_full_file_makes_room_for_a_new_one(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    log = made(tmp_path, size=300)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run)
        for number in range(30):
            log.note(ADMIN, visit(f"/{number:02}"), 200)
            await trio.sleep(1)
        nursery.cancel_scope.cancel()
    names = names_in(tmp_path)
    older = [f"audit.log.{number}" for number in range(1, audit.KEPT + 1)]
    assert names == ["audit.log", *older]
    kept = [
        line["path"] for name in [*reversed(older), "audit.log"] for line in lines(tmp_path / name)
    ]
    assert kept == [f"/{number:02}" for number in range(30)][-len(kept) :]
    assert all((tmp_path / name).stat().st_size <= 300 for name in names)


async def test_a_disk_that_fails_costs_lines_and_nothing_else(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    folder = tmp_path / "away"
    log = AuditLog(folder, lambda: NOW, in_thread=at_once)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run)
        log.note(ADMIN, visit("/a"), 200)
        await trio.sleep(1)
        assert log.lost == 1
        folder.mkdir()
        log.note(ADMIN, visit("/b"), 200)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert [line["path"] for line in lines(log.path)] == ["/b"]
    assert len(log.last(10)) == 2


async def test_a_disk_that_hangs_holds_up_nobody(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async def never(call: object, limiter: object, /) -> None:
        await trio.sleep_forever()

    log = AuditLog(tmp_path, lambda: NOW, in_thread=never)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run)
        for _ in range(audit.WAITING + 5):
            log.note(ADMIN, visit(), 200)
        assert log.lost == 5
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert trio.current_time() <= 1 + audit.LAST


@pytest.mark.parametrize("kind", ["elemta", "once"])
def test_a_secret_is_not_written_down(tmp_path: Path, kind: str) -> None:
    log = made(tmp_path)
    secret = "Zx" * 21 + "-"
    log.note(ADMIN, visit(f"/v1/{kind}_{'a' * 12}_{secret}"), 200, f'"{kind}_{"a" * 12}_{secret}"')
    (noted,) = log.last(1)
    assert secret not in noted.path + noted.told
    assert noted.told == f'"{kind}_{"a" * 12}_…"'


def test_what_is_told_is_cut(tmp_path: Path) -> None:
    log = made(tmp_path)
    log.note(ADMIN, visit(), 200, "x" * 100_000)
    assert len(log.last(1)[0].told) == audit.TOLD


def test_strangers_cannot_push_out_what_others_did(tmp_path: Path) -> None:
    now = NOW
    log = AuditLog(tmp_path, lambda: now)
    log.note(ADMIN, visit("/mine"), 200)
    for _ in range(audit.REMEMBERED * 2):
        log.note(None, visit(), 401)
    assert log.last(audit.REMEMBERED)[-1].path == "/mine"
    assert len(log.last(audit.REMEMBERED)) == audit.STRANGERS + 1
    now += audit.STRANGERS_TIME
    log.note(None, visit("/later"), 401)
    assert log.last(1)[0].path == "/later"
