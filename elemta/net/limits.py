"""How many at once, per client network and in all; held by ``with``, so never leaked."""

from __future__ import annotations

from socket import AF_INET, AF_INET6, inet_ntop, inet_pton


class TooManyError(Exception):
    """There is no place left.

    Attributes:
        key: the network that holds too many, or None if there are too many in all.
        limit: how many may be held.
    """

    def __init__(self, key: str | None, limit: int) -> None:
        super().__init__(f"{limit} in all" if key is None else f"{limit} of {key}")
        self.key = key
        self.limit = limit


class Limit:
    """Counts what is held now, per key and in all.

    Keeps one number for each key that holds something, so its memory is bounded by `total`.

    Args:
        per_key: how many one key may hold.
        total: how many all may hold together.
    """

    def __init__(self, per_key: int, total: int) -> None:
        self.per_key = per_key
        self.total = total
        #: How many are held now.
        self.held = 0
        self._counts: dict[str, int] = {}

    def hold(self, key: str) -> Held:
        """Hold a place ``with`` it. To enter raises `TooManyError`, and holds nothing then."""
        return Held(self, key)

    def take(self, key: str) -> None:
        """For `Held`: take a place.

        Raises:
            TooManyError: there is none, for this key or for anybody.
        """
        count = self._counts.get(key, 0)
        if count >= self.per_key:
            raise TooManyError(key, self.per_key)
        if self.held >= self.total:
            raise TooManyError(None, self.total)
        self._counts[key] = count + 1
        self.held += 1

    def give_back(self, key: str) -> None:
        """For `Held`: a place that was taken is free again."""
        self.held -= 1
        if self._counts[key] == 1:
            del self._counts[key]
        else:
            self._counts[key] -= 1

    def count(self, key: str) -> int:
        """How many this key holds now."""
        return self._counts.get(key, 0)

    @property
    def keys(self) -> int:
        """How many keys hold something now."""
        return len(self._counts)


class Held:
    """A place in a `Limit`, as long as this is entered.

    A class, as each connection has one: it costs half of what a generator does.
    """

    __slots__ = ("_key", "_limit")

    def __init__(self, limit: Limit, key: str) -> None:
        self._limit = limit
        self._key = key

    def __enter__(self) -> None:
        self._limit.take(self._key)

    def __exit__(self, *_: object) -> None:
        self._limit.give_back(self._key)


def network(address: str, ipv4: int = 32, ipv6: int = 64) -> str:
    """The key of a client: its address if IPv4, its /64 if IPv6 (one customer has at least that).

    What is no IP address (the empty host of a Unix socket) is a key of its own.

    Args:
        address: the client's.
        ipv4: bits of an IPv4 address that count.
        ipv6: of an IPv6 address.
    """
    # As this is asked of each connection and more often: a tenth of what `ipaddress` takes.
    family, bits, all_bits = (AF_INET6, ipv6, 128) if ":" in address else (AF_INET, ipv4, 32)
    if family == AF_INET and bits == all_bits:
        return address
    try:
        number = int.from_bytes(inet_pton(family, address), "big")
    except (OSError, ValueError):
        return address
    behind = all_bits - bits
    octets = (number >> behind << behind).to_bytes(all_bits // 8, "big")
    return f"{inet_ntop(family, octets)}/{bits}"
