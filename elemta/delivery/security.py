"""Whether to encrypt what is said to a host, and where that was tried in vain."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from elemta.delivery.session import Tls
from elemta.delivery.targets import is_address
from elemta.net.tls import unverified_client

if TYPE_CHECKING:
    from elemta.config import TlsPolicy
    from elemta.delivery.hosts import Candidate

#: Seconds for which a host whose TLS does not work is talked to in clear, if it may be.
MEMORY: Final = 3600.0
#: Hosts of that kind that are remembered.
MAX_REMEMBERED: Final = 10_000


class Security:
    """Says for each host whether to encrypt.

    Args:
        policy: what holds where a route does not say.
        remembered: hosts; beyond it the one that failed longest ago is forgotten.

    Attributes:
        policy: as given; may be changed.
    """

    def __init__(self, policy: TlsPolicy, *, remembered: int = MAX_REMEMBERED) -> None:
        self.policy: TlsPolicy = policy
        self._context = unverified_client()
        self._remembered = remembered
        #: Until when, by host; the one that failed longest ago comes first.
        self._failed: Final[OrderedDict[tuple[str, int], float]] = OrderedDict()

    def wish(self, host: Candidate, policy: TlsPolicy | None, now: float) -> Tls | None:
        """How to encrypt to a host if it can; None: not at all.

        Args:
            host: on this machine, behind a Unix socket, there is nobody to hide from.
            policy: of the route, if it has one.
            now: in seconds of any clock, always the same one.
        """
        policy = policy or self.policy
        if policy == "off" or not host.port:
            return None
        required = policy in ("required", "verified")
        if not required and self._failed.get((host.address, host.port), now) > now:
            return None
        name = None if is_address(host.name) else host.name
        return Tls(self._context, name, required)

    def failed(self, host: Candidate, now: float) -> None:
        """Remember that TLS does not work with a host."""
        key = (host.address, host.port)
        self._failed[key] = now + MEMORY
        self._failed.move_to_end(key)
        if len(self._failed) > self._remembered:
            self._failed.popitem(last=False)
