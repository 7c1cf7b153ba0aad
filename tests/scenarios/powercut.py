"""A disk that loses its power: what of the files is there afterwards.

`powercut.c` writes down what a program does to the files of a folder. `Disk` plays that back, and
tells at any moment what a power cut would leave of it:

- Of a file, what was written before the beginning of a sync that has ended. What was written since
  may be there or not, each sector by itself.
- Of a folder, the names as they were when a sync of the folder began. Syncing a file makes no name
  durable, not even its own. What happened to names since may have been done up to some moment, in
  each folder another one.
- A rename is done whole or not at all, as file systems with a journal have it.
"""

from __future__ import annotations

import struct
import subprocess
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

T = TypeVar("T")

_RECORD = struct.Struct("<BBHHiiqI")
_SECTOR = 512


class Kind(IntEnum):
    """As in powercut.c."""

    OPEN = 1
    CLOSE = 2
    WRITE = 3
    TRUNCATE = 4
    SYNC_BEGIN = 5
    SYNC_END = 6
    RENAME = 7
    UNLINK = 8
    MKDIR = 9
    RMDIR = 10
    LINK = 11
    PROMISE = 12


class Record(NamedTuple):
    """One thing that happened; see powercut.c for what the fields mean."""

    kind: Kind
    created: bool
    pid: int
    fd: int
    offset: int
    first: str
    second: bytes


def compile_shim(folder: Path) -> Path:
    """Compile powercut.c; gives what is to be preloaded."""
    library = folder / "powercut.so"
    source = Path(__file__).with_name("powercut.c")
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-lpthread"],
        check=True,
    )
    return library


def read_log(path: Path) -> list[Record]:
    """Everything that was written down, in order."""
    octets = memoryview(path.read_bytes())
    records = []
    at = 0
    while at < len(octets):
        kind, created, first, _, pid, fd, offset, second = _RECORD.unpack_from(octets, at)
        at += _RECORD.size
        text = bytes(octets[at : at + first]).decode()
        at += first
        records.append(
            Record(
                Kind(kind), bool(created), pid, fd, offset, text, bytes(octets[at : at + second])
            )
        )
        at += second
    return records


class _Write(NamedTuple):
    offset: int
    octets: bytes


class _Truncate(NamedTuple):
    size: int


@dataclass(eq=False)
class _File:
    """A file: what is durable of it, and what was done since."""

    durable: bytearray = field(default_factory=bytearray)
    since: list[_Write | _Truncate] = field(default_factory=list)

    def begin_sync(self) -> Callable[[], None]:
        """What is to be called when the sync has ended."""
        covered = list(self.since)

        def end() -> None:
            for change in _take(self.since, covered):
                _apply(self.durable, change)

        return end

    def after_cut(self, chance: random.Random | None) -> bytes:
        found = bytearray(self.durable)
        if chance is None:
            return bytes(found)
        for change in self.since:
            if isinstance(change, _Write):
                for sector in _sectors(change):
                    if chance.random() < 0.5:
                        _apply(found, sector)
            elif chance.random() < 0.5:
                _apply(found, change)
        return bytes(found)


def _apply(octets: bytearray, change: _Write | _Truncate) -> None:
    if isinstance(change, _Truncate):
        if change.size < len(octets):
            del octets[change.size :]
        else:
            octets.extend(bytes(change.size - len(octets)))
        return
    if change.offset > len(octets):
        octets.extend(bytes(change.offset - len(octets)))
    octets[change.offset : change.offset + len(change.octets)] = change.octets


def _sectors(write: _Write) -> Iterator[_Write]:
    begin, end = write.offset, write.offset + len(write.octets)
    while begin < end:
        stop = min(end, begin - begin % _SECTOR + _SECTOR)
        yield _Write(begin, write.octets[begin - write.offset : stop - write.offset])
        begin = stop


@dataclass(eq=False)
class _Change:
    """Names that were set or, where None, taken away, all at once; perhaps in two folders."""

    names: list[tuple[_Folder, str, _File | _Folder | None]]
    done: bool = False

    def do(self) -> None:
        if not self.done:
            self.done = True
            for folder, name, what in self.names:
                _set(folder.durable, name, what)


