from __future__ import annotations

import errno
import os
import resource
import stat
from typing import TYPE_CHECKING

import pytest

from elemta.delivery.mailbox import Letter, MaildirStore, reply_to
from elemta.protocol import Mailbox
from elemta.queue import Message, Recipient

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from pathlib import Path

ALICE = Mailbox("a", "b.example")
BOB = Mailbox("Bob", "example.com")
EVE = Mailbox("eve", "example.com")


class Small:
    """A body that stands in memory."""

    def __init__(self, octets: bytes) -> None:
        self.octets: bytes | None = octets

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        raise AssertionError("a small one is not streamed")
        yield b""


class Large:
    """A body in pieces; `broken` breaks off, as a disk does that goes away."""

    def __init__(self, *pieces: bytes, broken: bool = False) -> None:
        self.octets: bytes | None = None
        self._pieces = pieces
        self._broken = broken

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        for piece in self._pieces:
            yield piece
        if self._broken:
            raise OSError("the disk is gone")


def message(sender: Mailbox | None = ALICE, *recipients: Mailbox) -> Message:
    return Message(
        id="01JD0000000000000000000000",
        sender=sender,
        recipients=[Recipient(number=n, address=r) for n, r in enumerate(recipients or (BOB, EVE))],
        received_at=1_700_000_000.25,
        expires_at=1_700_432_000.25,
        size=0,
    )


@pytest.fixture
def store(tmp_path: Path) -> MaildirStore:
    return MaildirStore(tmp_path / "mail", "mx.example.com")


def letter(store: MaildirStore, body: Small | Large, number: int = 0) -> Letter:
    whole = message()
    return store.letter(whole, whole.recipients[number], body)


def files(directory: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()
    }


NAME = "1700000000.01JD0000000000000000000000_0.mx.example.com"


async def test_a_letter_has_its_trace_fields_first_and_lines_that_end_in_lf(
    store: MaildirStore, tmp_path: Path
) -> None:
    body = Small(b"Subject: x\r\n\r\n.dot\r\n..dots\r\n.\r\n")
    assert await store.deliver([letter(store, body)]) == [None]
    assert files(tmp_path) == {
        f"mail/example.com/bob/new/{NAME}": (
            b"Return-Path: <a@b.example>\nDelivered-To: Bob@example.com\n"
            b"Subject: x\n\n.dot\n..dots\n.\n"
        )
    }
    assert {p.name for p in (tmp_path / "mail/example.com/bob").iterdir()} == {"tmp", "new", "cur"}


async def test_a_report_has_an_empty_return_path(store: MaildirStore, tmp_path: Path) -> None:
    whole = message(None)
    await store.deliver([store.letter(whole, whole.recipients[0], Small(b"x\r\n"))])
    assert next(iter(files(tmp_path).values())).startswith(b"Return-Path: <>\n")


async def test_nobody_else_may_read_a_letter(store: MaildirStore, tmp_path: Path) -> None:
    await store.deliver([letter(store, Small(b"x\r\n"))])
    home = tmp_path / "mail/example.com/bob"
    for path in [tmp_path / "mail", home.parent, home, home / "new", home / "tmp", home / "cur"]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "new" / NAME).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("mailbox", "directory"),
    [
        (Mailbox("bob", "example.com"), "example.com/bob"),
        (Mailbox("BOB+Tag", "example.com"), "example.com/bob+tag"),
        (Mailbox("..", "example.com"), "example.com/%2E."),
        (Mailbox(".hidden", "example.com"), "example.com/%2Ehidden"),
        (Mailbox("../../etc/passwd", "example.com"), "example.com/%2E.%2F..%2Fetc%2Fpasswd"),
        (Mailbox("a/b", "example.com"), "example.com/a%2Fb"),
        (Mailbox("a%2fb", "example.com"), "example.com/a%252fb"),
        (Mailbox("o'brien", "example.com"), "example.com/o%27brien"),
        (Mailbox("a b", "example.com"), "example.com/a%20b"),
        (Mailbox("jörg", "bücher.example"), "xn--bcher-kva.example/j%C3%B6rg"),
        (Mailbox("bob", "[192.0.2.1]"), "%5B192.0.2.1%5D/bob"),
        (Mailbox("postmaster", ""), "mx.example.com/postmaster"),
        (Mailbox("é" * 32, "example.com"), "example.com/" + "%C3%A9" * 32),
    ],
)
async def test_no_address_leads_out_of_its_own_maildir(
    mailbox: Mailbox, directory: str, store: MaildirStore, tmp_path: Path
) -> None:
    assert store.directory(mailbox) == str(tmp_path / "mail" / directory)
    whole = message(None, mailbox)
    assert await store.deliver([store.letter(whole, whole.recipients[0], Small(b"x\r\n"))]) == [
        None
    ]
    assert list(files(tmp_path / "mail" / directory)) == [f"new/{NAME}"]


