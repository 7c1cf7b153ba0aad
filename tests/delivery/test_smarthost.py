"""Smarthosts: those who prove who they are, and want to know who we are."""

from __future__ import annotations

import base64
import io
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import pytest
import trio

from elemta import log
from elemta.config import load
from elemta.control.tracing import transcripts
from elemta.delivery import login
from elemta.delivery.keyring import Keyring
from elemta.delivery.routing import Router
from elemta.delivery.security import REFUSED
from elemta.protocol import Mailbox
from elemta.queue import Filter, Reroute, Retry, State
from tests.delivery.world import CONFIG, on_virtual_time, to, world
from tests.net.certificates import authority, server_context, trusted_context
from tests.protocol.test_sasl_client import CLIENT_FINAL, NONCE, SERVER_FINAL, SERVER_FIRST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from elemta.testing.hosts import Host
    from tests.delivery.world import World

ONE, TWO, THREE = "192.0.2.1", "192.0.2.2", "192.0.2.3"
#: As base64: ``\0user\0pencil``; ``user``; ``pencil``.
PLAIN, USER, PASSWORD = "AHVzZXIAcGVuY2ls", "dXNlcg==", "cGVuY2ls"
DELIVERED, DEFERRED = State.DELIVERED, State.DEFERRED
SENT: Final = ["EHLO mx.us.example", "STARTTLS", "EHLO mx.us.example"]

pytestmark = pytest.mark.trio(run=on_virtual_time)


def text(tmp_path: Path, via: str = '"smtp://a.example:587", "smtp://b.example:587"') -> str:
    """A configuration with smarthosts that are verified, and want a login."""
    (tmp_path / "ca.pem").write_bytes(authority().cert_pem.bytes())
    (tmp_path / "password").write_text("pencil\n")
    (tmp_path / "password").chmod(0o600)
    return CONFIG + (
        f'  - match: "*"\n    via: [{via}]\n    authorities: {tmp_path / "ca.pem"}\n'
        f"    login: {{user: user, password_file: {tmp_path / 'password'}}}\n"
    )


def b64(octets: bytes) -> str:
    return base64.b64encode(octets).decode()


@asynccontextmanager
async def smart(tmp_path: Path, config: str | None = None) -> AsyncIterator[World]:
    async with world(tmp_path, config=load(config or text(tmp_path))) as here:
        here.zone.hosts |= {"a.example": [ONE], "b.example": [TWO]}
        yield here


def smarthost(
    here: World, address: str, name: str, auth: str = "PLAIN", **says: str | None
) -> Host:
    usual: dict[str, str | None] = {
        "EHLO": "250-host\r\n250-AUTH NTLM\r\n250 STARTTLS",  # in clear: somebody else's idea
        "STARTTLS": "220 go",
        "TLS EHLO": f"250-host\r\n250 AUTH {auth}",
        "AUTH": "235 2.7.0 welcome",
    }
    host = here.net.host(address, **usual | says)
    host.tls = trusted_context(name)
    return host


async def sent(here: World, sender: Mailbox | None = None) -> list[State]:
    id_ = await here.send("bob@far.example", sender=sender)
    await trio.sleep(5)
    return here.states(id_)


async def test_it_is_logged_in_behind_tls_that_is_verified(tmp_path: Path) -> None:
    async with smart(tmp_path) as here:
        host = smarthost(here, ONE, "a.example")
        id_ = await here.send("bob@far.example")
        await trio.sleep(5)
        [attempt] = here.timeline(id_).attempts
        assert here.states(id_) == [DELIVERED]
        assert attempt.tls == f"{host.secret} verified"
        assert host.heard[:4] == [*SENT, f"AUTH PLAIN {PLAIN}"]
        (transcript,) = transcripts(here.dialogues, id_)
        said = [each.text for each in transcript.said]
        assert "AUTH PLAIN ***" in said
        assert f"(encrypted: {host.secret} verified)" in said
        assert not any(PLAIN in each or "pencil" in each for each in said)
        meters = here.delivery._meters
        assert (meters.tls_verified, dict(meters.host_logins)) == (1, {"granted": 1})


