"""Octets that somebody on the way puts round STARTTLS never reach the engine behind it.

Fault 12 of the original, and CVE-2011-0411 of many: what was buffered in clear was obeyed in TLS.
A real session, a real handshake, in memory; the attacker writes before, with and behind STARTTLS.
"""

from __future__ import annotations

import tempfile
from contextlib import suppress
from functools import cache, partial
from pathlib import Path

import trio
import trio.testing
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from elemta.config import load
from elemta.net.tls import TlsError, start_tls
from elemta.plugins import CONTINUE, Plugin, Transaction, Verdict
from fuzz.profiles import examples
from tests.dialogue import CONFIG, Server
from tests.net.certificates import Authority

EVIL = b"MAIL FROM:<evil@b.example>\r\n"
PIECES = st.lists(
    st.sampled_from(
        [b"", b"x", b"\r\n", b"RSET\r\n", b"NOOP\r\n", b"EHLO evil.example\r\n", EVIL, b"\x16\x03"]
    ),
    max_size=4,
).map(b"".join)


@cache
def folder() -> tempfile.TemporaryDirectory[str]:
    """For certificates; gone when the tests are."""
    return tempfile.TemporaryDirectory(prefix="elemta-fuzz-")


@cache
def authority() -> Authority:
    return Authority(Path(folder().name))


@cache
def config() -> str:
    return CONFIG + yaml.safe_dump({"tls": {"certificates": [authority().issue("mx.example")]}})


class Listening(Plugin):
    """Hears who sends what in TLS."""

    name = "listening"

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []

    @override
    async def on_mail(self, transaction: Transaction) -> Verdict:
        if transaction.session.encryption is not None:
            self.heard.append((transaction.session.helo, str(transaction.sender)))
        return CONTINUE


async def attack(before: bytes, behind: bytes, between: bytes, cut: int) -> list[tuple[str, str]]:
    """What is heard in TLS of a client that means well, and of whoever is on its way.

    Args:
        before: said before STARTTLS.
        behind: said in one write with it.
        between: said between its answer and the handshake.
        cut: octets of `before` that come in a write of their own.
    """
    listening = Listening()
    server = Server(listening, config=load(config()), hard_errors=100, unknown_commands=100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        with suppress(TlsError, trio.BrokenResourceError, trio.ClosedResourceError):
            await server.expect("220 ...")
            await server.client.send_all(b"EHLO client.example\r\n" + before[:cut])
            await trio.testing.wait_all_tasks_blocked()
            await server.client.send_all(before[cut:] + b"RSET\r\nSTARTTLS\r\n" + behind)
            while (line := await server.line()) and not line.startswith("220 "):
                pass
            if line:
                if between:
                    await server.client.send_all(between)
                encrypted = await start_tls(
                    server.client, authority().client(), server_name="mx.example"
                )
                await encrypted.send_all(b"EHLO client.example\r\nMAIL FROM:<ann@b.example>\r\n")
                await trio.testing.wait_all_tasks_blocked()
        server.client.close()
    return listening.heard


@given(before=PIECES, behind=PIECES, between=PIECES, cut=st.integers(0, 60))
@examples(60)
def test_what_is_injected_is_never_heard(
    before: bytes, behind: bytes, between: bytes, cut: int
) -> None:
    clock = trio.testing.MockClock(autojump_threshold=0)
    heard = trio.run(partial(attack, before, behind, between, cut), clock=clock)
    assert heard in ([], [("client.example", "ann@b.example")])
    if behind or between:
        assert heard == []
    elif not before:
        assert heard  # so this test is about something
