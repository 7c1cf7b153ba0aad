"""Stand-ins for what a plugin is shown and works with: no network, no threads, no waiting."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from elemta.message import HeaderScanner
from elemta.net.dns import Absent, DnsResolver, Failed, Found, Kind
from elemta.plugins import Letter, Session, TooLargeError, Tools, Transaction
from elemta.plugins.tools import NoMail, tell_nobody
from elemta.protocol import Mailbox, MailParams, parse_mailbox
from elemta.queue import Addressee, Message, Recipient

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

    from elemta.config import Service
    from elemta.net.services import Connects
    from elemta.plugins import Steers
    from elemta.plugins.tools import Tells

T = TypeVar("T")

#: When a `FakeClock` begins, seconds since the epoch.
EPOCH: Final = 1_800_000_000.0


def a_session(
    address: str = "192.0.2.1", *, helo: str = "client.example", trusted: bool = False
) -> Session:
    """A client that has said EHLO."""
    return Session(
        id="session",
        address=address,
        port=2525,
        listener="mx",
        helo=helo,
        extended=True,
        trusted=trusted,
    )


def a_transaction(
    session: Session | None = None,
    *,
    sender: str = "ann@sender.example",
    recipients: Sequence[str] = ("bob@us.example",),
) -> Transaction:
    """A message whose recipients were taken.

    Args:
        session: of its client; None: `a_session`.
        sender: empty for the null sender.
        recipients: each stands for itself.
    """
    mailboxes = [parse_mailbox(each) for each in recipients]
    return Transaction(
        session=session or a_session(),
        id="MESSAGE",
        sender=parse_mailbox(sender) if sender else None,
        params=MailParams(),
        recipients=mailboxes,
        addressees={each: Addressee(address=each) for each in mailboxes},
    )


class FakeContent:
    """A message that is here whole (`elemta.plugins.Content`).

    Args:
        octets: CRLF line ends.
        piece: octets of each of its pieces.
    """

    def __init__(self, octets: bytes, piece: int = 1000) -> None:
        self.header = HeaderScanner()
        self.header.feed(octets)
        self.size = len(octets)
        self._octets = octets
        self._piece = piece

    async def read(self, most: int | None = None) -> bytes:
        """See `elemta.plugins.Content`."""
        await trio.lowlevel.checkpoint()
        if most is not None and self.size > most:
            raise TooLargeError(f"{self.size} octets are more than {most}")
        return self._octets

    async def pieces(self) -> AsyncGenerator[bytes]:
        """See `elemta.plugins.Content`."""
        for start in range(0, self.size, self._piece):
            await trio.lowlevel.checkpoint()
            yield self._octets[start : start + self._piece]


class FakeBody:
    """A message as it is stored (`elemta.plugins.Body`).

    Args:
        octets: CRLF line ends.
    """

    def __init__(self, octets: bytes) -> None:
        self.size = len(octets)
        self._octets = octets

    async def chunks(self) -> AsyncGenerator[bytes]:
        """See `elemta.plugins.Body`."""
        await trio.lowlevel.checkpoint()
        yield self._octets


def a_letter(
    recipient: str = "bob@far.example",
    *,
    sender: str = "ann@us.example",
    content: bytes = b"Subject: hello\r\n\r\nHello.\r\n",
    tags: Sequence[str] = (),
    attempts: int = 0,
) -> Letter:
    """A message on its way out, and its one recipient.

    Args:
        recipient: who is to get it.
        sender: empty for the null sender.
        content: CRLF line ends.
        tags: of the message.
        attempts: that were made before.
    """
    to = Recipient(number=0, address=parse_mailbox(recipient), attempts=attempts)
    message = Message(
        id="MESSAGE",
        sender=parse_mailbox(sender) if sender else None,
        recipients=[to],
        received_at=EPOCH,
        expires_at=EPOCH + 5 * 86400,
        size=len(content),
        tags=tuple(tags),
    )
    return Letter(message, to, FakeBody(content), f"mx:{to.address.domain}")


class FakeClock:
    """A clock that stands still unless it is moved.

    Attributes:
        now: seconds since the epoch.
    """

    def __init__(self, now: float = EPOCH) -> None:
        self.now = now

    def __call__(self) -> float:
        """What it shows."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Move it."""
        self.now += seconds


