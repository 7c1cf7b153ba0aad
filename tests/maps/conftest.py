from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest

from elemta import log

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


@pytest.fixture
def logged() -> Generator[Callable[[], list[str]]]:
    """The events that were logged, in order."""
    stream = io.StringIO()
    log.configure("json", stream=stream)
    yield lambda: [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    log.configure()
