"""The schema of the configuration file: every table and key, its default, and what it is for.

Every table is a frozen struct that refuses unknown keys. Every quantity has a type that knows its
unit, so ``idle_timeout: 300`` is an error and ``idle_timeout: 5 min`` is not. A key's comment says
when to change it; what nobody needs to change is a constant where it is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, field
from typing_extensions import override

from elemta.config.addresses import Binding, HostPort, Network, binding, host_port, nameserver
from elemta.config.maps import Forwarding, Map
from elemta.config.table import Count, Table
from elemta.config.targets import Target, target
from elemta.units import Frequency, Octets, Seconds

#: What something is called in logs and metrics.
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]


#: Whether mail goes out encrypted: never; where the server can, though in clear sooner than not at
#: all; always, though it may not go at all; or always, and to who proves who he is.
TlsPolicy: TypeAlias = Literal["off", "opportunistic", "required", "verified"]
#: A SASL mechanism; all of `elemta.protocol.MECHANISMS`.
MechanismName: TypeAlias = Literal[
    "SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "OAUTHBEARER", "XOAUTH2", "PLAIN", "LOGIN"
]
#: Where clients may log in: nowhere, on encrypted connections, or on all.
AuthPolicy: TypeAlias = Literal["off", "tls", "always"]

#: Whether clients show certificates: they are not asked; they are, and may have none; or they must.
ClientCertificates: TypeAlias = Literal["off", "asked", "required"]


class Listener(Table, frozen=True, kw_only=True):
    """An entry of ``listeners``: where mail comes in, and what a client may do there."""

    #: What it is called in logs and metrics.
    name: Name
    #: Where to listen: ``HOST:PORT``, ``[IPV6]:PORT``, ``:PORT`` (every address of the machine) or
    #: ``systemd:NAME`` (a socket that systemd opened); one, or a list of them.
    address: str | list[str]
    #: What is spoken, and to whom: ``smtp``; ``lmtp`` for a mail server that hands in local mail
    #: (RFC 2033); or ``submission`` for people's programs, who must log in (RFC 6409).
    kind: Literal["smtp", "lmtp", "submission"] = "smtp"
    #: What a bare CR or LF in a message gets: ``reject``, or ``normalize`` (each becomes CRLF) for
    #: clients that you trust and cannot mend. Taking them as they are allows smuggling.
    bare_newline: Literal["reject", "normalize"] = "reject"
    #: The largest message taken; announced by SIZE (RFC 1870).
    message_size: Octets = Octets(50 * 2**20)
    #: Recipients of one message; the rest is deferred (RFC 5321 §4.5.3.1.8: at least 100).
    recipients: Annotated[int, Meta(ge=100)] = 1000
    #: Messages taken on one connection before the client is asked to come again.
    messages: Count = 100
    #: Connections that one client may hold at a time: an IPv4 address or an IPv6 /64.
    connections_per_client: Count = 20
    #: How long a client may think between commands (RFC 5321 §4.5.3.2.7: at least 5 min).
    idle_timeout: Seconds = Seconds(300)
    #: How long a client may take until its EHLO or HELO. Who connects and says nothing goes sooner.
    hello_timeout: Seconds = Seconds(30)
    #: How long a client may pause within a message (RFC 5321 §4.5.3.2.5: at least 3 min).
    data_timeout: Seconds = Seconds(180)
    #: Octets a second that a message must come in with, once many connections are open.
    data_rate: Octets = Octets(500)
    #: Mistakes of a client after which each further answer is delayed, by `error_delay` more each.
    soft_errors: Count = 5
    #: Mistakes of a client after which the connection is closed.
    hard_errors: Count = 20
    #: The first delay, and how much each further one is longer.
    error_delay: Seconds = Seconds(1)
    #: Commands that SMTP does not know, after which the connection is closed.
    unknown_commands: Count = 10
    #: NOOP, RSET, VRFY and the like since the last message, after which the connection is closed.
    idle_commands: Count = 100
    #: Recipients that do not exist, after which each answer is delayed: somebody guesses names.
    soft_unknown_recipients: Count = 5
    #: Recipients that do not exist, after which the connection is closed.
    hard_unknown_recipients: Count = 20
    #: Offer MT-PRIORITY (RFC 6710). Only clients of `relay.networks` and those that have logged in
    #: can raise the priority of a message; anybody can lower it.
    mt_priority: bool = False
    #: How clients encrypt: ``offered``, by STARTTLS where `tls` has a certificate (RFC 3207);
    #: ``required``, nothing else is done before it; ``implicit``, from the first octet on, as on
    #: port 465 (RFC 8314); or ``off``. A server that takes mail of everybody cannot require it.
    tls: Literal["off", "offered", "required", "implicit"] = "offered"
    #: Whether clients are asked for certificates of `client_authorities`: ``off``; ``asked``, where
    #: one that shows none is welcome, and one that shows a wrong one is not; or ``required``.
    client_certificates: ClientCertificates = "off"
    #: Whether clients may log in (AUTH), where a plugin knows who they are: ``off``; ``tls``, on
    #: encrypted connections alone; or ``always``, also where anybody on the way reads their
    #: passwords: for clients of this machine, and tests. None: ``tls`` where `kind` is
    #: ``submission``, else ``off``.
    auth: AuthPolicy | None = None
    #: As whom those who have logged in may send: ``own``, as who their account is, and not as
    #: anybody else, neither in the envelope nor in From; or ``any``. None: ``own`` where `kind` is
    #: ``submission``, else ``any``.
    senders: Literal["own", "any"] | None = None

    @property
    def submission(self) -> bool:
        """Whether all who send must have logged in."""
        return self.kind == "submission"

    @property
    def logins(self) -> AuthPolicy:
        """`auth`, or what holds if it is not given."""
        if self.auth is not None:
            return self.auth
        return "tls" if self.submission else "off"

    @property
    def own_senders(self) -> bool:
        """Whether who has logged in may send only as who that is: `senders`, or what holds then."""
        if self.senders is not None:
            return self.senders == "own"
        return self.submission

    @property
    def bindings(self) -> tuple[Binding, ...]:
        """The addresses, parsed."""
        addresses = [self.address] if isinstance(self.address, str) else self.address
        return tuple(binding(address) for address in addresses)


class Certificate(Table, frozen=True, kw_only=True):
    """An entry of ``tls.certificates``: one that clients are shown. Both files are PEM."""

    #: The certificate, with those that lead to its root behind it; relative to the directory of
    #: this file.
    certificate: Path
    #: Its private key, without a password.
    key: Path


class Tls(Table, frozen=True, kw_only=True):
    """``tls``: what clients of listeners are shown, and what is demanded of them."""

    #: A client is shown the one with the name that it asks for (SNI); the first, if it asks for
    #: none that there is. Without any there is no TLS on listeners.
    certificates: list[Certificate] = []
    #: The oldest version that is spoken.
    minimum: Literal["1.2", "1.3"] = "1.2"
    #: Whose certificates clients may show: a file of PEM. For `client_certificates` of listeners.
    client_authorities: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All that is read for it."""
        pairs = [path for each in self.certificates for path in (each.certificate, each.key)]
        return (*pairs, *([self.client_authorities] if self.client_authorities else []))

    def within(self, base: Path) -> Tls:
        """The same with paths that start at a directory."""
        pairs = [
            Certificate(
                certificate=(base / each.certificate).resolve(), key=(base / each.key).resolve()
            )
            for each in self.certificates
        ]
        known = self.client_authorities
        return Tls(
            certificates=pairs,
            minimum=self.minimum,
            client_authorities=known and (base / known).resolve(),
        )


