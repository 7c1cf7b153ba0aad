from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from typing_extensions import override

from elemta.mailauth import DkimSignature
from elemta.plugins import CONTINUE, TooLargeError
from elemta.plugins.built_in.dkim import DkimPlugin, Settings, dkim_of
from elemta.testing import FakeContent, FakeDns, a_session, a_transaction, some_tools
from elemta.units import Octets
from tests.mailauth.signing import MESSAGE, publish, rsa_key, signed

if TYPE_CHECKING:
    from elemta.plugins import Tools


def tools() -> Tools:
    dns = FakeDns()
    publish(dns, rsa_key()[1])
    return some_tools("dkim", dns=dns)


def plugin(settings: Settings | None = None) -> DkimPlugin:
    made = DkimPlugin(settings or Settings())
    made.tools = tools()
    return made


async def test_each_signature_is_a_result() -> None:
    dkim, transaction = plugin(), a_transaction()
    message = signed(signed(), domain="other.example")
    assert await dkim.on_inspect(transaction, FakeContent(message)) is CONTINUE
    results = [each.result for each in transaction.results.of(DkimSignature)]
    assert results == ["permerror", "pass"]
    assert dkim.tools.meters.authentication == {("dkim", "permerror"): 1, ("dkim", "pass"): 1}


async def test_who_asks_first_verifies() -> None:
    transaction, content, theirs = a_transaction(), FakeContent(signed()), tools()

    async def ask() -> None:
        assert [each.result for each in await dkim_of(transaction, content, theirs)] == ["pass"]

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
    assert len(transaction.results.of(DkimSignature)) == 1


async def test_without_a_signature_nothing_is_read() -> None:
    class Unread(FakeContent):
        @override
        async def read(self, most: int | None = None) -> bytes:
            raise AssertionError

    transaction = a_transaction()
    await plugin().on_inspect(transaction, Unread(MESSAGE))
    assert transaction.results.told() == [("dkim", "dkim=none")]


async def test_what_is_too_large_is_not_verified_and_what_finds_no_memory_not_yet() -> None:
    transaction = a_transaction()
    await plugin(Settings(size=Octets(100))).on_inspect(transaction, FakeContent(signed()))
    assert transaction.results.told() == [("dkim", "dkim=policy (not verified: over 100 B)")]

    class NoMemory(FakeContent):
        @override
        async def read(self, most: int | None = None) -> bytes:
            raise TooLargeError("no memory for 5 octets")

    transaction = a_transaction()
    await plugin().on_inspect(transaction, NoMemory(signed()))
    assert transaction.results.told() == [("dkim", "dkim=temperror (no memory for 5 octets)")]


async def test_our_own_people_are_not_looked_at() -> None:
    transaction = a_transaction(a_session(trusted=True))
    await plugin().on_inspect(transaction, FakeContent(signed()))
    assert transaction.results.told() == []
