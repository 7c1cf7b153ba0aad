"""Certificates that servers show: read, examined, renewed."""

from __future__ import annotations

import io
import os
import ssl
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio
import trustme
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from elemta import log as logs
from elemta.config import ConfigError, Tls
from elemta.net.certificates import (
    LOOK,
    Certificates,
    described_as_sent,
    examine,
    ignore_strange_names,
    misplaced,
    renew,
)
from elemta.net.memory import memory_transport_pair
from elemta.net.self_signed import DAYS, have_self_signed
from elemta.net.tls import TlsError, serve_tls, start_tls
from elemta.testing import at_once
from tests.net.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio.testing import MockClock

    from elemta.net.tls import Encryption

NOW = datetime(2026, 11, 22, tzinfo=UTC)
DAY = 86400


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    written = io.StringIO()
    logs.configure("console", "info", written)
    yield written
    logs.configure("console", "info")


def a_table(*pairs: dict[str, str], **more: object) -> Tls:
    return msgspec.convert({"certificates": list(pairs), **more}, Tls, dec_hook=_path)


def _path(kind: type, value: object) -> object:
    return kind(value)


async def shown(certificates: Certificates, name: str | None, authority: Authority) -> list[str]:
    """The names in the certificate that a client is shown."""
    ours, theirs = memory_transport_pair()
    told: list[Encryption] = []

    async def serve() -> None:
        told.append((await serve_tls(theirs, certificates.shown("off")))[1])

    context = authority.client()
    context.check_hostname = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        encrypted = await start_tls(ours, context, server_name=name)
    octets = encrypted.tls.getpeercert(binary_form=True)
    assert octets is not None
    found = described_as_sent(octets)
    # What a login can be bound to is of that one which was shown.
    assert told[0].server_end_point == found.end_point
    return [*found.names]


# What is known of one.


def test_what_a_certificate_says_is_told(authority: Authority) -> None:
    pair = authority.issue("mx.example", "*.b.example", not_after=NOW + timedelta(days=20))
    table = a_table(pair).certificates[0]
    found = examine(table.certificate, table.key)
    assert found.names == ("mx.example", "*.b.example")
    assert found.name == "mx.example"
    assert found.key == "ECDSA P-256"
    assert found.ends == (NOW + timedelta(days=20)).timestamp()
    assert "trustme" in found.issuer
    assert len(found.end_point) == 32
    assert not found.open_key


def test_an_rsa_key_is_told_as_one(authority: Authority) -> None:
    pair = authority.issue("mx.example", key_type=trustme.KeyType.RSA)
    table = a_table(pair).certificates[0]
    assert examine(table.certificate, table.key).key == "RSA 2048"


@pytest.mark.parametrize(
    ("host", "covered"),
    [
        ("mx.example", True),
        ("MX.Example.", True),
        ("a.b.example", True),
        ("b.example", False),
        ("a.a.b.example", False),
        ("x.example", False),
    ],
)
def test_whom_it_covers(authority: Authority, host: str, covered: bool) -> None:
    table = a_table(authority.issue("mx.example", "*.b.example")).certificates[0]
    assert examine(table.certificate, table.key).covers(host) is covered


@pytest.mark.parametrize(
    ("days", "complaint"),
    [(15, None), (13.5, "runs out in 13 days"), (0.5, "runs out in 0 days"), (-1, "has run out")],
)
def test_from_a_fortnight_before_its_end_it_is_complained_of(
    authority: Authority, days: float, complaint: str | None
) -> None:
    pair = authority.issue("mx.example", not_after=NOW + timedelta(days=days))
    table = a_table(pair).certificates[0]
    found = examine(table.certificate, table.key)
    assert found.complaint(NOW.timestamp()) == complaint
    assert found.is_good(NOW.timestamp()) is (days > 0)
    assert found.complaint(0.0) == "is not good yet"


def test_the_order_of_a_chain_is_looked_at(tmp_path: Path) -> None:
    root = trustme.CA()
    middle = root.create_child_ca()
    issued = middle.issue_cert("mx.example")
    one, two = (each.bytes() for each in issued.cert_chain_pems)
    (tmp_path / "right.pem").write_bytes(one + two)
    (tmp_path / "wrong.pem").write_bytes(one + root.cert_pem.bytes() + two)
    assert misplaced(tmp_path / "right.pem") is None
    assert misplaced(tmp_path / "wrong.pem") == "certificate 1 is not issued by the one behind it"


# What is wrong with them.


