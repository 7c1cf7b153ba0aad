"""How addresses are meant that are not named one by one: one grammar, used by all who read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from typing_extensions import override

from elemta.protocol import comparable_domain, parse_domain, parse_mailbox

if TYPE_CHECKING:
    from elemta.protocol import Mailbox

_EXPECTED = 'expected ADDRESS, @DOMAIN, @*.DOMAIN (all below it) or "*"'


class AddressPattern(Struct, frozen=True):
    """Some addresses: ``bob@example.org``, ``@example.org``, ``@*.example.org`` or ``*``.

    Local parts are compared without their case, which no server tells apart any more (RFC 5321
    §2.4 leaves it to the domain's own), and domains by their A-labels.

    Attributes:
        local_part: in lower case; empty: any.
        domain: A-labels in lower case; empty: any.
        below: the domains below `domain` are meant, and not this one itself.
    """

    local_part: str = ""
    domain: str = ""
    below: bool = False

    @classmethod
    def parse(cls, text: str) -> AddressPattern:
        """Read one.

        Raises:
            ValueError: it is none, with what it should be.
        """
        if text == "*":
            return cls()
        try:
            if not text.startswith("@"):
                mailbox = parse_mailbox(text)
                return cls(mailbox.local_part.lower(), comparable_domain(mailbox.domain))
            below = text.startswith("@*.")
            domain = comparable_domain(parse_domain(text[3 if below else 1 :]))
        except ValueError as error:
            raise ValueError(f"{_EXPECTED}, not {text!r}: {error}") from None
        if below and domain.startswith("["):
            raise ValueError(f"{_EXPECTED}, not {text!r}: nothing is below an address literal")
        return cls(domain=domain, below=below)

    def __contains__(self, mailbox: Mailbox) -> bool:
        if not self.domain:
            return True
        domain = comparable_domain(mailbox.domain)
        if self.below:
            return domain.endswith(f".{self.domain}")
        if domain != self.domain:
            return False
        return not self.local_part or mailbox.local_part.lower() == self.local_part

    @override
    def __str__(self) -> str:
        """As `parse` reads it, but for quotes."""
        if not self.domain:
            return "*"
        return f"{self.local_part}@{'*.' if self.below else ''}{self.domain}"
