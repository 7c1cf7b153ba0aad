"""Octets that somebody on the way puts between the words of a host, where TLS is about to begin.

Fault 12 of the original, from the other side: what was said in clear must never be taken for what
is said in TLS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
import trio
import trio.testing

from elemta.delivery.session import SmtpSession, Timeouts, Tls
from elemta.delivery.unusable import HostUnusable
from elemta.net.memory import memory_transport_pair
from elemta.net.tls import TlsError, client_context, start_tls
from elemta.protocol import Credentials
from tests.delivery.world import on_virtual_time
from tests.net.certificates import authority, trusted_context

if TYPE_CHECKING:
    from pathlib import Path

    from elemta.net.transport import Transport

pytestmark = pytest.mark.trio(run=on_virtual_time)

US: Final = Credentials("user", "pencil")
#: What the host says in clear, and what comes of it once there is TLS.
CLEAR: Final = (b"220 hello\r\n", b"250-host\r\n250 STARTTLS\r\n", b"220 go\r\n")
SECRET: Final = (b"250-host\r\n250 AUTH PLAIN\r\n", b"235 in\r\n")

INJECTED: Final = [
    *(b"2", b"\r", b"\n", b"\r\n", b"220 ", b"\x16", b"\x00"),
    *(
        b"220 go\r\n",
        b"235 in\r\n",
        b"250-host\r\n250-SIZE 1\r\n250 AUTH LOGIN\r\n",
        b"421 bye\r\n",
    ),
]


#: Becomes a part of the text of a reply in clear, which means nothing.
HARMLESS: Final = [(b"220 ", 0), (b"220 ", 2)]


class Line:
    """A host, and somebody on the way to it.

    Args:
        transport: the host's end.
        point: before which of its words something is injected; 3: behind all that is in clear;
            4: in between what is in TLS.
        octets: what.
        apart: it is a piece of its own, not in one with what stands before it.
    """

    def __init__(self, transport: Transport, point: int, octets: bytes, *, apart: bool) -> None:
        self.transport = transport
        self.point = point
        self.octets = octets
        self.apart = apart
        self.heard = b""

    async def run(self) -> None:
        try:
            await self._talk()
        except (trio.BrokenResourceError, TlsError):
            pass
        finally:
            self.transport.close()

    async def _talk(self) -> None:
        before = b""
        for number, words in enumerate(CLEAR):
            if number == self.point:
                if self.apart:
                    await self.transport.send_all(self.octets)
                else:
                    before = self.octets
            after = b""
            if number == 2 and self.point == 3 and not self.apart:
                after = self.octets
            await self.transport.send_all(before + words + after)
            before = b""
            if number < 2:
                await self.transport.receive()
        if self.point == 3 and self.apart:
            await self.transport.send_all(self.octets)
        raw = self.transport
        encrypted = await start_tls(raw, trusted_context("host.example"), server_side=True)
        for words in SECRET:
            if not (heard := await encrypted.receive()):
                return
            self.heard += heard
            if self.point == 4:
                await raw.send_all(self.octets)
            await encrypted.send_all(words)
        self.heard += await encrypted.receive()


def tls(tmp_path: Path) -> Tls:
    file = tmp_path / "ca.pem"
    file.write_bytes(authority().cert_pem.bytes())
    context = client_context(verified=True, authorities=file)
    return Tls(context, "host.example", required=True)


@pytest.mark.parametrize("apart", [False, True], ids=["in one piece", "apart"])
@pytest.mark.parametrize("point", range(5))
@pytest.mark.parametrize("octets", INJECTED, ids=repr)
async def test_whatever_is_injected_in_clear_says_nothing_in_tls(
    octets: bytes, point: int, apart: bool, tmp_path: Path, nursery: trio.Nursery
) -> None:
    ours, theirs = memory_transport_pair()
    line = Line(theirs, point, octets, apart=apart)
    nursery.start_soon(line.run)
    session = SmtpSession(ours)
    if (octets, point) in HARMLESS:
        await session.open("us.example", Timeouts(), tls(tmp_path), US)
        assert session.extensions.auth == {"PLAIN"}, "what is offered in TLS, and nothing else"
        assert session.extensions.size is None
    else:
        with pytest.raises(HostUnusable):
            await session.open("us.example", Timeouts(), tls(tmp_path), US)
        # What was in doubt was not told who we are, unless in TLS before it was.
        assert b"AUTH" not in line.heard or point == 4
    assert b"MAIL" not in line.heard
    session.close()


async def test_where_nothing_is_injected_it_goes_well(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    ours, theirs = memory_transport_pair()
    line = Line(theirs, 9, b"", apart=False)
    nursery.start_soon(line.run)
    session = SmtpSession(ours)
    await session.open("us.example", Timeouts(), tls(tmp_path), US)
    assert session.secret.endswith(" verified")
    assert line.heard.startswith(b"EHLO us.example\r\nAUTH PLAIN ")
    session.close()


async def test_who_we_are_is_never_said_in_clear_whatever_went_before(
    nursery: trio.Nursery,
) -> None:
    # Configurations cannot ask for it; it must not come about by a fault of ours either.
    ours, theirs = memory_transport_pair()
    heard: list[bytes] = []

    async def host() -> None:
        for words in (b"220 hello\r\n", b"250-host\r\n250 AUTH PLAIN LOGIN\r\n"):
            await theirs.send_all(words)
            heard.append(await theirs.receive())

    nursery.start_soon(host)
    session = SmtpSession(ours)
    with pytest.raises(HostUnusable, match="nobody is told our password in clear"):
        await session.open("us.example", Timeouts(), None, US)
    session.close()
    await trio.testing.wait_all_tasks_blocked()
    assert heard == [b"EHLO us.example\r\n", b""]