class Limits(Table, frozen=True, kw_only=True):
    """``limits``: what all listeners together may use."""

    #: Connections open at a time. Above 80 % of it idle clients are sent away after 10 s.
    connections: Count = 2000
    #: Memory for the content of messages that are coming in; beyond it clients wait, then get 452.
    memory: Octets = Octets(256 * 2**20)
    #: SMTP conversations that are remembered when they are over, to be shown with the messages
    #: that they were about, secrets masked; some 3 KB each, 48 KiB at most. 0 remembers none.
    transcripts: Annotated[int, Meta(ge=0)] = 1000


class Logins(Table, frozen=True, kw_only=True):
    """``login``: how clients say who they are, and how often they may be wrong."""

    #: The SASL mechanisms that are offered, of those that plugins can judge. SCRAM-SHA-256-PLUS
    #: must be asked for: it binds by ``tls-server-end-point`` alone, and a client that chooses it
    #: and binds otherwise cannot log in.
    mechanisms: list[MechanismName] = field(
        default_factory=lambda: ["SCRAM-SHA-256", "OAUTHBEARER", "XOAUTH2", "PLAIN", "LOGIN"]
    )
    #: How often a client's network may be wrong; and, for each account, all networks together that
    #: it never logged in from.
    failures: Frequency = Frequency(20, Seconds(3600))
    #: How long an account at one network waits after the fifth wrong password in a row; each
    #: further wait is twice as long, up to an hour.
    lock: Seconds = Seconds(60)
    #: Wrong passwords of a network within a day after which it is banned.
    ban_after: Count = 100
    #: For how long.
    ban: Seconds = Seconds(86400)
    #: How long a network counts as one where an account is at home, after it has logged in there.
    known: Seconds = Seconds(30 * 86400)
    #: After so long somebody has to log in anew; ``0 s``: never. What no plugin could see of a
    #: password that was changed elsewhere, this ends.
    again: Seconds = Seconds(3600)
    #: Networks that many people come from, such as webmail: they are never held to account for one
    #: of them.
    shared: list[Network] = field(
        default_factory=lambda: [Network.parse("127.0.0.0/8"), Network.parse("::1/128")]
    )


