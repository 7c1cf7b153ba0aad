"""What becomes of what plugins answer: until one decides, they are asked, and heeded."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from elemta.log import logger
from elemta.plugins.asking import FAILURES, QUICK, ask, fail, misfit, verdict_of
from elemta.plugins.plugin import TRY_LATER, Granted, Known
from elemta.plugins.scene import Doomed
from elemta.plugins.verdicts import (
    CONTINUE,
    Accept,
    Continue,
    Defer,
    Discard,
    Quarantine,
    Reject,
)

if TYPE_CHECKING:
    from elemta.plugins.asking import Asks
    from elemta.plugins.changes import Change
    from elemta.plugins.loader import Loaded
    from elemta.plugins.scene import Session, Transaction
    from elemta.plugins.verdicts import Fate, Verdict
    from elemta.protocol import Mailbox

log = logger(__name__)

#: What callers hear: an objection, or none.
Answer: TypeAlias = Continue | Defer | Reject

W = TypeVar("W", Granted, Known)


async def who_is(
    asked: tuple[Loaded, ...], hook: str, session: Session, call: Asks, wanted: type[W]
) -> W | Defer | Reject | None:
    """Ask plugins until one knows somebody.

    Args:
        asked: whom, first to last.
        hook: what.
        session: whose client.
        call: asks one of them.
        wanted: what it answers if it knows him.

    Returns:
        That; a verdict: no other is asked; None: nobody knows him.
    """
    for loaded in asked:
        found = await ask(loaded, hook, session.id, call)
        if isinstance(found, wanted):
            return found
        match verdict_of(loaded, hook, session.id, found):
            case (Reject() | Defer()) as verdict:
                return verdict
            case Continue():
                pass
            case verdict:  # whoever means `Granted` must say whom
                misfit(loaded, hook, session.id, unfit(verdict))
                return TRY_LATER
    return None


async def judge(
    asked: tuple[Loaded, ...],
    hook: str,
    session: Session,
    call: Asks,
    transaction: Transaction | None = None,
    recipient: Mailbox | None = None,
) -> Answer:
    """Ask plugins until one decides.

    Args:
        asked: whom, first to last.
        hook: what.
        session: whose client.
        call: asks one of them.
        transaction: what their changes are made to; None: no message is there yet.
        recipient: whom alone it is about; None: all.

    Returns:
        `Continue` or an objection.
    """
    now = perf_counter()
    for loaded in asked:
        if hook in loaded.waits:
            found = await ask(loaded, hook, session.id, call)
            now = perf_counter()
        else:
            # What `ask` does, but for a coroutine around the plugin's, a second look at the clock
            # and a call to count: ten plugins with six empty hooks each cost a message 60 µs of CPU
            # so, and 110 without (`python -m bench.plugins --memory`).
            counts, began = loaded.counts, now
            try:
                found = await call(loaded.plugin)
            except FAILURES as error:
                found = await fail(loaded, hook, session.id, error)
            now = perf_counter()
            if now <= began + QUICK:
                counts.quick += 1
                counts.quick_seconds += now - began
            else:
                counts.slow.observe(now - began)
        if found is CONTINUE:
            continue  # which nearly all answer
        verdict = verdict_of(loaded, hook, session.id, found)
        decided = heed(loaded, verdict, session, transaction, recipient)
        if decided is not None:
            return decided
        if isinstance(verdict, Accept):
            break
    return CONTINUE


def heed(
    loaded: Loaded,
    verdict: Verdict,
    session: Session,
    transaction: Transaction | None,
    recipient: Mailbox | None = None,
) -> Answer | None:
    """Do what a plugin says. Returns what ends the asking; None: the next may be asked."""
    match verdict:
        case Continue(changes=changes, note=note):
            _change(loaded, changes, transaction, recipient)
            if note:
                _log(loaded, verdict, session, note=note)
            return None
        case Accept(changes=changes, note=note, text=text):
            _change(loaded, changes, transaction, recipient)
            _say(text, transaction)
            _log(loaded, verdict, session, note=note)
            return None
        case Quarantine(changes=changes, note=note, reason=reason):
            _change(loaded, changes, transaction, recipient)
            _doom(loaded, verdict, session, transaction, recipient)
            _log(loaded, verdict, session, text=reason, note=note)
            return None
        case Discard(note=note):
            _doom(loaded, verdict, session, transaction, recipient)
            _log(loaded, verdict, session, note=note)
            return CONTINUE
        case Defer(text=text, note=note) | Reject(text=text, note=note):
            loaded.counts.objected += 1
            _log(loaded, verdict, session, text=text, note=note)
            return verdict


def _change(
    loaded: Loaded,
    changes: tuple[Change, ...],
    transaction: Transaction | None,
    recipient: Mailbox | None,
) -> None:
    if not changes:
        return
    if transaction is None:
        log.error("plugin.change_too_early", plugin=loaded.name, changes=len(changes))
        loaded.counts.failed += 1
        return
    for change in changes:
        transaction.change(loaded.name, change, later=recipient is not None)


def _doom(
    loaded: Loaded,
    fate: Fate,
    session: Session,
    transaction: Transaction | None,
    recipient: Mailbox | None,
) -> None:
    loaded.counts.objected += 1
    doomed = session.doomed if transaction is None else transaction.doomed
    if any(
        (each.plugin, each.recipient) == (loaded.name, recipient) and type(each.fate) is type(fate)
        for each in doomed
    ):
        return  # it says so of each piece of a body, or at each EHLO
    doomed.append(Doomed(loaded.name, fate, recipient))
    _say(fate.text, transaction)


def _say(text: str, transaction: Transaction | None) -> None:
    if text and transaction is not None and text not in transaction.said:
        transaction.said.append(text)


def _log(
    loaded: Loaded, verdict: Verdict, session: Session, *, text: str = "", note: str = ""
) -> None:
    log.info(
        "plugin.objected" if isinstance(verdict, (Defer, Reject)) else "plugin.decided",
        plugin=loaded.name,
        session=session.id,
        verdict=type(verdict).__name__.lower(),
        text=text,
        note=note,
    )


def unfit(verdict: Verdict) -> str:
    """What is wrong with an answer that cannot be heeded, for the log."""
    return f"{type(verdict).__name__} is no answer to this"
