from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest

from elemta.config import ConfigError, load
from elemta.delivery.hosts import Candidate
from elemta.delivery.keyring import Keyring
from elemta.delivery.routes import ByMx, Terms, ToHosts
from elemta.delivery.security import Security
from elemta.net.tls import unverified_client
from elemta.protocol import Credentials, Token
from tests.net.certificates import authority

if TYPE_CHECKING:
    from pathlib import Path

HEAD = 'hostname: mx.example.org\nlisteners: [{name: mx, address: ":25"}]\nroutes:\n'
LOGIN = '  - {match: "*", via: ["smtp://a.example"], login: {user: us, password_file: FILE}}\n'


def file(tmp_path: Path, content: bytes, mode: int = 0o600) -> Path:
    path = tmp_path / "file"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    "content", [b"pencil", b"pencil\n", b"pencil\r\n", b"pencil\nand more\n"], ids=repr
)
def test_the_password_is_the_first_line(content: bytes, tmp_path: Path) -> None:
    config = load(HEAD + LOGIN.replace("FILE", str(file(tmp_path, content, 0o640))))
    login = config.routes[0].login
    assert login is not None
    keyring = Keyring(config)
    assert keyring.credentials(login) == Credentials("us", "pencil")
    assert "pencil" not in repr(keyring.credentials(login))
    file(tmp_path, b"other")
    assert keyring.credentials(login) == Credentials("us", "pencil"), "until the next reload"
    assert Keyring(config).credentials(login) == Credentials("us", "other")