async def test_the_best_mechanism_is_taken_and_both_sides_prove_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login.secrets, "token_urlsafe", lambda _: NONCE)  # type: ignore[attr-defined] # it is a module

    says = {
        "AUTH": f"334 {b64(SERVER_FIRST)}",
        b64(CLIENT_FINAL): f"334 {b64(SERVER_FINAL)}",
        "": "235 2.7.0 welcome",
    }
    async with smart(tmp_path) as here:
        host = smarthost(here, ONE, "a.example", "PLAIN SCRAM-SHA-256 LOGIN", **says)
        assert await sent(here) == [DELIVERED]
        assert host.heard[3:6] == [
            f"AUTH SCRAM-SHA-256 {b64(b'n,,n=user,r=' + NONCE.encode())}",
            *(b64(CLIENT_FINAL), ""),
        ]
        assert not any("PLAIN" in line for line in host.heard)
        ((dialogue, *_),) = [here.dialogues.open]
        said = [each.words for each in dialogue.all_said()]
        assert not any(b64(SERVER_FINAL) in str(each) for each in said)
        assert b"334 ***" in b"".join(each for each in said if isinstance(each, bytes))


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ({"AUTH": "334 " + b64(b"nonsense")}, "as the host says something that is no"),
        (
            {
                "AUTH": f"334 {b64(SERVER_FIRST)}",
                b64(CLIENT_FINAL): "334 " + b64(b"v=" + b"A" * 43 + b"="),
            },
            "as the host does not know our password, or is another",
        ),
        (
            {
                "AUTH": f"334 {b64(SERVER_FIRST)}",
                b64(CLIENT_FINAL): "235 2.7.0 never mind",
            },
            "lets us in without a proof",
        ),
    ],
    ids=str,
)
async def test_a_host_that_does_not_know_the_password_either_gets_no_mail(
    says: dict[str, str | None], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login.secrets, "token_urlsafe", lambda _: NONCE)  # type: ignore[attr-defined] # it is a module
    async with smart(tmp_path, text(tmp_path, '"smtp://a.example:587"')) as here:
        says = {"*": "501 5.7.0 given up", **says}
        host = smarthost(here, ONE, "a.example", "PLAIN SCRAM-SHA-256", **says)
        id_ = await here.send("bob@far.example")
        await trio.sleep(5)
        assert here.states(id_) == [DEFERRED]
        [reply] = here.replies(id_)
        assert reply.startswith("451 4.7.8 ")
        assert why in reply
        assert not any(line.startswith(("MAIL", "AUTH PLAIN")) for line in host.heard)


async def test_login_is_a_word_for_each_question(tmp_path: Path) -> None:
    says = {
        "AUTH": "334 VXNlcm5hbWU6",
        USER: "334 UGFzc3dvcmQ6",
        PASSWORD: "235 2.7.0 welcome",
    }
    async with smart(tmp_path) as here:
        host = smarthost(here, ONE, "a.example", "LOGIN", **says)
        id_ = await here.send("bob@far.example")
        await trio.sleep(5)
        assert here.states(id_) == [DELIVERED]
        assert host.heard[3:6] == ["AUTH LOGIN", USER, PASSWORD]
        (transcript,) = transcripts(here.dialogues, id_)
        said = [each.text for each in transcript.said]
        assert not any(USER in each or PASSWORD in each for each in said)


async def test_a_login_that_is_refused_leads_to_the_next_host_and_is_an_error(
    tmp_path: Path,
) -> None:
    stream = io.StringIO()
    log.configure("json", stream=stream)
    async with smart(tmp_path) as here:
        here.zone.hosts["a.example"] = [ONE, THREE]
        refusing = {"AUTH": "535 5.7.8 who are you?"}
        first = smarthost(here, ONE, "a.example", **refusing)
        also = smarthost(here, THREE, "a.example", **refusing)
        second = smarthost(here, TWO, "b.example")
        assert await sent(here) == [DELIVERED]
        assert len(second.taken) == 1
        assert first.sessions + also.sessions == 1, "one address of a host speaks for all"
        assert dict(here.delivery._meters.host_logins) == {"granted": 1, "refused": 1}
    log.configure()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    [told] = [line for line in lines if line["event"] == "delivery.login_refused"]
    assert (told["level"], told["user"]) == ("error", "user")
    assert told["reply"] == "535 5.7.8 who are you?"
    assert "pencil" not in stream.getvalue()


