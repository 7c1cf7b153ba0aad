"""Accounts, as settings tell which are meant."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from elemta.config import AddressPattern
from elemta.protocol import Mailbox, parse_mailbox

if TYPE_CHECKING:
    from collections.abc import Iterable


class Accounts:
    """Some accounts, told by patterns, and by names where they are no addresses.

    Raises:
        ValueError: one of the entries is none.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self._patterns: list[AddressPattern] = []
        self._names: set[str] = set()
        for each in entries:
            if "@" in each or each == "*":
                self._patterns.append(AddressPattern.parse(each))
            elif each:
                self._names.add(each.lower())
            else:
                raise ValueError("an account has a name")
        self._all = AddressPattern() in self._patterns

    def have(self, account: str) -> bool:
        """Whether this one is meant."""
        if self._all or account.lower() in self._names:
            return True
        mailbox = _mailbox(account) if self._patterns else None
        return mailbox is not None and any(mailbox in each for each in self._patterns)

    def have_domain(self, domain: str) -> bool:
        """Whether all of a domain is meant."""
        mailbox = Mailbox("", domain)
        return any(not each.local_part and mailbox in each for each in self._patterns)


@lru_cache(maxsize=10_000)
def _mailbox(account: str) -> Mailbox | None:
    try:
        return parse_mailbox(account)
    except ValueError:
        return None
