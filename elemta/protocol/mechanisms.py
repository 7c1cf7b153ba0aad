"""Which SASL mechanisms there are, and how an exchange of each begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from elemta.protocol.bearer import OAuthBearer, XOAuth2
from elemta.protocol.sasl import Login, Plain
from elemta.protocol.scram import Scram

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from elemta.protocol.sasl import Mechanism
    from elemta.protocol.scram import Binding

PLUS: Final = "SCRAM-SHA-256-PLUS"
#: All of them, the strongest first, as some clients take the first that they know.
MECHANISMS: Final = (PLUS, "SCRAM-SHA-256", "OAUTHBEARER", "XOAUTH2", "PLAIN", "LOGIN")


def begin(
    name: str, nonce: Callable[[], str], binding: Binding | None, offered: Collection[str]
) -> Mechanism:
    """Begin an exchange.

    Args:
        name: one of `MECHANISMS`.
        nonce: gives what nobody can guess, for those that need it; see `Scram`.
        binding: of this connection; None: it has none.
        offered: which mechanisms the client was offered.
    """
    match name:
        case "PLAIN":
            return Plain()
        case "LOGIN":
            return Login()
        case "OAUTHBEARER":
            return OAuthBearer()
        case "XOAUTH2":
            return XOAuth2()
        case _:
            return Scram(nonce(), binding, plus=name == PLUS, offered=PLUS in offered)