async def test_where_every_login_is_refused_mail_waits_and_the_hosts_are_left_alone(
    tmp_path: Path,
) -> None:
    async with smart(tmp_path, text(tmp_path, '"smtp://a.example:587"')) as here:
        host = smarthost(here, ONE, "a.example", AUTH="535 5.7.8 who are you?")
        ids = [await here.send("bob@far.example") for _ in range(20)]
        await trio.sleep(20)
        assert host.sessions <= 2, "two at once, and then nobody: no hammering"
        [lane] = here.queue.destinations()
        assert lane.parked_until is not None
        assert "535 5.7.8 who are you?" in lane.error
        host.says["AUTH"] = "235 2.7.0 welcome"
        await trio.sleep(1200)
        assert [here.states(each) for each in ids] == [[DELIVERED]] * 20


@pytest.mark.parametrize("answer", ["454 4.7.0 later", "421 4.3.2 busy", None])
async def test_a_login_that_fails_for_now_leads_to_the_next_host(
    answer: str | None, tmp_path: Path
) -> None:
    async with smart(tmp_path) as here:
        smarthost(here, ONE, "a.example", AUTH=answer)
        second = smarthost(here, TWO, "b.example")
        assert await sent(here) == [DELIVERED]
        assert len(second.taken) == 1


@pytest.mark.parametrize("auth", ["NTLM GSSAPI", ""])
async def test_where_no_way_to_log_in_is_known_mail_waits(auth: str, tmp_path: Path) -> None:
    async with smart(tmp_path, text(tmp_path, '"smtp://a.example:587"')) as here:
        host = smarthost(here, ONE, "a.example", auth)
        id_ = await here.send("bob@far.example")
        await trio.sleep(5)
        assert here.states(id_) == [DEFERRED]
        [reply] = here.replies(id_)
        assert reply.startswith("451 4.7.4 a login is wanted here, and of ways to log in the host")
        assert reply.endswith("offers GSSAPI NTLM" if auth else "offers none at all")
        assert not any(line.startswith(("MAIL", "AUTH")) for line in host.heard)


OTHERS = [
    pytest.param({"tls": server_context("a.example")}, "unable to get local issuer", id="wrong CA"),
    pytest.param({"tls": trusted_context("evil.example")}, "hostname mismatch", id="another name"),
    pytest.param({"EHLO": "250-host\r\n250 AUTH PLAIN"}, "does not offer it", id="no STARTTLS"),
    pytest.param({"STARTTLS": "454 not now"}, "STARTTLS was refused", id="refused"),
    pytest.param({"STARTTLS": "220 go\r\n235 in"}, "octets behind the 220", id="one segment"),
    pytest.param({"tls": None}, "TLS cannot be had", id="in clear behind the 220"),
]


@pytest.mark.parametrize(("wrong", "why"), OTHERS)
async def test_who_does_not_prove_who_he_is_gets_neither_mail_nor_login(
    wrong: dict[str, object], why: str, tmp_path: Path
) -> None:
    async with smart(tmp_path, text(tmp_path, '"smtp://a.example:587"')) as here:
        says = {key: str(value) for key, value in wrong.items() if key != "tls"}
        host = smarthost(here, ONE, "a.example", **says)
        if "tls" in wrong:
            host.tls = wrong["tls"]  # type: ignore[assignment] # a context, or None
        id_ = await here.send("bob@far.example")
        for _ in range(3):  # no memory of failures makes it go in clear later
            await trio.sleep(1200)
            assert here.states(id_) == [DEFERRED]
        assert why in here.replies(id_)[0]
        assert here.replies(id_)[0].startswith("451 4.7.")
        assert not any(line.startswith(("MAIL", "AUTH")) for line in host.heard)
        # And where somebody else can be trusted, the mail goes there.
        host.tls, host.says["EHLO"] = trusted_context("a.example"), "250-host\r\n250 STARTTLS"
        host.says["STARTTLS"] = "220 go"
        await trio.sleep(7200)
        assert here.states(id_) == [DELIVERED]


