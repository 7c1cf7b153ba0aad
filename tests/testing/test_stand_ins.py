from __future__ import annotations

import pytest

from elemta.net.dns import DnsTemporaryError, Kind, NoRecordsError, NoSuchDomainError
from elemta.plugins import TooLargeError
from elemta.testing import FakeContent, FakeDns, a_letter, a_transaction, some_tools


@pytest.mark.parametrize("text", ["", "v=spf1 -all", "\\" * 199 + 'a "b" ' * 60])
async def test_a_text_comes_back_as_it_was_given(text: str) -> None:
    dns = FakeDns()
    dns.text("Example.net.", text)
    assert await some_tools(dns=dns).resolver.texts("example.net") == [text.encode()]


async def test_what_name_servers_do_not_know_is_not_there() -> None:
    dns = FakeDns({("mx.example.net", "A"): ["192.0.2.9"]})
    dns.failing.add("broken.example")
    resolver = some_tools(dns=dns).resolver
    for name, error in (
        ("example.org", NoSuchDomainError),
        ("example.net", NoRecordsError),
        ("broken.example", DnsTemporaryError),
    ):
        with pytest.raises(error):
            await resolver.records(name, Kind.TXT)
    assert dns.asked == [(n, "TXT") for n in ("example.org", "example.net", "broken.example")]


async def test_content_is_whole_or_in_pieces() -> None:
    octets = b"Subject: hi\r\n\r\n" + b"x" * 2000
    content = FakeContent(octets)
    assert content.header.first(b"subject") == b"hi"
    assert b"".join([each async for each in content.pieces()]) == await content.read()
    with pytest.raises(TooLargeError):
        await content.read(most=100)


async def test_a_letter_can_be_read() -> None:
    letter = a_letter(content=b"Subject: hi\r\n\r\n", tags=["bulk"], attempts=3)
    assert await letter.read() == b"Subject: hi\r\n\r\n"
    assert (letter.number, letter.message.tags, letter.destination) == (
        3,
        ("bulk",),
        "mx:far.example",
    )
    with pytest.raises(TooLargeError):
        await letter.read(most=10)


def test_a_transaction_has_whom_it_is_for() -> None:
    transaction = a_transaction(sender="", recipients=["a@us.example", "b@us.example"])
    assert transaction.sender is None
    assert list(transaction.addressees) == transaction.recipients