class Relay(Table, frozen=True, kw_only=True):
    """``relay``: who may send through us to domains that are not ours. Nobody, by default."""

    #: Clients that may send to any domain.
    networks: list[Network] = []
    #: Domains that anybody may send to: ``example.net``, or ``*.example.net`` for all below it.
    #: For a backup MX; `routes` say where their mail goes.
    domains: list[str] = []
    #: Domains beside these: one of `maps`, asked for the domain, then for each above it with a dot
    #: in front; what it says is not looked at.
    domain_map: str | None = None

    def allows(self, domain: str) -> bool:
        """Whether anybody may send to this domain (lower case)."""
        return self.pattern(domain) is not None

    def pattern(self, domain: str) -> str | None:
        """Which of `domains` lets anybody send to this one (lower case); None if none does."""
        return next((each for each in self.domains if matches(each, domain)), None)


class Domain(Table, frozen=True, kw_only=True):
    """An entry of ``domains``: a domain whose mail is delivered here."""

    #: The domain.
    name: str
    #: Local parts that exist; ``"*"`` takes any. ``postmaster`` is always taken (RFC 5321 §4.5.1).
    mailboxes: list[str] = []
    #: Local parts that stand for others: names of this domain, or whole addresses.
    aliases: dict[str, list[str]] = {}
    #: Mailboxes beside these: one of `maps`, asked for the address; what it says is not looked at.
    mailbox_map: str | None = None
    #: Aliases beside these: one of `maps`, asked for the address.
    alias_map: str | None = None
    #: Who gets what is for nobody else: names of this domain, or whole addresses.
    catch_all: list[str] = []
    #: What stands before a tag: with ``+``, mail for ``bob+tag`` comes to ``bob``, unless there is
    #: a ``bob+tag``. Empty: there are no tags.
    delimiter: str = ""
    #: Where its mail goes: ``maildir``, ``lmtp://HOST:PORT``, ``lmtp:///path/to/socket``,
    #: ``smtp://HOST:PORT``, ``smtps://HOST:PORT`` (in TLS from the first octet),
    #: ``pipe:/path/to/program ARGUMENT…``, ``plugin:NAME`` (one of `plugins` that keeps mail) or
    #: ``discard``.
    deliver: str = "maildir"
    #: Where mail of some mailboxes goes instead: one of `maps`, asked as `map` of `routes` is.
    deliver_map: str | None = None

    @property
    def target(self) -> Target:
        """`deliver`, parsed."""
        return target(self.deliver)


class Login(Table, frozen=True, kw_only=True):
    """``login`` of a route: who we are to its servers (RFC 4954).

    One of `password`, `password_file` and `token_file` is given.
    """

    #: The name to log in with.
    user: str
    #: The password. A file of its own is better: this one is shown around.
    password: str | None = None
    #: A file whose first line is the password; not for others to read. Relative to the directory
    #: of this file; read at the start and at each reload.
    password_file: Path | None = None
    #: A file whose first line is an access token (OAuth 2.0), which another program keeps fresh;
    #: not for others to read. Relative to the directory of this file; read again when it changes.
    token_file: Path | None = None

    @override
    def __repr__(self) -> str:
        """Without the password: what is shown may be logged."""
        return f"Login({self.user!r})"


