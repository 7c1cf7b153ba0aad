"""How soon a message is wanted, and whose wish counts.

Whom we trust, by ``relay.networks`` or a login, may ask for more than others get; anybody may ask
for less. A plugin has the last word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from elemta.protocol import parse_priority
from elemta.queue import Priority, priority_of

if TYPE_CHECKING:
    from elemta.message import HeaderScanner
    from elemta.plugins import Session, Transaction
    from elemta.protocol import MailParams


def allowed(params: MailParams, client: Session) -> tuple[MailParams, bool]:
    """What counts of MAIL's parameters, and whether the priority had to be lowered (RFC 6710)."""
    if params.mt_priority is None or params.mt_priority <= 0 or client.trusted:
        return params, False
    return replace(params, mt_priority=0), True


def precedence(transaction: Transaction, header: HeaderScanner) -> tuple[MailParams, Priority]:
    """A message's parameters and priority, once its header is here.

    The field MT-Priority (RFC 6758) of a trusted client stands in for the parameter, which the
    servers before us may not have known.
    """
    params = transaction.params
    if (
        params.mt_priority is None
        and transaction.session.trusted
        and (field := header.first(b"mt-priority")) is not None
        and (value := _value(field)) is not None
    ):
        params = replace(params, mt_priority=value)
    if transaction.priority is not None:
        return params, transaction.priority
    value = params.mt_priority
    return params, Priority.NORMAL if value is None else priority_of(value)


def _value(field: bytes) -> int | None:
    try:
        return parse_priority(field.partition(b"(")[0].strip().decode("ascii", "replace"))
    except ValueError:
        return None
