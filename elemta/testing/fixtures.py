"""Fixtures for pytest with pytest-trio: the one module of Elemta that imports them.

In the ``conftest.py`` beside your tests::

    pytest_plugins = ["elemta.testing.fixtures"]

    @pytest.fixture
    def elemta_plugins() -> list[Plugin]:
        return [Tarpit(Settings(seconds=5))]

And in a test, which needs no mark::

    async def test_who_is_polite_is_let_in(elemta: Elemta) -> None:
        reply = await elemta.send("ann@sender.example", "bob@us.example")
        assert reply.code == 250
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Final

import pytest

from elemta.testing.running import CONFIG, on_virtual_time, running
from elemta.testing.stand_ins import FakeClock, FakeDns

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    from elemta.config import Config
    from elemta.plugins import Plugin
    from elemta.testing.running import Elemta


#: Who asks for one of these has virtual time.
_VIRTUAL: Final = frozenset({"elemta", "virtual_time"})


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run tests that want virtual time on it, whatever else the mark ``trio`` says."""
    for item in items:
        if isinstance(item, pytest.Function) and _wants_virtual_time(item):
            item.add_marker(pytest.mark.trio(run=on_virtual_time), append=False)


def _wants_virtual_time(item: pytest.Function) -> bool:
    if not _VIRTUAL.isdisjoint(item.fixturenames):
        return inspect.iscoroutinefunction(item.obj)
    return any(mark.kwargs.get("run") is on_virtual_time for mark in item.iter_markers("trio"))


@pytest.fixture
def virtual_time() -> None:
    """Time passes when all wait: for a test that has a server by `elemta.testing.running`."""


@pytest.fixture
def elemta_config() -> str | Config:
    """What the server of this test runs; override it for another."""
    return CONFIG


@pytest.fixture
def elemta_plugins() -> Sequence[Plugin]:
    """What it asks beside the plugins of `elemta_config`; override it for yours."""
    return ()


@pytest.fixture
def fake_dns() -> FakeDns:
    """The name servers of this test."""
    return FakeDns()


@pytest.fixture
def fake_clock() -> FakeClock:
    """A clock for plugins that a test asks without a server."""
    return FakeClock()


@pytest.fixture
async def elemta(
    elemta_config: str | Config,
    elemta_plugins: Sequence[Plugin],
    fake_dns: FakeDns,
    tmp_path: Path,
) -> AsyncGenerator[Elemta]:
    """A whole server in memory, on virtual time, which runs as long as the test."""
    async with running(elemta_config, elemta_plugins, folder=tmp_path, dns=fake_dns) as server:
        yield server