class Route(Table, frozen=True, kw_only=True):
    """An entry of ``routes``: where mail to domains goes that are not ours, and how."""

    #: A domain, ``*.example.net`` for all below it, or ``"*"`` for every domain. May be left out of
    #: a route with a `name`: then only maps lead there.
    match: str = ""
    #: What maps call it.
    name: Name | None = None
    #: Where to: as `deliver` of `domains`. Several ``smtp://`` and ``smtps://``, or several
    #: ``lmtp://``, are tried in their order. Empty: the domain's MX.
    via: list[str] = []
    #: What says where to in place of `via`: one of `maps`, asked for the address, for its domain,
    #: then for each domain above it with a dot in front. It has what `via` may have but programs
    #: and plugins, or ``mx``, or the `name` of another route. Where it has nothing, the next route
    #: that matches is looked for.
    map: str | None = None
    #: What we call ourselves to these servers. None: `hello_name` of `delivery`.
    hello_name: str | None = None
    #: Our own IP addresses to connect from, at most one of IPv4 and one of IPv6; a server that has
    #: no address of their kind is not reached. Empty: the system chooses.
    source: list[str] = []
    #: Whether to encrypt, as `tls` of `delivery`. None: as there; with a `login`, ``verified``.
    tls: TlsPolicy | None = None
    #: The name that the servers are asked for (SNI) and that their certificates must have, if it is
    #: not their own; ``domain`` for servers found by MX: it must lie in the domain that they take
    #: mail for, so that forged DNS leads nowhere.
    server_name: str | None = None
    #: A PEM file with the authorities that certificates must lead to. None: those of the system.
    #: This and the next two are relative to the directory of this file.
    authorities: Path | None = None
    #: Our own certificate, PEM, with those that lead to its root behind it, for servers that want
    #: one; and its private key.
    certificate: Path | None = None
    key: Path | None = None
    #: Who we are to the servers of `via`, where they want a login.
    login: Login | None = None
    #: Envelope senders whose mail it is for: ``bob@example.org``, ``@example.org``,
    #: ``@*.example.org``, ``*``, or ``<>`` for reports and other mail that nobody may answer.
    #: Empty: anybody's.
    senders: list[str] = []

    @property
    def encryption(self) -> TlsPolicy | None:
        """`tls`, and what a login takes; None: as everywhere."""
        return self.tls or ("verified" if self.login is not None else None)

    @property
    def targets(self) -> tuple[Target, ...]:
        """`via`, parsed."""
        return tuple(target(text) for text in self.via)

    def matches(self, domain: str) -> bool:
        """Whether it is for this domain (lower case)."""
        return matches(self.match, domain)


class Destination(Table, frozen=True, kw_only=True):
    """An entry of ``destinations``: what some destinations, or their mail, need otherwise.

    What is not given here is as for all.
    """

    #: A domain, ``*.example.net`` for all below it, the name of a route's first host, ``maildir``,
    #: or ``"*"`` for all. Of several that match, the first says it all.
    match: str
    #: Connections at a time. It begins with two, and more come as they go well.
    connections: Count = 20
    #: Messages in a time, e.g. ``100/1 h``; one that goes in several parts counts as often.
    messages: Frequency | None = None
    #: Recipients in a time.
    recipients: Frequency | None = None
    #: Connections made in a time.
    connections_rate: Frequency | None = None
    #: As `retry` of `queue`.
    retry: Annotated[list[Seconds], Meta(min_length=1)] | None = None
    #: As `lifetime` of `queue`.
    lifetime: Seconds | None = None
    #: As `delay_warning` of `queue`.
    delay_warning: Seconds | None = None


class Delivery(Table, frozen=True, kw_only=True):
    """``delivery``: how mail goes out."""

    #: What we call ourselves to other servers. None: `hostname`.
    hello_name: str | None = None
    #: Whether to encrypt: ``opportunistic`` does where the server can, and goes in clear where that
    #: fails; ``required`` does not deliver to servers that cannot; ``verified`` nor to those whose
    #: certificate is not theirs; ``off``.
    tls: TlsPolicy = "opportunistic"
    #: The port of a domain's mail exchangers.
    port: Annotated[int, Meta(ge=1, le=65535)] = 25
    #: Networks that an MX may lie in although they are private or loopback. All others of that
    #: kind are refused, so that nobody's DNS makes us talk to our own machines.
    allow_targets: list[Network] = []
    #: Connections to other servers, and deliveries to Maildirs, at a time, in all.
    max_connections: Count = 500
    #: How long to wait for a server to take the connection.
    connect_timeout: Seconds = Seconds(30)
    #: How long to wait for the answer to a command (RFC 5321 §4.5.3.2: at least 5 min).
    command_timeout: Seconds = Seconds(300)
    #: How long to wait for the answer to the end of a message (RFC 5321 §4.5.3.2.6: at least
    #: 10 min). A shorter one makes duplicates.
    content_timeout: Seconds = Seconds(600)
    #: How long a connection is kept for more mail to the same destination.
    idle_timeout: Seconds = Seconds(60)
    #: Messages sent on one connection.
    messages_per_connection: Count = 100
    #: How long a program of a ``pipe:`` may take for one message before it is killed.
    pipe_timeout: Seconds = Seconds(600)


