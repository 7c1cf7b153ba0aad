"""What can be told of a client's address without asking anybody."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from elemta.config import IPAddress

#: Addresses of which the DNS of the world knows nothing: those of this machine, of private
#: networks (RFC 1918, RFC 4193), of carriers' own (RFC 6598), and of one link.
_INNER: Final = tuple(
    ipaddress.ip_network(each)
    for each in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.168.0.0/16", "224.0.0.0/4", "240.0.0.0/4"),
        *("::/128", "::1/128", "fc00::/7", "fe80::/10", "ff00::/8"),
    )
)


@lru_cache(maxsize=1024)  # asked at each step about the same client
def is_inner(address: IPAddress) -> bool:
    """Whether it says something here alone, and nothing in the DNS of the world."""
    return any(address in network for network in _INNER)
