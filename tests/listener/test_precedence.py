"""How soon a message is wanted: by its client, its header, a plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from typing_extensions import override

from elemta.plugins import (
    CONTINUE,
    Content,
    Continue,
    Plugin,
    Prioritise,
    Tag,
    Transaction,
    Verdict,
)
from elemta.queue import Priority
from tests.dialogue import STRANGER, TRUSTED, Server

if TYPE_CHECKING:
    import trio

    from elemta.queue import Envelope


async def taken(
    nursery: trio.Nursery,
    *,
    client: str = TRUSTED,
    mail: str = "",
    header: str = "Subject: x",
    plugin: Plugin | None = None,
    answer: str = "250 2.1.0 sender OK",
) -> Envelope:
    """A message is taken with these; its envelope."""
    server = Server(*([plugin] if plugin else []), client=client, mt_priority=True)
    nursery.start_soon(server.run)
    await server.play(f"""
        S: 220 ...
        C: EHLO client.example
        S: 250 ...
        C: MAIL FROM:<a@b.example> {mail}
        S: {answer}
        C: RCPT TO:<alice@here.example>
        C: DATA
        S: 250 ...
        S: 354 ...
        C: {header}
        C:
        C: .
        S: 250 ...
    """)
    return server.queue.kept[0].envelope


LOWERED = "250 2.3.6 0 is its priority: you may not raise it; sender OK"


@pytest.mark.parametrize(
    ("client", "said", "kept", "priority", "answer"),
    [
        (TRUSTED, 9, 9, Priority.CRITICAL, "250 2.1.0 sender OK"),
        (TRUSTED, 4, 4, Priority.HIGH, "250 2.1.0 sender OK"),
        (TRUSTED, -1, -1, Priority.LOW, "250 2.1.0 sender OK"),
        (STRANGER, 9, 0, Priority.NORMAL, LOWERED),
        (STRANGER, 1, 0, Priority.NORMAL, LOWERED),
        (STRANGER, 0, 0, Priority.NORMAL, "250 2.1.0 sender OK"),
        (STRANGER, -9, -9, Priority.LOW, "250 2.1.0 sender OK"),
    ],
)
async def test_only_trusted_clients_can_raise_a_priority(
    client: str,
    said: int,
    kept: int,
    priority: Priority,
    answer: str,
    nursery: trio.Nursery,
) -> None:
    envelope = await taken(nursery, client=client, mail=f"MT-PRIORITY={said}", answer=answer)
    assert envelope.params.mt_priority == kept
    assert envelope.priority is priority


async def test_where_nobody_says_anything_a_message_is_as_urgent_as_any(
    nursery: trio.Nursery,
) -> None:
    envelope = await taken(nursery)
    assert envelope.params.mt_priority is None
    assert envelope.priority is Priority.NORMAL


@pytest.mark.parametrize(
    ("header", "value", "priority"),
    [
        ("MT-Priority: 4", 4, Priority.HIGH),
        ("mt-priority:-3 (bulk)", -3, Priority.LOW),
        ("MT-Priority: soon", None, Priority.NORMAL),
        ("MT-Priority: 10", None, Priority.NORMAL),
        ("X-About: MT-Priority: 9", None, Priority.NORMAL),
    ],
)
async def test_the_field_of_a_trusted_client_stands_in_for_the_parameter(
    header: str, value: int | None, priority: Priority, nursery: trio.Nursery
) -> None:
    envelope = await taken(nursery, header=header)
    assert envelope.params.mt_priority == value
    assert envelope.priority is priority


async def test_the_parameter_counts_more_than_the_field(nursery: trio.Nursery) -> None:
    envelope = await taken(nursery, mail="MT-PRIORITY=-2", header="MT-Priority: 9")
    assert envelope.params.mt_priority == -2
    assert envelope.priority is Priority.LOW


async def test_the_field_of_a_stranger_counts_for_nothing(nursery: trio.Nursery) -> None:
    envelope = await taken(nursery, client=STRANGER, header="MT-Priority: -9")
    assert envelope.params.mt_priority is None
    assert envelope.priority is Priority.NORMAL


class Newsletters(Plugin):
    name = "newsletters"

    @override
    async def on_message(self, transaction: Transaction, content: Content) -> Verdict:
        if content.header.has(b"list-id"):
            return Continue(changes=(Prioritise(Priority.LOW), Tag("newsletter")))
        return CONTINUE


async def test_a_plugin_has_the_last_word_and_can_tag(nursery: trio.Nursery) -> None:
    envelope = await taken(
        nursery, mail="MT-PRIORITY=9", header="List-Id: <l.example>", plugin=Newsletters()
    )
    assert envelope.priority is Priority.LOW
    assert envelope.params.mt_priority == 9
    assert envelope.tags == ("newsletter",)


async def test_what_no_plugin_cares_about_stays_as_it_is(nursery: trio.Nursery) -> None:
    envelope = await taken(nursery, mail="MT-PRIORITY=9", plugin=Newsletters())
    assert envelope.priority is Priority.CRITICAL
    assert envelope.tags == ()


async def test_a_priority_is_not_known_where_it_is_not_offered(nursery: trio.Nursery) -> None:
    server = Server(client=TRUSTED)
    nursery.start_soon(server.run)
    await server.play("""
        S: 220 ...
        C: EHLO client.example
        S: 250 ...
        C: MAIL FROM:<a@b.example> MT-PRIORITY=1
        S: 555 5.5.4 parameter not recognized or not implemented
    """)


async def test_what_is_no_priority_is_refused(nursery: trio.Nursery) -> None:
    server = Server(client=TRUSTED, mt_priority=True)
    nursery.start_soon(server.run)
    await server.play("""
        S: 220 ...
        C: EHLO client.example
        S: 250 ...
        C: MAIL FROM:<a@b.example> MT-PRIORITY=10
        S: 501 5.5.4 syntax error in parameters
        C: MAIL FROM:<a@b.example> MT-PRIORITY=1
        S: 250 2.1.0 sender OK
    """)
