from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

from elemta.config import ConfigError
from elemta.net.ldap import ber, compile_filter
from elemta.plugins import CONTINUE, Defer, Granted, Reject
from elemta.plugins.built_in.elsewhere import LOOKING
from elemta.plugins.built_in.users_ldap import Settings, UsersLdap
from elemta.protocol import Credentials
from elemta.testing import a_session, some_tools
from elemta.units import Seconds
from tests.plugins.built_in.service import FakeService

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from elemta.plugins import Session, Verdict

DN = "uid=bob,ou=people,dc=example"
SERVICE = "cn=elemta,dc=example"
FOUND = (DN, {"uid": ["bob"], "mail": ["bob@example.org"], "alias": ["b@example.org", "@x", "*"]})


class Directory:
    """A directory of one user, which says of a search what it is to say.

    Attributes:
        binds: who has bound, and with what.
        filters: what was searched for.
        found: what is.
        context: of TLS.
        tls_first: ``ldaps``.
    """

    def __init__(self) -> None:
        self.passwords = {DN: b"horse", SERVICE: b"secret"}
        self.binds: list[tuple[str, bytes]] = []
        self.filters: list[bytes] = []
        self.found: list[tuple[str, dict[str, list[str]]]] = [FOUND]
        self.context: ssl.SSLContext | None = None
        self.tls_first = False

    async def __call__(self, stream: trio.abc.Stream) -> None:
        if self.tls_first:
            stream = self.encrypted(stream)
        held = b""
        while some := await stream.receive_some():
            held += some
            while (found := ber.measure(held)) is not None and len(held) >= found[1]:
                message = ber.Elements(held[found[0] : found[1]])
                held = held[found[1] :]
                number, tag = message.take_number(), message.tag
                for answer in self.answers(tag, ber.Elements(message.take(tag))):
                    await stream.send_all(ber.encode(ber.SEQUENCE, ber.number(number), answer))
                if tag == 0x77:
                    stream = self.encrypted(stream)

    def encrypted(self, stream: trio.abc.Stream) -> trio.abc.Stream:
        assert self.context is not None
        return trio.SSLStream(stream, self.context, server_side=True, https_compatible=True)

    def answers(self, tag: int, request: ber.Elements) -> list[bytes]:
        if tag == 0x60:
            request.take_number()
            name, password = request.take_text(), request.take(0x80)
            self.binds.append((name, password))
            right = self.passwords.get(name) == password
            return [result(0x61, 0 if right else 49)]
        if tag == 0x63:
            assert request.take_text() == "dc=example"
            for each in (ber.ENUMERATED, ber.ENUMERATED, ber.INTEGER, ber.INTEGER, ber.BOOLEAN):
                request.take(each)
            asked = request.tag
            self.filters.append(ber.encode(asked, request.take(asked)))
            return [*(entry(*each) for each in self.found), result(0x65, 0)]
        return [result(0x78, 0)] if tag == 0x77 else []


def result(tag: int, code: int) -> bytes:
    return ber.encode(tag, ber.number(code, ber.ENUMERATED), ber.text(""), ber.text(""))


def entry(name: str, attributes: dict[str, list[str]]) -> bytes:
    told = [
        ber.encode(ber.SEQUENCE, ber.text(key), ber.encode(ber.SET, *map(ber.text, values)))
        for key, values in attributes.items()
    ]
    return ber.encode(0x64, ber.text(name), ber.encode(ber.SEQUENCE, *told))


def write(path: Path, text: str, mode: int = 0o600) -> None:
    path.write_text(text)
    path.chmod(mode)


@pytest.fixture
def directory() -> Directory:
    return Directory()


@pytest.fixture
def service(nursery: trio.Nursery, directory: Directory) -> FakeService:
    return FakeService(nursery, directory)


