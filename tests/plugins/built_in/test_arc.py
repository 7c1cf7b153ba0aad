from __future__ import annotations

from typing_extensions import override

from elemta.mailauth import Arc
from elemta.plugins import CONTINUE, TooLargeError
from elemta.plugins.built_in.arc import ArcPlugin, Settings, arc_of
from elemta.testing import FakeContent, FakeDns, a_session, a_transaction, some_tools
from elemta.units import Octets
from tests.mailauth.signing import MESSAGE, publish, rsa_key, sealed


def plugin(settings: Settings | None = None) -> ArcPlugin:
    dns = FakeDns()
    publish(dns, rsa_key()[1], "list.example")
    made = ArcPlugin(settings or Settings())
    made.tools = some_tools("arc", dns=dns)
    return made


async def test_the_chain_is_a_result_and_is_verified_once() -> None:
    arc, transaction, content = plugin(), a_transaction(), FakeContent(sealed(MESSAGE))
    assert await arc.on_inspect(transaction, content) is CONTINUE
    assert transaction.results.told() == [("arc", "arc=pass (i=1 sealed by list.example)")]
    found = await arc_of(transaction, content, arc.tools)
    assert transaction.results.of(Arc) == (found,)
    assert arc.tools.meters.authentication == {("arc", "pass"): 1}


async def test_without_a_chain_nothing_is_read() -> None:
    class Unread(FakeContent):
        @override
        async def read(self, most: int | None = None) -> bytes:
            raise AssertionError

    transaction = a_transaction()
    await plugin().on_inspect(transaction, Unread(MESSAGE))
    assert transaction.results.told() == [("arc", "arc=none")]


async def test_what_is_too_large_is_not_verified_and_what_finds_no_memory_not_yet() -> None:
    transaction, message = a_transaction(), sealed(MESSAGE)
    await plugin(Settings(size=Octets(100))).on_inspect(transaction, FakeContent(message))
    assert transaction.results.told() == [("arc", "arc=permerror (not verified: over 100 B)")]

    class NoMemory(FakeContent):
        @override
        async def read(self, most: int | None = None) -> bytes:
            raise TooLargeError("no memory for 5 octets")

    transaction = a_transaction()
    await plugin().on_inspect(transaction, NoMemory(message))
    assert transaction.results.told() == [("arc", "arc=temperror (no memory for 5 octets)")]


async def test_our_own_people_are_not_looked_at() -> None:
    transaction = a_transaction(a_session(trusted=True))
    await plugin().on_inspect(transaction, FakeContent(sealed(MESSAGE)))
    assert transaction.results.told() == []
