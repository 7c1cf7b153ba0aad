"""How a session goes over to TLS, and what it may know afterwards (RFC 3207 §4.2, RFC 8314).

What was said in clear anybody on the way may have said: it counts for nothing once the connection
is encrypted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from elemta.log import logger
from elemta.net.tls import TlsError
from elemta.plugins import Granted, Results
from elemta.protocol import Hello, Noop, Quit, Refused, StartTls

if TYPE_CHECKING:
    from elemta.listener.reception import House
    from elemta.listener.wire import Wire
    from elemta.net.dialogues import Dialogue
    from elemta.plugins import Session
    from elemta.protocol import Event

log = logger(__name__)


def before_tls(event: Event) -> bool:
    """Whether that is done for clients that must encrypt first and have not yet (RFC 3207 §4)."""
    if isinstance(event, Hello):
        return event.extended
    return isinstance(event, (Noop, Quit, StartTls, Refused))


def recognise(view: Session) -> None:
    """Take a client for whom plugins say that it is, by its certificate perhaps."""
    if view.login is None and (granted := view.results.first(Granted)) is not None:
        view.login, view.trusted = granted.login, True
        view.addresses, view.app = granted.addresses, granted.app
        log.info(
            "client.recognised",
            session=view.id,
            listener=view.listener,
            client=view.address,
            login=granted.login,
        )


class Encrypting:
    """What one session knows of its client, in clear and in TLS.

    Args:
        view: the session, as plugins see it; written here.
        wire: its client.
        dialogue: where it is written down what both sides say.
        house: what all sessions share.
    """

    __slots__ = ("_dialogue", "_doomed", "_house", "_results", "_view", "_wire")

    def __init__(self, view: Session, wire: Wire, dialogue: Dialogue, house: House) -> None:
        self._view = view
        self._wire = wire
        self._dialogue = dialogue
        self._house = house
        self._results = view.results
        self._doomed = view.doomed

    def greeted(self) -> None:
        """Keep apart what plugins know of the client before it has said a word."""
        view = self._view
        self._results, self._doomed = view.results, [*view.doomed]
        view.results = Results(view.results)

    async def begin(self, *, greeted: bool) -> None:
        """Shake hands.

        Args:
            greeted: this is after STARTTLS, and what was said before is forgotten.

        Raises:
            TlsError, DrainedError, trio.TooSlowError, trio.BrokenResourceError: see `Wire.encrypt`.
        """
        view, meters = self._view, self._house.meters
        try:
            encryption = await self._wire.encrypt(greeted=greeted)
        except (TlsError, trio.TooSlowError, trio.BrokenResourceError) as error:
            meters.tls_in_failures += 1
            log.info(
                "client.tls_failed",
                session=view.id,
                listener=view.listener,
                client=view.address,
                problem=str(error) or "it took too long",
            )
            raise
        meters.tls_in[encryption.version] += 1
        view.encryption = encryption
        self._dialogue.tls = f"{encryption.version} {encryption.cipher}"
        self._dialogue.said("S", f"encrypted: {self._dialogue.tls}")
        if greeted:
            self._forget()
        if encryption.client:
            log.info(
                "client.certificate",
                session=view.id,
                listener=view.listener,
                client=view.address,
                subject=encryption.client,
            )

    def _forget(self) -> None:
        view = self._view
        view.helo = self._dialogue.name = self._dialogue.login = ""
        view.extended = False
        view.login, view.addresses, view.app = None, (), ""
        view.trusted = self._house.recipients.trusts(view.address)
        view.results, view.doomed = Results(self._results), [*self._doomed]
