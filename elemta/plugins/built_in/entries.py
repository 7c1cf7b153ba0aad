"""Lists of networks, names and addresses, as settings write them, found without walking them.

Of several entries that fit, the most specific one is found: the longest prefix; a whole address
before its domain, a domain before ``*.DOMAIN``, which is all below it, and that before a shorter.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

from elemta.config import Network
from elemta.protocol import domain_to_ascii, parse_domain, parse_mailbox

if TYPE_CHECKING:
    from collections.abc import Iterable

    from elemta.config import IPAddress
    from elemta.protocol import Mailbox, ReversePath

#: How the null sender of reports is written.
NULL: Final = "<>"


class Networks:
    """Networks, found by an address in them.

    Args:
        entries: as `elemta.config.Network` writes them.

    Raises:
        ValueError: one of them is none.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        #: By version and length of the prefix: the numbers of these networks.
        self._known: dict[tuple[int, int], set[int]] = {}
        for text in entries:
            network = ipaddress.ip_network(str(Network.parse(text)))
            numbers = self._known.setdefault((network.version, network.prefixlen), set())
            numbers.add(int(network.network_address))
        self._lengths = sorted(self._known, key=lambda each: each[1], reverse=True)

    def find(self, address: IPAddress) -> int | None:
        """The length of the longest prefix that fits; None: none does."""
        number = int(address)
        for version, length in self._lengths:
            if version == address.version:
                behind = address.max_prefixlen - length
                if number >> behind << behind in self._known[version, length]:
                    return length
        return None


class Names:
    """Names of hosts and domains: ``example.net``, or ``*.example.net`` for all below it.

    Address literals are names, too.

    Raises:
        ValueError: one of the entries is none.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self._known = {_name(text) for text in entries}

    def find(self, name: str) -> int | None:
        """How specific the entry is that fits: the higher, the more; None: none fits."""
        return _find(name_of(name), self._known)


class Addresses:
    """Addresses: ``ann@example.net``, domains as `Names` has them, or ``<>``, the null sender.

    Case makes no difference. ``postmaster`` without a domain is an address, too.

    Raises:
        ValueError: one of the entries is none.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self._whole: set[tuple[str, str]] = set()
        self._domains: set[str] = set()
        self._null = False
        for text in entries:
            if text == NULL:
                self._null = True
            elif text.lower() == "postmaster":
                self._whole.add(("postmaster", ""))
            elif "@" in text:
                self._whole.add(_key(_mailbox(text)))
            else:
                self._domains.add(_name(text))

    def find(self, address: ReversePath) -> int | None:
        """How specific the entry is that fits: the higher, the more; None: none fits."""
        if address is None:
            return _MOST if self._null else None
        local, domain = _key(address)
        if (local, domain) in self._whole:
            return _MOST
        return _find(domain, self._domains)


#: More specific than any domain.
_MOST: Final = 1000


def name_of(name: str) -> str:
    """The one form in which names are compared: lower case, A-labels, no final dot."""
    name = name.lower().removesuffix(".")
    try:
        return name if name.isascii() else domain_to_ascii(name)
    except ValueError:
        return name


def _find(name: str, known: set[str]) -> int | None:
    if not known or not name:
        return None
    if name in known:
        return 2 * name.count(".") + 1
    _, dot, above = name.partition(".")
    while dot:
        if f"*.{above}" in known:
            return 2 * above.count(".")
        _, dot, above = above.partition(".")
    return None


def _key(address: Mailbox) -> tuple[str, str]:
    return address.local_part.lower(), name_of(address.domain)


def _mailbox(text: str) -> Mailbox:
    try:
        return parse_mailbox(text)
    except ValueError as error:
        raise ValueError(f"expected an address, not {text!r}: {error}") from None


def _name(text: str) -> str:
    inner = text.removeprefix("*.")
    try:
        return text[: len(text) - len(inner)] + name_of(parse_domain(inner.removesuffix(".")))
    except ValueError as error:
        expected = "expected a domain, *.DOMAIN or an address"
        raise ValueError(f"{expected}, not {text!r}: {error}") from None
