"""Clients that encrypt: STARTTLS and TLS from the first octet on (RFC 3207, RFC 8314)."""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trio
import yaml
from typing_extensions import override

from elemta.config import ConfigError, load
from elemta.listener.wire import HANDSHAKE, HURRIED
from elemta.net.tls import TlsError, start_tls
from elemta.plugins import CONTINUE, Granted, Plugin, Reject, Session, Transaction, Verdict
from tests.dialogue import CONFIG, STRANGER, Server
from tests.net.certificates import Authority

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from elemta.net.tls import Encryption
    from elemta.protocol import Credentials

HELLO = """
    C: EHLO client.example
    S: 250 ...
"""
MESSAGE = """
    C: MAIL FROM:<a@b.example>
    C: RCPT TO:<alice@here.example>
    C: DATA
    S: 250 ...
    S: 250 ...
    S: 354 ...
    C: Subject: x
    C: .
    S: 250 ...
"""
STARTTLS = """
    C: STARTTLS
    S: 220 2.0.0 go ahead with TLS
"""


class Watcher(Plugin):
    """Knows ann, and remembers how clients came."""

    name = "watcher"

    def __init__(self) -> None:
        self.seen: list[tuple[str, Encryption | None, str | None, bool]] = []
        self.connected: list[str | None] = []
        self.asked: list[str] = []

    @override
    async def on_connect(self, session: Session) -> Verdict:
        self.connected.append(session.tls)
        return CONTINUE

    @override
    async def on_authenticate(
        self, session: Session, credentials: Credentials
    ) -> Granted | Verdict:
        self.asked.append(credentials.user)
        return Granted("ann") if credentials.user == "ann" else Reject((7, 8), "no")

    @override
    async def on_mail(self, transaction: Transaction) -> Verdict:
        session = transaction.session
        self.seen.append((session.helo, session.encryption, session.login, session.trusted))
        return CONTINUE


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()


def a_server(authority: Authority, *plugins: Plugin, **settings: object) -> Server:
    tls = {
        "certificates": [
            authority.issue("mx.example", "mx2.example"),
            authority.issue("*.second.example"),
        ],
        "client_authorities": str(authority.file),
    }
    config = load(CONFIG + yaml.safe_dump({"tls": tls}))
    return Server(*plugins, config=config, **settings)


async def encrypt(
    server: Server, context: ssl.SSLContext, name: str = "mx.example", early: bytes = b""
) -> None:
    """The client's handshake; what it does from here on is encrypted.

    Args:
        early: what somebody puts before it, in clear.
    """
    if early:
        await server.client.send_all(early)
    server.client = await start_tls(server.client, context, server_name=name)  # type: ignore[assignment] # it has all that is asked of it


async def keywords(server: Server) -> list[str]:
    await server.client.send_all(b"EHLO client.example\r\n")
    found: list[str] = []
    while (line := await server.line())[3] == "-":
        found.append(line[4:])
    return [*found, line[4:]]


# What is offered.


async def test_starttls_is_offered_where_there_is_a_certificate_and_only_in_clear(
    authority: Authority, nursery: trio.Nursery
) -> None:
    server = a_server(authority)
    nursery.start_soon(server.run)
    await server.expect("220 ...")
    assert "STARTTLS" in await keywords(server)
    await server.play(STARTTLS)
    await encrypt(server, authority.client())
    assert "STARTTLS" not in await keywords(server)
    await server.play("""
        C: STARTTLS
        S: 502 ...
        C: QUIT
        S: 221 ...
        E:
    """)


@pytest.mark.parametrize("settings", [{"tls": "off"}, None])
async def test_without_it_is_not_understood(
    authority: Authority, settings: dict[str, object] | None, nursery: trio.Nursery
) -> None:
    server = Server() if settings is None else a_server(authority, **settings)
    nursery.start_soon(server.run)
    await server.expect("220 ...")
    assert "STARTTLS" not in await keywords(server)
    await server.play("""
        C: STARTTLS
        S: 502 ...
    """)
    server.client.close()


