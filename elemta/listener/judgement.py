"""What plugins made of a message, as the queue is told it: who is held, who gets nothing, and why.

A message that is discarded is taken all the same, and delivered to nobody: so it can be found, with
the reason in its timeline, as long as any other that is finished.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from elemta.plugins import BY_LISTENER, NOBODY, Discard, Quarantine
from elemta.protocol import Notify
from elemta.queue import Addressee, Holder, Note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elemta.plugins import Doomed, Transaction
    from elemta.protocol import Mailbox

#: Characters of a reason that are written down.
LONGEST: Final = 1000
#: Who sent what is thrown away is not told that it was delivered (RFC 3461 §4.1).
_UNTOLD: Final = frozenset({Notify.NEVER})


def doomed(
    found: Sequence[Addressee], transaction: Transaction, recipient: Mailbox, now: float
) -> Sequence[Addressee]:
    """Those that one RCPT TO leads to, as plugins want it for this one alone.

    Args:
        found: whom it leads to.
        transaction: the message.
        recipient: as the client named him.
        now: seconds since the epoch.
    """
    if not transaction.doomed or (fate := transaction.fate(recipient)) is None:
        return found
    if isinstance(fate.fate, Discard):
        return [_discarded(each) for each in found]
    return [replace(each, holder=_holder(fate, now)) for each in found]


def addressees(transaction: Transaction) -> tuple[Addressee, ...]:
    """Who gets the message, or would have got what is discarded."""
    found = tuple(transaction.addressees.values())
    fate = transaction.fate()
    if not found:
        # Plugins took away every one: nobody is there to get it, and it must not vanish.
        named = transaction.recipients
        return tuple([_discarded(Addressee(address=each)) for each in named])
    wanted = fate is None or not isinstance(fate.fate, Discard)
    # Again for those that were discarded alone: since then their parameters have come.
    return tuple([each if wanted and each.via != NOBODY else _discarded(each) for each in found])


def holder(transaction: Transaction, now: float) -> Holder | None:
    """Who holds the message, if plugins want it held."""
    fate = transaction.fate()
    if fate is None or isinstance(fate.fate, Discard):
        return None
    return _holder(fate, now)


def notes(transaction: Transaction, now: float) -> tuple[Note, ...]:
    """What the timeline says of what plugins found out, changed and decided."""
    told = [
        Note(at=now, who=_who(plugin), action="found", recipients=(), reason=_words(reason))
        for plugin, reason in transaction.results.told()
    ]
    told += [
        Note(
            at=now,
            who="listener" if each.plugin == BY_LISTENER else _who(each.plugin),
            action=str(each.change),
            recipients=(),
        )
        for each in transaction.made
    ]
    for each in transaction.doomed:
        quarantined = isinstance(each.fate, Quarantine)
        whom = "" if each.recipient is None else f" for {each.recipient}"
        told.append(
            Note(
                at=now,
                who=_who(each.plugin),
                action=("quarantine" if quarantined else "discard") + whom,
                recipients=(),
                reason=_reason(each),
            )
        )
    return tuple(told)


def _discarded(addressee: Addressee) -> Addressee:
    params = replace(addressee.params, notify=_UNTOLD)
    return replace(addressee, via=NOBODY, holder=None, params=params)


def _holder(fate: Doomed, now: float) -> Holder:
    return Holder(owner=_who(fate.plugin), reason=_reason(fate), since=now)


def _reason(fate: Doomed) -> str:
    verdict = fate.fate
    return _words(verdict.reason if isinstance(verdict, Quarantine) else verdict.note)


def _words(text: str) -> str:
    """What can be written down, whatever a plugin takes for text, and for a reason."""
    return str(text)[:LONGEST].encode("utf-8", "replace").decode("utf-8")


def _who(plugin: str) -> str:
    return f"plugin:{plugin}" if plugin else "plugin"
