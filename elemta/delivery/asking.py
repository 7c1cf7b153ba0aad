"""Plugins have a say in attempts: before each one, and once it is settled they hear of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio
from msgspec.structs import replace

from elemta.delivery.carrier import Tried
from elemta.delivery.replies import made
from elemta.delivery.settlement import NOT_TRIED
from elemta.log import logger
from elemta.plugins import Accept, Attempted, Continue, Defer, Discard, Letter, Quarantine, Reject
from elemta.queue import Result, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from elemta.delivery.transaction import StoredBody
    from elemta.plugins import Chain
    from elemta.queue import Queue, Recipient, Work

log = logger(__name__)

#: Seconds in which plugins are asked about all recipients of a work: one that hangs may do so for
#: each, and a worker has others to do for.
ASKING: Final = 300.0
#: Seconds in which they are told of them.
TELLING: Final = 60.0

#: Who is not asked about any more waits for another attempt.
_NOT_ASKED: Final = Tried(Result.DEFERRED, made(451, 3, 0, "not tried: there was no time to judge"))
_NOT_HELD: Final = made(451, 3, 0, "it is to be held, which the disk does not let us")


class Asking:
    """One work, as plugins see it.

    Args:
        chain: is used, from before `ask` until after `tell`: so that who hears of the beginning of
            an attempt hears of its end.
        queue: where the work is from.
        work: not overdue.
        body: of its message.
    """

    def __init__(self, chain: Chain, queue: Queue, work: Work, body: StoredBody) -> None:
        self._chain = chain
        self._queue = queue
        self._work = work
        self._held: set[int] = set()
        # Copies: theirs is how it stood before the attempt, and ours is nobody's to change.
        self._letters = {
            each.number: Letter(work.message, replace(each), body, work.lane)
            for each in work.recipients
        }

    async def ask(self, found: dict[int, Tried]) -> Sequence[Recipient]:
        """Ask about each recipient.

        Args:
            found: what becomes of those who are not tried is noted here by their number. Who is
                held is not of the work any more.

        Returns:
            Who may be tried.
        """
        if not self._chain.attempt:
            return self._work.recipients
        allowed: list[Recipient] = []
        deadline = trio.current_time() + ASKING
        for recipient in self._work.recipients:
            if trio.current_time() >= deadline:
                found[recipient.number] = _NOT_ASKED
                continue
            letter = self._letters[recipient.number]
            plugin, verdict = await self._chain.on_attempt(letter)
            if isinstance(verdict, (Continue, Accept)):
                allowed.append(recipient)
                continue
            who = f"plugin:{plugin}"
            log.info(
                "delivery.plugin_objected",
                id=letter.message.id,
                to=str(recipient.address),
                plugin=plugin,
                verdict=type(verdict).__name__.lower(),
                text=verdict.reason if isinstance(verdict, Quarantine) else verdict.text,
                note=verdict.note,
            )
            if not isinstance(verdict, Quarantine):
                found[recipient.number] = _outcome(verdict, who)
            elif await self._hold(recipient, who, verdict.reason, found):
                allowed.append(recipient)
        return allowed

    async def _hold(
        self, recipient: Recipient, who: str, reason: str, found: dict[int, Tried]
    ) -> bool:
        """Hold it; whether it may be tried all the same."""
        try:
            held = await self._queue.hold(self._work, recipient, who=who, reason=reason)
        except StoreUnavailable:
            found[recipient.number] = Tried(Result.DEFERRED, _NOT_HELD, host=who)
            return False
        if held:
            self._held.add(recipient.number)
        else:
            log.info("delivery.held_before", id=self._work.message.id, to=str(recipient.address))
        return not held

    async def tell(self, found: Mapping[int, Tried], seconds: float) -> None:
        """Tell plugins what became of each recipient that was not held. Never raises.

        Args:
            found: by number; who is not in it was not tried after all.
            seconds: how long it took.
        """
        if not self._chain.attempted:
            return
        with trio.move_on_after(TELLING) as scope:
            for number, letter in self._letters.items():
                if number not in self._held:
                    tried = found.get(number, NOT_TRIED)
                    attempted = Attempted(tried.result, tried.reply, tried.host, seconds)
                    await self._chain.on_attempted(letter, attempted)
        if scope.cancelled_caught:
            log.warning("delivery.plugins_not_told", id=self._work.message.id, seconds=TELLING)


def _outcome(verdict: Defer | Reject | Discard, who: str) -> Tried:
    match verdict:
        case Defer():
            return Tried(Result.DEFERRED, verdict.reply, host=who)
        case Reject():
            return Tried(Result.FAILED, verdict.reply, host=who)
        case Discard(note=note):
            # Its sender is not told that it was delivered (RFC 3461): it was not.
            return Tried(Result.DELIVERED, made(250, 0, 0, f"discarded: {note}"), host=who)
