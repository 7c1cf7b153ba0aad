"""What maps of routes and of domains are asked for: one key after the other, the nearest first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from elemta.protocol import Mailbox

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Domains above one that are asked for, from the top: nobody's name may cost a hundred questions.
MOST_ABOVE: Final = 10


def keys_of(mailbox: Mailbox, domain: str, delimiter: str = "") -> Iterator[str]:
    """What a map is asked for, in order.

    Args:
        mailbox: an address.
        domain: its own, lower case, A-labels; or an address literal; or empty: there is none.
        delimiter: stands before a tag; empty: there are no tags.
    """
    local_part = mailbox.local_part.lower()
    if not domain:
        yield str(Mailbox(local_part, ""))
        return
    yield str(Mailbox(local_part, domain))
    if delimiter:
        bare, mark, _ = local_part.partition(delimiter)
        if bare and mark:
            yield str(Mailbox(bare, domain))
    yield from domain_keys(domain)


def domain_keys(domain: str) -> Iterator[str]:
    """A domain, and each above it with a dot in front: ``a.example.org``, ``.example.org``."""
    yield domain
    if domain.startswith("["):
        return
    labels = domain.split(".")
    for place in range(max(1, len(labels) - MOST_ABOVE), len(labels)):
        yield f".{'.'.join(labels[place:])}"
