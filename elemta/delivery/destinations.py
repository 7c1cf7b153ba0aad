"""What ``destinations`` says: what may go to a lane, and how patient we are with a recipient."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from elemta.queue import LaneLimits, Rate, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from elemta.config import Config, Destination


class Destinations:
    """Answers by name: of a domain, of a host, or of a lane that leads to neither.

    Args:
        config: says it all.
        spelt: the one spelling of a domain or pattern.
        patterns: whatever ``match`` may say of a domain.
    """

    def __init__(
        self,
        config: Config,
        spelt: Callable[[str], str],
        patterns: Callable[[str], Iterable[str]],
    ) -> None:
        queue = config.queue
        self._patterns = patterns
        self.usual: Final = RetryPolicy(
            schedule=tuple(queue.retry),
            lifetime=queue.lifetime,
            delay_warning=queue.delay_warning,
            report_lifetime=queue.report_lifetime,
        )
        self._entries: dict[str, tuple[int, LaneLimits, RetryPolicy]] = {}
        for rank, entry in enumerate(config.destinations):
            found = (rank, _limits(entry), _policy(entry, self.usual))
            self._entries.setdefault(spelt(entry.match), found)

    def limits(self, lane: str) -> LaneLimits:
        """What may go to a lane."""
        found = self._find(destination(lane)) if self._entries else None
        return _USUAL if found is None else found[1]

    def policy(self, domain: str, lane: str) -> RetryPolicy:
        """How patient we are with mail to a domain that goes by this lane."""
        if not self._entries:
            return self.usual
        found = self._find(domain, destination(lane))
        return self.usual if found is None else found[2]

    def _find(self, *names: str) -> tuple[int, LaneLimits, RetryPolicy] | None:
        """The first entry that matches any of these."""
        patterns = (pattern for name in names for pattern in self._patterns(name))
        matching = [self._entries[each] for each in patterns if each in self._entries]
        return min(matching, key=_rank, default=None)


def destination(lane: str) -> str:
    """Where a lane leads: a domain, the name or address of its first host, or its own name."""
    kind, _, rest = lane.partition(":")
    if kind not in ("mx", "smtp", "lmtp"):
        return kind
    first = rest.partition(";")[0]
    if kind == "mx":
        return first
    host = first.partition(",")[0].lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host if host.startswith("/") else host.rpartition(":")[0]


def _rank(entry: tuple[int, LaneLimits, RetryPolicy]) -> int:
    return entry[0]


def _limits(entry: Destination) -> LaneLimits:
    return LaneLimits(entry.connections, tuple(_rates(entry)))


def _rates(entry: Destination) -> Iterator[Rate]:
    if entry.messages is not None:
        yield Rate("messages", entry.messages.count, entry.messages.seconds)
    if entry.recipients is not None:
        yield Rate("recipients", entry.recipients.count, entry.recipients.seconds)
    if entry.connections_rate is not None:
        yield Rate("connections", entry.connections_rate.count, entry.connections_rate.seconds)


def _policy(entry: Destination, usual: RetryPolicy) -> RetryPolicy:
    warning = entry.delay_warning
    return RetryPolicy(
        schedule=usual.schedule if entry.retry is None else tuple(entry.retry),
        lifetime=usual.lifetime if entry.lifetime is None else entry.lifetime,
        delay_warning=usual.delay_warning if warning is None else warning,
        report_lifetime=usual.report_lifetime,
    )


_USUAL: Final = LaneLimits()
