"""Asks a milter at each step, as sendmail and Postfix do: OpenDKIM, SpamAssassin, and many others.

Several milters are several entries of this plugin. A milter that is not there defers mail.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from typing_extensions import override

from elemta.config import Service, Table
from elemta.plugins import CONTINUE, PluginWith, Verdict
from elemta.plugins.built_in.actions import check_wait
from elemta.plugins.built_in.iprev import iprev_of
from elemta.plugins.milter.talk import Talk
from elemta.units import Seconds

if TYPE_CHECKING:
    from elemta.plugins import Content, Session, Transaction
    from elemta.protocol import Mailbox


class Settings(Table, frozen=True):
    """The ``settings`` of ``milter``."""

    #: Where it listens: the path of its socket, or ``HOST:PORT``.
    address: Service
    #: Whether the DNS is asked for the client's name before the milter hears of it, as sendmail and
    #: Postfix do. Without it each client is one without a name, which some hold against it.
    client_names: bool = True
    #: How long to wait for a connection.
    connect_timeout: Seconds = Seconds(5)
    #: How long to wait for an answer; a milter that says "progress" gets as long again. All of a
    #: step, such as the end of a message, has the ``timeout`` of the plugin.
    reply_timeout: Seconds = Seconds(20)

    def __post_init__(self) -> None:
        check_wait("connect_timeout", self.connect_timeout)
        check_wait("reply_timeout", self.reply_timeout)


class Talks:
    """Kept with a session: what each milter has heard of it."""

    def __init__(self) -> None:
        self.of: dict[Milter, Talk] = {}


class Milter(PluginWith[Settings]):
    """Asks a milter about each client and message, and does what it says."""

    name = "milter"

    @override
    async def on_connect(self, session: Session) -> Verdict:
        talk = session.kept.of(Talks).of[self] = self._talk(session)
        await self._look_up(session)
        return await talk.connect()

    @override
    async def on_hello(self, session: Session, name: str) -> Verdict:
        talk = self._known(session)
        return CONTINUE if talk is None else await talk.hello(name)

    @override
    async def on_mail(self, transaction: Transaction) -> Verdict:
        talk = self._known(transaction.session)
        return CONTINUE if talk is None else await talk.mail(transaction)

    @override
    async def on_rcpt(self, transaction: Transaction, recipient: Mailbox) -> Verdict:
        talk = self._known(transaction.session)
        return CONTINUE if talk is None else await talk.rcpt(transaction, recipient)

    @override
    async def on_data(self, transaction: Transaction) -> Verdict:
        talk = self._known(transaction.session)
        return CONTINUE if talk is None else await talk.data(transaction)

    @override
    async def on_message(self, transaction: Transaction, content: Content) -> Verdict:
        talk = self._known(transaction.session)
        if talk is None:
            await self._look_up(transaction.session)
            return await self._talk(transaction.session).whole(transaction, content)
        return await talk.content(transaction, content)

    @override
    async def on_disconnect(self, session: Session) -> None:
        talk = session.kept.of(Talks).of.pop(self, None)
        if talk is not None:
            await talk.quit()

    def _known(self, session: Session) -> Talk | None:
        """What the milter has heard of a session; None: nothing, as it came by no connection.

        What is handed in otherwise is told in one go when it is there: nobody would say when such
        a session is over.
        """
        return session.kept.of(Talks).of.get(self)

    async def _look_up(self, session: Session) -> None:
        if self.settings.client_names and session.address:
            await iprev_of(session, self.tools)

    def _talk(self, session: Session) -> Talk:
        patience = self.settings.reply_timeout
        return Talk(session, self.tools.hostname, self._connect, patience)

    async def _connect(self) -> trio.abc.Stream:
        self.tools.count("connections")
        with trio.fail_after(self.settings.connect_timeout):
            return await self.tools.connect(self.settings.address)
