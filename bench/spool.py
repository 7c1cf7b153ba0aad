"""Where the spools lie: one ext4 with a journal, the same for every server.

As root it is made for the purpose in an image of its own, so that the flushes that its device
counts are the server's alone; else it is a folder as it is found.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from bench import load

if TYPE_CHECKING:
    from collections.abc import Iterator

_IMAGE_SIZE = 12 * 2**30  # sparse


class Spool(Struct, frozen=True):
    """A folder for spools.

    Attributes:
        device: its block device in /sys, if nobody else writes to it.
        kind: what it is, for the table.
    """

    folder: Path
    kind: str
    device: Path | None = None

    def flushes(self) -> int | None:
        """How often the device was told to make everything durable, so far."""
        if self.device is None:
            return None
        fields = (self.device / "stat").read_text().split()
        return int(fields[15]) if len(fields) > 15 else None


@contextlib.contextmanager
def spool(work: Path, *, image: bool) -> Iterator[Spool]:
    """The folder for all spools of this run, below `work`; gone with the block."""
    folder = work / "spool"
    folder.mkdir(parents=True, exist_ok=True)
    if not image:
        kind = subprocess.run(
            ["stat", "-f", "-c", "%T", str(folder)], capture_output=True, text=True, check=True
        )
        yield Spool(folder, f"a folder on {kind.stdout.strip()}")
        return
    if os.geteuid() != 0:
        raise load.MissingError("an image can be mounted by root only: use --spool folder")
    path = work / "spool.img"
    try:
        with path.open("wb") as file:
            file.truncate(_IMAGE_SIZE)
        options = ["-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"]
        subprocess.run([load.program("mkfs.ext4"), *options, str(path)], check=True)
        attached = subprocess.run(
            [load.program("losetup"), "--find", "--show", str(path)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        device = attached.stdout.strip()
        try:
            subprocess.run(["mount", device, str(folder)], check=True)
            try:
                folder.chmod(0o755)
                yield Spool(
                    folder,
                    "ext4 with a journal, in an image",
                    Path("/sys/block", Path(device).name),
                )
            finally:
                subprocess.run(["umount", "--lazy", str(folder)], check=True)
        finally:
            subprocess.run(["losetup", "--detach", device], check=True)
    finally:
        path.unlink(missing_ok=True)
