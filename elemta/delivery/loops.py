"""Whether a message has been delivered to an address before, and came back."""

from __future__ import annotations

from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Final

from elemta.message import HeaderScanner
from elemta.protocol import reply
from elemta.queue import StoreUnavailable

if TYPE_CHECKING:
    from elemta.delivery.transaction import StoredBody
    from elemta.protocol import Mailbox

#: What to say of such a message: it would come back for ever.
LOOPS: Final = reply(554, 4, 6, "mail loop: the message was delivered to this address before")

_FIELD: Final = b"delivered-to"


async def delivered_before(body: StoredBody) -> frozenset[str]:
    """The addresses that a message was delivered to, by its Delivered-To fields; lower case.

    Raises:
        StoreUnavailable: the content cannot be read.
    """
    scanner = HeaderScanner()
    if body.octets is not None:
        scanner.feed(body.octets)
    else:
        async with aclosing(body.chunks()) as chunks:
            async for chunk in chunks:
                scanner.feed(chunk)
                if scanner.done:
                    break
    if _FIELD not in scanner.header.lower():  # nearly always, and much faster than to look closely
        return frozenset()
    return frozenset(
        value.decode("utf-8", "replace").lower() for name, value in scanner.fields if name == _FIELD
    )


async def known_before(body: StoredBody) -> frozenset[str]:
    """The same. What cannot be read now cannot be delivered now either: then it is none."""
    with suppress(StoreUnavailable):
        return await delivered_before(body)
    return frozenset()


def is_in(address: Mailbox, before: frozenset[str]) -> bool:
    """Whether an address is among those of `delivered_before`. Case tells no two apart."""
    return bool(before) and str(address).lower() in before