@pytest.mark.parametrize(
    ("auth", "clear", "encrypted"),
    [("off", False, False), ("tls", False, True), ("always", True, True)],
)
async def test_logins_are_offered_by_how_the_connection_is_now(
    authority: Authority,
    watcher: Watcher,
    nursery: trio.Nursery,
    auth: str,
    clear: bool,
    encrypted: bool,
) -> None:
    server = a_server(authority, watcher, auth=auth)
    nursery.start_soon(server.run)
    await server.expect("220 ...")
    assert any(each.startswith("AUTH ") for each in await keywords(server)) is clear
    await server.play(STARTTLS)
    await encrypt(server, authority.client())
    assert any(each.startswith("AUTH ") for each in await keywords(server)) is encrypted
    server.client.close()


# What holds once it is encrypted.


async def test_a_message_says_that_and_how_it_came_encrypted(
    authority: Authority, watcher: Watcher, nursery: trio.Nursery
) -> None:
    server = a_server(authority, watcher)
    nursery.start_soon(server.run)
    await server.play("S: 220 ..." + HELLO + STARTTLS)
    await encrypt(server, authority.client())
    await server.play(HELLO + MESSAGE)
    (kept,) = server.queue.kept
    trace = b" ".join(kept.content.split())
    assert b"by mx.example with ESMTPS (version=TLSv1.3 cipher=TLS_AES_256_GCM_SHA384) id" in trace
    assert kept.envelope.origin.protocol == "ESMTPS"
    ((_, encryption, *_),) = watcher.seen
    assert encryption is not None
    assert (encryption.version, encryption.server_name) == ("TLSv1.3", "mx.example")
    assert encryption.client == ""
    assert len(encryption.server_end_point) == 32
    server.client.close()


async def test_who_logs_in_over_tls_is_told_of_in_the_message(
    authority: Authority, watcher: Watcher, nursery: trio.Nursery
) -> None:
    server = a_server(authority, watcher, auth="tls")
    nursery.start_soon(server.run)
    await server.play("S: 220 ..." + HELLO + STARTTLS)
    await encrypt(server, authority.client())
    await server.play(
        HELLO
        + """
        C: AUTH PLAIN AGFubgB4
        S: 235 ...
    """
        + MESSAGE
    )
    assert b"with ESMTPSA (version=" in b" ".join(server.queue.kept[0].content.split())
    server.client.close()


async def test_nothing_that_was_said_in_clear_is_known_afterwards(
    authority: Authority, watcher: Watcher, nursery: trio.Nursery
) -> None:
    server = a_server(authority, watcher, auth="always")
    nursery.start_soon(server.run)
    await server.play("""
        S: 220 ...
        C: EHLO liar.example
        S: 250 ...
        C: AUTH PLAIN AGFubgB4
        S: 235 ...
    """)
    await server.play(STARTTLS)
    await encrypt(server, authority.client())
    await server.play("""
        C: MAIL FROM:<a@b.example>
        S: 503 ...
    """)
    await server.play(HELLO)
    await server.play("""
        C: MAIL FROM:<a@b.example>
        S: 250 ...
        C: RCPT TO:<x@elsewhere.example>
        S: 550 ...
    """)
    ((helo, encryption, login, trusted),) = watcher.seen
    assert (helo, login, trusted) == ("client.example", None, False)
    assert encryption is not None
    server.client.close()


async def test_a_transaction_may_not_be_cut_in_two_by_starttls(
    authority: Authority, nursery: trio.Nursery
) -> None:
    server = a_server(authority)
    nursery.start_soon(server.run)
    await server.play("S: 220 ..." + HELLO)
    await server.play("""
        C: MAIL FROM:<a@b.example>
        S: 250 ...
        C: STARTTLS
        S: 503 ...
        C: RSET
        S: 250 ...
    """)
    await server.play(STARTTLS)
    await encrypt(server, authority.client())
    await server.play(HELLO + MESSAGE)
    server.client.close()


# Fault 12 of the original: the reader stayed on the socket, and what was buffered in clear was
# obeyed in TLS (CVE-2011-0411).
EVIL = "RSET\r\nMAIL FROM:<evil@b.example>\r\n"


