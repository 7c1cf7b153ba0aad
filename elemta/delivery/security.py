"""Whether to encrypt what is said to a host, who it has to be, and where that was tried in vain.

What a host has to prove under ``verified`` is a name. Of a host that the configuration names it is
that name. Of one that DNS names, the name that DNS has: whoever can forge DNS can have mail then;
``server_name: domain`` demands a name that lies in the domain whose mail it is, which nobody can
forge, and few domains have.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from elemta.config import OF_DOMAIN, is_address
from elemta.delivery.keyring import Keyring
from elemta.delivery.routes import ByMx
from elemta.delivery.session import Tls

if TYPE_CHECKING:
    from elemta.config import TlsPolicy
    from elemta.delivery.hosts import Candidate
    from elemta.delivery.routes import Remote

#: Seconds for which a host whose TLS does not work is talked to in clear, if it may be.
MEMORY: Final = 3600.0
#: Seconds for which a host that has refused our login is not asked again: a provider locks accounts
#: for what looks like guessing.
REFUSED: Final = 300.0
#: Hosts of that kind that are remembered.
MAX_REMEMBERED: Final = 10_000


class Failure(Struct, frozen=True):
    """TLS that was offered and could not be had; or a login that was refused.

    Attributes:
        until: it is not tried again before.
        reason: for people.
    """

    until: float
    reason: str

    def minutes(self, now: float) -> int:
        """How long that is, for people."""
        return max(1, round((self.until - now) / 60))


class Security:
    """Says for each host whether to encrypt.

    Args:
        policy: what holds where a route does not say.
        keyring: of the configuration; None: of one without secrets.
        remembered: hosts; beyond it the one that failed longest ago is forgotten.

    Attributes:
        policy, keyring: as given.
    """

    def __init__(
        self,
        policy: TlsPolicy,
        keyring: Keyring | None = None,
        *,
        remembered: int = MAX_REMEMBERED,
    ) -> None:
        self.policy: TlsPolicy = policy
        self.keyring = keyring or Keyring()
        self._remembered = remembered
        #: By host; the one that failed longest ago comes first.
        self._failed: Final[OrderedDict[tuple[str, int], Failure]] = OrderedDict()
        #: By host and by who we are there; they are few, as the configuration names them.
        self._refused: dict[tuple[str, int, str], Failure] = {}

    def configure(self, policy: TlsPolicy, keyring: Keyring) -> None:
        """From now on these hold; logins that were refused are tried anew."""
        self.policy, self.keyring = policy, keyring
        self._refused = {}

    def wish(self, host: Candidate, route: Remote, now: float) -> Tls | None:
        """How to encrypt to a host if it can; None: not at all.

        Args:
            host: on this machine, behind a Unix socket, there is nobody to hide from.
            route: that leads there.
            now: in seconds of any clock, always the same one.

        Raises:
            OSError: a file of the route has gone.
        """
        policy = route.terms.tls or self.policy
        if not host.port or (policy == "off" and not host.implicit):
            return None
        verified = policy == "verified"
        required = host.implicit or policy in ("required", "verified")
        if not required and self.failure(host, now) is not None:
            return None
        name = _name(host, route)
        # There is no SNI of an address (RFC 6066 §3); to verify it is another matter.
        asked = None if is_address(name) and not verified else name
        context = self.keyring.context(route.terms, verified=verified)
        return Tls(context, asked, required, host.implicit)

    def failed(self, host: Candidate, now: float, reason: str) -> None:
        """Remember that TLS does not work with a host, and why."""
        key = (host.address, host.port)
        self._failed[key] = Failure(now + MEMORY, reason)
        self._failed.move_to_end(key)
        if len(self._failed) > self._remembered:
            self._failed.popitem(last=False)

    def failure(self, host: Candidate, now: float) -> Failure | None:
        """Why a host is talked to in clear for now, if it may be."""
        found = self._failed.get((host.address, host.port))
        return found if found is not None and found.until > now else None

    def refused(self, host: Candidate, user: str, now: float, reply: str) -> None:
        """Remember that a host does not let us in."""
        self._refused[host.name, host.port, user] = Failure(now + REFUSED, reply)

    def refusal(self, host: Candidate, route: Remote, now: float) -> Failure | None:
        """Why a host is not asked just now whether it lets us in; None: it is."""
        login = route.terms.login
        if login is None:
            return None
        found = self._refused.get((host.name, host.port, login.user))
        return found if found is not None and found.until > now else None


def _name(host: Candidate, route: Remote) -> str:
    """Whom we want there."""
    wanted = route.terms.server_name
    if wanted is None:
        return host.name
    if wanted != OF_DOMAIN or not isinstance(route, ByMx):
        return wanted
    inside = host.name == route.domain or host.name.endswith(f".{route.domain}")
    return host.name if inside else route.domain
