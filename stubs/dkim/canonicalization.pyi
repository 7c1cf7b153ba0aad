from collections.abc import Sequence

class InvalidCanonicalizationPolicyError(Exception): ...

class Algorithm:
    name: bytes

class CanonicalizationPolicy:
    header_algorithm: Algorithm
    body_algorithm: Algorithm
    @classmethod
    def from_c_value(cls, c: bytes | None) -> CanonicalizationPolicy: ...
    def canonicalize_headers(self, headers: Sequence[Sequence[bytes]]) -> list[Sequence[bytes]]: ...
