from __future__ import annotations

from typing import TYPE_CHECKING

from elemta.config import load
from elemta.plugins import CONTINUE, Defer, Session, Transaction
from elemta.plugins.built_in.recipient_limit import RecipientLimit, Settings
from elemta.protocol import MailParams, parse_mailbox
from tests.dialogue import CONFIG, TRUSTED, Server

if TYPE_CHECKING:
    import trio
    from trio.testing import MockClock


def transaction(recipients: int, *, trusted: bool = False) -> Transaction:
    session = Session(id="s1", address="192.0.2.1", port=1, listener="mx", trusted=trusted)
    named = [parse_mailbox(f"r{number}@here.example") for number in range(recipients)]
    return Transaction(session=session, id="Q1", sender=None, params=MailParams(), recipients=named)


async def test_recipients_beyond_the_ceiling_are_deferred() -> None:
    plugin = RecipientLimit(Settings(recipients=100))
    one_more = parse_mailbox("x@here.example")
    assert await plugin.on_rcpt(transaction(99), one_more) is CONTINUE
    assert isinstance(await plugin.on_rcpt(transaction(100), one_more), Defer)
    assert await plugin.on_rcpt(transaction(100, trusted=True), one_more) is CONTINUE


async def test_it_works_from_the_configuration(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    plugins = "plugins:\n  - {name: recipient-limit, settings: {recipients: 100}}\n"
    config = load(CONFIG + plugins)
    for client, answer in (
        ("192.0.2.1", "452 4.5.3 too many recipients"),
        (TRUSTED, "250 2.1.5 recipient OK"),
    ):
        server = Server(client=client, config=config)
        nursery.start_soon(server.run)
        await server.play("""
            S: 220 ...
            C: EHLO client.example
            C: MAIL FROM:<>
            S: 250 ...
            S: 250 ...
        """)
        for number in range(100):
            await server.client.send_all(f"RCPT TO:<r{number}@any.example>\r\n".encode())
            await server.expect("250 2.1.5 recipient OK")
        await server.client.send_all(b"RCPT TO:<one.more@any.example>\r\n")
        await server.expect(answer)
