"""Logins by which no password is said, and what becomes of those who guess."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio
from typing_extensions import override

from elemta.config import load
from elemta.control.tracing import transcripts
from elemta.listener.authentication import mechanisms
from elemta.login import Guesses, ScramVerifier
from elemta.net.tls import Encryption
from elemta.plugins import CONTINUE, Chain, Defer, Granted, Known, Loaded, Plugin, Reject, Verdict
from tests.dialogue import CONFIG, NOW, Server

if TYPE_CHECKING:
    import io

    from trio.testing import MockClock

    from elemta.listener.reception import House
    from elemta.plugins import Session
    from elemta.protocol import Credentials, Token

VERIFIER = ScramVerifier.of("secret", salt=b"a salt of ours..", iterations=4096)
GREETED = """
    S: 220 ...
    C: EHLO client.example
    S: 250 ...
"""
WRONG = "535 5.7.8 these credentials are not right"
LOCKED = "454 4.7.0 too many failed logins, try again later"


class Directory(Plugin):
    """Knows ann by a verifier, by a token and by her password, and is down for others."""

    name = "directory"

    def __init__(self) -> None:
        self.asked: list[str] = []

    @override
    async def on_verifier(self, session: Session, user: str) -> Known | Verdict:
        self.asked.append(user)
        if user == "down":
            return Defer((4, 3), "the directory is down")
        if user == "barred":
            return Reject((7, 8), "no", note="barred")
        return Known(VERIFIER, Granted("ann", app="phone")) if user == "ann" else CONTINUE

    @override
    async def on_token(self, session: Session, token: Token) -> Granted | Verdict:
        self.asked.append(token.user)
        if token.token == "down":
            return Defer((4, 3), "the issuer is down")
        return Granted("ann") if token.token == "abc" else Reject((7, 8), "no")

    @override
    async def on_authenticate(
        self, session: Session, credentials: Credentials
    ) -> Granted | Verdict:
        self.asked.append(credentials.user)
        return Granted("ann") if credentials.password == "secret" else Reject((7, 8), "no")


def b64(text: str | bytes) -> str:
    return b64encode(text.encode() if isinstance(text, str) else text).decode()


def plain(user: str = "ann", password: str = "secret") -> str:
    return b64(f"\0{user}\0{password}")


@pytest.fixture
def directory() -> Directory:
    return Directory()


@pytest.fixture
async def server(directory: Directory, nursery: trio.Nursery, autojump_clock: MockClock) -> Server:
    return await serving(nursery, directory)


async def serving(
    nursery: trio.Nursery, *plugins: Plugin, house: House | None = None, client: str = "192.0.2.1"
) -> Server:
    made = Server(*plugins, house=house, client=client, auth="always")
    nursery.start_soon(made.run)
    await made.play(GREETED)
    return made


class Client:
    """The client's side of SCRAM (RFC 5802 §3)."""

    def __init__(self, user: str = "ann", password: str = "secret", binding: bytes = b"") -> None:
        self.header = "p=tls-server-end-point,," if binding else "n,,"
        self.binding = binding
        self.bare = f"n={user},r=abc"
        self.password = password

    @property
    def first(self) -> str:
        return b64(self.header + self.bare)

    def final(self, challenge: str) -> str:
        found = re.fullmatch("r=([^,]+),s=([^,]+),i=([0-9]+)", challenge)
        assert found is not None
        salted = hashlib.pbkdf2_hmac(
            "sha256", self.password.encode(), b64decode(found[2]), int(found[3])
        )
        without = f"c={b64(self.header.encode() + self.binding)},r={found[1]}"
        said = f"{self.bare},{challenge},{without}".encode()
        key = hmac.digest(salted, b"Client Key", "sha256")
        signature = hmac.digest(hashlib.sha256(key).digest(), said, "sha256")
        self.expected = b64(
            hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), said, "sha256")
        )
        proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
        return b64(f"{without},p={b64(proof)}")