@dataclass(eq=False)
class _Folder:
    """A folder: its names now, the durable ones, and what was done since."""

    now: dict[str, _File | _Folder] = field(default_factory=dict)
    durable: dict[str, _File | _Folder] = field(default_factory=dict)
    since: list[_Change] = field(default_factory=list)

    def begin_sync(self) -> Callable[[], None]:
        """What is to be called when the sync has ended."""
        covered = list(self.since)

        def end() -> None:
            for change in _take(self.since, covered):
                change.do()

        return end

    def after_cut(self, chance: random.Random | None) -> dict[str, _File | _Folder]:
        found = dict(self.durable)
        if chance is not None:
            for change in self.since[: chance.randint(0, len(self.since))]:
                if not change.done:
                    for folder, name, what in change.names:
                        if folder is self:
                            _set(found, name, what)
        return found


def _take(since: list[T], covered: list[T]) -> list[T]:
    """Take from the front what is covered; another sync may have ended and taken some before."""
    known = {id(change) for change in covered}
    count = 0
    while count < len(since) and id(since[count]) in known:
        count += 1
    taken = since[:count]
    del since[:count]
    return taken


def _set(names: dict[str, _File | _Folder], name: str, what: _File | _Folder | None) -> None:
    if what is None:
        names.pop(name, None)
    else:
        names[name] = what


class Disk:
    """The files below `root`, as they would be found after a cut at this moment.

    Attributes:
        promised: ids of the messages that were answered positively so far.
    """

    def __init__(self, root: Path) -> None:
        self._root_path = PurePosixPath(root.resolve())
        self._root = _Folder()
        self._open: dict[tuple[int, int], _File | _Folder] = {}
        self._syncs: dict[tuple[int, int], Callable[[], None]] = {}
        self.promised: list[str] = []

    def play(self, record: Record) -> None:
        """Let this happen."""
        here = (record.pid, record.fd)
        match record.kind:
            case Kind.OPEN:
                self._open[here] = self._opened(record)
            case Kind.CLOSE:
                self._open.pop(here, None)
            case Kind.WRITE | Kind.TRUNCATE:
                file = self._open[here]
                assert isinstance(file, _File)
                file.since.append(
                    _Write(record.offset, record.second)
                    if record.kind is Kind.WRITE
                    else _Truncate(record.offset)
                )
            case Kind.SYNC_BEGIN:
                self._syncs[record.pid, record.offset] = self._open[here].begin_sync()
            case Kind.SYNC_END:
                self._syncs.pop((record.pid, record.offset))()
            case Kind.RENAME:
                what = self._find(record.first)
                old, old_name = self._parent(record.first)
                new, new_name = self._parent(record.second.decode())
                self._change([(old, old_name, None), (new, new_name, what)])
            case Kind.LINK:
                new, new_name = self._parent(record.second.decode())
                self._change([(new, new_name, self._find(record.first))])
            case Kind.MKDIR:
                self._change([(*self._parent(record.first), _Folder())])
            case Kind.UNLINK | Kind.RMDIR:
                self._change([(*self._parent(record.first), None)])
            case Kind.PROMISE:
                self.promised.append(record.first)

    def cut(self, target: Path, chance: random.Random | None) -> None:
        """Write what is there after a cut into the empty folder `target`.

        Args:
            chance: decides on what is neither there for certain nor gone; None: all of it is gone.
        """
        self._write(self._root, target, chance)

    def _write(self, folder: _Folder, target: Path, chance: random.Random | None) -> None:
        for name, what in folder.after_cut(chance).items():
            if isinstance(what, _Folder):
                (target / name).mkdir()
                self._write(what, target / name, chance)
            else:
                (target / name).write_bytes(what.after_cut(chance))

    def _opened(self, record: Record) -> _File | _Folder:
        if PurePosixPath(record.first) == self._root_path:
            return self._root
        folder, name = self._parent(record.first)
        if name not in folder.now:
            assert record.created, f"{record.first} is not known"
            self._change([(folder, name, _File())])
        return folder.now[name]

    def _change(self, names: list[tuple[_Folder, str, _File | _Folder | None]]) -> None:
        change = _Change(names)
        for folder, name, what in names:
            _set(folder.now, name, what)
        for folder in {id(folder): folder for folder, _, _ in names}.values():
            folder.since.append(change)

    def _parent(self, path: str) -> tuple[_Folder, str]:
        relative = PurePosixPath(path).relative_to(self._root_path)
        folder = self._root
        for part in relative.parts[:-1]:
            found = folder.now[part]
            assert isinstance(found, _Folder)
            folder = found
        return folder, relative.name

    def _find(self, path: str) -> _File | _Folder:
        folder, name = self._parent(path)
        return folder.now[name]
