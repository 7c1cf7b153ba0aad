from __future__ import annotations

import grp
import os
import pwd
import socket
import stat
from typing import TYPE_CHECKING

import pytest
import trio

from elemta.control.place import listening, name_of, peer_of, reachable

if TYPE_CHECKING:
    from pathlib import Path

ME = pwd.getpwuid(os.geteuid()).pw_name


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client, reachable(path) as name:
        try:
            client.connect(name)
        except OSError:
            return False
        return True


def test_the_socket_is_for_its_owner_alone_and_goes_when_it_is_left(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with listening(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert connects(path)
    assert not path.exists()


def test_a_group_may_be_let_in(tmp_path: Path) -> None:
    path, group = tmp_path / "control.sock", grp.getgrgid(os.getegid())
    with listening(path, group.gr_name):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert path.stat().st_gid == group.gr_gid
    with pytest.raises(LookupError), listening(path, "no-such-group"):
        pass


def test_what_a_dead_process_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    assert not connects(path)
    with listening(path):
        assert connects(path)


def test_a_socket_at_which_somebody_listens_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with listening(path):
        for _ in range(100):  # more than wait to be accepted
            with pytest.raises(OSError, match="another process listens there"), listening(path):
                pass
        assert path.exists()


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.write_text("precious")
    with pytest.raises(FileExistsError, match="something else is there"), listening(path):
        pass
    assert path.read_text() == "precious"


def test_the_socket_of_another_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with listening(path):
        path.unlink()
        path.write_text("another's")
    assert path.read_text() == "another's"


def test_a_path_may_be_longer_than_a_sockets_address(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    path = folder / "control.sock"
    with listening(path):
        assert connects(path)
    assert not path.exists()
    with pytest.raises(FileNotFoundError), reachable(tmp_path / ("y" * 120) / "control.sock"):
        pass


async def test_the_kernel_says_who_is_at_the_other_end() -> None:
    ours, theirs = trio.socket.socketpair()
    with ours, theirs:
        assert peer_of(ours) == os.geteuid()
    assert name_of(os.geteuid()) == ME
    assert name_of(4_000_000_001) == "uid-4000000001"
