from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from elemta import log

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is logged at its most talkative, where no secret may stand either."""
    stream = io.StringIO()
    log.configure("json", "debug", stream=stream)
    yield stream
    log.configure()
