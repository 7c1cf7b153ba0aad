"""Copies a queue while it is in use, so that the copy is true of one moment.

The database is copied from within one read transaction. A large body is a file that goes as soon
as its message is finished; so all files get a second name first, in a folder of ours beside them,
and then the moment is chosen. It may still ask for a file that came and went in between: then
another moment is chosen. A file that is missing at both was lost before, and so is in the copy.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from elemta.files import sync_folder
from elemta.queue.bodies import BodyFiles
from elemta.queue.errors import StoreUnavailable
from elemta.queue.reader import connect
from elemta.queue.records import decode_message
from elemta.queue.store import database

if TYPE_CHECKING:
    from elemta.queue.model import MessageId

#: Moments that are tried.
MOMENTS: Final = 20

_FILED: Final = """
    SELECT record FROM message
    WHERE phase < 2 AND NOT EXISTS (SELECT 1 FROM body WHERE body.key = message.key)
"""


def backup(folder: Path, target: Path) -> None:
    """Copy the queue in a folder to another, which must not exist; blocks.

    The copy appears under its name once it is whole and durable. It is a queue like any other:
    put in the place of the first, it is opened. What was delivered since is then delivered again.

    Args:
        folder: the queue's.
        target: becomes the copy; its parent is there.

    Raises:
        SpoolError: there is no queue here, or another Elemta wrote it.
        FileExistsError: the target is there already.
        StoreUnavailable: large messages come and go too fast; try again.
        OSError, sqlite3.Error: a disk.
    """
    if target.exists():
        raise FileExistsError(f"{target} is there already")
    growing = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        (growing / "bodies").mkdir(mode=0o700)
        with tempfile.TemporaryDirectory(prefix="backup-", dir=folder) as second_names:
            _copy(folder, growing, Path(second_names))
        for each in (growing / "bodies", growing):
            sync_folder(each)
        growing.rename(target)
        sync_folder(target.parent)
    except BaseException:
        shutil.rmtree(growing, ignore_errors=True)
        raise


def _copy(folder: Path, target: Path, second_names: Path) -> None:
    source = connect(database(folder))
    try:
        wanted = choose_moment(source, BodyFiles(folder / "bodies"), second_names)
        copy = database(target)
        os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        into = sqlite3.connect(copy, isolation_level=None)
        try:
            source.backup(into)  # all at once, of the moment that was chosen
        finally:
            into.close()
    finally:
        source.close()
    _sync(copy)
    for id in wanted:  # noqa: A001 # the word of people
        shutil.copyfile(second_names / id, target / "bodies" / id)
        (target / "bodies" / id).chmod(0o600)
        _sync(target / "bodies" / id)


def choose_moment(
    source: sqlite3.Connection, files: BodyFiles, second_names: Path
) -> list[MessageId]:
    """Leave the connection in a transaction that shows one moment of which all files are at hand.

    Returns:
        Whose bodies are files at that moment.

    Raises:
        StoreUnavailable: there is no such moment.
    """
    missing: set[MessageId] = set()
    for _ in range(MOMENTS):
        for id in files.ids():  # noqa: A001 # the word of people
            _link(files.path(id), second_names / id)
        source.execute("BEGIN")
        rows: list[tuple[bytes]] = source.execute(_FILED).fetchall()
        wanted = [decode_message(record).id for (record,) in rows]
        gone = {id for id in wanted if not _link(files.path(id), second_names / id)}  # noqa: A001 # the word of people
        if gone <= missing:
            return [id for id in wanted if id not in gone]  # noqa: A001 # the word of people
        missing |= gone
        source.execute("ROLLBACK")
    raise StoreUnavailable("large messages come and go faster than they can be copied")


def _link(file: Path, second_name: Path) -> bool:
    """Give a file its second name, if it has none; whether there is one now."""
    if second_name.exists():
        return True
    try:
        second_name.hardlink_to(file)
    except FileNotFoundError:
        return False
    return True


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
