"""What an address of ours leads on is sealed; the chain is verified as it arrives elsewhere."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING

import dkim
import pytest

from elemta.config import ConfigError, PluginEntry
from elemta.mailauth import check_arc
from elemta.net.dns import DnsResolver
from elemta.plugins import load
from elemta.testing import CONFIG, TRUSTED, at_once, running
from elemta.testing.stand_ins import EPOCH
from tests.mailauth.signing import MESSAGE, ed25519_key, publish, rsa_key, sealed, signed

if TYPE_CHECKING:
    from pathlib import Path

    from elemta.testing import Elemta

pytestmark = pytest.mark.usefixtures("virtual_time")

ALIAS = 'aliases: {list: ["x@far.example"]}'


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of dkimpy is that of the server."""
    monkeypatch.setattr(dkim, "time", SimpleNamespace(time=lambda: EPOCH + 60))


@pytest.fixture
def key(tmp_path: Path) -> Path:
    (path := tmp_path / "key").touch(0o600)
    path.write_bytes(rsa_key()[0])
    return path


def config(key: Path, **settings: object) -> str:
    seal = {"domain": "us.example", "selector": "s1", "key": str(key), **settings}
    entries = [{"name": "spf"}, {"name": "dkim"}, {"name": "arc-seal", "settings": seal}]
    entries += [{"name": "authentication-results"}]
    text = CONFIG.replace('mailboxes: ["*"]', f'mailboxes: ["*"], {ALIAS}')
    text = text.replace("networks: [10.0.0.0/8]", "networks: [10.0.0.0/8], domains: [far.example]")
    return f"{text}plugins: {json.dumps(entries)}\n"


async def chain_of(elemta: Elemta, octets: bytes) -> str:
    found = await check_arc(octets, resolver=DnsResolver(backend=elemta.dns), in_thread=at_once)
    return str(found)


async def passed_on(
    elemta: Elemta, message: bytes, to: str = "list@us.example", client: str = "192.0.2.1"
) -> bytes:
    elemta.host("far.example")
    publish(elemta.dns, rsa_key()[1], "us.example")
    publish(elemta.dns, rsa_key()[1], "list.example")
    publish(elemta.dns, rsa_key()[1])
    reply = await elemta.send("ann@sender.example", to, message, client=client)
    assert reply.code == 250, reply
    return elemta.delivered[-1].content


async def test_what_an_alias_leads_on_is_sealed_with_what_was_found_out(key: Path) -> None:
    async with running(config(key)) as elemta:
        content = await passed_on(elemta, signed())
        assert await chain_of(elemta, content) == "arc=pass (i=1 sealed by us.example)"
        (stated,) = elemta.delivered[0].header("arc-authentication-results")
        assert stated.startswith("i=1; mx.us.example; spf=none smtp.mailfrom=sender.example; dkim=")
        assert stated.endswith("arc=none")
        assert elemta._parts._meters.seals == {"none": 1}


async def test_a_chain_goes_on_and_one_that_has_failed_ends(key: Path) -> None:
    async with running(config(key)) as elemta:
        content = await passed_on(elemta, sealed(MESSAGE))
        assert await chain_of(elemta, content) == "arc=pass (i=2 sealed by us.example)"
        content = await passed_on(elemta, sealed(MESSAGE).replace(b"noon", b"one"))
        assert b"i=2; a=rsa-sha256; cv=fail;" in content
        content = await passed_on(elemta, content)
        assert b"i=3" not in content
        assert elemta._parts._meters.seals == {"pass": 1, "fail": 1, "over": 1}


async def test_where_the_dns_cannot_say_nothing_is_said(key: Path) -> None:
    async with running(config(key)) as elemta:
        elemta.dns.failing = {"s1._domainkey.list.example"}
        content = await passed_on(elemta, sealed(MESSAGE))
        assert content.count(b"ARC-Seal") == 1
        assert elemta._parts._meters.seals == {"temperror": 1}


async def test_a_chain_that_nobody_looked_at_is_left_alone(key: Path) -> None:
    async with running(config(key, size="100 B")) as elemta:
        content = await passed_on(elemta, sealed(MESSAGE))
        assert content.count(b"ARC-Seal") == 1
        assert elemta._parts._meters.seals == {"unverified": 1}


@pytest.mark.parametrize(
    ("to", "client", "relayed", "seals"),
    [
        ("bob@us.example", "192.0.2.1", True, 0),
        ("list@us.example", TRUSTED, True, 0),
        ("y@far.example", "192.0.2.1", False, 0),
        ("y@far.example", "192.0.2.1", True, 1),
    ],
)
async def test_what_stays_and_what_is_of_our_own_people_is_not_sealed(
    key: Path, to: str, client: str, relayed: bool, seals: int
) -> None:
    async with running(config(key, relayed=relayed)) as elemta:
        content = await passed_on(elemta, MESSAGE, to, client)
        assert content.count(b"ARC-Seal:") == seals


@pytest.mark.parametrize(
    ("settings", "mistake"),
    [
        ({"domain": "a b"}, r"settings: expected a domain"),
        ({"selector": "a_b"}, r"settings: expected a selector"),
        ({"key": "/none"}, r"settings\.key: /none: No such file"),
        ({"size": "0 B"}, "must be more than 0"),
    ],
)
def test_mistakes_are_told_with_their_place(
    key: Path, settings: dict[str, object], mistake: str
) -> None:
    whole = {"domain": "us.example", "selector": "s1", "key": str(key), **settings}
    with pytest.raises(ConfigError, match=mistake):
        load([PluginEntry(name="arc-seal", settings=whole)])


def test_a_key_that_others_verify_no_seals_by_is_a_mistake(key: Path) -> None:
    key.write_bytes(ed25519_key()[0])
    whole: dict[str, object] = {"domain": "us.example", "selector": "s1", "key": str(key)}
    with pytest.raises(ConfigError, match=r"settings\.key: an Ed25519 key"):
        load([PluginEntry(name="arc-seal", settings=whole)])


def test_a_reload_reads_its_key_again(key: Path) -> None:
    whole: dict[str, object] = {"domain": "us.example", "selector": "s1", "key": str(key)}
    first = load([PluginEntry(name="arc-seal", settings=whole)])
    entry = PluginEntry(name="arc-seal", settings=whole)
    assert load([entry], first)[0].plugin is first[0].plugin
    key.write_bytes(rsa_key(1025)[0])
    assert load([entry], first)[0].plugin is not first[0].plugin
