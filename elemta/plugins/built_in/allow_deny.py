"""Lists of who may send and who may not, in the configuration or in files of their own.

The entry that says the most decides. A recipient says more than a sender, a sender more than what a
client calls itself, and that more than a network: so ``deny`` for a network and ``allow`` for a
sender is an exception, and the other way round, too. Among entries of one kind the most specific
decides (see `elemta.plugins.built_in.entries`), and of equal ones the one that denies.

Whom an entry of ``allow`` is for, others that only guess at spam leave alone. A network is proven
by the connection; HELO names and senders are but claims, and vouch for one message only.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from msgspec import Struct, field
from typing_extensions import override

from elemta.config import Table
from elemta.files import TooLargeError, Watched, read_file
from elemta.log import logger
from elemta.plugins import (
    CONTINUE,
    Accept,
    Allowed,
    Defer,
    PluginWith,
    Reject,
    Session,
    Transaction,
    Verdict,
)
from elemta.plugins.built_in.actions import POLICY, check_text, is_postmaster
from elemta.plugins.built_in.entries import Addresses, Names, Networks
from elemta.units import Seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from elemta.protocol import Mailbox

log = logger(__name__)

T = TypeVar("T")

#: What stands before the path of a file, in place of an entry.
_FILE: Final = "file:"
#: It may begin a line, or stand behind a space: addresses may have the sign in them, too.
_COMMENT: Final = re.compile(r"(?:^|(?<=\s))#")
#: Octets of a file that is read: some million entries.
_LARGEST: Final = 32 * 2**20


def _inline(entries: Iterable[str]) -> list[str]:
    return [text for text in entries if not text.startswith(_FILE)]


class Entries(Table, frozen=True, kw_only=True):
    """``allow`` or ``deny``. In place of an entry, ``file:/PATH`` stands for those of a file."""

    #: Networks that clients are in.
    networks: list[str] = field(default_factory=list[str])
    #: What clients call themselves: a name, or ``*.DOMAIN`` for all below it.
    helo: list[str] = field(default_factory=list[str])
    #: Senders: an address, a domain, ``*.DOMAIN``, or ``<>`` for the null sender.
    senders: list[str] = field(default_factory=list[str])
    #: Recipients, as the client names them: likewise.
    recipients: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        Networks(_inline(self.networks))
        Names(_inline(self.helo))
        Addresses(_inline(self.senders))
        Addresses(_inline(self.recipients))
        for path in self.files:
            if not path.is_absolute():
                raise ValueError(f"expected a whole path, as in file:/etc/elemta/{path}")

    @property
    def files(self) -> list[Path]:
        """All files that it names."""
        lists = (self.networks, self.helo, self.senders, self.recipients)
        return [
            Path(text.removeprefix(_FILE))
            for each in lists
            for text in each
            if text.startswith(_FILE)
        ]


class Settings(Table, frozen=True, kw_only=True):
    """The ``settings`` of ``allow-deny``."""

    #: Who may send, whatever others guess.
    allow: Entries = Entries()
    #: Who may not.
    deny: Entries = Entries()
    #: What becomes of mail that is denied: ``reject``, or ``defer``.
    action: Literal["reject", "defer"] = "reject"
    #: What the client is told then.
    text: str = "refused by local policy"
    #: How often to look whether a file has changed.
    reload: Seconds = Seconds(10)

    def __post_init__(self) -> None:
        check_text("text", self.text)
        if self.reload < 1:
            raise ValueError("`reload` must be at least 1 s")


class _Lists(Struct, frozen=True):
    """One side, ready to be asked."""

    networks: Networks
    helo: Names
    senders: Addresses
    recipients: Addresses


class _Both(Struct, frozen=True):
    """Both sides."""

    allow: _Lists
    deny: _Lists


class _Side(Struct, frozen=True):
    """What decides, and on which side: whether that allows, and what kind of entry it is."""

    allows: bool
    kind: Literal["network", "HELO name", "sender", "recipient"]


class AllowDeny(PluginWith[Settings]):
    """Takes mail from those who are listed, whatever others guess, or refuses it."""

    name = "allow-deny"
    dry = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._files = tuple(dict.fromkeys((*settings.allow.files, *settings.deny.files)))
        self._without_files = _Both(_lists(settings.allow, {}), _lists(settings.deny, {}))
        self._lists = Watched(
            self._files, self._read, renewed=self._hear_renewed, refused=self._hear_refused
        )

    # Its files.

    @override
    async def start(self) -> None:
        await self.tools.in_thread(self._lists.begin)

    @override
    async def run(self) -> None:
        """Read the files again when one has changed. With a mistake in them, what was holds."""
        if self._files:
            await self._lists.run(self.settings.reload, self.tools.in_thread)

    def _read(self) -> _Both:
        settings = self.settings
        read = {path: _read_lines(path) for path in self._files}
        return _Both(_lists(settings.allow, read), _lists(settings.deny, read))

    def _hear_renewed(self, _lists: _Both, _problem: str) -> None:
        log.info("allow_deny.read", plugin=self.tools.name, files=len(self._files))
        self.tools.count("read")

    def _hear_refused(self, error: Exception) -> None:
        log.error("allow_deny.not_read", plugin=self.tools.name, error=str(error))
        self.tools.count("not_read")

    @property
    def _both(self) -> _Both:
        return self._lists.content_or(self._without_files)

    # Its verdicts.

    @override
    async def on_connect(self, session: Session) -> Verdict:
        side = self._of_network(session)
        if side is not None and side.allows:
            session.results.add(Allowed(self.tools.name), self.tools.name)
        return CONTINUE

    @override
    async def on_mail(self, transaction: Transaction) -> Verdict:
        side = self._of_message(transaction)
        if side is not None and side.allows and side.kind != "network":
            transaction.results.add(Allowed(self.tools.name), self.tools.name)
        return CONTINUE

    @override
    async def on_rcpt(self, transaction: Transaction, recipient: Mailbox) -> Verdict:
        lists = self._both
        own = _decide(
            "recipient",
            lists.allow.recipients.find(recipient),
            lists.deny.recipients.find(recipient),
        )
        side = own
        if side is None and not (transaction.session.trusted or is_postmaster(recipient)):
            side = self._of_message(transaction)
        if side is None:
            return CONTINUE
        note = f"its {side.kind} is listed"
        if side.allows:
            # What others say of a client is not for a recipient who wants all mail.
            return Accept(note=note) if side is own else CONTINUE
        if side.kind == "network":  # the name that the original has for it
            self.tools.meters.rate_limits["blacklist_hits"] += 1
        if self.settings.action == "defer":
            return Defer(POLICY, self.settings.text, note)
        return Reject(POLICY, self.settings.text, note)

    def _of_message(self, transaction: Transaction) -> _Side | None:
        """What decides of a message, whoever gets it."""
        allow, deny, sender = self._both.allow, self._both.deny, transaction.sender
        helo = transaction.session.helo
        return (
            _decide("sender", allow.senders.find(sender), deny.senders.find(sender))
            or _decide("HELO name", allow.helo.find(helo), deny.helo.find(helo))
            or self._of_network(transaction.session)
        )

    def _of_network(self, session: Session) -> _Side | None:
        address = session.ip
        if address is None:
            return None
        lists = self._both
        allow, deny = lists.allow.networks.find(address), lists.deny.networks.find(address)
        return _decide("network", allow, deny)


def _decide(
    kind: Literal["network", "HELO name", "sender", "recipient"],
    allow: int | None,
    deny: int | None,
) -> _Side | None:
    """Of an entry on each side, the one that says more."""
    if allow is None and deny is None:
        return None
    return _Side(allow is not None and (deny is None or allow > deny), kind)


# What the settings and the files say.


def _lists(entries: Entries, files: dict[Path, list[str]]) -> _Lists:
    """The lists of one side; files that are not among `files` count as empty.

    Raises:
        ValueError: an entry of a file is none.
    """
    return _Lists(
        _listed(entries.networks, files, Networks),
        _listed(entries.helo, files, Names),
        _listed(entries.senders, files, Addresses),
        _listed(entries.recipients, files, Addresses),
    )


def _listed(
    entries: Sequence[str], files: dict[Path, list[str]], kind: Callable[[list[str]], T]
) -> T:
    found = _inline(entries)
    for text in entries:
        if text.startswith(_FILE):
            path = Path(text.removeprefix(_FILE))
            lines = files.get(path, [])
            _check(path, lines, kind)
            found += filter(None, lines)
    return kind(found)


def _check(path: Path, lines: list[str], kind: Callable[[list[str]], object]) -> None:
    """Raise ValueError with the line of the first mistake, if there is one."""
    try:
        kind([*filter(None, lines)])
    except ValueError:
        for number, line in enumerate(lines, 1):
            try:
                kind([line] if line else [])
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None


def _read_lines(path: Path) -> list[str]:
    """The lines of a file without comments; empty ones are kept, so that they can be counted.

    Raises:
        OSError: it cannot be read.
        ValueError: it is too large, or no UTF-8.
    """
    try:
        octets = read_file(path, _LARGEST).octets
    except TooLargeError as error:
        raise ValueError(str(error)) from None
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {line}: no UTF-8") from None
    return [_COMMENT.split(line, 1)[0].strip() for line in text.split("\n")]
