"""Verifies the chain of those who passed a message on (RFC 8617)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from typing_extensions import override

from elemta.mailauth import Arc, check_arc
from elemta.plugins import CONTINUE, PluginWith, TooLargeError, Transaction, Verdict
from elemta.plugins.built_in.verifying import Once, Sized, is_stranger

if TYPE_CHECKING:
    from elemta.plugins import Content, Tools


class Settings(Sized, frozen=True):
    """The ``settings`` of ``arc``."""


_DEFAULTS: Final = Settings()


class _State(Once):
    pass


async def arc_of(
    transaction: Transaction, content: Content, tools: Tools, settings: Settings = _DEFAULTS
) -> Arc:
    """What became of a message's chain: verified once, and remembered in its results.

    Args:
        transaction: the message.
        content: what is in it.
        tools: of the plugin that wants to know.
        settings: of ``arc``.
    """
    async with transaction.kept.of(_State).asking:
        found = transaction.results.first(Arc)
        if found is None:
            found = await _verified(content, tools, settings)
            transaction.results.add(found, tools.name)
            tools.meters.authentication["arc", found.result] += 1
    return found


async def _verified(content: Content, tools: Tools, settings: Settings) -> Arc:
    if not any(name.startswith(b"arc-") for name, _ in content.header.fields):
        return Arc("none")
    if content.size > settings.size:
        reason = f"not verified: over {settings.size.written}"
        return Arc("permerror", reason=reason, looked=False)
    try:
        message = await content.read(settings.size)
    except TooLargeError as error:
        return Arc("temperror", reason=str(error))
    return await check_arc(message, resolver=tools.resolver, in_thread=tools.briefly)


class ArcPlugin(PluginWith[Settings]):
    """Verifies the chain of those who passed a message on (RFC 8617)."""

    name = "arc"

    @override
    async def on_inspect(self, transaction: Transaction, content: Content) -> Verdict:
        if is_stranger(transaction.session):
            await arc_of(transaction, content, self.tools, self.settings)
        return CONTINUE
