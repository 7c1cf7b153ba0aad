from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.net.links import memory_link, socket_link

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.net.links import Link


@pytest.fixture(params=[memory_link, socket_link], ids=["memory", "socket"])
def link(request: pytest.FixtureRequest) -> Iterator[Link]:
    with request.param() as made:
        yield made