class History(Table, frozen=True, kw_only=True):
    """``queue.history``: what is remembered of messages that are finished."""

    #: How long, from when a message came in; at least a day more than `lifetime`.
    age: Seconds = Seconds(7 * 86400)
    #: How many messages at most; a million takes about 700 MB of disk.
    count: Annotated[int, Meta(ge=0)] = 1_000_000


class Queue(Table, frozen=True, kw_only=True):
    """``queue``: mail that we have taken responsibility for."""

    #: When to give up and tell the sender (RFC 5321 §4.5.4.1: at least 4 to 5 days).
    lifetime: Seconds = Seconds(5 * 86400)
    #: How long after each attempt the next one is; the last holds for all that follow. Each is
    #: made up to 10 % longer or shorter, so that what failed together does not come together.
    retry: Annotated[list[Seconds], Meta(min_length=1)] = field(
        default_factory=lambda: [Seconds(60 * n) for n in (5, 10, 20, 40, 60, 120, 240)]
    )
    #: How old a message is when its sender is told, once, that it is still here; ``0 s``: never.
    delay_warning: Seconds = Seconds(4 * 3600)
    #: When to give up a message without a sender, such as a report, if that is before `lifetime`.
    report_lifetime: Seconds = Seconds(86400)
    #: Free space on the disk of `data_dir` below which mail is refused for now (452), or a tenth
    #: of that disk if that is less. Delivery goes on.
    disk_reserve: Octets = Octets(2**30)
    #: What becomes of a report that nobody takes: ``drop``, or ``postmaster`` of the first of
    #: `domains`, who is told of it.
    double_bounces: Literal["drop", "postmaster"] = "drop"
    #: The largest message that goes back whole with a report of its failure, if its sender asked
    #: for that (RET=FULL); of a larger one the header does.
    return_size: Octets = Octets(50 * 2**10)
    #: What is remembered of messages that are finished.
    history: History = History()


class Dns(Table, frozen=True, kw_only=True):
    """``dns``: whom to ask for mail exchangers and addresses."""

    #: ``IP``, ``IP:PORT`` or ``[IPV6]:PORT``. None given: those of /etc/resolv.conf.
    nameservers: list[str] = []
    #: How long to wait for an answer, all name servers and repetitions together.
    timeout: Seconds = Seconds(10)

    @property
    def servers(self) -> tuple[HostPort, ...]:
        """`nameservers`, parsed."""
        return tuple(nameserver(text) for text in self.nameservers)


class Control(Table, frozen=True, kw_only=True):
    """``control``: the socket by which ``elemta queue`` and ``elemta status`` reach the daemon.

    Who may write to the socket may steer the queue and read mail.
    """

    #: Where it lies; relative to the directory of this file. None: ``control.sock`` in `data_dir`.
    socket: Path | None = None
    #: A group whose members may use it too; `user` must be one of them. They must be able to reach
    #: it, and `data_dir` is closed to them: give `socket` another place, e.g. below /run.
    group: str | None = None


class Api(Table, frozen=True, kw_only=True):
    """``api``: the server over HTTP. Without this table there is none; ``api: {}`` suffices."""

    #: Where to listen: ``HOST:PORT``, ``[IPV6]:PORT`` or ``:PORT`` (every address of the machine);
    #: one, or a list of them. Beyond this machine it should be encrypted.
    address: str | list[str] = "127.0.0.1:8025"
    #: The certificate, PEM, with those that lead to its root behind it; and its private key.
    #: Relative to the directory of this file. None: HTTP without TLS.
    certificate: Path | None = None
    key: Path | None = None
    #: Answer ``/metrics`` to who has no token.
    metrics: bool = True
    #: Where the dashboard is reached through a reverse proxy that changes ``Host``, e.g.
    #: ``https://mail.example.org``: pages of it may use their cookie and open websockets.
    origins: list[str] = []

    @property
    def bindings(self) -> tuple[HostPort, ...]:
        """The addresses, parsed."""
        addresses = [self.address] if isinstance(self.address, str) else self.address
        return tuple(host_port(address) for address in addresses)


