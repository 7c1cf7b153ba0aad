"""Whether others find the keys by which we sign."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from msgspec import Struct

from elemta.mailauth.keys import UnverifiedError, key_of
from elemta.mailauth.signing import Signer
from elemta.net.dns import DnsTemporaryError, Kind, NoRecordsError, NoSuchDomainError, text_of

if TYPE_CHECKING:
    from elemta.net.dns import Records

#: ``wrong``: there is something, but nobody could verify our signatures by it.
PublishedResult: TypeAlias = Literal["good", "missing", "wrong", "temperror"]

_SHA256: Final = b"sha256"


class Published(Struct, frozen=True):
    """What the DNS has of a key.

    Attributes:
        signer: whose key it is.
        reason: what is wrong; empty if nothing is.
        testing: the record says that the domain only tries it (``t=y``).
    """

    signer: Signer
    result: PublishedResult
    reason: str = ""
    testing: bool = False


async def check_published(signer: Signer, *, resolver: Records) -> Published:
    """Ask the DNS for the record of a key. Never raises.

    Args:
        signer: whose key it is.
        resolver: asks the DNS.
    """
    try:
        records = await resolver.records(signer.record, Kind.TXT)
    except (NoSuchDomainError, NoRecordsError):
        return Published(signer, "missing", "there is no such record")
    except DnsTemporaryError as error:
        return Published(signer, "temperror", f"the DNS cannot say: {error}")
    if len(records) != 1:
        return Published(signer, "wrong", f"there are {len(records)} records, and may be one")
    try:
        key = key_of(text_of(records[0]))
    except UnverifiedError as error:
        return Published(signer, "wrong", error.reason)
    if key.kind != signer.key.kind:
        return Published(signer, "wrong", f"it is of a key of another kind, {key.kind}")
    if key.public != signer.key.private.public_key():
        return Published(signer, "wrong", "it is of another key")
    if key.hashes and _SHA256 not in key.hashes:
        return Published(signer, "wrong", "it does not allow SHA-256 (h=)")
    return Published(signer, "good", testing=key.testing)
