"""The part of pyspf that is used here."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

MAX_VOID_LOOKUPS: int
MAX_PTR: int

class TempError(Exception):
    msg: str
    def __init__(self, msg: str, mech: str | None = ..., ext: object = ...) -> None: ...

class PermError(Exception):
    msg: str
    def __init__(self, msg: str, mech: str | None = ..., ext: object = ...) -> None: ...

class query:
    d: str
    i: str
    l: str
    o: str
    A: str
    cidrmax: int
    void_lookups: int
    ipaddr: IPv4Address | IPv6Address | None
    def __init__(
        self,
        i: str,
        s: str,
        h: str,
        local: str | None = ...,
        receiver: str | None = ...,
        strict: bool | int = ...,
        timeout: float = ...,
        verbose: bool = ...,
        querytime: float = ...,
    ) -> None: ...
    def set_default_explanation(self, exp: str) -> None: ...
    def check(self, spf: str | None = ...) -> tuple[str, int, str]: ...
    def get_explanation(self, spec: str) -> str | None: ...
    def dns(
        self,
        name: str,
        qtype: str,
        cnames: dict[str, str] | None = ...,
        ignore_void: bool = ...,
    ) -> Sequence[object]: ...
    def dns_a(self, domainname: str, A: str = ...) -> list[str]: ...
    def dns_ptr(self, i: str) -> list[str]: ...
    def validated_ptrs(self) -> list[str]: ...
    def cidrmatch(self, ipaddrs: Sequence[str], n: int) -> bool: ...
    def expand(self, s: str, stripdot: bool = ...) -> str: ...
