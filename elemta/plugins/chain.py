"""Asks the plugins one after the other, and answers for those that fail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio
from msgspec.structs import replace

from elemta.log import logger
from elemta.plugins.api import CONTINUE, Continue, Defer, Plugin, Reject, Session, Transaction
from elemta.plugins.loader import Counts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from elemta.plugins.api import Verdict
    from elemta.plugins.loader import Loaded
    from elemta.protocol import Mailbox

log = logger(__name__)


class Chain:
    """All plugins, in the order of the configuration; the first that objects decides.

    A hook that no plugin overrides costs its caller one look at an attribute::

        if chain.rcpt:
            verdict = await chain.on_rcpt(transaction, recipient)

    Attributes:
        plugins: all of them, also those that are not asked.
        connect, hello, mail, rcpt, data, message: who overrides that hook, first to last.
    """

    def __init__(self, plugins: Sequence[Loaded] = ()) -> None:
        self.plugins = tuple(plugins)
        enabled = [loaded for loaded in plugins if loaded.enabled]

        def who(hook: str) -> tuple[Loaded, ...]:
            return tuple(loaded for loaded in enabled if hook in hooks(loaded.plugin))

        self.connect = who("on_connect")
        self.hello = who("on_hello")
        self.mail = who("on_mail")
        self.rcpt = who("on_rcpt")
        self.data = who("on_data")
        self.message = who("on_message")

    def switched(self, name: str, *, enabled: bool) -> Chain:
        """The same plugins, of which one is asked or is not.

        Args:
            name: what the configuration calls it.
            enabled: whether it is asked.

        Raises:
            LookupError: there is none of this name.
        """
        if all(each.name != name for each in self.plugins):
            raise LookupError(name)
        return Chain(
            [replace(each, enabled=enabled) if each.name == name else each for each in self.plugins]
        )

    def dry(self) -> Chain:
        """Those alone that may be asked of mail that never comes; nothing is counted."""
        return Chain([replace(each, counts=Counts()) for each in self.plugins if each.plugin.dry])

    async def on_connect(self, session: Session) -> Verdict:
        """The verdict of all plugins on a connection."""
        return await _ask(self.connect, session, lambda plugin: plugin.on_connect(session))

    async def on_hello(self, session: Session, name: str) -> Verdict:
        """The verdict of all plugins on what a client calls itself."""
        return await _ask(self.hello, session, lambda plugin: plugin.on_hello(session, name))

    async def on_mail(self, transaction: Transaction) -> Verdict:
        """The verdict of all plugins on a sender."""
        return await _ask(
            self.mail, transaction.session, lambda plugin: plugin.on_mail(transaction)
        )

    async def on_rcpt(self, transaction: Transaction, recipient: Mailbox) -> Verdict:
        """The verdict of all plugins on a recipient."""
        return await _ask(
            self.rcpt, transaction.session, lambda plugin: plugin.on_rcpt(transaction, recipient)
        )

    async def on_data(self, transaction: Transaction) -> Verdict:
        """The verdict of all plugins on an envelope."""
        return await _ask(
            self.data, transaction.session, lambda plugin: plugin.on_data(transaction)
        )

    async def on_message(self, transaction: Transaction, content_head: bytes) -> Verdict:
        """The verdict of all plugins on a message."""
        return await _ask(
            self.message,
            transaction.session,
            lambda plugin: plugin.on_message(transaction, content_head),
        )


#: All hooks, in the order of a conversation.
HOOKS: Final = ("on_connect", "on_hello", "on_mail", "on_rcpt", "on_data", "on_message")


def hooks(plugin: Plugin) -> tuple[str, ...]:
    """The hooks that a plugin overrides, in the order of a conversation."""
    kind = type(plugin)
    return tuple(each for each in HOOKS if _hook(kind, each) is not _hook(Plugin, each))


def _hook(kind: type[Plugin], name: str) -> object:
    found: object = getattr(kind, name)
    return found


async def _ask(
    plugins: tuple[Loaded, ...], session: Session, hook: Callable[[Plugin], Awaitable[object]]
) -> Verdict:
    for loaded in plugins:
        plugin, counts = loaded.plugin, loaded.counts
        counts.asked += 1
        began = trio.current_time()
        try:
            with trio.fail_after(loaded.timeout):
                found = await hook(plugin)
        except Exception as error:
            # Whatever a plugin does, it must not cost a client its session.
            log.exception(
                "plugin.failed",
                plugin=plugin.name,
                session=session.id,
                error=f"{type(error).__name__}: {error}",
            )
            counts.failed += 1
            found = plugin.on_error
        counts.seconds.observe(trio.current_time() - began)
        match found:
            case Continue():
                continue
            case Defer() | Reject():
                counts.objected += 1
                log.info(
                    "plugin.objected",
                    plugin=plugin.name,
                    session=session.id,
                    verdict=type(found).__name__.lower(),
                    text=found.text,
                    note=found.note,
                )
                return found
            case _:
                # An untyped author forgot to return something: fail closed, as on an exception.
                counts.failed += 1
                log.error(
                    "plugin.failed",
                    plugin=plugin.name,
                    session=session.id,
                    error=f"a verdict was expected, not {type(found).__name__}",
                )
                if not isinstance(plugin.on_error, Continue):
                    return plugin.on_error
    return CONTINUE