class Log(Table, frozen=True, kw_only=True):
    """``log``: what is written to standard error, a line an event."""

    #: ``json``, ``console`` (for people), or ``auto``: console on a terminal, else JSON.
    format: Literal["auto", "json", "console"] = "auto"
    #: The least that is written.
    level: Literal["debug", "info", "warning", "error"] = "info"


class PluginEntry(Table, frozen=True, kw_only=True):
    """An entry of ``plugins``: one is asked after the other, in the order of the list."""

    #: A built-in plugin, the entry point of an installed one, or ``package.module:Class``.
    name: str
    #: Whether it is asked. While it is not, its settings must be right all the same.
    enabled: bool = True
    #: The listeners whose clients it is asked about; ``api`` is mail that is handed in by HTTP.
    #: Empty: all. What it does beside that, such as routing, it does for all mail.
    listeners: list[str] = []
    #: How long one answer may take; then it counts as failed.
    timeout: Seconds = Seconds(30)
    #: What becomes of mail when it fails: ``defer``; ``continue``, as if it were not there;
    #: ``reject``; or ``quarantine``. None: as the plugin has it, which is mostly ``defer``.
    on_failure: Literal["defer", "continue", "reject", "quarantine"] | None = None
    #: Its own settings; which there are, the plugin says.
    settings: dict[str, object] = {}


class Config(Table, frozen=True, kw_only=True):
    """The whole file."""

    #: This machine's full name, as its reverse DNS has it. It stands in the greeting, in EHLO and
    #: in each Received field.
    hostname: str
    #: Where the queue and the Maildirs lie; relative to the directory of this file.
    data_dir: Path = Path("/var/lib/elemta")
    #: Who to be once the ports are bound, when started as root.
    user: str | None = None
    #: Processes that share the work, each with a queue of its own; for a machine with many cores,
    #: as one process uses about one. Limits are for all of them together.
    nodes: Annotated[int, Meta(ge=1, le=64)] = 1
    #: Where mail comes in.
    listeners: Annotated[list[Listener], Meta(min_length=1)]
    #: What clients of listeners are shown, and what is demanded of them.
    tls: Tls = Tls()
    #: What all listeners together may use.
    limits: Limits = Limits()
    #: How clients say who they are, and how often they may be wrong.
    login: Logins = Logins()
    #: Who may send through us to domains that are not ours.
    relay: Relay = Relay()
    #: Domains whose mail is delivered here.
    domains: list[Domain] = []
    #: Tables of names to others, by name.
    maps: dict[str, Map] = {}
    #: How mail goes on that comes by an alias which leads elsewhere.
    forwarding: Forwarding = Forwarding()
    #: Where mail to all other domains goes, and how; the first match wins; no match: the domain's
    #: MX.
    routes: list[Route] = []
    #: What some destinations need otherwise; the first match wins.
    destinations: list[Destination] = []
    #: How mail goes out.
    delivery: Delivery = Delivery()
    #: Mail that we have taken responsibility for.
    queue: Queue = Queue()
    #: Whom to ask for mail exchangers and addresses.
    dns: Dns = Dns()
    #: How the running daemon is reached.
    control: Control = Control()
    #: The server over HTTP: REST, live events, the dashboard, metrics. None: there is none.
    api: Api | None = None
    #: How long messages on their way in or out get to finish, once we are told to stop.
    shutdown_grace: Seconds = Seconds(30)
    #: What is written to standard error.
    log: Log = Log()
    #: What judges mail as it comes in; asked in this order.
    plugins: list[PluginEntry] = []

    @property
    def control_socket(self) -> Path:
        """Where the running daemon is reached."""
        return self.control.socket or self.data_dir / "control.sock"


def matches(pattern: str, domain: str) -> bool:
    """Whether a domain (lower case) is meant by ``*``, ``*.example.net`` or ``example.net``."""
    pattern = pattern.lower()
    if pattern == "*":
        return True
    if pattern.startswith("*."):
        return domain.endswith(pattern[1:]) and domain != pattern[1:]
    return domain == pattern
