"""Listeners of the kind "submission" (RFC 6409): who may say what there, and what is completed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from typing_extensions import override

from elemta.config import ConfigError, load
from elemta.listener.accept import Listeners
from elemta.plugins import (
    CONTINUE,
    AddHeader,
    Chain,
    Granted,
    Loaded,
    Plugin,
    Reject,
    load_for,
    rewritten,
)
from tests.dialogue import CONFIG, TRUSTED, Server

if TYPE_CHECKING:
    from collections.abc import Sequence

    import trio
    from trio.testing import MockClock

    from elemta.message import HeaderScanner
    from elemta.plugins import Content, Session, Transaction, Verdict
    from elemta.protocol import Credentials
    from tests.fakes import FakeQueue

#: alice, with any password. `Server` has domains of ours: here.example, any.example.
LOGIN = "C: AUTH PLAIN AGFsaWNlAHg="
GREETED = """
S: 220 ...
C: EHLO [192.0.2.1]
S: 250 ...
"""
LOGGED_IN = f"{GREETED}{LOGIN}\nS: 235 ...\n"
ENVELOPE = """
C: MAIL FROM:<alice@here.example>
C: RCPT TO:<x@far.example>
C: DATA
S: 250 ...
S: 250 ...
S: 354 ...
"""
COMPLETE = """
C: Date: Sun, 22 Nov 2026 00:00:00 +0000
C: Message-ID: <1@here.example>
C: From: Alice <alice@here.example>
"""


class Users(Plugin):
    """Lets anybody in under the name that he says."""

    name = "users"

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses

    @override
    async def on_authenticate(
        self, session: Session, credentials: Credentials
    ) -> Granted | Verdict:
        if credentials.user == "nobody":
            return Reject((7, 8), "no")
        return Granted(credentials.user, self._addresses)


@pytest.fixture
async def server(nursery: trio.Nursery, autojump_clock: MockClock) -> Server:
    made = Server(Users(), kind="submission", auth="always")
    nursery.start_soon(made.run)
    return made


def content(queue: FakeQueue) -> str:
    """What is stored, without what stands above it."""
    (kept,) = queue.kept
    return kept.content.decode().partition("22 Nov 2026 00:00:00 +0000\r\n")[2]


# Who may.


async def test_who_has_not_logged_in_may_not_even_begin(server: Server) -> None:
    await server.play(
        f"""{GREETED}
        C: MAIL FROM:<alice@here.example>
        S: 530 5.7.0 Authentication required
        C: RCPT TO:<bob@here.example>
        S: 503 ...
        C: MAIL FROM:<>
        S: 530 5.7.0 Authentication required
        {LOGIN}
        S: 235 ...
        C: MAIL FROM:<alice@here.example>
        S: 250 ...
        C: RCPT TO:<x@far.example>
        S: 250 ...
        C: RCPT TO:<nobody@here.example>
        S: 550 5.1.1 no such mailbox
        """
    )
    assert server.house.meters.refusals["not_logged_in"] == 2


async def test_a_wrong_password_opens_nothing(server: Server, autojump_clock: MockClock) -> None:
    await server.play(
        f"""{GREETED}
        C: AUTH PLAIN AG5vYm9keQB4
        S: 535 ...
        C: MAIL FROM:<alice@here.example>
        S: 530 5.7.0 Authentication required
        """
    )


async def test_the_network_of_a_client_is_no_login(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    made = Server(Users(), kind="submission", auth="always", client=TRUSTED)
    nursery.start_soon(made.run)
    await made.play(f"{GREETED}C: MAIL FROM:<alice@here.example>\nS: 530 5.7.0 ...")


async def test_helo_alone_does_not_let_log_in(server: Server) -> None:
    await server.play(
        """
        S: 220 ...
        C: HELO client.example
        S: 250 ...
        C: MAIL FROM:<alice@here.example>
        S: 530 ...
        """
    )


async def test_rset_forgets_the_message_and_not_the_login(server: Server) -> None:
    await server.play(
        f"""{LOGGED_IN}
        C: MAIL FROM:<alice@here.example>
        S: 250 ...
        C: RSET
        S: 250 ...
        C: MAIL FROM:<alice@here.example>
        S: 250 ...
        """
    )


# What is made of it.


async def test_what_a_message_lacks_is_added_and_bcc_is_taken_out(server: Server) -> None:
    await server.play(
        f"""{LOGGED_IN}{ENVELOPE}
        C: From: Alice <alice@here.example>
        C: Sender: alice@here.example
        C: bcc: x@far.example,
        C:  y@far.example
        C: Subject:   as it  is
        C: Bcc : z@far.example
        C: Resent-Bcc: z@far.example
        C:
        C: Bcc: this is text
        C: .
        S: 250 ...
        """.replace("C:\n", "C: \n")
    )
    assert content(server.queue) == (
        "From: Alice <alice@here.example>\r\n"
        "Sender: alice@here.example\r\n"
        "Subject:   as it  is\r\n"
        "Date: Sun, 22 Nov 2026 00:00:00 +0000\r\n"
        "Message-ID: <Q1@mx.example>\r\n"
        "\r\n"
        "Bcc: this is text\r\n"
    )
    (kept,) = server.queue.kept
    assert [(each.who, each.action) for each in kept.envelope.notes] == [
        ("listener", "add header Date"),
        ("listener", "add header Message-ID"),
        ("listener", "remove header Bcc"),
        ("listener", "remove header Resent-Bcc"),
    ]
    assert kept.envelope.origin.protocol == "ESMTPA"


async def test_a_message_that_lacks_nothing_stays_as_it_is(server: Server) -> None:
    await server.play(f"{LOGGED_IN}{ENVELOPE}{COMPLETE}C: \nC: hello\nC: .\nS: 250 ...")
    (kept,) = server.queue.kept
    assert kept.envelope.notes == ()
    assert kept.content.endswith(
        b"\r\nDate: Sun, 22 Nov 2026 00:00:00 +0000\r\nMessage-ID: <1@here.example>\r\n"
        b"From: Alice <alice@here.example>\r\n\r\nhello\r\n"
    )


async def test_a_message_of_nothing_but_a_header_is_completed(server: Server) -> None:
    await server.play(
        f"{LOGGED_IN}{ENVELOPE}C: From: alice@here.example\nC: Bcc: x@y.example\nC: .\nS: 250 ..."
    )
    assert content(server.queue) == (
        "From: alice@here.example\r\n"
        "Date: Sun, 22 Nov 2026 00:00:00 +0000\r\n"
        "Message-ID: <Q1@mx.example>\r\n"
    )


async def test_mail_that_others_bring_is_not_completed(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    made = Server()
    nursery.start_soon(made.run)
    await made.play(
        f"""{GREETED}
        C: MAIL FROM:<a@b.example>
        C: RCPT TO:<bob@here.example>
        C: DATA
        S: 250 ...
        S: 250 ...
        S: 354 ...
        C: Bcc: x@far.example
        C: .
        S: 250 ...
        """
    )
    assert content(made.queue) == "Bcc: x@far.example\r\n"


@pytest.mark.parametrize("alone", [False, True])
async def test_plugins_see_what_was_added(
    alone: bool, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    seen: list[bytes] = []

    class Signer(Users):
        """Looks at what would be signed."""

        @override
        async def on_header(self, transaction: Transaction, header: HeaderScanner) -> Verdict:
            made = [each.change for each in transaction.made]
            seen.append(rewritten(header.header, made))
            return CONTINUE

    server = Server(Signer(), kind="submission", auth="always")
    nursery.start_soon(server.run)
    body = "" if alone else "C: \nC: hello\n"
    await server.play(
        f"{LOGGED_IN}{ENVELOPE}C: From: alice@here.example\nC: Bcc: x@y.example\n{body}C: .\n"
        "S: 250 ..."
    )
    assert seen == [
        b"From: alice@here.example\r\nDate: Sun, 22 Nov 2026 00:00:00 +0000\r\n"
        b"Message-ID: <Q1@mx.example>\r\n"
    ]


async def test_what_is_signed_is_what_is_stored(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    shown: list[bytes] = []

    class Signer(Users):
        """Looks at what it would sign."""

        @override
        async def on_sign(
            self, transaction: Transaction | None, content: Content
        ) -> Sequence[AddHeader]:
            shown.append(await content.read())
            return [AddHeader("X-Signed", "yes")]

    server = Server(Signer(), kind="submission", auth="always")
    nursery.start_soon(server.run)
    await server.play(
        f"{LOGGED_IN}{ENVELOPE}C: From: alice@here.example\nC: Bcc: x@y.example\nC: \nC: hello\n"
        "C: .\nS: 250 ..."
    )
    (kept,) = server.queue.kept
    assert [b"X-Signed: yes\r\n" + each for each in shown] == [kept.content]
    assert b"\r\nDate: " in kept.content
    assert b"\r\nMessage-ID: " in kept.content
    assert b"Bcc" not in kept.content


async def test_a_large_message_is_completed_on_the_disk(server: Server) -> None:
    lines = "C: " + "x" * 70
    await server.play(f"{LOGGED_IN}{ENVELOPE}C: From: alice@here.example\nC: ")
    for _ in range(100):
        await server.play("\n".join([lines] * 50))
    await server.play("C: .\nS: 250 ...")
    assert server.queue.streamed == 1
    head, _, body = content(server.queue).partition("\r\n\r\n")
    assert head.endswith("Message-ID: <Q1@mx.example>")
    assert body == ("x" * 70 + "\r\n") * 5000


async def test_octets_beyond_ascii_are_taken_as_they_are(server: Server) -> None:
    await server.play(
        f"""{LOGGED_IN}{ENVELOPE}
        O: From: Älice <alice@here.example>\\r\\n\\r\\n
        C: grüße
        C: .
        S: 250 ...
        """
    )
    assert content(server.queue).startswith("From: Älice <alice@here.example>\r\nDate: ")


# Whether such a listener can be.


SUBMISSION = CONFIG.replace(
    "    address: 127.0.0.1:0\n",
    "    address: ':0'\n    kind: submission\n"
    "tls: {certificates: [{certificate: c.pem, key: k.pem}]}\n",
)


def test_a_submission_listener_has_defaults_of_its_own() -> None:
    (table,) = load(SUBMISSION).listeners
    assert (table.logins, table.own_senders, table.submission) == ("tls", True, True)
    (table,) = load(CONFIG).listeners
    assert (table.logins, table.own_senders, table.submission) == ("off", False, False)


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        (
            "auth: off",
            "x.yaml:7:11: listeners[0].auth: expected tls or always: on a submission listener "
            "nobody sends without logging in",
        ),
        (
            "tls: off",
            "listeners[0].auth: nobody can log in without a certificate: expected `tls` of this "
            "listener not to be off; or `auth: always`, where nobody but this machine comes",
        ),
    ],
)
def test_one_that_lets_nobody_log_in_is_a_mistake(keys: str, complaint: str) -> None:
    text = SUBMISSION.replace("kind: submission", f"kind: submission\n    {keys}")
    with pytest.raises(ConfigError) as caught:
        load(text, "x.yaml")
    assert str(caught.value).endswith(complaint)


def test_passwords_only_encrypted_take_a_certificate() -> None:
    bare = CONFIG.replace("address: 127.0.0.1:0", "address: ':0'\n    kind: submission")
    with pytest.raises(ConfigError, match="without a certificate: expected one in `tls`; or"):
        load(bare)
    with pytest.raises(ConfigError, match=r"without a certificate: expected one in `tls`$"):
        load(bare.replace("kind: submission", "auth: tls"))
    load(bare.replace("kind: submission", "kind: submission\n    auth: always"))


@pytest.mark.parametrize(
    "plugins",
    ["", "plugins: [{name: tests.listener.test_submission_listener:Users, listeners: [api]}]"],
)
def test_one_where_no_plugin_knows_people_is_a_mistake(plugins: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_for(load(SUBMISSION + plugins))
    (mistake,) = caught.value.mistakes
    assert mistake.place == "listeners[0].kind"
    assert mistake.problem.startswith("nobody can log in here: none of `plugins`")


@pytest.mark.parametrize("mechanisms", ["[]", "[OAUTHBEARER, XOAUTH2]", "[SCRAM-SHA-256]"])
def test_one_where_nobody_can_judge_what_is_offered_is_a_mistake(mechanisms: str) -> None:
    plugins = "plugins: [{name: tests.listener.test_submission_listener:Users}]"
    text = f"{SUBMISSION}login: {{mechanisms: {mechanisms}}}\n{plugins}"
    with pytest.raises(ConfigError) as caught:
        load_for(load(text))
    (mistake,) = caught.value.mistakes
    assert mistake.place == "login.mechanisms"
    assert mistake.problem.startswith("nobody can log in at mx: none of `plugins` there judges")


def test_one_where_somebody_does_is_none() -> None:
    plugins = "plugins: [{name: tests.listener.test_submission_listener:Users, listeners: [mx]}]"
    load_for(load(SUBMISSION + plugins))
    load_for(load(CONFIG))


@pytest.mark.parametrize(
    ("address", "warned"),
    [
        ("127.0.0.1:0", False),
        ("localhost:0", False),
        ("[::1]:0", False),
        ("systemd:mail", False),
        (":0", True),
        ("192.0.2.1:25", True),
        ("mx.example:25", True),
    ],
)
async def test_passwords_in_clear_from_other_machines_are_warned_of(
    address: str, warned: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    house = Server(Users(), kind="submission", auth="always", address=address).house
    Listeners([], house)
    assert ("login.in_clear" in capsys.readouterr().err) is warned


# Port 25.


async def test_a_listener_for_everybody_lets_nobody_log_in_unless_told(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    made = Server(Users())
    nursery.start_soon(made.run)
    await made.expect("220 ...")
    await made.client.send_all(b"EHLO client.example\r\n")
    lines = [await made.line()]
    while lines[-1].startswith("250-"):
        lines.append(await made.line())
    assert not any("AUTH" in each for each in lines)
    await made.play("C: AUTH PLAIN AGFsaWNlAHg=\nS: 502 ...")


async def test_fault_13_no_login_is_granted_where_logins_are_off_and_so_nothing_is_relayed(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """The original's authenticator said yes to all when it was switched off; then it relayed."""
    made = Server(Users(), auth="off")
    nursery.start_soon(made.run)
    await made.play(
        f"""{GREETED}
        {LOGIN}
        S: 502 ...
        C: AUTH LOGIN
        S: 502 ...
        C: MAIL FROM:<alice@here.example>
        S: 250 ...
        C: RCPT TO:<x@far.example>
        S: 550 5.7.1 relay access denied
        """
    )


async def test_fault_14_no_password_is_taken_in_clear(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """The original offered AUTH PLAIN on every connection, encrypted or not."""
    asked: list[str] = []

    class Listening(Users):
        @override
        async def on_authenticate(
            self, session: Session, credentials: Credentials
        ) -> Granted | Verdict:
            asked.append(credentials.user)
            return Granted(credentials.user)

    made = Server(Listening(), kind="submission")  # `auth` as it is if nobody says anything
    nursery.start_soon(made.run)
    await made.play(
        f"""{GREETED}
        {LOGIN}
        S: 502 ...
        C: MAIL FROM:<alice@here.example>
        S: 530 ...
        """
    )
    assert asked == []


def test_a_plugin_that_is_switched_off_may_be_switched_on_again() -> None:
    plugins = "plugins: [{name: tests.listener.test_submission_listener:Users, enabled: false}]"
    assert Chain(load_for(load(SUBMISSION + plugins))).at("mx").authenticate == ()
    assert Loaded(Users()).enabled