async def test_a_host_that_has_refused_a_login_is_not_asked_again_for_a_while(
    tmp_path: Path,
) -> None:
    async with smart(tmp_path) as here:
        first = smarthost(here, ONE, "a.example", AUTH="535 5.7.8 who are you?")
        second = smarthost(here, TWO, "b.example")
        for _ in range(4):  # each on a new connection
            assert await sent(here) == [DELIVERED]
            await trio.sleep(65)
        assert (first.sessions, second.sessions) == (1, 4)
        second.down = OSError("down")
        id_ = await here.send("bob@far.example")
        await trio.sleep(5)
        assert here.replies(id_)[0].startswith("451 4.4.1 cannot connect to b.example")
        await trio.sleep(REFUSED)
        first.says["AUTH"] = "235 2.7.0 welcome"
        await trio.sleep(1200)
        assert here.states(id_) == [DELIVERED]
        assert len(first.taken) == 1


async def test_a_reload_has_a_host_asked_again_whether_it_lets_us_in(tmp_path: Path) -> None:
    config = load(text(tmp_path, '"smtp://a.example:587"'))
    async with smart(tmp_path, text(tmp_path, '"smtp://a.example:587"')) as here:
        host = smarthost(here, ONE, "a.example", AUTH="535 5.7.8 who are you?")
        id_ = await here.send("bob@far.example")
        await trio.sleep(40)
        host.says["AUTH"] = "235 2.7.0 welcome"
        await here.queue.act(Retry(), Filter(), who="operator:root")
        await trio.sleep(40)
        assert here.states(id_) == [DEFERRED]
        told = here.replies(id_)[-1]
        assert told == (
            f"451 4.7.8 a.example[{ONE}]:587 has refused our login, and is not asked for 4 min "
            "more: 535 5.7.8 who are you?"
        )
        meeting = await here.delivery.meet(Router(config).route(to("bob@far.example"), None))
        assert isinstance(meeting.calls, tuple)
        assert meeting.calls[0].tls.startswith("not called for 4 min more, as it has refused our")
        here.delivery.configure(config, Router(config), Keyring(config))
        await here.queue.act(Retry(), Filter(), who="operator:root")
        await trio.sleep(200)
        assert here.states(id_) == [DELIVERED]


async def test_where_tls_fails_another_host_comes_before_another_address(tmp_path: Path) -> None:
    async with smart(tmp_path) as here:
        here.zone.hosts["a.example"] = [ONE, THREE, "2001:db8::1"]
        hosts = [smarthost(here, each, "evil.example") for each in here.zone.hosts["a.example"]]
        second = smarthost(here, TWO, "b.example")
        assert await sent(here) == [DELIVERED]
        assert len(second.taken) == 1
        assert sum(each.sessions for each in hosts) == 1


async def test_tls_that_fails_at_the_first_host_leads_to_the_second(tmp_path: Path) -> None:
    async with smart(tmp_path) as here:
        first = smarthost(here, ONE, "evil.example")
        second = smarthost(here, TWO, "b.example")
        assert await sent(here) == [DELIVERED]
        assert (first.heard, len(second.taken)) == (SENT[:2], 1)


async def test_a_host_may_be_encrypted_from_the_first_octet(tmp_path: Path) -> None:
    via = '"smtps://a.example", "smtp://b.example:587"'
    async with smart(tmp_path, text(tmp_path, via)) as here:
        first = smarthost(here, ONE, "evil.example")
        second = smarthost(here, TWO, "b.example")
        first.implicit = True
        assert await sent(here) == [DELIVERED]
        assert (first.heard, len(second.taken)) == ([], 1), "it is another"
        first.tls = trusted_context("a.example")
        await trio.sleep(120)
        assert await sent(here) == [DELIVERED]
        assert first.heard[:2] == [SENT[0], f"AUTH PLAIN {PLAIN}"]
        assert "STARTTLS" not in first.heard