@pytest.mark.parametrize(
    ("content", "mode", "why"),
    [
        (b"pencil", 0o644, "others may read"),
        (b"", 0o600, "is no password of 1 to 255 octets"),
        (b"\npencil", 0o600, "is no password of 1 to 255 octets"),
        (b"x" * 256, 0o600, "is no password of 1 to 255 octets"),
        (b"pen\0cil", 0o600, "is no password of 1 to 255 octets"),
        (b"p\xffncil", 0o600, "is no UTF-8"),
    ],
    ids=repr,
)
def test_a_file_that_holds_no_password_is_a_mistake_with_its_place(
    content: bytes, mode: int, why: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        Keyring(load(HEAD + LOGIN.replace("FILE", str(file(tmp_path, content, mode)))))
    assert "routes[0].login.password_file: no password: " in str(caught.value)
    assert why in str(caught.value)


def test_a_file_that_is_missing_is_a_mistake_with_its_place(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    entry = '  - {match: "*", tls: verified, authorities: A, certificate: B, key: C}\n'
    with pytest.raises(ConfigError) as caught:
        Keyring(load(HEAD + LOGIN.replace("FILE", str(gone)) + entry.replace('"*"', "b.example")))
    assert [each.place for each in caught.value.mistakes] == [
        *("routes[0].login.password_file", "routes[1].authorities"),
    ]
    assert f"{gone}: No such file or directory" in str(caught.value)
    assert caught.value.mistakes[1].problem.endswith("A: No such file or directory")


def test_a_file_that_is_no_certificate_is_a_mistake_with_its_place(tmp_path: Path) -> None:
    some = file(tmp_path, b"nonsense")
    entry = f'  - {{match: "*", certificate: {some}, key: {some}}}\n'
    entry += f"  - {{match: b.example, tls: verified, authorities: {some}}}\n"
    with pytest.raises(ConfigError) as caught:
        Keyring(load(HEAD + entry))
    assert [each.place for each in caught.value.mistakes] == [
        *("routes[0].certificate", "routes[1].authorities"),
    ]


def test_a_key_that_wants_a_passphrase_asks_nobody(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    ours = authority().issue_cert("us.example")
    plain = load_pem_private_key(ours.private_key_pem.bytes(), None)
    locked = plain.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"passphrase")
    )
    (tmp_path / "us.pem").write_bytes(ours.cert_chain_pems[0].bytes())
    key = file(tmp_path, locked)
    entry = f'  - {{match: "*", certificate: {tmp_path / "us.pem"}, key: {key}}}\n'
    with pytest.raises(ConfigError, match=r"routes\[0\].certificate"):
        Keyring(load(HEAD + entry))


def test_where_nothing_is_verified_nothing_is_looked_at() -> None:
    keyring = Keyring()
    loose = keyring.context(Terms(), verified=False)
    strict = keyring.context(Terms(), verified=True)
    assert (loose.verify_mode, strict.verify_mode) == (ssl.CERT_NONE, ssl.CERT_REQUIRED)
    assert strict.check_hostname
    assert loose.minimum_version == strict.minimum_version == ssl.TLSVersion.TLSv1_2
    assert keyring.context(Terms(), verified=True) is strict


@pytest.mark.parametrize(
    ("host", "server_name", "asked"),
    [
        ("mx1.b.example", None, "mx1.b.example"),
        ("mx.hoster.example", None, "mx.hoster.example"),
        ("mx1.b.example", "domain", "mx1.b.example"),
        ("b.example", "domain", "b.example"),
        # Forged DNS, or a hoster: neither has a certificate for the domain.
        ("mx.evil.example", "domain", "b.example"),
        ("mx.evilb.example", "domain", "b.example"),
        ("mx.hoster.example", "hoster.example", "hoster.example"),
        ("192.0.2.1", None, "192.0.2.1"),
    ],
)
def test_the_name_that_a_certificate_must_have(
    host: str, server_name: str | None, asked: str
) -> None:
    route = ByMx("b.example", Terms(tls="verified", server_name=server_name))
    wish = Security("off").wish(Candidate(host, "192.0.2.1", 25), route, 0)
    assert wish is not None
    assert (wish.server_name, wish.verified, wish.required) == (asked, True, True)


def test_hosts_of_a_configuration_are_asked_for_what_it_says() -> None:
    route = ToHosts((), terms=Terms(tls="required", server_name="mail.example"))
    wish = Security("off").wish(Candidate("10.0.0.1", "10.0.0.1", 25), route, 0)
    assert wish is not None
    assert (wish.server_name, wish.verified) == ("mail.example", False)


@pytest.mark.parametrize(
    "more", ["  []\ndelivery: {tls: verified}\n", "  - {match: a.example, tls: verified}\n"]
)
def test_what_the_system_trusts_is_read_before_mail_wants_it(
    more: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[bool] = []

    def context(*, verified: bool, **_: Path | None) -> ssl.SSLContext:
        made.append(verified)
        return unverified_client()

    monkeypatch.setattr("elemta.delivery.keyring.client_context", context)
    keyring = Keyring(load(HEAD + more))
    assert made == [True]
    keyring.context(Terms(), verified=True)
    assert made == [True]


@pytest.mark.parametrize(
    ("content", "mode", "why"),
    [
        (b"ya29.x", 0o644, "others may read"),
        (b"", 0o600, "is no token"),
        (b"ya29.x y", 0o600, "is no token"),
        (b"ya29.\xff", 0o600, "is no token"),
        (b"x" * 8193, 0o600, "is no token"),
    ],
)
def test_a_file_that_holds_no_token_is_a_mistake_with_its_place(
    content: bytes, mode: int, why: str, tmp_path: Path
) -> None:
    line = LOGIN.replace("password_file", "token_file")
    with pytest.raises(ConfigError) as caught:
        Keyring(load(HEAD + line.replace("FILE", str(file(tmp_path, content, mode)))))
    assert "routes[0].login.token_file: no token: " in str(caught.value)
    assert why in str(caught.value)


def test_a_name_that_a_token_cannot_go_with_is_a_mistake(tmp_path: Path) -> None:
    for name in ("a,b", "a=b", "jürgen", '"a b"'):
        line = LOGIN.replace("password_file", "token_file").replace("user: us", f"user: '{name}'")
        with pytest.raises(ConfigError, match=r"routes\[0\].login.user: expected a name without"):
            load(HEAD + line)


def test_a_token_is_no_secret_of_a_log(tmp_path: Path) -> None:
    path = file(tmp_path, b" ya29.x \r\nmore")
    config = load(
        HEAD + LOGIN.replace("password_file: FILE", f"token_file: {path.name}"), base=tmp_path
    )
    login = config.routes[0].login
    assert login is not None
    credentials = Keyring(config).credentials(login)
    assert credentials == Token("us", "ya29.x")
    assert "ya29" not in repr(credentials)