async def challenge(server: Server) -> str:
    line = await server.line()
    assert line.startswith("334 "), line
    return b64decode(line[4:]).decode()


async def scram(server: Server, client: Client, name: str = "SCRAM-SHA-256") -> str:
    """What an exchange comes to: our proof and the last reply, or the refusal alone."""
    await server.client.send_all(f"AUTH {name} {client.first}\r\n".encode())
    await server.client.send_all(f"{client.final(await challenge(server))}\r\n".encode())
    line = await server.line()
    if not line.startswith("334 "):
        return line
    assert b64decode(line[4:]).decode() == f"v={client.expected}"
    await server.client.send_all(b"\r\n")
    return await server.line()


# SCRAM.


async def test_who_proves_to_know_his_password_is_logged_in(
    server: Server, directory: Directory
) -> None:
    assert await scram(server, Client()) == "235 2.7.0 you are logged in"
    await server.play("C: MAIL FROM:<a@b.example>\nS: 250 ...\nC: RCPT TO:<bob@far.example>")
    await server.play("S: 250 ...")
    (transcript,) = transcripts(server.house.dialogues, "Q1")
    said = [each.text for each in transcript.said]
    # The last word is made from the password, and guesses could be held against it.
    assert said[said.index("AUTH SCRAM-SHA-256 ***") + 1 :][:5] == [
        *("334 ***", "***", "334 ***", "***", "235 2.7.0 you are logged in"),
    ]
    assert directory.asked == ["ann"]
    assert server.house.meters.mechanisms == {("SCRAM-SHA-256", "granted"): 1}


async def test_the_client_may_wait_to_be_asked(server: Server) -> None:
    await server.client.send_all(b"AUTH SCRAM-SHA-256\r\n")
    assert await challenge(server) == ""
    client = Client()
    await server.client.send_all(f"{client.first}\r\n".encode())
    assert (await challenge(server)).startswith("r=abc")


@pytest.mark.parametrize("user", ["ann", "nobody", "barred"])
async def test_who_is_wrong_and_who_is_unknown_are_shown_the_same_for_the_same_time(
    user: str, server: Server, autojump_clock: MockClock
) -> None:
    began = trio.current_time()
    assert await scram(server, Client(user, "wrong")) == WRONG
    assert trio.current_time() - began == pytest.approx(5)
    assert server.house.meters.logins["refused"] == 1


async def test_who_is_unknown_has_one_salt_at_each_try_and_others_another(
    server: Server,
) -> None:
    salts: list[str] = []
    for user in ("nobody", "nobody", "somebody"):
        await server.client.send_all(f"AUTH SCRAM-SHA-256 {Client(user).first}\r\n".encode())
        found = re.search("s=([^,]+),i=([0-9]+)$", await challenge(server))
        assert found is not None
        salts.append(found[1])
        assert len(b64decode(found[1])) == 16
        await server.play("C: *\nS: 501 5.7.0 cancelled")
    assert salts[0] == salts[1] != salts[2]


async def test_where_nobody_can_say_now_it_may_be_tried_again(server: Server) -> None:
    first = Client("down").first
    await server.play(f"C: AUTH SCRAM-SHA-256 {first}\nS: 454 ...")
    assert server.house.meters.mechanisms == {("SCRAM-SHA-256", "deferred"): 1}
    assert await scram(server, Client()) == "235 2.7.0 you are logged in"


async def test_what_no_client_says_ends_the_exchange(server: Server) -> None:
    await server.play(f"C: AUTH SCRAM-SHA-256 {b64('what')}\nS: 501 ...")
    assert server.house.meters.mechanisms == {("SCRAM-SHA-256", "broken"): 1}
    assert server.house.meters.logins["tried"] == 0