@pytest.mark.parametrize("behind", ["x", "\r\n", "NOOP\r\n", EVIL, "\x16\x03\x01"])
async def test_what_comes_in_one_write_with_starttls_ends_it(
    authority: Authority, watcher: Watcher, nursery: trio.Nursery, behind: str
) -> None:
    server = a_server(authority, watcher)
    nursery.start_soon(server.run)
    await server.play("S: 220 ..." + HELLO)
    await server.client.send_all(f"STARTTLS\r\n{behind}".encode())
    await server.play("""
        S: 554 5.5.0 commands behind STARTTLS
        E:
    """)
    assert server.house.meters.refusals["injected"] == 1
    assert watcher.seen == []


@pytest.mark.parametrize("early", [b"x", b"\r\n", b"NOOP\r\n", EVIL.encode(), b"\x16\x03\x01"])
async def test_what_comes_between_the_reply_and_the_handshake_ends_it(
    authority: Authority,
    watcher: Watcher,
    nursery: trio.Nursery,
    early: bytes,
    autojump_clock: MockClock,
) -> None:
    server = a_server(authority, watcher)
    nursery.start_soon(server.run)
    await server.play("S: 220 ..." + HELLO + STARTTLS)
    with pytest.raises((TlsError, trio.BrokenResourceError)):
        await encrypt(server, authority.client(), early=early)
    await trio.testing.wait_all_tasks_blocked()
    assert server.house.meters.tls_in_failures == 1
    errors = server.house.meters.connection_errors  # half a record is waited for
    assert errors["no_tls"] + errors["timed_out"] == 1
    assert watcher.seen == []


async def test_what_is_pipelined_before_starttls_is_answered_in_clear(
    authority: Authority, watcher: Watcher, nursery: trio.Nursery
) -> None:
    server = a_server(authority, watcher)
    nursery.start_soon(server.run)
    await server.play("""
        S: 220 ...
        C: EHLO client.example
        C: MAIL FROM:<evil@b.example>
        C: RSET
        C: STARTTLS
        S: 250 ...
        S: 250 ...
        S: 250 ...
        S: 220 ...
    """)
    await encrypt(server, authority.client())
    await server.play(HELLO + MESSAGE)
    assert [str(each.envelope.sender) for each in server.queue.kept] == ["a@b.example"]
    server.client.close()


async def test_octets_in_clear_after_the_handshake_end_it(
    authority: Authority, watcher: Watcher, nursery: trio.Nursery
) -> None:
    server = a_server(authority, watcher)
    nursery.start_soon(server.run)
    await server.play("S: 220 ..." + HELLO + STARTTLS)
    clear = server.client
    await encrypt(server, authority.client())
    await server.play(HELLO)
    await clear.send_all(EVIL.encode())
    await trio.testing.wait_all_tasks_blocked()
    assert watcher.seen == []
    assert server.house.meters.connection_errors["lost"] == 1


# Handshakes that fail.