async def test_a_host_name_cannot_spoil_a_file_name(tmp_path: Path) -> None:
    store = MaildirStore(tmp_path, "a/b:c")
    assert letter(store, Small(b"")).name.endswith(r".a\057b\072c")


async def test_delivered_again_it_takes_the_place_of_the_first(
    store: MaildirStore, tmp_path: Path
) -> None:
    # After a crash between the Maildir and the queue.
    for _ in range(2):
        assert await store.deliver([letter(store, Small(b"x\r\n"))]) == [None]
    assert len(files(tmp_path)) == 1


async def test_what_a_crash_left_in_tmp_is_written_over(
    store: MaildirStore, tmp_path: Path
) -> None:
    await store.deliver([letter(store, Small(b"x\r\n"), 1)])
    left = tmp_path / "mail/example.com/eve/tmp" / NAME.replace("_0", "_1")
    left.write_bytes(b"half a mess" * 100)
    assert await store.deliver([letter(store, Small(b"whole\r\n"), 1)]) == [None]
    [content] = files(tmp_path).values()
    assert content.endswith(b"\nwhole\n")


async def test_many_letters_are_written_together(store: MaildirStore, tmp_path: Path) -> None:
    whole = message(None, *(Mailbox(f"user{n % 7}", "example.com") for n in range(100)))
    letters = [store.letter(whole, r, Small(b"%d\r\n" % r.number)) for r in whole.recipients]
    assert await store.deliver(letters) == [None] * 100
    found = files(tmp_path / "mail/example.com")
    assert sorted(int(content.split()[-1]) for content in found.values()) == list(range(100))
    assert {name.split("/")[0] for name in found} == {f"user{n}" for n in range(7)}


async def test_a_large_letter_is_streamed(store: MaildirStore, tmp_path: Path) -> None:
    line = b"0123456789" * 7 + b"\r\n"
    whole = line * 40_000
    pieces = [whole[start : start + 65_519] for start in range(0, len(whole), 65_519)]
    assert any(piece.endswith(b"\r") for piece in pieces), "some CRLF is cut in two"
    assert await store.deliver(
        [letter(store, Large(*pieces)), letter(store, Small(b"x\r\n"), 1)]
    ) == [None, None]
    found = files(tmp_path / "mail/example.com")
    content = found[f"bob/new/{NAME}"]
    assert content.partition(b"Delivered-To: Bob@example.com\n")[2] == whole.replace(b"\r\n", b"\n")
    assert len(found) == 2


@pytest.mark.parametrize(
    "pieces", [(b"a\r",), (b"a\r", b"\n"), (b"a", b"\r", b"", b"\n"), (b"a\r\r", b"\n"), ()]
)
async def test_a_line_end_may_be_cut_anywhere(
    pieces: tuple[bytes, ...], store: MaildirStore, tmp_path: Path
) -> None:
    await store.deliver([letter(store, Large(*pieces))])
    [content] = files(tmp_path).values()
    assert content.partition(b"Delivered-To: Bob@example.com\n")[2] == b"".join(pieces).replace(
        b"\r\n", b"\n"
    )


