from __future__ import annotations

import io
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from elemta import log
from fuzz import profiles

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

pytest_plugins = ["elemta.testing.fixtures"]

# What Hypothesis tries is the same each time, here as in CI.
profiles.load()

# Whoever starts the tests in the background of a shell has them ignore Ctrl-C, and all that they
# start would do the same, though tests say it to them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


#: As in the Makefile.
ROOMS = frozenset({"queue", "protocol", "message"})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what covers a room of its own."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here) and item.path.relative_to(here).parts[0] in ROOMS:
            item.add_marker("covered")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """What is long is called by how it begins: all names go to and fro between processes."""
    if isinstance(val, (str, bytes)) and len(val) > 60:
        return f"{argname}-{val[:40]!r}"
    return None


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is logged, a JSON line an event."""
    stream = io.StringIO()
    log.configure("json", stream=stream)
    yield stream
    log.configure()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    """Where everything can be installed, a test that was skipped is one that failed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") == "true" and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    return (yield)