async def a_plugin(service: FakeService, **settings: object) -> UsersLdap:
    told = {"url": "ldap://localhost", "base": "dc=example", "start_tls": False, **settings}
    plugin = UsersLdap.configured(told, "plugins[0].settings")
    plugin.tools = some_tools("users-ldap", connect=service)
    await plugin.start()
    return plugin


async def ask(plugin: UsersLdap, password: str, user: str = "bob") -> Granted | Verdict:
    return await plugin.on_authenticate(a_session(), Credentials(user, password))


async def test_who_can_bind_is_let_in_with_his_addresses(
    service: FakeService, directory: Directory
) -> None:
    plugin = await a_plugin(service, addresses=["mail", "Alias"])
    assert await ask(plugin, "horse") == Granted("bob", ("bob@example.org", "b@example.org"))
    assert directory.binds == [(DN, b"horse")]
    assert isinstance(await ask(plugin, "house"), Reject)


async def test_he_is_called_by_an_attribute_if_that_is_wanted(
    service: FakeService, directory: Directory
) -> None:
    plugin = await a_plugin(service, login="mail", addresses=[])
    assert await ask(plugin, "horse") == Granted("bob@example.org")
    directory.found = [(DN, {"mail": ["a@example.org", "b@example.org"]})]
    assert isinstance(await ask(plugin, "horse", "bobby"), Defer)


async def test_a_service_account_searches(
    service: FakeService, directory: Directory, tmp_path: Path
) -> None:
    write(tmp_path / "password", "secret\n")
    told = {"bind_dn": SERVICE, "bind_password_file": str(tmp_path / "password")}
    plugin = await a_plugin(service, **told)
    assert isinstance(await ask(plugin, "horse"), Granted)
    assert directory.binds == [(SERVICE, b"secret"), (DN, b"horse")]
    directory.passwords[SERVICE] = b"another"
    assert isinstance(await ask(plugin, "house"), Defer)


async def test_nobody_who_is_found_is_nobody_and_two_are_a_mistake(
    service: FakeService, directory: Directory
) -> None:
    plugin = await a_plugin(service)
    directory.found = []
    assert await ask(plugin, "horse") == CONTINUE
    directory.found = [FOUND, FOUND]
    assert isinstance(await ask(plugin, "horse"), Defer)
    directory.found = [("", {})]
    assert isinstance(await ask(plugin, "horse"), Reject)
    assert directory.binds == []


async def test_an_empty_password_is_never_sent(service: FakeService, directory: Directory) -> None:
    """RFC 4513 §5.1.2: the directory would say that it is right."""
    directory.passwords[DN] = b""
    plugin = await a_plugin(service)
    assert await ask(plugin, "") == CONTINUE
    assert directory.binds == []
    assert service.connections == 0


@pytest.mark.parametrize("user", ["*", "bob)(uid=*", "bob\\2a", "b(o)b", "böb"])
async def test_what_somebody_calls_himself_is_a_value_and_no_filter(
    service: FakeService, directory: Directory, user: str
) -> None:
    directory.found = []
    plugin = await a_plugin(service, filter="(uid={user})")
    await ask(plugin, "horse", user)
    assert directory.filters == [ber.encode(0xA3, ber.text("uid"), ber.text(user))]


async def test_what_was_right_is_not_asked_again_for_a_while(
    service: FakeService, autojump_clock: MockClock
) -> None:
    plugin = await a_plugin(service)
    for _ in range(3):
        assert isinstance(await ask(plugin, "horse"), Granted)
    assert service.connections == 1
    assert isinstance(await ask(plugin, "house"), Reject)
    await trio.sleep(300)
    assert isinstance(await ask(plugin, "horse"), Granted)
    assert service.connections == 3


async def test_a_directory_that_is_down_or_deaf_puts_off(
    service: FakeService, autojump_clock: MockClock
) -> None:
    plugin = await a_plugin(service, timeout="5 s")
    service.down = True
    assert isinstance(await ask(plugin, "horse"), Defer)
    service.down, service.deaf = False, True
    began = trio.current_time()
    assert isinstance(await ask(plugin, "horse"), Defer)
    assert trio.current_time() - began == 5
    assert plugin.tools.counts["down"] == 2