async def test_a_letter_that_cannot_be_written_takes_no_other_with_it(
    store: MaildirStore, tmp_path: Path
) -> None:
    (tmp_path / "mail/example.com").mkdir(parents=True)
    (tmp_path / "mail/example.com/bob").write_bytes(b"in the way")
    bad, good = await store.deliver(
        [letter(store, Small(b"x\r\n")), letter(store, Small(b"y\r\n"), 1)]
    )
    assert isinstance(bad, OSError)
    assert good is None
    assert reply_to(bad).code == 451
    assert len(files(tmp_path)) == 2


@pytest.fixture
def little_room() -> Iterator[None]:
    """No file of this process may have more than 64 KiB: the kernel writes a part, then refuses."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, limit[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)


@pytest.mark.usefixtures("little_room")
@pytest.mark.parametrize(
    "body", [Small(b"x" * 100_000), Large(b"x" * 100_000), Large(*[b"x" * 50_000] * 50)]
)
async def test_where_there_is_no_room_nothing_is_left(
    body: Small | Large, store: MaildirStore, tmp_path: Path
) -> None:
    bad, good = await store.deliver([letter(store, body), letter(store, Small(b"y\r\n"), 1)])
    assert isinstance(bad, OSError)
    assert good is None
    assert [name.split("/")[2] for name in files(tmp_path)] == ["eve"]


async def test_a_body_that_cannot_be_read_leaves_nothing(
    store: MaildirStore, tmp_path: Path
) -> None:
    [error] = await store.deliver([letter(store, Large(b"x" * 2_000_000, broken=True))])
    assert isinstance(error, OSError)
    assert files(tmp_path) == {}


class Disk:
    """Syncs that are noted: each with the letters that had their final name by then."""

    def __init__(self, root: Path, *failing: str) -> None:
        self.synced: list[tuple[str, int]] = []
        self._root = root
        self._failing = failing

    def sync(self, fd: int) -> None:
        path = os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), self._root)
        self.synced.append((path, len(list(self._root.glob("mail/*/*/new/*")))))
        if path.endswith(self._failing):
            raise OSError(errno.EIO, "Input/output error")
        os.fsync(fd)


async def test_a_letter_and_every_directory_above_it_are_synced_in_order(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    store = MaildirStore(tmp_path / "mail", "mx.example.com", sync=disk.sync)
    assert await store.deliver([letter(store, Small(b"x\r\n"))]) == [None]
    assert disk.synced == [
        ("mail/example.com/bob", 0),
        ("mail/example.com", 0),
        ("mail", 0),
        (".", 0),
        (f"mail/example.com/bob/tmp/{NAME}", 0),
        ("mail/example.com/bob/new", 1),
    ]
    disk.synced.clear()
    whole = message(None, *[BOB] * 3)
    await store.deliver([store.letter(whole, r, Small(b"x\r\n")) for r in whole.recipients])
    assert [path.split("/")[3] for path, _ in disk.synced] == ["tmp", "tmp", "tmp", "new"]


@pytest.mark.parametrize("part", [NAME, "/new", "/example.com", "/bob"])
async def test_a_letter_that_cannot_be_synced_is_not_delivered(part: str, tmp_path: Path) -> None:
    store = MaildirStore(tmp_path / "mail", "mx.example.com", sync=Disk(tmp_path, part).sync)
    for _ in range(2):
        [error] = await store.deliver([letter(store, Small(b"x\r\n"))])
        assert isinstance(error, OSError)
        assert not [name for name in files(tmp_path) if "/tmp/" in name]


async def test_a_maildir_that_was_taken_away_is_made_again(
    store: MaildirStore, tmp_path: Path
) -> None:
    await store.deliver([letter(store, Small(b"x\r\n"))])
    os.rename(tmp_path / "mail", tmp_path / "elsewhere")
    assert await store.deliver([letter(store, Small(b"y\r\n"))]) == [None]
    assert list(files(tmp_path / "mail")) == [f"example.com/bob/new/{NAME}"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device"), "452 4.3.1"),
        (OSError(122, "Disk quota exceeded"), "452 4.2.2"),
        (OSError(13, "Permission denied"), "451 4.3.0"),
        (OSError(5, "Input/output error"), "451 4.3.0"),
    ],
)
def test_no_trouble_of_a_disk_is_permanent(error: OSError, said: str) -> None:
    assert str(reply_to(error)).startswith(said)