class FakeDns:
    """Name servers (`elemta.net.dns.Backend`) that know what they are told.

    A name that they do not know does not exist. ::

        dns = FakeDns({("example.net", "MX"): ["10 mx.example.net."]})
        dns.text("example.net", "v=spf1 -all")
        dns.failing.add("broken.example")

    Args:
        records: by name and type, in the text form of a zone file.

    Attributes:
        failing: names of which nobody can say anything.
        asked: what was asked, in order.
    """

    def __init__(self, records: Mapping[tuple[str, str], Sequence[str]] | None = None) -> None:
        self._records: dict[tuple[str, str], list[str]] = {}
        self.failing: set[str] = set()
        self.asked: list[tuple[str, str]] = []
        for (name, kind), texts in (records or {}).items():
            self.add(name, kind, *texts)

    def add(self, name: str, kind: str, *texts: str) -> None:
        """Some more records."""
        self._records.setdefault((name.lower().removesuffix("."), kind), []).extend(texts)

    def text(self, name: str, text: str) -> None:
        """One more TXT record: its text, of ASCII, without quotes."""
        strings = [text[start : start + 200] for start in range(0, len(text), 200)] or [""]
        escaped = (each.replace("\\", "\\\\").replace('"', '\\"') for each in strings)
        self.add(name, "TXT", " ".join(f'"{each}"' for each in escaped))

    async def ask(self, name: str, kind: Kind) -> Found | Absent | Failed:
        """See `elemta.net.dns.Backend`."""
        await trio.lowlevel.checkpoint()
        self.asked.append((name, kind.value))
        if name in self.failing:
            return Failed("the name server is on fire")
        found = self._records.get((name, kind.value))
        if found:
            return Found(tuple(found), 300.0)
        known = any(each == name or each.endswith(f".{name}") for each, _ in self._records)
        return Absent(domain=not known, ttl=300.0)


async def at_once(call: Callable[[], T]) -> T:
    """What blocks runs here: virtual time knows nothing of threads."""
    await trio.lowlevel.checkpoint()
    return call()


async def nobody(service: Service) -> trio.abc.Stream:
    """No service is there (`elemta.plugins.Tools.connect`)."""
    await trio.lowlevel.checkpoint()
    raise ConnectionRefusedError(f"nobody is at {service}")


def some_tools(
    name: str = "plugin",
    *,
    dns: FakeDns | None = None,
    clock: Callable[[], float] | None = None,
    folder: Path | None = None,
    random: float = 0.5,
    connect: Connects | None = None,
    ours: Sequence[str] = ("us.example",),
    queue: Steers | None = None,
    tell_postmaster: Tells = tell_nobody,
) -> Tools:
    """What a plugin works with.

    Args:
        name: what the configuration calls it.
        dns: None: no name exists.
        clock: None: one that stands still.
        folder: None: one of its own among the temporary ones, which stays behind if it is used.
        random: what chance always says.
        connect: to services; None: none is there.
        ours: domains whose mail is delivered here.
        queue: None: it has no mail.
        tell_postmaster: remembers, say, what the postmaster is told.
    """

    def make_folder() -> Path:
        path = folder or Path(tempfile.mkdtemp(prefix="elemta-plugin-"))
        path.mkdir(parents=True, exist_ok=True)
        return path

    return Tools(
        name=name,
        hostname="mx.us.example",
        ours=frozenset(ours).__contains__,
        resolver=DnsResolver(backend=dns or FakeDns()),
        make_folder=make_folder,
        random=lambda: random,
        clock=clock or FakeClock(),
        in_thread=at_once,
        briefly=at_once,
        connect=connect or nobody,
        queue=queue or NoMail(),
        tell_postmaster=tell_postmaster,
    )


def mailbox(text: str) -> Mailbox:
    """An address.

    Raises:
        ValueError: that is none.
    """
    return parse_mailbox(text)
