from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from elemta.config import Service
from elemta.net.services import connect_service

if TYPE_CHECKING:
    from pathlib import Path


async def shout(stream: trio.SocketStream) -> None:
    await stream.send_all((await stream.receive_some(100)).upper())


async def asked(service: Service) -> bytes:
    async with await connect_service(service) as stream:
        await stream.send_all(b"hello")
        return bytes(await stream.receive_some(100))


async def test_a_service_is_reached_by_tcp(nursery: trio.Nursery) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, shout, [listener])
    port = listener.socket.getsockname()[1]
    assert await asked(Service.parse(f"127.0.0.1:{port}")) == b"HELLO"


async def test_a_service_is_reached_at_its_socket(nursery: trio.Nursery, tmp_path: Path) -> None:
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(str(tmp_path / "x.sock"))
    sock.listen()
    nursery.start_soon(trio.serve_listeners, shout, [trio.SocketListener(sock)])
    assert await asked(Service.parse(str(tmp_path / "x.sock"))) == b"HELLO"


async def test_where_nobody_is_that_is_said(tmp_path: Path) -> None:
    for where in ("127.0.0.1:1", str(tmp_path / "nobody.sock")):
        with pytest.raises(OSError, match=r"."):
            await connect_service(Service.parse(where))