async def test_fault_21_what_is_kept_of_a_password_lets_nobody_in(
    server: Server, autojump_clock: MockClock
) -> None:
    assert await scram(server, Client("ann", str(VERIFIER))) == WRONG
    await server.play(f"C: AUTH PLAIN {plain('ann', str(VERIFIER))}\nS: {WRONG}")
    # Nor does a proof that is made of it, in place of the key that it is the hash of.
    client = Client()
    await server.client.send_all(f"AUTH SCRAM-SHA-256 {client.first}\r\n".encode())
    shown = await challenge(server)
    without = f"c={b64(client.header)},r={shown.partition(',')[0][2:]}"
    said = f"{client.bare},{shown},{without}".encode()
    signature = hmac.digest(VERIFIER.stored_key, said, "sha256")
    proof = bytes(a ^ b for a, b in zip(VERIFIER.stored_key, signature, strict=True))
    await server.play(f"C: {b64(f'{without},p={b64(proof)}')}\nS: {WRONG}")


# Tokens.


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("OAUTHBEARER", "n,a=ann,\1auth=Bearer {}\1\1"),
        ("XOAUTH2", "user=ann\1auth=Bearer {}\1\1"),
    ],
)
async def test_a_token_is_judged_by_who_knows_its_issuer(
    name: str, shown: str, server: Server, autojump_clock: MockClock
) -> None:
    began = trio.current_time()
    await server.client.send_all(f"AUTH {name} {b64(shown.format('xyz'))}\r\n".encode())
    assert json.loads(await challenge(server))["schemes"] == "bearer"
    assert trio.current_time() - began == pytest.approx(5)
    await server.play(f"C: {b64(chr(1))}\nS: {WRONG}")
    assert trio.current_time() - began == pytest.approx(5)
    await server.play(f"C: AUTH {name} {b64(shown.format('down'))}\nS: 454 ...")
    await server.play(f"C: AUTH {name} {b64(shown.format('abc'))}\nS: 235 ...")
    assert server.house.meters.mechanisms == {
        (name, "refused"): 1,
        (name, "deferred"): 1,
        (name, "granted"): 1,
    }


# What is offered.


def offered(*hooks: str, encrypted: bool = True, wanted: tuple[str, ...] = ()) -> tuple[str, ...]:
    plugin = type("Some", (Plugin,), {each: vars(Directory)[each] for each in hooks})()
    chain = Chain([Loaded(plugin)])
    config = load(CONFIG)
    table = msgspec.structs.replace(config.listeners[0], auth="tls")
    return mechanisms(table, chain, wanted or config.login.mechanisms, encrypted=encrypted)


def test_what_plugins_can_judge_is_offered_the_strongest_first() -> None:
    everything = ("on_authenticate", "on_verifier", "on_token")
    assert offered(*everything) == ("SCRAM-SHA-256", "OAUTHBEARER", "XOAUTH2", "PLAIN", "LOGIN")
    assert offered(*everything, encrypted=False) == ()
    assert offered("on_authenticate") == ("PLAIN", "LOGIN")
    assert offered("on_token") == ("OAUTHBEARER", "XOAUTH2")
    plus = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS")
    assert offered(*everything, wanted=plus) == (*plus[::-1][:2], "PLAIN")
    assert offered("on_authenticate", wanted=plus) == ("PLAIN",)


async def test_who_cannot_be_told_by_its_certificate_is_offered_no_binding() -> None:
    config = load(CONFIG + "login: {mechanisms: [SCRAM-SHA-256-PLUS, SCRAM-SHA-256]}\n")
    reception = Server(Directory(), config=config, auth="tls").session._reception
    both = ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256")
    for octets, expected in ((b"hash", both), (b"", both[1:])):
        encryption = Encryption(version="TLSv1.3", cipher="x", server_end_point=octets)
        assert reception.offer_to(encryption).mechanisms == expected
    assert reception.offer_to(None).mechanisms == ()