async def test_a_port_for_tls_is_never_talked_to_in_clear(tmp_path: Path) -> None:
    config = CONFIG + '  - {match: "*", via: ["smtps://a.example"]}\n'
    async with smart(tmp_path, config) as here:
        host = here.net.host(ONE)  # it greets in clear
        id_ = await here.send("bob@far.example")
        await trio.sleep(1200)
        assert here.states(id_) == [DEFERRED]
        assert host.heard == []
        assert "TLS cannot be had" in here.replies(id_)[0]
        host.implicit = True  # nobody vouches for it, which is not demanded here
        await trio.sleep(3600)
        assert here.states(id_) == [DELIVERED]
        assert here.timeline(id_).attempts[-1].tls == host.secret


async def test_a_certificate_of_ours_is_shown_to_who_wants_one(tmp_path: Path) -> None:
    ours = authority().issue_cert("us.example")
    (tmp_path / "us.pem").write_bytes(ours.cert_chain_pems[0].bytes())
    (tmp_path / "us.key").write_bytes(ours.private_key_pem.bytes())
    (tmp_path / "us.key").chmod(0o600)
    bare = text(tmp_path, '"smtp://a.example:587"')
    async with smart(tmp_path, bare) as here:
        smarthost(here, ONE, "a.example").tls = trusted_context("a.example", client_wanted=True)
        assert await sent(here) == [DEFERRED]
    again = tmp_path / "again"
    again.mkdir()
    shown = bare + f"    certificate: {tmp_path / 'us.pem'}\n    key: {tmp_path / 'us.key'}\n"
    async with smart(again, shown) as here:
        smarthost(here, ONE, "a.example").tls = trusted_context("a.example", client_wanted=True)
        assert await sent(here) == [DELIVERED]


async def test_on_loopback_a_login_may_be_in_clear_where_that_is_written(tmp_path: Path) -> None:
    config = CONFIG + (
        '  - {match: "*", via: ["smtp://127.0.0.1:2500"], tls: "off",\n'
        "     login: {user: user, password: pencil}}\n"
    )
    async with smart(tmp_path, config) as here:
        says = {"EHLO": "250-host\r\n250 AUTH PLAIN", "AUTH": "235 welcome"}
        host = here.net.host("127.0.0.1", **says)
        assert await sent(here) == [DELIVERED]
        assert host.heard[1] == f"AUTH PLAIN {PLAIN}"


async def test_nobody_learns_the_password_whom_the_route_does_not_name(tmp_path: Path) -> None:
    async with smart(tmp_path) as here:
        smarthost(here, ONE, "a.example").down = OSError("down")
        smarthost(here, TWO, "b.example").down = OSError("down")
        other = smarthost(here, THREE, "c.example")
        here.zone.hosts["c.example"] = [THREE]
        id_ = await here.send("bob@far.example")
        await trio.sleep(5)
        await here.queue.act(Reroute(("smtp://c.example:587",)), Filter(), who="operator:root")
        await trio.sleep(5)
        assert here.states(id_) == [DELIVERED]
        assert len(other.taken) == 1
        assert not any(line.startswith("AUTH") for line in other.heard)


async def test_each_sender_has_a_smarthost_and_an_address_of_its_own(tmp_path: Path) -> None:
    config = CONFIG + (
        '  - {match: "*", senders: ["@shop.example"], via: ["smtp://a.example"],\n'
        "     source: [192.0.2.77]}\n"
        '  - {match: "*", senders: ["<>"], via: ["smtp://b.example"]}\n'
    )
    async with smart(tmp_path, config) as here:
        here.domain("far.example", ("mx.far.example", THREE))
        hosts = [here.net.host(address) for address in (ONE, TWO, THREE)]
        for sender in (Mailbox("sales", "shop.example"), None, Mailbox("ann", "else.example")):
            assert await sent(here, sender) == [DELIVERED]
        assert [each.taken[0].sender for each in hosts] == [
            *("sales@shop.example", "", "ann@else.example"),
        ]
        assert here.net.sources == ["192.0.2.77", None, None]


