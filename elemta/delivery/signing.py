"""What the server writes itself is signed like the mail of its people: reports, and notices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from elemta.plugins import Whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elemta.plugins import AddHeader, Chain, Content

#: Seconds that signing may take; then it goes as it is. Who waits for it has mail in hand.
SIGNING: Final = 10.0


async def signed(chain: Chain, octets: bytes, about: str) -> bytes:
    """A message of our own with what plugins put above it; as it is, if they take too long.

    It is not cancelled: what a report is about may be settled already, and must be told.

    Args:
        chain: the plugins.
        octets: all of the message.
        about: names it, or what it is about, for the log.
    """
    if not chain.sign:
        return octets

    def show(added: Sequence[AddHeader]) -> Content:
        return Whole(b"".join([*(each.octets() for each in reversed(added)), octets]))

    fields = b""
    with chain.users, trio.move_on_after(SIGNING, shield=True):
        fields = await chain.on_report(show, about)
    return fields + octets
