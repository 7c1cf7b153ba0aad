"""When to try again, and when to give up (RFC 5321 §4.5.4.1)."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Final, TypeAlias

from msgspec import Struct

from elemta.protocol import Notify

if TYPE_CHECKING:
    from collections.abc import Callable

    from elemta.protocol import ReversePath
    from elemta.queue.model import Destined, Message, Recipient

_MINUTE: Final = 60.0
_HOUR: Final = 3600.0
_DAY: Final = 86400.0


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """How patient the queue is. All in seconds.

    Attributes:
        schedule: to wait after the first failed attempt, the second, …; the last is repeated.
            RFC 5321 asks for at least 30 minutes, but for the first ones, which greylisting wants
            sooner.
        jitter: the share by which a wait may be shorter or longer, so that what failed together
            is not tried together for ever.
        lifetime: how long a message is tried (RFC 5321: at least 4 to 5 days).
        delay_warning: how old a message is when its sender is told, once, that it is still here;
            0: never.
        report_lifetime: how long a message of the null sender is tried, if that is less than
            `lifetime`: nobody waits for a report that long.
    """

    schedule: tuple[float, ...] = (
        5 * _MINUTE,
        10 * _MINUTE,
        20 * _MINUTE,
        40 * _MINUTE,
        1 * _HOUR,
        2 * _HOUR,
        4 * _HOUR,
    )
    jitter: float = 0.1
    lifetime: float = 5 * _DAY
    delay_warning: float = 4 * _HOUR
    report_lifetime: float = 1 * _DAY

    def __post_init__(self) -> None:
        if not self.schedule or min(self.schedule) <= 0:
            raise ValueError("a retry schedule has at least one wait, and each is above 0 s")
        if not 0 <= self.jitter < 1:
            raise ValueError("jitter is a share of the wait: at least 0, below 1")
        if self.lifetime <= 0 or self.report_lifetime <= 0:
            raise ValueError("a lifetime is above 0 s")
        if self.delay_warning < 0:
            raise ValueError("a delay warning comes after 0 s (never) or more")

    def delay(self, attempts: int, chance: Callable[[], float] = random.random) -> float:
        """Seconds to wait after the `attempts`-th attempt failed.

        Args:
            attempts: from 1.
            chance: a number from 0 to 1.
        """
        wait = self.schedule[min(attempts, len(self.schedule)) - 1]
        return wait * (1 + self.jitter * (2 * chance() - 1))

    def shortest_delay(self, attempts: int) -> float:
        """The same with the luck that makes it shortest."""
        return self.delay(attempts, lambda: 0.0)


#: How patient the queue is with a recipient, of a message of this sender.
PolicyOf: TypeAlias = "Callable[[Destined, ReversePath], RetryPolicy]"


class Patience:
    """What the policy means for each recipient of a message.

    A message has no lifetime of its own: it follows from when it came in (or was to be tried first)
    and from the policy of this moment for each recipient, so that a changed policy holds for mail
    that waits already.

    Args:
        policy: one for all, or one for each recipient and the sender of what is for it.
    """

    def __init__(self, policy: RetryPolicy | PolicyOf) -> None:
        if isinstance(policy, RetryPolicy):
            self.policy: PolicyOf = lambda _recipient, _sender: policy
        else:
            self.policy = policy

    def lifetime(self, sender: ReversePath, recipient: Destined) -> float:
        """How long this recipient is tried, in seconds since the message was begun."""
        policy = self.policy(recipient, sender)
        if sender is None:
            return min(policy.lifetime, policy.report_lifetime)
        return policy.lifetime

    def deadline(self, message: Message, recipient: Recipient) -> float:
        """When this recipient is given up, seconds since the epoch."""
        return message.begun_at + self.lifetime(message.sender, recipient)

    def expires(self, message: Message, recipient: Recipient, now: float) -> bool:
        """See `Queue.expires`."""
        policy = self.policy(recipient, message.sender)
        shortest = policy.shortest_delay(recipient.attempts + 1)
        return now + shortest > self.deadline(message, recipient)

    def warns(self, message: Message, recipient: Recipient, now: float) -> bool:
        """See `Queue.warns`."""
        return self._warning(message, recipient) <= now and not self.expires(
            message, recipient, now
        )

    def next_word(self, message: Message, recipient: Recipient) -> float:
        """When the sender has to hear of this recipient though it cannot be tried."""
        return min(self._warning(message, recipient), self.deadline(message, recipient))

    def _warning(self, message: Message, recipient: Recipient) -> float:
        """When its sender is told of the delay, seconds since the epoch; infinity if never."""
        after = self.policy(recipient, message.sender).delay_warning
        notify = recipient.params.notify
        if not after or recipient.warned or message.sender is None:
            return math.inf
        if notify and Notify.DELAY not in notify:
            return math.inf
        return message.begun_at + after