async def test_what_waits_for_one_sender_goes_where_a_new_configuration_has_it(
    tmp_path: Path,
) -> None:
    async with smart(tmp_path) as here:
        here.net.host(THREE)
        id_ = await here.send("bob@far.example", sender=Mailbox("sales", "shop.example"))
        await trio.sleep(5)
        assert here.states(id_) == [DEFERRED]
        new = load(
            CONFIG + '  - {match: "*", senders: ["@shop.example"], via: ["smtp://c.example"]}\n'
        )
        here.zone.hosts["c.example"] = [THREE]
        router = Router(new)
        here.delivery.configure(new, router, Keyring(new))
        here.queue.retune(policy=router.policy, limits=router.limits, lane=router.lane)
        await trio.sleep(1200)
        assert here.states(id_) == [DELIVERED]
        assert here.timeline(id_).attempts[-1].destination == "smtp:c.example:25"


def tokens(tmp_path: Path, token: str = "ya29.one") -> str:
    """A configuration whose smarthost wants a token."""
    (tmp_path / "token").write_text(f"{token}\n")
    (tmp_path / "token").chmod(0o600)
    return (
        text(tmp_path, '"smtp://a.example:587"')
        .replace("password_file", "token_file")
        .replace(str(tmp_path / "password"), str(tmp_path / "token"))
    )


def shown(token: str) -> str:
    return f"AUTH XOAUTH2 {b64(f'user=user{chr(1)}auth=Bearer {token}{chr(1)}{chr(1)}'.encode())}"


async def test_a_token_is_shown_and_read_again_when_it_has_changed(tmp_path: Path) -> None:
    async with smart(tmp_path, tokens(tmp_path)) as here:
        host = smarthost(here, ONE, "a.example", "PLAIN XOAUTH2")
        assert await sent(here) == [DELIVERED]
        await trio.sleep(120)  # that connection is over
        other = tmp_path / "other"
        other.write_text("ya29.two\n")
        other.chmod(0o600)
        other.rename(tmp_path / "token")
        assert await sent(here) == [DELIVERED]
        said = [line for line in host.heard if line.startswith("AUTH")]
        assert said == [shown("ya29.one"), shown("ya29.two")]


async def test_what_is_no_token_leaves_the_last_one_in_its_place(tmp_path: Path) -> None:
    async with smart(tmp_path, tokens(tmp_path)) as here:
        host = smarthost(here, ONE, "a.example", "XOAUTH2")
        assert await sent(here) == [DELIVERED]
        await trio.sleep(120)
        (tmp_path / "token").write_text("")
        assert await sent(here) == [DELIVERED]
        said = [line for line in host.heard if line.startswith("AUTH")]
        assert said == [shown("ya29.one")] * 2


async def test_a_token_that_is_refused_keeps_mail_waiting(tmp_path: Path) -> None:
    async with smart(tmp_path, tokens(tmp_path)) as here:
        told = b64(b'{"status":"401"}')
        host = smarthost(here, ONE, "a.example", "XOAUTH2", AUTH=f"334 {told}")
        host.says[""] = "535 5.7.8 it has run out"
        id_ = await here.send("bob@far.example")
        await trio.sleep(5)
        assert here.states(id_) == [DEFERRED]
        assert here.replies(id_) == ["535 5.7.8 it has run out"]


async def test_who_takes_no_token_is_not_shown_it(tmp_path: Path) -> None:
    async with smart(tmp_path, tokens(tmp_path)) as here:
        host = smarthost(here, ONE, "a.example", "PLAIN LOGIN")
        id_ = await here.send("bob@far.example")
        await trio.sleep(5)
        assert here.states(id_) == [DEFERRED]
        assert not any(line.startswith("AUTH") for line in host.heard)
