from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import memory_stream_pair

from elemta.net.ldap import Entry, LdapClient, LdapError, ber, compile_filter

if TYPE_CHECKING:
    from collections.abc import Sequence


def result(tag: int, code: int, why: str = "") -> bytes:
    return ber.encode(tag, ber.number(code, ber.ENUMERATED), ber.text(""), ber.text(why))


def message(number: int, content: bytes) -> bytes:
    return ber.encode(ber.SEQUENCE, ber.number(number), content)


def entry(name: str, **attributes: Sequence[bytes]) -> bytes:
    told = [
        ber.encode(ber.SEQUENCE, ber.text(key), ber.encode(ber.SET, *map(ber.text, values)))
        for key, values in attributes.items()
    ]
    return ber.encode(0x64, ber.text(name), ber.encode(ber.SEQUENCE, *told))


async def a_client(*answers: bytes) -> LdapClient:
    """One whose server says this, whatever it is asked, a piece at a time, and goes."""
    ours, theirs = memory_stream_pair()
    for octets in answers:
        await theirs.send_all(octets)
    await theirs.send_eof()
    return LdapClient(ours)


@pytest.mark.parametrize(("code", "right"), [(0, True), (49, False), (53, False), (19, False)])
async def test_a_bind_says_whether_a_password_is_right(code: int, right: bool) -> None:
    client = await a_client(message(1, result(0x61, code)))
    assert await client.bind("uid=bob", "horse") is right


async def test_a_bind_that_says_nothing_of_the_password_is_no_answer() -> None:
    client = await a_client(message(1, result(0x61, 51, "too busy")))
    with pytest.raises(LdapError, match="51 'too busy'"):
        await client.bind("uid=bob", "horse")


@pytest.mark.parametrize(("name", "password"), [("uid=bob", ""), ("", "horse")])
async def test_nobody_binds_without_a_password(name: str, password: str) -> None:
    """RFC 4513 §5.1.2: a server would call that a success."""
    client = await a_client(message(1, result(0x61, 0)))
    with pytest.raises(ValueError, match="a name and a password"):
        await client.bind(name, password)


async def search(*answers: bytes) -> list[Entry]:
    client = await a_client(*answers)
    return await client.search("dc=example", compile_filter("(a=b)"), ["mail"], seconds=5)


async def test_a_search_finds_entries_with_text() -> None:
    found = await search(
        message(1, entry("uid=bob", Mail=[b"a@b.example", b"c@d.example"], photo=[b"\xff\xd8"])),
        message(1, ber.encode(0x73, ber.text("ldap://other"))),
        message(1, entry("uid=ann")),
        message(1, result(0x65, 0)),
    )
    assert found == [
        Entry("uid=bob", {"mail": ("a@b.example", "c@d.example"), "photo": ()}),
        Entry("uid=ann", {}),
    ]


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ([message(1, result(0x65, 32))], "there is no base 'dc=example'"),
        ([message(1, result(0x65, 4))], "more entries"),
        ([message(1, result(0x65, 50, "no"))], "50 'no'"),
        ([message(1, entry("x"))] * 101, "more than 100 entries"),
        ([message(2, result(0x65, 0))], "another question"),
        ([message(1, result(0x61, 0))], "another kind"),
        ([message(0, result(0x78, 52, "shutting down"))], "hangs up: 52 'shutting down'"),
        ([message(1, b"\x64\x05abc")], "no LDAP"),
        ([b"HTTP/1.1 400 Bad Request\r\n" + b"x" * 200], "no LDAP|octets|ended"),
        ([b"\x30\x84\x7f\xff\xff\xff"], "more than 1048576 octets"),
        ([message(1, entry("x"))], "ended without an answer"),
        ([], "ended without an answer"),
    ],
)
async def test_all_else_is_no_answer(answers: list[bytes], told: str) -> None:
    with pytest.raises(LdapError, match=told):
        await search(*answers)


async def test_what_comes_before_tls_is_not_taken_for_what_comes_within(
    nursery: trio.Nursery,
) -> None:
    """As CVE-2011-0411, but of a server's answers."""
    import ssl

    injected = message(2, result(0x61, 0))
    client = await a_client(message(1, result(0x78, 0)) + injected)
    with pytest.raises(LdapError, match="before TLS"):
        await client.start_tls(ssl.create_default_context(), "ldap.example")


async def test_without_tls_nothing_more_is_said() -> None:
    import ssl

    client = await a_client(message(1, result(0x78, 2, "unsupported")))
    with pytest.raises(LdapError, match="StartTLS is refused: 2 'unsupported'"):
        await client.start_tls(ssl.create_default_context(), "ldap.example")


@given(st.binary(max_size=300))
def test_whatever_a_server_says_is_an_answer_or_an_error_of_ours(said: bytes) -> None:
    """Also where it stands in a message as it should be."""

    async def hear(octets: bytes) -> None:
        with suppress(LdapError):
            await search(octets)

    for octets in (said, message(1, said), message(1, ber.encode(0x64, said))):
        trio.run(hear, octets)
