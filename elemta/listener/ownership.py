"""Whether who has logged in may say what he says of himself: in the envelope, and in From.

An account owns

- its own address: its login, or, if that is a bare name, this name at the first of our domains;
- what its plugin grants it (`elemta.plugins.Granted`);
- what leads to these, and to nobody else: aliases and sub-addresses of our domains.

Who resends a message (RFC 5322 §3.6.6) says so in Resent-From, and leaves From as it is. That makes
From no less of a claim: programs show it alone, our signature would vouch for it, and a line that
anybody can write must not be the way to write as anybody. So it must be his own all the same, and
so must Resent-From.

The null sender is nobody's address, so anybody may say it: reports and automatic answers do. From
is held against the account then, too. An account that was granted ``*`` is asked nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from elemta.listener.recipients import MAP_DOWN
from elemta.login import owns
from elemta.maps import MapDownError
from elemta.message import AuthorError, author_mailboxes, hidden_author
from elemta.protocol import Reply

if TYPE_CHECKING:
    from elemta.config import Config
    from elemta.listener.recipients import Recipients
    from elemta.message import HeaderScanner
    from elemta.plugins import Session
    from elemta.protocol import Mailbox, ReversePath

#: Of a sender, and of what a header says (RFC 3463 §3.8: delivery is not authorized).
SENDER: Final = 553
AUTHOR: Final = 550
STATUS: Final = (7, 1)
#: What is said to who has resent what another has written.
_RESENT: Final = "to resend another's mail is not allowed here: forward it as an attachment"
#: Letters of a login or an address that are told: a line of a reply has an end.
_TOLD: Final = 150


class Ownership:
    """Knows whose addresses are.

    Args:
        config: of the server.
        recipients: know where addresses of ours lead.
    """

    def __init__(self, config: Config, recipients: Recipients) -> None:
        self._home = config.domains[0].name if config.domains else config.hostname
        self._postmaster = f"postmaster@{self._home}"
        self._recipients = recipients

    def patterns(self, session: Session) -> tuple[str, ...]:
        """The addresses that are somebody's without any alias; none of who has not logged in."""
        login = session.login
        if login is None:
            return ()
        if login.startswith("@"):  # the name of nobody's mailbox, which would be a whole domain
            return tuple(session.addresses)
        own = login if "@" in login else f"{login}@{self._home}"
        return (own, *session.addresses)

    async def owns(self, session: Session, mailbox: Mailbox) -> bool:
        """Whether somebody may send as a mailbox.

        Args:
            session: his.
            mailbox: as he writes it.

        Raises:
            MapDownError: nobody can say where it leads.
        """
        patterns = self.patterns(session)
        if owns(patterns, mailbox):
            return True
        owner = await self._recipients.owner_of(mailbox)
        return owner is not None and owns(patterns, owner)

    async def judge_sender(self, session: Session, sender: ReversePath) -> Reply | None:
        """What is to be said against the sender of an envelope, or that nobody can say (451).

        Returns:
            None: nothing.
        """
        if sender is None or _unbound(session):
            return None
        try:
            if await self.owns(session, sender):
                return None
        except MapDownError:
            return MAP_DOWN
        return self._refusal(SENDER, session, f"<{sender}> is not an address of", "sends as")

    async def judge_authors(self, session: Session, header: HeaderScanner) -> Reply | None:
        """What is to be said against what a header says of its authors, or that nobody can say.

        Args:
            session: of who hands it in.
            header: all of it.

        Returns:
            None: nothing.
        """
        if _unbound(session):
            return None
        named = header.named(b"from")
        if len(named) != 1:
            # Programs differ in which they show.
            many = f"there are {len(named)}" if named else "there is none"
            return Reply(AUTHOR, STATUS, (f"a message has one From field, and {many}",))
        if hidden := hidden_author(header):
            return Reply(AUTHOR, STATUS, (f"{hidden}: not clear whose this is",))
        resent = header.named(b"resent-from")[:1]  # what others have resent stands below
        for field, values in (
            ("Resent-From", resent),
            ("From", named),
            ("Sender", header.named(b"sender")),
        ):
            for value in values:
                if (refusal := await self._judge_field(session, field, value)) is not None:
                    another = len(refusal.lines) > 1  # and not merely unclear, or unknown
                    if another and resent and field != "Resent-From":
                        return Reply(AUTHOR, STATUS, (refusal.lines[0], _RESENT))
                    return refusal
        return None

    async def _judge_field(self, session: Session, field: str, value: bytes) -> Reply | None:
        try:
            for each in author_mailboxes(value):
                if not await self.owns(session, each):
                    what = f"{field}: <{each}> is not an address of"
                    return self._refusal(AUTHOR, session, what, "writes as")
        except AuthorError as error:
            return Reply(AUTHOR, STATUS, (_cut(f"the field {field} is not clear: {error}"),))
        except MapDownError:
            return MAP_DOWN
        return None

    def _refusal(self, code: int, session: Session, what: str, does: str) -> Reply:
        return Reply(
            code,
            STATUS,
            (
                f"{_cut(what)} {_cut(session.login or 'nobody')}",
                f"look up whom your program {does}, or ask {_cut(self._postmaster)}",
            ),
        )


def _unbound(session: Session) -> bool:
    """Whether nothing is asked: nobody has logged in, whose it would be, or he may be anybody."""
    return session.login is None or "*" in session.addresses


def _cut(text: str) -> str:
    """As a reply can have it: ASCII, as the client may not have asked for more, and short."""
    shown = text.encode("ascii", "backslashreplace").decode()
    return shown if len(shown) <= _TOLD else f"{shown[:_TOLD]}..."
