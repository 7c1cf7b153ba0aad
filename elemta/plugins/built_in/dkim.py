"""Verifies the DKIM signatures of a message (RFC 6376)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from msgspec import Meta
from typing_extensions import override

from elemta.mailauth import SIGNATURES, DkimSignature, check_dkim
from elemta.plugins import CONTINUE, PluginWith, TooLargeError, Transaction, Verdict
from elemta.plugins.built_in.verifying import Once, Sized, is_stranger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elemta.plugins import Content, Tools


class Settings(Sized, frozen=True):
    """The ``settings`` of ``dkim``."""

    #: Signatures that are verified, from the top; of the rest the result says that they were not.
    signatures: Annotated[int, Meta(ge=1, le=50)] = SIGNATURES


_DEFAULTS: Final = Settings()


class _State(Once):
    pass


async def dkim_of(
    transaction: Transaction, content: Content, tools: Tools, settings: Settings = _DEFAULTS
) -> tuple[DkimSignature, ...]:
    """What became of each signature of a message: verified once, and remembered in its results.

    Args:
        transaction: the message.
        content: what is in it.
        tools: of the plugin that wants to know.
        settings: of ``dkim``.
    """
    async with transaction.kept.of(_State).asking:
        found = transaction.results.of(DkimSignature)
        if not found:
            found = tuple(await _verified(content, tools, settings))
            for each in found:
                transaction.results.add(each, tools.name)
                tools.meters.authentication["dkim", each.result] += 1
    return found


async def _verified(content: Content, tools: Tools, settings: Settings) -> Sequence[DkimSignature]:
    if content.header.first(b"dkim-signature") is None:
        return [DkimSignature("none")]
    if content.size > settings.size:
        return [DkimSignature("policy", reason=f"not verified: over {settings.size.written}")]
    try:
        message = await content.read(settings.size)
    except TooLargeError as error:
        return [DkimSignature("temperror", reason=str(error))]
    return await check_dkim(
        message,
        resolver=tools.resolver,
        in_thread=tools.briefly,
        now=tools.clock(),
        signatures=settings.signatures,
    )


class DkimPlugin(PluginWith[Settings]):
    """Verifies the DKIM signatures of a message (RFC 6376)."""

    name = "dkim"

    @override
    async def on_inspect(self, transaction: Transaction, content: Content) -> Verdict:
        if is_stranger(transaction.session):
            await dkim_of(transaction, content, self.tools, self.settings)
        return CONTINUE
