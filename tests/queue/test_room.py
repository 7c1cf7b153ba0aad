from __future__ import annotations

import os
from pathlib import Path

import pytest

from elemta.queue.room import Disk, Reserve

GIB = 2**30


class FileSystem:
    """What statvfs says of it; counts how often it is asked."""

    def __init__(self, size: int = 100 * GIB, free: int = 50 * GIB, inodes: float = 0.5) -> None:
        self.size = size
        self.free = free
        self.inodes = inodes
        self.asked = 0
        self.broken = False

    def __call__(self, folder: Path) -> os.statvfs_result:
        self.asked += 1
        if self.broken:
            raise OSError("Input/output error")
        block, files = 4096, 1000 if self.inodes >= 0 else 0
        left = max(0, int(files * self.inodes))
        return os.statvfs_result(
            (
                *(block, block, self.size // block, self.free // block, self.free // block),
                *(files, left, left, 0, 255, 0),
            )
        )


def room(system: FileSystem, *, reusable: int = 0, largest: int = 0) -> bool:
    reserve = Reserve(largest=largest)
    return Disk(Path("/"), reserve, lambda: 0.0, lambda: reusable, system).room()


@pytest.mark.parametrize(
    ("system", "wanted"),
    [
        (FileSystem(), True),
        (FileSystem(free=2 * GIB), True),  # 1 GiB is enough on a large disk
        (FileSystem(free=GIB - 4096), False),
        (FileSystem(size=2 * GIB, free=300 * 2**20), True),  # a tenth on a small one
        (FileSystem(size=2 * GIB, free=100 * 2**20), False),
        (FileSystem(inodes=0.05), False),
        (FileSystem(inodes=-1), True),  # btrfs counts none
    ],
)
def test_there_is_room_while_the_reserve_is_whole(system: FileSystem, wanted: bool) -> None:
    assert room(system) is wanted


def test_the_largest_message_fits_and_half_as_much_again() -> None:
    small = FileSystem(size=2 * GIB, free=300 * 2**20)
    assert room(small, largest=200 * 2**20)
    assert not room(small, largest=201 * 2**20)


def test_what_is_free_in_our_own_files_counts() -> None:
    assert room(FileSystem(free=GIB // 2), reusable=GIB)


def test_a_file_system_that_does_not_answer_has_no_room() -> None:
    system = FileSystem()
    system.broken = True
    assert not room(system)


def test_the_file_system_is_asked_once_a_second() -> None:
    system, now = FileSystem(), [100.0]
    disk = Disk(Path("/"), Reserve(), lambda: now[0], lambda: 0, system)
    for now[0] in (100.0, 100.5, 100.9):
        assert disk.room()
    assert system.asked == 1
    system.free = 0
    now[0] = 101.0
    assert not disk.room()
    system.free = 50 * GIB
    now[0] = 50.0  # the clock was set back
    assert disk.room()
    assert system.asked == 3


def test_a_real_file_system_is_understood(tmp_path: Path) -> None:
    whole = Reserve(octets=2**62, share=1.1, inodes=0.0)
    nothing = Reserve(octets=0, share=0.0, inodes=0.0)
    assert not Disk(tmp_path, whole, lambda: 0.0, lambda: 0).room()
    assert Disk(tmp_path, nothing, lambda: 0.0, lambda: 0).room()
