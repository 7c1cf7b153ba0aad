"""What is delivered on this machine, and finally: into Maildirs, to programs, or to nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from elemta.delivery.carrier import Tried, Welcome
from elemta.delivery.loops import LOOPS, is_in, known_before
from elemta.delivery.mailbox import MaildirStore, reply_to
from elemta.delivery.pipe import CannotRunError, deliver
from elemta.log import logger
from elemta.message import Action
from elemta.protocol import reply
from elemta.queue import Result

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elemta.config import Config, Pipe
    from elemta.delivery.mailbox import Letter
    from elemta.delivery.transaction import StoredBody
    from elemta.protocol import Reply
    from elemta.queue import Message, Recipient

log = logger(__name__)

#: A message, one of its recipients, and its content.
Piece = tuple["Message", "Recipient", "StoredBody"]


def final(said: Reply) -> Tried:
    """What a reply of our own means where mail ends."""
    if said.code < 300:
        return Tried(Result.DELIVERED, said, action=Action.DELIVERED)
    return Tried(Result.DEFERRED if said.code < 500 else Result.FAILED, said)


_IN_MAILBOX: Final = final(reply(250, 0, 0, "delivered to the mailbox"))
_DISCARDED: Final = final(reply(250, 0, 0, "discarded"))
GOES_ROUND: Final = final(LOOPS)


class Mailboxes(Protocol):
    """Where ``maildir`` leads."""

    def letter(self, message: Message, recipient: Recipient, body: StoredBody) -> Letter:
        """What to deliver of a message to one of its recipients."""
        ...

    async def deliver(self, letters: Sequence[Letter]) -> list[OSError | None]:
        """Keep letters durably; says what went wrong with each, None if nothing did."""
        ...


class Local:
    """Delivers on this machine.

    Args:
        config: says where.
        mailboxes: None: those that it says.
    """

    def __init__(self, config: Config, mailboxes: Mailboxes | None = None) -> None:
        self._mailboxes = mailboxes or MaildirStore(config.data_dir / "mail", config.hostname)
        self._time_limit = config.delivery.pipe_timeout

    async def to_maildirs(self, pieces: Sequence[Piece]) -> list[Tried]:
        """Write to Maildirs: durable once this returns. Many share the work that each costs.

        Returns:
            What became of each.
        """
        found: list[Tried] = []
        letters: list[Letter] = []
        for message, recipient, body in pieces:
            loops = is_in(recipient.address, await known_before(body))
            found.append(GOES_ROUND if loops else _IN_MAILBOX)
            if not loops:
                letters.append(self._mailboxes.letter(message, recipient, body))
        errors = iter(await self._mailboxes.deliver(letters))
        for place, tried in enumerate(found):
            if tried is _IN_MAILBOX and (error := next(errors)) is not None:
                found[place] = final(reply_to(error))
        return found

    async def to_program(
        self,
        pipe: Pipe,
        message: Message,
        recipients: Sequence[Recipient],
        body: StoredBody,
        tried: dict[int, Tried],
    ) -> Welcome:
        """Hand a message to a program, once for each recipient.

        Args:
            pipe: the program.
            message: whose recipients these are.
            recipients: at least one.
            body: CRLF line ends.
            tried: what becomes of each is noted here by its number, as soon as it is known.

        Returns:
            How the program fared; of several runs the last counts.
        """
        before = await known_before(body)
        welcome = Welcome.HEARD
        for recipient in recipients:
            if is_in(recipient.address, before):
                tried[recipient.number] = GOES_ROUND
                continue
            try:
                said = await deliver(pipe, message, recipient, body, self._time_limit)
                welcome = Welcome.HEARD
            except CannotRunError as error:
                said = error.reply
                welcome = Welcome.TURNED_AWAY if error.started else Welcome.SILENT
            tried[recipient.number] = final(said)
        return welcome

    def to_nobody(self, message: Message, recipients: Sequence[Recipient]) -> dict[int, Tried]:
        """Throw a message away, and say so."""
        log.info("delivery.discarded", id=message.id, recipients=len(recipients))
        return {recipient.number: _DISCARDED for recipient in recipients}