async def test_who_shakes_no_hands_is_let_go_after_a_minute(
    authority: Authority, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = a_server(authority)
    nursery.start_soon(server.run)
    await server.play("S: 220 ..." + HELLO + STARTTLS)
    began = trio.current_time()
    assert await server.client.receive() == b""  # and no goodbye in clear
    assert trio.current_time() - began == pytest.approx(HANDSHAKE, abs=2)
    assert server.house.meters.tls_in_failures == 1
    assert server.house.meters.connection_errors["timed_out"] == 1


async def test_when_many_are_connected_a_handshake_must_hurry(
    authority: Authority, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = a_server(authority, tls="implicit")
    server.house.roster.busy = True
    nursery.start_soon(server.run)
    began = trio.current_time()
    assert await server.client.receive() == b""
    assert trio.current_time() - began == pytest.approx(HURRIED, abs=2)


async def test_at_shutdown_nothing_is_said_in_the_middle_of_a_handshake(
    authority: Authority, nursery: trio.Nursery
) -> None:
    server = a_server(authority)
    nursery.start_soon(server.run)
    await server.play("S: 220 ..." + HELLO + STARTTLS)
    await trio.testing.wait_all_tasks_blocked()
    server.house.roster.drain()
    assert await server.client.receive() == b""


async def test_a_client_that_knows_only_old_versions_is_refused(
    authority: Authority, nursery: trio.Nursery
) -> None:
    server = a_server(authority)
    nursery.start_soon(server.run)
    await server.play("S: 220 ..." + HELLO + STARTTLS)
    old = authority.client()
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    old.set_ciphers("ECDHE+AESCCM:ECDHE+AES+SHA256")  # no GCM
    with pytest.raises(TlsError, match="handshake failure"):
        await encrypt(server, old)
    await trio.testing.wait_all_tasks_blocked()
    assert server.house.meters.tls_in_failures == 1


async def test_a_handshake_where_none_is_expected_is_no_smtp(
    authority: Authority, nursery: trio.Nursery
) -> None:
    server = a_server(authority)
    nursery.start_soon(server.run)
    await server.expect("220 ...")
    await server.client.send_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    assert (await server.line()).startswith("554 ")
    await server.expect_end()


# Which certificate.


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("mx.example", "mx.example"),
        ("mx2.example", "mx.example"),
        ("a.second.example", "*.second.example"),
        ("A.Second.Example", "*.second.example"),
        ("second.example", "mx.example"),
        ("a.b.second.example", "mx.example"),
        ("nobody.example", "mx.example"),
    ],
)
async def test_each_client_is_shown_the_certificate_that_it_asks_for(
    authority: Authority, nursery: trio.Nursery, asked: str, shown: str
) -> None:
    server = a_server(authority, tls="implicit")
    nursery.start_soon(server.run)
    context = authority.client()
    context.check_hostname = False
    await encrypt(server, context, asked)
    found = server.client.tls.getpeercert()  # type: ignore[attr-defined]
    assert ("DNS", shown) in found["subjectAltName"]
    await server.expect("220 ...")
    server.client.close()


# From the first octet on.


async def test_implicit_tls_greets_in_tls(
    authority: Authority, watcher: Watcher, nursery: trio.Nursery
) -> None:
    server = a_server(authority, watcher, tls="implicit")
    nursery.start_soon(server.run)
    await encrypt(server, authority.client())
    assert watcher.connected == []
    await server.expect("220 mx.example ESMTP")
    assert watcher.connected == ["TLSv1.3"]
    assert "STARTTLS" not in await keywords(server)
    await server.play(MESSAGE)
    assert server.queue.kept[0].envelope.origin.protocol == "ESMTPS"
    server.client.close()


async def test_smtp_where_a_handshake_is_expected_is_a_failure_and_not_answered(
    authority: Authority, watcher: Watcher, nursery: trio.Nursery
) -> None:
    server = a_server(authority, watcher, tls="implicit")
    nursery.start_soon(server.run)
    await server.client.send_all(b"EHLO client.example\r\nMAIL FROM:<a@b.example>\r\n")
    answer = await server.client.receive()
    assert b"220" not in answer
    assert server.house.meters.tls_in_failures == 1
    assert watcher.connected == watcher.seen == []


# Where it must be.


async def test_where_tls_is_required_nothing_else_is_done_before_it(
    authority: Authority, watcher: Watcher, nursery: trio.Nursery
) -> None:
    server = a_server(authority, watcher, tls="required", auth="always", soft_errors=20)
    nursery.start_soon(server.run)
    await server.expect("220 ...")
    assert not any(each.startswith("AUTH") for each in await keywords(server))
    await server.play("""
        C: HELO client.example
        S: 530 5.7.0 must issue a STARTTLS command first
        C: MAIL FROM:<a@b.example>
        S: 530 5.7.0 must issue a STARTTLS command first
        C: VRFY alice
        S: 530 5.7.0 must issue a STARTTLS command first
        C: RSET
        S: 530 5.7.0 must issue a STARTTLS command first
        C: NOOP
        S: 250 ...
    """)
    assert server.house.meters.refusals["tls_required"] == 4
    await server.play(STARTTLS)
    await encrypt(server, authority.client())
    await server.play(HELLO + MESSAGE)
    assert len(watcher.seen) == 1
    server.client.close()


# Certificates of clients.


