from __future__ import annotations

import pytest

from tests.delivery.world import on_virtual_time


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let ``pytestmark = pytest.mark.trio(run=on_virtual_time)`` win over the mark of trio_mode."""
    for item in items:
        if any(mark.kwargs.get("run") is on_virtual_time for mark in item.iter_markers("trio")):
            item.add_marker(pytest.mark.trio(run=on_virtual_time), append=False)