async def bound(nursery: trio.Nursery, octets: bytes = b"our certificate") -> Server:
    """A client on a connection that is encrypted already; no octet of it is."""
    config = load(CONFIG + "login: {mechanisms: [SCRAM-SHA-256-PLUS, SCRAM-SHA-256]}\n")
    made = Server(Directory(), config=config, auth="always", tls="off")
    session = made.session
    encryption = Encryption(version="TLSv1.3", cipher="x", server_end_point=octets)
    session._view.encryption = encryption
    session._wire.smtp = type(session._wire.smtp)(offer=session._reception.offer_to(encryption))
    nursery.start_soon(made.run)
    await made.play(GREETED)
    return made


async def test_a_login_is_bound_to_its_connection(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    plus = "SCRAM-SHA-256-PLUS"
    server = await bound(nursery)
    assert await scram(server, Client(binding=b"another"), plus) == WRONG
    assert await scram(server, Client(binding=b"our certificate"), plus) == (
        "235 2.7.0 you are logged in"
    )


async def test_a_client_that_was_not_told_of_binding_is_not_let_in(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = await bound(nursery)
    client = Client()
    client.header = "y,,"
    assert await scram(server, client) == WRONG


# Guesses (fault 15).


async def test_fault_15_who_guesses_is_known_again_on_the_next_connection(
    nursery: trio.Nursery, autojump_clock: MockClock, directory: Directory
) -> None:
    server = await serving(nursery, directory)
    for number in range(5):
        server = await serving(nursery, house=server.house)
        await server.play(f"C: AUTH PLAIN {plain('ann', f'guess{number}')}\nS: {WRONG}")
        await server.play("C: QUIT\nS: 221 ...\nE:")
    asked = len(directory.asked)
    for exchange in (
        f"AUTH PLAIN {plain()}",
        f"AUTH SCRAM-SHA-256 {Client().first}",
        f"AUTH OAUTHBEARER {b64('n,a=ann,' + chr(1) + 'auth=Bearer abc' + chr(1) * 2)}",
    ):
        server = await serving(nursery, house=server.house)
        began = trio.current_time()
        await server.play(f"C: {exchange}\nS: {LOCKED}")
        assert trio.current_time() - began == pytest.approx(5)
    assert len(directory.asked) == asked, "no password is looked at meanwhile"
    assert server.house.meters.logins["locked"] == 3
    # It is this client alone.
    other = await serving(nursery, house=server.house, client="192.0.2.77")
    await other.play(f"C: AUTH PLAIN {plain()}\nS: 235 ...")


class Slow(Directory):
    """Takes its time."""

    @override
    async def on_authenticate(
        self, session: Session, credentials: Credentials
    ) -> Granted | Verdict:
        found = await super().on_authenticate(session, credentials)
        await trio.sleep(1)
        return found


async def test_of_many_who_guess_at_once_no_more_are_judged_than_one_after_the_other(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    first = await serving(nursery, Slow())
    others = [await serving(nursery, house=first.house) for _ in range(19)]
    for number, server in enumerate([first, *others]):
        said = plain("ann", f"guess{number}") if server is not others[-1] else plain()
        await server.client.send_all(f"AUTH PLAIN {said}\r\n".encode())
        await trio.sleep(0.01)
    answers = [await server.line() for server in (first, *others)]
    assert answers == [WRONG] * 5 + [LOCKED] * 15, "the right one among them"


async def test_of_many_who_keep_their_proofs_for_one_moment_no_more_are_judged(
    nursery: trio.Nursery, autojump_clock: MockClock, directory: Directory
) -> None:
    first = await serving(nursery, directory)
    others = [await serving(nursery, house=first.house) for _ in range(19)]
    clients = [*(Client("ann", f"guess{number}") for number in range(19)), Client()]
    proofs: list[str] = []
    for server, client in zip((first, *others), clients, strict=True):
        await server.client.send_all(f"AUTH SCRAM-SHA-256 {client.first}\r\n".encode())
        proofs.append(client.final(await challenge(server)))
    for server, proof in zip((first, *others), proofs, strict=True):
        await server.client.send_all(f"{proof}\r\n".encode())
        await trio.sleep(0.01)
    answers = [await server.line() for server in (first, *others)]
    assert answers == [WRONG] * 5 + [LOCKED] * 15, "and nobody has seen our proof"


async def test_fault_15_names_are_guessed_from_one_network_only_so_often(
    nursery: trio.Nursery, autojump_clock: MockClock, directory: Directory
) -> None:
    server = await serving(nursery, directory)
    for number in range(20):
        server = await serving(nursery, house=server.house)
        await server.play(f"C: AUTH PLAIN {plain(f'user{number}', 'x')}\nS: {WRONG}")
    server = await serving(nursery, house=server.house)
    await server.play(f"C: AUTH PLAIN {plain()}\nS: {LOCKED}")


async def test_an_owner_at_home_logs_in_whatever_strangers_try(
    nursery: trio.Nursery, autojump_clock: MockClock, directory: Directory
) -> None:
    home = await serving(nursery, directory)
    await home.play(f"C: AUTH PLAIN {plain()}\nS: 235 ...")
    for number in range(20):
        client = f"203.0.113.{number}"
        server = await serving(nursery, house=home.house, client=client)
        await server.play(f"C: AUTH PLAIN {plain('ann', 'x')}\nS: {WRONG}")
    server = await serving(nursery, house=home.house, client="203.0.113.200")
    await server.play(f"C: AUTH PLAIN {plain()}\nS: {LOCKED}")
    home = await serving(nursery, house=home.house)
    await home.play(f"C: AUTH PLAIN {plain()}\nS: 235 ...")


async def test_other_rules_hold_after_a_reload() -> None:
    house = Server(Directory()).house
    config = load(CONFIG + "login: {failures: 1/1 h}\n")
    house.reconfigured(config).settle()
    house.guesses.wrong("192.0.2.1", "ann")
    assert house.guesses.locked("192.0.2.1", "bob") is not None
    assert isinstance(house.guesses, Guesses)
    assert house.clock() == NOW


# What is told.


async def test_what_becomes_of_logins_stands_in_the_log_and_no_secret_does(
    nursery: trio.Nursery, autojump_clock: MockClock, lines: io.StringIO
) -> None:
    server = await serving(nursery, Directory())
    await scram(server, Client("nobody", "wrong"))
    await server.play(f"C: AUTH PLAIN {plain('x' * 200, 'wr0ng')}\nS: {WRONG}")
    await server.play(
        f"C: AUTH XOAUTH2 {b64('user=ann' + chr(1) + 'auth=Bearer t0ken' + chr(1) * 2)}"
    )
    await challenge(server)
    await server.client.send_all(b"\r\n")
    assert await server.line() == WRONG
    server = await serving(nursery, house=server.house)
    for number in range(5):
        server.house.guesses.wrong("192.0.2.1", "ann", str(number))
    await server.play(f"C: AUTH PLAIN {plain()}\nS: {LOCKED}")
    other = await serving(nursery, house=server.house, client="192.0.2.9")
    assert await scram(other, Client()) == "235 2.7.0 you are logged in"
    events = [json.loads(line) for line in lines.getvalue().splitlines()]
    told = [
        (each["event"], each["mechanism"], each["login"], each.get("why"))
        for each in events
        if each["event"].startswith(("client.login", "client.auth"))
    ]
    assert told == [
        ("client.login_refused", "SCRAM-SHA-256", "nobody", "unknown"),
        ("client.login_refused", "PLAIN", "x" * 80, "refused"),
        ("client.login_refused", "XOAUTH2", "ann", "refused"),
        ("client.login_locked", "PLAIN", "ann", "tries"),
        ("client.authenticated", "SCRAM-SHA-256", "ann", None),
    ]
    written = lines.getvalue() + "".join(
        said.text for each in transcripts(server.house.dialogues, "") for said in each.said
    )
    for secret in ("wr0ng", "t0ken", plain(), Client().first):
        assert secret not in written
        assert b64(secret) not in written