@pytest.mark.parametrize("name", ["mx.example", "a.second.example"])
@pytest.mark.parametrize("demand", ["asked", "required"])
async def test_who_shows_a_certificate_is_known_by_it(
    authority: Authority, watcher: Watcher, nursery: trio.Nursery, demand: str, name: str
) -> None:
    server = a_server(authority, watcher, tls="implicit", client_certificates=demand)
    nursery.start_soon(server.run)
    await encrypt(server, authority.client("printer.example"), name)
    await server.play("S: 220 ..." + HELLO + MESSAGE)
    ((_, encryption, *_),) = watcher.seen
    assert encryption is not None
    assert "O=trustme" in encryption.client
    server.client.close()


@pytest.mark.parametrize(
    ("demand", "known", "welcome"),
    [
        ("off", False, True),
        ("asked", False, False),
        ("asked", None, True),
        ("required", False, False),
        ("required", None, False),
    ],
)
async def test_who_shows_none_or_a_wrong_one(
    authority: Authority,
    watcher: Watcher,
    nursery: trio.Nursery,
    tmp_path: Path,
    demand: str,
    known: bool | None,
    welcome: bool,
) -> None:
    server = a_server(authority, watcher, tls="implicit", client_certificates=demand)
    nursery.start_soon(server.run)
    context = authority.client()
    if known is False:
        Authority(tmp_path).certify(context, "stranger.example")
    if welcome:
        await encrypt(server, context)
        await server.play("S: 220 ..." + HELLO + MESSAGE)
        ((_, encryption, *_),) = watcher.seen
        assert encryption is not None
        assert encryption.client == ""
        server.client.close()
        return
    with suppress(TlsError, trio.BrokenResourceError):
        await encrypt(server, context)
        await server.line()  # of TLS 1.3 a client learns it only now
    await trio.testing.wait_all_tasks_blocked()
    assert server.house.meters.tls_in_failures == 1
    assert watcher.connected == []


class Printers(Plugin):
    """That of docs/tls.md, for what trustme writes into certificates."""

    name = "printers"

    @override
    async def on_hello(self, session: Session, name: str) -> Verdict:
        if session.encryption is not None and "O=trustme" in session.encryption.client:
            session.results.add(Granted("printers"), self.name)
        return CONTINUE


@pytest.mark.parametrize(("shows", "code"), [(("printer.example",), 250), ((), 550)])
async def test_a_plugin_may_let_a_certificate_relay(
    authority: Authority, nursery: trio.Nursery, shows: tuple[str, ...], code: int
) -> None:
    server = a_server(authority, Printers(), tls="implicit", client_certificates="asked")
    nursery.start_soon(server.run)
    await encrypt(server, authority.client(*shows))
    await server.play("S: 220 ..." + HELLO)
    await server.play(f"""
        C: MAIL FROM:<a@b.example>
        S: 250 ...
        C: RCPT TO:<x@elsewhere.example>
        S: {code} ...
    """)
    server.client.close()


def test_a_listener_that_must_encrypt_takes_a_certificate() -> None:
    text = CONFIG.replace("address: 127.0.0.1:0", "address: 127.0.0.1:0\n    tls: {}")
    for policy in ("required", "implicit"):
        with pytest.raises(ConfigError, match=r"listeners\[0\].tls: .* takes a certificate"):
            load(text.format(policy))
    asking = "off\n    client_certificates: asked"
    with pytest.raises(ConfigError) as told:
        load(text.format(asking))
    assert [each.place for each in told.value.mistakes] == ["listeners[0].client_certificates"] * 2


async def test_a_stranger_is_no_less_one_in_tls(
    authority: Authority, nursery: trio.Nursery
) -> None:
    server = a_server(authority, client=STRANGER)
    nursery.start_soon(server.run)
    await server.play("S: 220 ..." + HELLO + STARTTLS)
    await encrypt(server, authority.client())
    await server.play(HELLO)
    await server.play("""
        C: MAIL FROM:<a@b.example>
        S: 250 ...
        C: RCPT TO:<x@elsewhere.example>
        S: 550 ...
    """)
    server.client.close()
