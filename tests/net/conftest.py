from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.net.links import encrypted, memory_link, socket_link

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.net.links import Link


@pytest.fixture(params=["memory", "socket", "tls over memory", "tls over socket"])
async def link(request: pytest.FixtureRequest) -> AsyncIterator[Link]:
    *tls, kind = request.param.split(" over ")
    with memory_link() if kind == "memory" else socket_link() as made:
        yield await encrypted(made) if tls else made