def test_mistakes_are_named_with_their_place(authority: Authority, tmp_path: Path) -> None:
    good, other = authority.issue("mx.example"), authority.issue("other.example")
    (tmp_path / "text").write_text("no PEM\n")
    text = str(tmp_path / "text")
    gone = str(tmp_path / "gone")
    table = a_table(
        good,
        {"certificate": good["certificate"], "key": other["key"]},
        {"certificate": gone, "key": good["key"]},
        {"certificate": good["certificate"], "key": gone},
        {"certificate": text, "key": good["key"]},
        client_authorities=text,
    )
    with pytest.raises(ConfigError) as told:
        Certificates.read(table)
    mistakes = {each.place: each.problem for each in told.value.mistakes}
    assert list(mistakes) == [
        "tls.certificates[1].certificate",
        "tls.certificates[2].certificate",
        "tls.certificates[3].key",
        "tls.certificates[4].certificate",
        "tls.client_authorities",
    ]
    assert "is the key of another certificate" in mistakes["tls.certificates[1].certificate"]
    assert (
        mistakes["tls.certificates[3].key"] == f"{gone} cannot be read: No such file or directory"
    )


def test_one_that_a_server_sends_and_that_cannot_be_read_is_told_so(authority: Authority) -> None:
    strange = authority.issue_strange("mx.example", file="mx")
    octets = ssl.PEM_cert_to_DER_cert(Path(strange["certificate"]).read_text())
    with pytest.raises(ValueError, match="extension"):
        described_as_sent(octets)


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(
    authority: Authority, tmp_path: Path
) -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    pair = authority.issue("mx.example")
    key = load_pem_private_key((tmp_path / "mx.key").read_bytes(), None)
    secret = BestAvailableEncryption(b"secret")
    (tmp_path / "mx.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret))
    with pytest.raises(ConfigError):
        Certificates.read(a_table(pair))


def test_what_is_old_or_open_is_complained_of(authority: Authority, lines: io.StringIO) -> None:
    old = authority.issue("old.example", not_after=NOW - timedelta(days=3))
    opened = authority.issue("open.example", not_after=NOW + timedelta(days=300))
    os.chmod(opened["key"], 0o644)
    Certificates.read(a_table(old, opened)).complain(NOW.timestamp())
    told = lines.getvalue()
    assert "tls.certificate_old name=old.example" in told
    assert "it has run out" in told
    assert "tls.key_open name=open.example" in told
    assert len(told.splitlines()) == 2


# Shown, and shown anew.


async def test_without_a_name_or_with_a_strange_one_the_first_is_shown(
    authority: Authority,
) -> None:
    found = Certificates.read(a_table(authority.issue("a.example"), authority.issue("b.example")))
    assert await shown(found, None, authority) == ["a.example"]
    assert await shown(found, "c.example", authority) == ["a.example"]
    assert await shown(found, "b.example", authority) == ["b.example"]


async def test_new_files_are_shown_within_a_minute(
    authority: Authority, lines: io.StringIO, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    pair = authority.issue("old.example", file="mx")
    showing = [before := Certificates.read(a_table(pair))]
    nursery.start_soon(renew, lambda: showing[-1], showing.append, NOW.timestamp, at_once)
    await trio.sleep(LOOK * 1.5)
    assert showing == [before]
    authority.issue("new.example", file="mx")
    await trio.sleep(LOOK * 1.5)
    assert await shown(showing[-1], None, authority) == ["new.example"]
    # Whoever has the old ones goes on showing them.
    assert await shown(before, None, authority) == ["old.example"]
    assert "tls.certificate_renewed names=new.example" in lines.getvalue()


async def test_a_wrong_new_one_is_refused_once_and_the_old_one_stays(
    authority: Authority, lines: io.StringIO, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    pair = authority.issue("old.example", file="mx")
    showing = [before := Certificates.read(a_table(pair))]
    nursery.start_soon(renew, lambda: showing[-1], showing.append, NOW.timestamp, at_once)
    other = authority.issue("other.example")
    os.replace(other["key"], pair["key"])
    await trio.sleep(LOOK * 5)
    assert showing == [before]
    assert lines.getvalue().count("tls.certificate_refused") == 1
    assert await shown(before, None, authority) == ["old.example"]
    authority.issue("new.example", file="mx")
    await trio.sleep(LOOK * 1.5)
    assert await shown(showing[-1], None, authority) == ["new.example"]


async def test_a_new_one_that_cannot_be_read_is_refused_like_any_that_is_wrong(
    authority: Authority, lines: io.StringIO, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    pair = authority.issue("old.example", file="mx")
    showing = [before := Certificates.read(a_table(pair))]
    nursery.start_soon(renew, lambda: showing[-1], showing.append, NOW.timestamp, at_once)
    await trio.sleep(1)
    authority.issue_strange("mx.example", file="mx")
    await trio.sleep(LOOK * 1.5)
    assert showing == [before]
    assert lines.getvalue().count("tls.certificate_refused") == 1


async def test_complaints_come_once_a_day(
    authority: Authority, lines: io.StringIO, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    began = trio.current_time()
    pair = authority.issue("old.example", not_after=NOW + timedelta(days=5))
    found = Certificates.read(a_table(pair))
    nursery.start_soon(
        renew,
        lambda: found,
        lambda _: None,
        lambda: NOW.timestamp() + trio.current_time() - began,
        at_once,
    )
    await trio.sleep(DAY * 2 + DAY / 2)
    told = [line for line in lines.getvalue().splitlines() if "tls.certificate_old" in line]
    assert [line.partition("runs out in ")[2][:6] for line in told] == [
        "5 days",
        "4 days",
        "3 days",
    ]


def test_another_table_must_be_right_and_the_same_need_not(
    authority: Authority, tmp_path: Path
) -> None:
    pair = authority.issue("mx.example")
    found = Certificates.read(a_table(pair))
    assert found.anew(a_table(pair)) is found
    (tmp_path / "mx.key").unlink()
    assert found.anew(a_table(pair)) is found  # as nobody we may not read it
    with pytest.raises(ConfigError):
        found.anew(a_table(pair, minimum="1.3"))
    assert not found.anew(Tls())


async def test_only_tls_1_3_is_spoken_if_that_is_wanted(authority: Authority) -> None:
    table = a_table(authority.issue("mx.example"), minimum="1.3")
    context = Certificates.read(table).shown("off").context
    assert context.minimum_version.name == "TLSv1_3"


def test_only_ciphers_with_forward_secrecy_and_authentication_are_spoken(
    authority: Authority,
) -> None:
    context = Certificates.read(a_table(authority.issue("mx.example"))).shown("off").context
    old = [each["name"] for each in context.get_ciphers() if each["protocol"] == "TLSv1.2"]
    assert old
    assert all(name.startswith("ECDHE-") for name in old)
    assert all("GCM" in name or "CHACHA20" in name for name in old)


def test_a_client_may_go_on_with_the_session_of_its_last_connection(authority: Authority) -> None:
    server = Certificates.read(a_table(authority.issue("mx.example"))).shown("off").context
    client = authority.client()

    def connect(session: ssl.SSLSession | None) -> ssl.SSLObject:
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        ours = client.wrap_bio(to_client, to_server, server_hostname="mx.example", session=session)
        theirs = server.wrap_bio(to_server, to_client, server_side=True)
        for side in (ours, theirs, ours, theirs):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
        with suppress(ssl.SSLWantReadError):
            ours.read()  # the ticket comes behind the handshake
        return ours

    first = connect(None)
    assert not first.session_reused
    assert connect(first.session).session_reused


# Made by ourselves.


def test_a_self_signed_one_is_made_kept_and_made_anew_before_its_end(tmp_path: Path) -> None:
    certificate, key = tmp_path / "tls" / "c.pem", tmp_path / "tls" / "c.key"
    now = NOW.timestamp()

    def have(at: float) -> bool:
        return have_self_signed(certificate, key, ["localhost"], ["127.0.0.1", "::1"], at)

    assert have(now)
    first = examine(certificate, key)
    assert (first.names, first.key) == (("localhost",), "ECDSA P-256")
    assert key.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "tls").stat().st_mode & 0o777 == 0o700
    assert not have(now + 300 * DAY)
    assert examine(certificate, key) == first
    assert have(now + (DAYS - 20) * DAY)
    assert examine(certificate, key).ends > first.ends
    key.unlink()
    assert have(now + (DAYS - 20) * DAY)


# What clients may do to it.


async def test_a_name_beyond_ascii_fails_the_handshake_and_writes_nothing(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", heard.append)
    ignore_strange_names()
    outgoing = ssl.MemoryBIO()
    client = authority.client().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="mx.example")
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    ours, theirs = memory_transport_pair()
    await ours.send_all(outgoing.read().replace(b"mx.example", b"mx.\xff\xfeample"))
    found = Certificates.read(a_table(authority.issue("mx.example")))
    with pytest.raises(TlsError):
        await serve_tls(theirs, found.shown("off"))
    assert heard == []
    sys.unraisablehook(other := SimpleNamespace(exc_value=ValueError(), object=b""))  # type: ignore[arg-type]
    assert heard == [other]


def test_a_pair_that_is_none_is_told_what_is_wrong_with_it(
    authority: Authority, tmp_path: Path
) -> None:
    one, other = authority.issue("a.example"), authority.issue("b.example")
    encrypted, der, empty = (tmp_path / name for name in ("locked.key", "a.der", "empty.pem"))
    key = load_pem_private_key(Path(one["key"]).read_bytes(), None)
    encrypted.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )
    der.write_bytes(ssl.PEM_cert_to_DER_cert(_first(Path(one["certificate"]))))
    empty.touch()
    rsa = tmp_path / "rsa.key"
    rsa.write_bytes(
        generate_private_key(65537, 2048).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
    )
    for certificate, wanted, told in (
        (one["certificate"], other["key"], f"{other['key']} is the key of another certificate"),
        (one["certificate"], str(rsa), f"{rsa} is the key of another certificate"),
        (one["key"], one["certificate"], f"{one['key']} has a private key in it, and no certif"),
        (one["certificate"], str(encrypted), "the key has a password: take it off (openssl pkey"),
        (str(der), one["key"], f"{der} is no PEM, but DER (openssl x509 -inform DER"),
        (one["certificate"], str(empty), f"{empty} has no private key in it"),
    ):
        with pytest.raises(ConfigError) as caught:
            Certificates.read(a_table({"certificate": certificate, "key": wanted}))
        assert told in str(caught.value)


def _first(path: Path) -> str:
    return path.read_text().partition("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----"


async def kind_shown(
    certificates: Certificates, authority: Authority, name: str | None, ciphers: str = ""
) -> tuple[str, bool]:
    """The kind of key that a client is shown, and whether a login may be bound to that one."""
    ours, theirs = memory_transport_pair()
    told: list[Encryption] = []

    async def serve() -> None:
        told.append((await serve_tls(theirs, certificates.shown("off")))[1])

    context = authority.client()
    context.check_hostname = False
    if ciphers:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(ciphers)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        encrypted = await start_tls(ours, context, server_name=name)
    octets = encrypted.tls.getpeercert(binary_form=True)
    assert octets is not None
    found = described_as_sent(octets)
    assert told[0].server_end_point in (b"", found.end_point)
    return found.kind, bool(told[0].server_end_point)


RSA = trustme.KeyType.RSA


@pytest.mark.parametrize("name", ["mx.example", None, "mail.example"])
async def test_a_client_is_shown_the_kind_of_key_that_it_can_check(
    authority: Authority, name: str | None
) -> None:
    ecdsa = authority.issue("mx.example", "mail.example")
    rsa = authority.issue("mx.example", "mail.example", file="rsa", key_type=RSA)
    other = authority.issue("other.example")
    for pairs in ((ecdsa, rsa, other), (rsa, other, ecdsa)):
        certificates = Certificates.read(a_table(*pairs))
        for kind in ("ECDSA", "RSA"):
            cipher = f"ECDHE-{kind}-AES128-GCM-SHA256"
            assert await kind_shown(certificates, authority, name, cipher) == (kind, True)
        # Of TLS 1.3 it is not told which was shown.
        assert (await kind_shown(certificates, authority, name))[1] is False
        assert await kind_shown(certificates, authority, "other.example") == ("ECDSA", True)


async def test_a_name_that_only_one_of_them_has_is_shown_that_one(authority: Authority) -> None:
    ecdsa = authority.issue("mx.example", "mail.example")
    rsa = authority.issue("mx.example", "pop.example", file="rsa", key_type=RSA)
    certificates = Certificates.read(a_table(ecdsa, rsa))
    assert await kind_shown(certificates, authority, "mail.example") == ("ECDSA", True)
    assert await kind_shown(certificates, authority, "pop.example") == ("RSA", True)


async def test_of_two_with_the_same_kind_of_key_the_first_is_shown(authority: Authority) -> None:
    first = authority.issue("mx.example", "first.example")
    certificates = Certificates.read(a_table(first, authority.issue("mx.example", file="second")))
    assert await shown(certificates, "mx.example", authority) == ["mx.example", "first.example"]
