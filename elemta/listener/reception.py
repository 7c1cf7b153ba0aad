"""What all sessions of one listener share, and what they need of the queue."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import msgspec
from msgspec import Struct, field

from elemta.config import Config, Listener, Tls
from elemta.listener.authentication import mechanisms
from elemta.listener.budget import Budget
from elemta.listener.ownership import Ownership
from elemta.listener.recipients import Recipients
from elemta.listener.roster import Roster, places
from elemta.login import Guesses
from elemta.maps import Maps, srs_of
from elemta.message import Srs
from elemta.metrics.meters import Meters
from elemta.net.certificates import Certificates
from elemta.net.dialogues import Dialogues
from elemta.net.limits import Limit
from elemta.net.reaper import Reaper
from elemta.net.services import Connects, connect_service
from elemta.plugins import Chain, load_for
from elemta.protocol import PLUS, BareNewline, Limits, Offer, Reply

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable
    from contextlib import AbstractAsyncContextManager

    from elemta.net.tls import Encryption
    from elemta.plugins import Loaded
    from elemta.queue import Envelope, MessageId, Receipt
    from elemta.threads import InThread


class Incoming(Protocol):
    """A large message while it comes in."""

    async def write(self, octets: bytes, /) -> None:
        """Append to the message.

        Raises:
            StoreUnavailable: the disk is full or fails.
        """
        ...

    def pieces(self) -> AsyncGenerator[bytes]:
        """What was written so far.

        Raises:
            StoreUnavailable: the disk fails.
        """
        ...

    async def replace_head(self, size: int, head: bytes, /) -> None:
        """Put `head` in place of the first `size` octets.

        Raises:
            StoreUnavailable: the disk is full or fails.
        """
        ...

    async def commit(
        self, envelope: Envelope | None = None, /, *, key: str = "", digest: bytes = b""
    ) -> MessageId:
        """Make the message durable; after this it is ours (RFC 5321 §6.1). Keys: see `Queue`.

        Raises:
            KeyReusedError: its key came with another digest before.
            StoreUnavailable: it is not, and nothing of it is kept.
        """
        ...


class Queue(Protocol):
    """What a session needs of the queue."""

    @property
    def healthy(self) -> bool:
        """Whether mail can be kept just now."""
        ...

    def room(self) -> bool:
        """Whether the disk has more free than is reserved. Cheap: asked for each message."""
        ...

    def new_id(self) -> MessageId:
        """What the next message is called."""
        ...

    async def known(self, key: str, /) -> Receipt | None:
        """What was answered to whoever handed something in with this key; None if nobody did.

        Raises:
            StoreUnavailable: it cannot be read just now.
        """
        ...

    async def accept(
        self,
        envelope: Envelope,
        content: bytes,
        id: MessageId,  # noqa: A002 # the word of people
        /,
        *,
        key: str = "",
        digest: bytes = b"",
    ) -> MessageId:
        """Make a small message durable; after this it is ours (RFC 5321 §6.1).

        Args:
            envelope: of the message.
            content: all of it.
            id: from `new_id`.
            key: who comes with the same key and digest again gets the id of the first time, and
                nothing is stored.
            digest: of what was handed in.

        Raises:
            KeyReusedError: the key came with another digest before.
            StoreUnavailable: it is not, and nothing of it is kept.
        """
        ...

    def receive(
        self,
        envelope: Envelope,
        *,
        id: MessageId | None = None,  # noqa: A002 # the word of people
    ) -> AbstractAsyncContextManager[Incoming]:
        """Take in a large message; leaving without `Incoming.commit` removes every trace of it."""
        ...


class House(Struct, frozen=True, kw_only=True):
    """What all listeners share.

    Attributes:
        clock: seconds since the epoch, as `time.time`.
        guesses: who was wrong about who he is.
        meters: count what clients do.
        certificates: what clients are shown who want to encrypt.
    """

    config: Config
    queue: Queue
    plugins: Chain
    recipients: Recipients
    maps: Maps
    srs: Srs | None
    roster: Roster
    budget: Budget
    reaper: Reaper
    dialogues: Dialogues
    clock: Callable[[], float]
    guesses: Guesses
    meters: Meters = field(default_factory=Meters)
    certificates: Certificates = field(default_factory=lambda: Certificates(Tls()))

    @classmethod
    def of(
        cls,
        config: Config,
        *,
        queue: Queue,
        reaper: Reaper,
        dialogues: Dialogues | None = None,
        clock: Callable[[], float] = time.time,
        meters: Meters | None = None,
        loaded: Iterable[Loaded] = (),
        certificates: Certificates | None = None,
        connect: Connects = connect_service,
        in_thread: InThread | None = None,
    ) -> House:
        """What the configuration asks for.

        Args:
            config: of the server.
            queue: where mail goes.
            reaper: watches deadlines.
            dialogues: where conversations are written down; None: in a record of its own.
            clock: seconds since the epoch.
            meters: count what clients do; None: nobody looks at them.
            loaded: plugins that are there already, for entries of their name and settings.
            certificates: of this configuration, read already; None: they are read.
            connect: to services that maps ask.
            in_thread: runs what blocks of maps; None: in threads of their own.

        Raises:
            ConfigError: a plugin cannot be loaded, a certificate or a secret not be read, or a map
                not be asked.
        """
        meters = meters or Meters()
        maps = Maps(config.maps, connect=connect, in_thread=in_thread, meters=meters)
        srs = srs_of(config.forwarding)
        return cls(
            config=config,
            queue=queue,
            plugins=Chain(load_for(config, loaded)),
            recipients=Recipients(config, maps, srs, clock),
            maps=maps,
            srs=srs,
            roster=Roster(_places(config)),
            budget=Budget(config.limits.memory),
            reaper=reaper,
            dialogues=dialogues or Dialogues(config.limits.transcripts, clock),
            clock=clock,
            guesses=Guesses(config.login, clock),
            meters=meters,
            certificates=certificates or Certificates.read(config.tls),
        )

    def reconfigured(self, config: Config, certificates: Certificates | None = None) -> House:
        """The same with another configuration, for the sessions that begin from now on.

        What all share stays as it is, until `settle`.

        Args:
            config: the other.
            certificates: of it, read already; None: they are read.

        Raises:
            ConfigError: a plugin cannot be loaded, a map not be asked, or a certificate not be
                read that was not there before.
        """
        maps, srs = self.maps.reconfigured(config.maps), srs_of(config.forwarding)
        if certificates is None:
            certificates = self.certificates.anew(config.tls)
        return msgspec.structs.replace(
            self,
            config=config,
            plugins=Chain(load_for(config, self.plugins.plugins)),
            recipients=Recipients(config, maps, srs, self.clock),
            maps=maps,
            srs=srs,
            certificates=certificates,
        )

    def showing(self, certificates: Certificates) -> House:
        """The same with other certificates, for the sessions that begin from now on."""
        return msgspec.structs.replace(self, certificates=certificates)

    def settle(self) -> None:
        """Let what all houses share have the sizes of this configuration."""
        config = self.config
        self.roster.places = _places(config)
        self.budget.resize(config.limits.memory)
        self.dialogues.resize(config.limits.transcripts)
        self.guesses.configure(config.login)
        self.maps.settle()

    def switched(self, plugin: str, *, enabled: bool) -> House:
        """The same in which a plugin is asked or is not, for the sessions that begin from now on.

        Raises:
            LookupError: there is no plugin of this name.
        """
        plugins = self.plugins.switched(plugin, enabled=enabled)
        return msgspec.structs.replace(self, plugins=plugins)


def _places(config: Config) -> int:
    return places(config.limits.connections, config.delivery.max_connections)


class Reception(Struct, frozen=True, kw_only=True):
    """What all sessions of one listener share. Made anew when the configuration changes.

    Attributes:
        plugins: those that are asked here.
        clients: how many connections each client holds.
        offer: to clients that do not encrypt yet.
        encrypted_offer: to those that do.
        ownership: knows whose addresses are; None: who has logged in may send as anybody.
    """

    house: House
    table: Listener
    plugins: Chain
    clients: Limit
    greeting: Reply
    limits: Limits
    offer: Offer
    encrypted_offer: Offer
    ownership: Ownership | None = None

    @classmethod
    def of(cls, house: House, table: Listener, clients: Limit) -> Reception:
        """Derive the engine's settings from those of the configuration."""
        plugins = house.plugins.at(table.name)
        protocol = "LMTP" if table.kind == "lmtp" else "ESMTP"
        wanted = house.config.login.mechanisms
        offer = Offer(
            rcpt_max=table.recipients,
            mail_max=table.messages,
            mt_priority=table.mt_priority,
            mechanisms=mechanisms(table, plugins, wanted, encrypted=True),
        )
        return cls(
            house=house,
            table=table,
            plugins=plugins,
            clients=clients,
            greeting=Reply(220, None, (f"{house.config.hostname} {protocol}",)),
            limits=Limits(message=table.message_size, bare_newline=BareNewline(table.bare_newline)),
            offer=msgspec.structs.replace(
                offer,
                starttls=bool(house.certificates) and table.tls in ("offered", "required"),
                # Where nothing is done in clear, nobody logs in there.
                mechanisms=()
                if table.tls == "required"
                else mechanisms(table, plugins, wanted, encrypted=False),
            ),
            encrypted_offer=offer,
            ownership=Ownership(house.config, house.recipients) if table.own_senders else None,
        )

    def offer_to(self, encryption: Encryption | None) -> Offer:
        """What a client is offered on such a connection."""
        if encryption is None:
            return self.offer
        offer = self.encrypted_offer
        if PLUS in offer.mechanisms and not encryption.server_end_point:
            # By a certificate of this kind nothing can be told (RFC 5929 §4.1).
            rest = tuple(each for each in offer.mechanisms if each != PLUS)
            return msgspec.structs.replace(offer, mechanisms=rest)
        return offer

    @property
    def lmtp(self) -> bool:
        """Whether LMTP is spoken (RFC 2033)."""
        return self.table.kind == "lmtp"