@pytest.mark.parametrize("scheme", ["ldap", "ldaps"])
async def test_nothing_is_said_but_to_whom_the_certificate_names(
    service: FakeService, directory: Directory, tmp_path: Path, scheme: str
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    directory.tls_first = scheme == "ldaps"
    told = {"url": f"{scheme}://ldap.example", "authorities": str(tmp_path / "ca.pem")}
    for name, verdict in (("ldap.example", Granted), ("other.example", Defer)):
        directory.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(name).configure_cert(directory.context)
        plugin = await a_plugin(service, start_tls=True, **told)
        assert isinstance(await ask(plugin, "horse"), verdict)
    assert directory.binds == [(DN, b"horse")]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"url": "http://x"}, "expected url to be ldap"),
        ({"url": "ldap://u:p@x"}, "expected url to be ldap"),
        ({"url": "ldap://x/dc=example"}, "expected url to be ldap"),
        ({"filter": "(uid=bob)"}, "{user}"),
        ({"filter": "(uid={user}"}, "expected \\)"),
        ({"bind_dn": "cn=x"}, "both"),
        ({"start_tls": False}, "start_tls: passwords go to another machine in TLS only"),
        ({"authorities": "ca.pem"}, "whole path"),
        ({"timeout": "0 s"}, "more than 0 s"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        UsersLdap.configured({"url": "ldap://x", "base": "dc=x", **settings}, "plugins[0].settings")


def test_files_are_looked_at_by_check(tmp_path: Path) -> None:
    missing = tmp_path / "password"
    plugin = UsersLdap(
        Settings(url="ldap://x", base="dc=x", bind_dn="cn=x", bind_password_file=missing)
    )
    with pytest.raises(ConfigError, match=r"plugins\[0\]\.settings: .*password"):
        plugin.examine("plugins[0].settings")
    write(missing, "\n")
    with pytest.raises(ConfigError, match="expected a secret"):
        plugin.examine("plugins[0].settings")
    write(missing, "secret", 0o644)
    with pytest.raises(ConfigError, match="others may read"):
        plugin.examine("plugins[0].settings")


async def test_another_password_in_the_file_holds_from_the_next_reload_on(
    service: FakeService, tmp_path: Path
) -> None:
    write(tmp_path / "password", "secret")
    told = {"bind_dn": SERVICE, "bind_password_file": str(tmp_path / "password")}
    plugin = await a_plugin(service, **told)
    assert not plugin.outdated()
    write(tmp_path / "password", "another")
    assert plugin.outdated()


def test_the_default_filter_is_one() -> None:
    assert compile_filter(Settings(url="ldap://x", base="dc=x").filter.replace("{user}", "bob"))
    assert Settings(url="ldap://x", base="dc=x").remember == Seconds(300)


async def over(plugin: UsersLdap, session: Session) -> str:
    """Why a login is over; empty: it is not."""
    await trio.sleep(LOOKING)
    found = await plugin.on_account(session)
    return found.note if isinstance(found, Reject) else ""


async def test_a_login_is_over_once_the_directory_says_so(
    service: FakeService, directory: Directory, autojump_clock: MockClock
) -> None:
    plugin = await a_plugin(service, addresses=["mail"])
    directory.found = [(DN, {"pwdLastSet": ["1"]})]
    session = a_session()
    found = await plugin.on_authenticate(session, Credentials("bob", "horse"))
    assert isinstance(found, Granted)
    session.login = found.login
    assert await over(plugin, session) == ""
    directory.found = [(DN, {"pwdLastSet": ["2"]})]
    assert await over(plugin, session) == "has another password by now"
    directory.found = []
    assert await over(plugin, session) == "is not there any more"
    directory.found = [FOUND, FOUND]
    assert await over(plugin, session) == "", "who cannot be asked sends nobody away"
