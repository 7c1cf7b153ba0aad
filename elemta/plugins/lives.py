"""The lives of plugins: started before mail comes, run beside it, stopped when nobody uses them.

Each plugin has one task for all of its life, so what it opens in `start` is closed in the same one.
After a reload those that are no more wanted live on until the last session that knows them is over.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from elemta.config import ConfigError, Mistake
from elemta.log import logger
from elemta.plugins.plugin import Plugin
from elemta.supervision import once, words_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from elemta.plugins.chain import Chain
    from elemta.plugins.loader import Loaded
    from elemta.plugins.tools import Tools
    from elemta.supervision import Keeps

log = logger(__name__)

#: Seconds that a plugin may take to stop.
STOPPING: Final = 10.0


class Lives:
    """All plugins that live.

    Args:
        tools: makes what a plugin gets to work with.
        keep: runs what plugins do beside the mail: starts it again, it may be, if it fails.
    """

    def __init__(self, tools: Callable[[Loaded], Tools], *, keep: Keeps = once) -> None:
        self._tools = tools
        self._keep = keep
        self._alive: dict[Plugin, trio.Event] = {}
        self._chains: list[Chain] = []
        self._nursery: trio.Nursery | None = None

    @asynccontextmanager
    async def living(self, chain: Chain) -> AsyncGenerator[None]:
        """As long as this is entered the plugins of a chain live, or those that come after it.

        Raises:
            ConfigError: one of them cannot start.
        """
        failure: ConfigError | None = None
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                await self.begin(chain)
            except ConfigError as error:
                failure = error  # raised below, since a nursery would wrap it up
            else:
                yield
            self._nursery = None
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def begin(self, chain: Chain) -> None:
        """Start those plugins of a chain that do not live yet, all of them or none.

        From now on `chain` is the one; those of the one before it that are not in this one are
        stopped when its last user is gone.

        Raises:
            ConfigError: one of them cannot start; nothing has changed then.
        """
        nursery = self._nursery
        begun: list[Plugin] = []
        for place, loaded in enumerate(chain.plugins):
            if loaded.plugin in self._alive:
                continue
            if nursery is None:
                raise ConfigError(Mistake(f"plugins[{place}]", "plugins are being stopped"))
            try:
                await nursery.start(self._live, loaded)
            except BaseException as error:  # a third party's, or whoever wants this has gone
                for each in begun:
                    self._alive[each].set()
                if not isinstance(error, Exception):
                    raise
                problem = f"{loaded.name} cannot start: {words_of(error)}"
                raise ConfigError(Mistake(f"plugins[{place}]", problem)) from error
            begun.append(loaded.plugin)
        former = self._chains[-1:]
        self._chains.append(chain)
        if nursery is not None:
            for last in former:
                nursery.start_soon(self._retire, last)

    async def _live(
        self, loaded: Loaded, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        plugin, over = loaded.plugin, trio.Event()
        plugin.tools = self._tools(loaded)
        try:
            await _start(loaded)
            self._alive[plugin] = over
            task_status.started()
            async with trio.open_nursery() as nursery:
                if type(plugin).run is not Plugin.run:
                    run = partial(_run, plugin)
                    nursery.start_soon(self._keep, f"plugin {loaded.name}", run)
                await over.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._alive.pop(plugin, None)
            await _stop(loaded)

    async def _retire(self, chain: Chain) -> None:
        """Stop what only this chain had, once it is used no more."""
        await chain.users.none_left()
        if chain not in self._chains or chain is self._chains[-1]:
            return
        self._chains.remove(chain)
        wanted = {loaded.plugin for each in self._chains for loaded in each.plugins}
        for loaded in chain.plugins:
            if loaded.plugin not in wanted and (over := self._alive.get(loaded.plugin)) is not None:
                over.set()


async def _start(loaded: Loaded) -> None:
    with trio.move_on_after(loaded.timeout) as scope:
        try:
            await loaded.plugin.start()
        except SystemExit as error:
            raise _wants_to_exit(error) from error
    if scope.cancelled_caught:
        raise TimeoutError(f"it takes more than {loaded.timeout:g} seconds")


async def _run(plugin: Plugin) -> None:
    try:
        await plugin.run()
    except SystemExit as error:
        raise _wants_to_exit(error) from error


def _wants_to_exit(error: SystemExit) -> RuntimeError:
    """A library may think that it is a program; it must not end this one."""
    return RuntimeError(f"it wants to end the process: {error}")


async def _stop(loaded: Loaded) -> None:
    with trio.CancelScope(shield=True, deadline=trio.current_time() + STOPPING) as scope:
        try:
            await loaded.plugin.stop()
        except (Exception, SystemExit):
            log.exception("plugin.not_stopped", plugin=loaded.name)
    if scope.cancelled_caught:
        log.error("plugin.not_stopped", plugin=loaded.name, seconds=STOPPING)
