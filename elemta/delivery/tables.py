"""Maps that say where mail goes: what they are asked for, one key after the other.

For ``bob+tag@a.example.org``: the address; without its tag, where its domain is ours and has tags;
then ``a.example.org``, ``.example.org`` and ``.org``. The first that is there decides.

The rules of this file:

- A queue is sorted by what a map says, a million recipients at a time and from threads too. So
  whoever sorts is told what is known (`Table.known`), and waits for nothing; whoever delivers asks
  (`Table.ask`).
- What nobody can say just now is an error, and never "nothing": mail waits for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from elemta.config import OF_MX, chosen_targets
from elemta.maps import MapDownError, keys_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from elemta.config import Target
    from elemta.protocol import Mailbox


class Asked(Protocol):
    """What is needed of maps."""

    def known(self, name: str, key: str) -> tuple[str, ...] | None:
        """See `elemta.maps.Maps.known`."""
        ...

    async def get(self, name: str, key: str, *, exact: bool = False) -> tuple[str, ...] | None:
        """See `elemta.maps.Maps.get`."""
        ...


class Found(NamedTuple):
    """What a map has, and for which key."""

    key: str
    values: tuple[str, ...]


class Table:
    """One map of routes.

    Args:
        name: of the map.
        maps: gives those of this moment; None: nobody can be asked.
        delimiter: stands before a tag; empty: there are no tags.
    """

    def __init__(self, name: str, maps: Callable[[], Asked | None], delimiter: str = "") -> None:
        self.name: Final = name
        self._maps = maps
        self._delimiter = delimiter

    def known(self, mailbox: Mailbox, domain: str) -> Found | None:
        """What it has for an address, as far as that is known; None: nothing.

        Args:
            mailbox: the address.
            domain: its own, lower case, A-labels.

        Raises:
            MapDownError: it is to be asked.
        """
        maps = self._there()
        for key in keys_of(mailbox, domain, self._delimiter):
            values = maps.known(self.name, key)
            if values is not None:
                return Found(key, values)
        return None

    async def ask(
        self, mailbox: Mailbox, domain: str, tell: Callable[[str], None] | None = None
    ) -> Found | None:
        """The same; it is asked.

        Args:
            mailbox: the address.
            domain: as of `known`.
            tell: hears what is asked, for people.

        Raises:
            MapDownError: nobody can say.
        """
        maps = self._there()
        for key in keys_of(mailbox, domain, self._delimiter):
            values = await maps.get(self.name, key, exact=True)
            if tell is not None:
                found = "is not there" if values is None else ", ".join(values) or "is there"
                tell(f"the map {self.name} is asked for {key}: {found}")
            if values is not None:
                return Found(key, values)
        return None

    def _there(self) -> Asked:
        maps = self._maps()
        if maps is None:
            raise MapDownError(f"the map {self.name} cannot be asked here")
        return maps


def targets_of(values: Sequence[str]) -> tuple[Target, ...] | None:
    """Read where a map says that mail goes; None: to the domain's own mail exchangers.

    Programs and plugins are for the configuration to choose, in a route with a name: whoever can
    write to a database must not be able to run something.

    Raises:
        ValueError: it says nothing that is understood.
    """
    if len(values) == 1 and values[0].lower() == OF_MX:
        return None
    if not values:
        raise ValueError("it does not say where to")
    return chosen_targets(values, discard=True)
