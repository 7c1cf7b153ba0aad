"""Says in the message what was found out about it (RFC 8601), and takes out who forged that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from msgspec import Meta
from typing_extensions import override

from elemta.config import Table
from elemta.mailauth import (
    FIELD,
    Arc,
    DkimSignature,
    Dmarc,
    Iprev,
    Spf,
    is_forged,
    write_results,
)
from elemta.plugins import (
    AddHeader,
    Change,
    Continue,
    PluginWith,
    RemoveHeader,
    Transaction,
    Verdict,
)
from elemta.plugins.built_in.verifying import is_stranger

if TYPE_CHECKING:
    from elemta.plugins import Content

_NAME: Final = "Authentication-Results"
#: Forged fields that are taken out one by one; whoever sends more loses all he has.
_MANY: Final = 20


class Settings(Table, frozen=True):
    """The ``settings`` of ``authentication-results``."""

    #: Who says it; empty: the name of this server.
    authserv_id: Annotated[str, Meta(max_length=255, pattern=r"^[!#-'*+.0-9A-Z^-~-]*\Z")] = ""
    #: Other names of ours: fields that bear them are taken out, too.
    also_ours: tuple[
        Annotated[str, Meta(max_length=255, pattern=r"^[!#-'*+.0-9A-Z^-~-]+\Z")], ...
    ] = ()


class AuthenticationResults(PluginWith[Settings]):
    """Says in the message what was found out about it (RFC 8601), and takes out who forged that."""

    name = "authentication-results"

    @override
    async def on_message(self, transaction: Transaction, content: Content) -> Verdict:
        authserv_id = self.settings.authserv_id or self.tools.hostname
        ours = {each.lower().removesuffix(".") for each in (authserv_id, *self.settings.also_ours)}
        changes = _removals(content, ours)
        if changes:
            self.tools.count("forged")
        if is_stranger(transaction.session):
            changes.append(AddHeader(_NAME, stated(transaction, authserv_id)))
        return Continue(tuple(changes))


def stated(transaction: Transaction, authserv_id: str) -> str:
    """What was found out about a message, as a field has it.

    Args:
        transaction: the message.
        authserv_id: who says it.
    """
    results = transaction.results
    found = (
        *results.of(Iprev),
        *results.of(Spf),
        *results.of(DkimSignature),
        *results.of(Arc),
        *results.of(Dmarc),
    )
    return write_results(authserv_id, [str(each) for each in found])


def _removals(content: Content, ours: set[str]) -> list[Change]:
    if content.header.first(FIELD.encode()) is None:
        return []
    fields = [value for name, value in content.header.fields if name == FIELD.encode()]
    forged = [number for number, value in enumerate(fields, 1) if is_forged(value, ours)]
    if len(forged) > _MANY:
        return [RemoveHeader(_NAME)]
    return [RemoveHeader(_NAME, number) for number in forged]
