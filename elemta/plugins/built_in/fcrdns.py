"""Whether a client's address has a name that leads back to it, and what it costs if not.

Much honest mail comes from addresses whose DNS nobody looks after, so by default none is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from typing_extensions import override

from elemta.config import Table
from elemta.plugins.built_in.actions import (
    Action,
    Objection,
    Objects,
    check_tag,
    check_text,
)
from elemta.plugins.built_in.clients import is_inner
from elemta.plugins.built_in.iprev import iprev_of

if TYPE_CHECKING:
    from elemta.plugins import Transaction


class Settings(Table, frozen=True, kw_only=True):
    """The ``settings`` of ``fcrdns``."""

    #: Its address has no name.
    no_name: Action = "tag"
    #: None of its names leads back to it.
    mismatch: Action = "tag"
    #: Nobody can say just now: ``pass``, or ``defer``. It is never refused for that.
    unknown: Literal["pass", "defer"] = "pass"
    #: What a refused client is told.
    text: str = "your address has no name that leads back to it"
    #: A word by which operators find it.
    tag: str = "fcrdns"

    def __post_init__(self) -> None:
        check_text("text", self.text)
        check_tag("tag", self.tag)


class Fcrdns(Objects[Settings]):
    """Looks whether a client's reverse DNS leads back to it, and says what it costs if not."""

    name = "fcrdns"

    @override
    async def _judge(self, transaction: Transaction) -> list[Objection]:
        session, settings = transaction.session, self.settings
        address = session.ip
        if transaction.exempt or address is None or is_inner(address):
            return []
        found = await iprev_of(session, self.tools)
        action: Action
        if found.result == "permerror":
            action = settings.no_name
        elif found.result == "fail":
            action = settings.mismatch
        elif found.result == "temperror" and settings.unknown == "defer":
            action = "defer"
        else:
            return []
        # Reverse DNS validation failed (RFC 7372 §3.3).
        return [Objection(action, settings.text, str(found), settings.tag, status=(7, 25))]
