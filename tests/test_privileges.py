from __future__ import annotations

import os
import pwd
import resource
import socket
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from elemta import privileges, systemd
from elemta.privileges import Files, Identity, StartError, identity, own, writable

if TYPE_CHECKING:
    from pathlib import Path

ROOT = os.geteuid() == 0
ME = pwd.getpwuid(os.geteuid()).pw_name


def test_root_stays_root_only_if_that_is_asked_for() -> None:
    assert identity(None, allow_root=True) is None
    if ROOT:
        with pytest.raises(StartError, match="refusing to run as root: set `user`"):
            identity(None, allow_root=False)
        with pytest.raises(StartError, match="refusing to run as root: `user` is root"):
            identity("root", allow_root=False)
    else:
        assert identity(None, allow_root=False) is None


def test_who_we_are_already_needs_no_change() -> None:
    assert identity(ME, allow_root=True) is None


def test_a_user_that_is_not_there_is_told() -> None:
    with pytest.raises(StartError, match="there is no user 'no-such-user' on this machine"):
        identity("no-such-user", allow_root=False)


def test_only_root_becomes_somebody_else() -> None:
    nobody = pwd.getpwnam("nobody")
    if ROOT:
        found = identity("nobody", allow_root=False)
        assert found == Identity("nobody", nobody.pw_uid, nobody.pw_gid)
    else:
        with pytest.raises(StartError, match="only root can become 'nobody'"):
            identity("nobody", allow_root=False)


DROP = """
import os
from elemta.privileges import drop, identity
drop(identity("nobody", allow_root=False))
assert os.getresuid() == (os.getuid(),) * 3 and os.getuid() != 0
assert os.getresgid() == (os.getgid(),) * 3 and os.getgid() != 0
assert 0 not in os.getgroups()
try:
    os.setuid(0)
except PermissionError:
    print("dropped")
"""


def test_what_was_given_up_is_gone() -> None:
    done = subprocess.run([sys.executable, "-c", DROP], capture_output=True, text=True)
    if ROOT:
        assert (done.stdout, done.returncode) == ("dropped\n", 0), done.stderr
    else:
        assert "only root can become 'nobody'" in done.stderr


def test_nobody_goes_on_half_as_root() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from elemta.privileges import *; drop(Identity('nobody', 0, 65534))",
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )
    assert done.returncode == (0 if ROOT else 1)
    if not ROOT:
        assert "cannot become 'nobody'" in done.stderr


def test_the_data_directory_is_for_its_owner_alone(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "b"
    own(directory, None)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    writable(directory)
    own(directory, None)
    if ROOT:
        own(directory, Identity("nobody", 65534, 65534))
        assert directory.stat().st_uid == 65534


def test_a_data_directory_that_cannot_be_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="cannot be made: Not a directory"):
        own(tmp_path / "file" / "data", None)
    with pytest.raises(StartError, match="cannot be written by '"):
        writable(tmp_path / "missing")


def test_as_many_descriptors_are_asked_for_as_all_together_may_need() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 600), hard))
        assert privileges.open_files(1, 1) == Files(
            limit=min(soft, 600), connections=1, deliveries=1
        )
        assert privileges.open_files(50, 50) == Files(limit=712, connections=50, deliveries=50)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (712, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_more_descriptors_are_asked_for_as_far_as_there_are_any() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 600), hard))
        privileges.more_files(100)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (min(min(soft, 600) + 100, hard), hard)
        privileges.more_files(10**9)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


SCARCE = """
import resource
from elemta.privileges import open_files
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 1024))
files = open_files(2000, 500)
print(files.limit, files.connections, files.deliveries)
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
files = open_files(2000, 500)
print(files.limit, files.connections, files.deliveries)
"""


def test_clients_and_deliveries_share_what_descriptors_there_are() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCARCE], capture_output=True, text=True, check=True
    )
    assert done.stdout == "1024 204 51\n100 20 5\n"


def test_systemd_hears_us_where_it_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for address in (str(tmp_path / "notify"), f"\0elemta-test-{os.getpid()}"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service:
            service.bind(address)
            service.settimeout(5)
            monkeypatch.setenv("NOTIFY_SOCKET", address.replace("\0", "@"))
            systemd.notify("READY=1")
            assert service.recv(100) == b"READY=1"
    systemd.notify("READY=1")  # nobody listens any more
    monkeypatch.setenv("NOTIFY_SOCKET", "")
    systemd.notify("READY=1")


def test_only_the_process_that_is_meant_feeds_the_watchdog() -> None:
    me = str(os.getpid())
    assert systemd.watchdog({}) is None
    assert systemd.watchdog({"WATCHDOG_USEC": "0"}) is None
    assert systemd.watchdog({"WATCHDOG_USEC": "much"}) is None
    assert systemd.watchdog({"WATCHDOG_USEC": "30000000"}) == 30.0
    assert systemd.watchdog({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": me}) == 30.0
    assert systemd.watchdog({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}) is None


def test_a_program_that_we_may_not_run_is_told_before_nodes_are_started(tmp_path: Path) -> None:
    privileges.runnable(sys.executable)
    program = tmp_path / "python"
    program.touch(mode=0o600)
    with pytest.raises(StartError, match=f"{program} cannot be executed by '{ME}'"):
        privileges.runnable(str(program))
