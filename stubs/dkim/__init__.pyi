"""The part of dkimpy that is used here."""

from collections.abc import Sequence
from logging import Logger

from dkim.canonicalization import CanonicalizationPolicy

Field = tuple[bytes, bytes]

class DKIMException(Exception): ...

def validate_signature_fields(
    sig: dict[bytes, bytes], mandatory_fields: list[bytes] = ..., arc: bool = ...
) -> None: ...
def hash_headers(
    hasher: object,
    canonicalize_headers: CanonicalizationPolicy,
    headers: Sequence[Sequence[bytes]],
    include_headers: Sequence[bytes],
    sigheader: Sequence[bytes],
    sig: dict[bytes, bytes],
) -> list[Field]: ...
def select_headers(
    headers: Sequence[Sequence[bytes]], include_headers: Sequence[bytes]
) -> list[Sequence[bytes]]: ...

class DomainSigner:
    headers: list[list[bytes]]
    def __init__(self, message: bytes | None = ..., logger: Logger | None = ...) -> None: ...
    def verify_sig(
        self,
        sig: dict[bytes, bytes],
        include_headers: list[bytes],
        sig_header: Sequence[bytes],
        dnsfunc: object = ...,
    ) -> bool: ...

class DKIM(DomainSigner): ...

class ARC(DomainSigner):
    def sorted_arc_headers(self) -> tuple[int, list[tuple[int, Field]]]: ...
    def verify(
        self, dnsfunc: object = ...
    ) -> tuple[bytes | None, list[dict[str, bytes | int | bool]], str]: ...
