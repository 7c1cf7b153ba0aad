"""What a check costs that fails: one word in the settings, one verdict of the plugin.

A client is judged when it names a recipient, and not before: by then it may have logged in, the log
knows whom the mail was for, and the postmaster can be written to by who is refused unjustly
(RFC 5321 §4.5.1). What does not refuse a recipient concerns the message, and is done once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

from msgspec import Struct
from typing_extensions import override

from elemta.config import Table
from elemta.plugins import CONTINUE, Continue, Defer, PluginWith, Quarantine, Reject, Tag, Verdict
from elemta.protocol import LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elemta.plugins import Transaction
    from elemta.protocol import Mailbox

S = TypeVar("S", bound=Table)

#: What becomes of mail: it is refused for good, or for now; taken, and held for an operator;
#: taken, with a tag by which it is found; or nothing.
Action: TypeAlias = Literal["reject", "defer", "quarantine", "tag", "none"]

#: A subject and a detail (RFC 3463 §3.8): refused by policy.
POLICY = (7, 1)


class Objection(Struct, frozen=True):
    """What a check has against a client or a message.

    Attributes:
        action: what that costs.
        text: for the client, if it is refused.
        note: what was found, for operators.
        tag: a word for it.
        status: subject and detail of the enhanced code, if it is refused.
    """

    action: Action
    text: str
    note: str
    tag: str
    status: tuple[int, int] = POLICY


class Objects(PluginWith[S]):
    """A plugin that judges clients by what it finds out about them, once they name a recipient."""

    @override
    async def on_rcpt(self, transaction: Transaction, recipient: Mailbox) -> Verdict:
        return at_recipient(await self._judge(transaction), recipient)

    @override
    async def on_data(self, transaction: Transaction) -> Verdict:
        return at_data(await self._judge(transaction), transaction)

    async def _judge(self, transaction: Transaction) -> list[Objection]:
        """What it has against a message: asked at each recipient, so it remembers what it asked."""
        raise NotImplementedError


def at_recipient(objections: Sequence[Objection], recipient: Mailbox) -> Verdict:
    """The verdict of ``on_rcpt``: what refuses. The postmaster may be written to by anybody."""
    return CONTINUE if is_postmaster(recipient) else refusal(objections)


def refusal(objections: Sequence[Objection]) -> Verdict:
    """The objection that refuses, if one does: for good sooner than for now."""
    for each in objections:
        if each.action == "reject":
            return Reject(each.status, each.text, each.note)
    for each in objections:
        if each.action == "defer":
            return Defer(each.status, each.text, each.note)
    return CONTINUE


def at_data(objections: Sequence[Objection], transaction: Transaction) -> Verdict:
    """The verdict of ``on_data``: what holds and what tags, unless the postmaster alone gets it."""
    if not objections or all(map(is_postmaster, transaction.recipients)):
        return CONTINUE
    marked = [each for each in objections if each.action in ("quarantine", "tag")]
    if not marked:
        return CONTINUE
    tags = tuple([Tag(word) for word in dict.fromkeys(each.tag for each in marked)])
    note = "; ".join(each.note for each in marked)
    held = next((each for each in marked if each.action == "quarantine"), None)
    if held is None:
        return Continue(tags, note)
    return Quarantine(held.note, changes=tags, note=note if len(marked) > 1 else "")


def is_postmaster(recipient: Mailbox) -> bool:
    """Whether somebody must be reachable for those whom we refuse (RFC 5321 §4.5.1)."""
    return recipient.local_part.lower() == "postmaster"


def check_text(key: str, text: str) -> None:
    """For settings: a text that clients are told.

    Raises:
        ValueError: it is empty, or cannot stand in a reply.
    """
    if not text.isascii() or not text:
        raise ValueError(f"`{key}` must be a text of ASCII characters")
    try:
        Reject(POLICY, text)
    except LocalProtocolError as error:
        raise ValueError(f"`{key}` cannot stand in a reply: {error}") from None


def check_tag(key: str, word: str) -> None:
    """For settings: a word by which operators find mail.

    Raises:
        ValueError: it is none.
    """
    try:
        Tag(word)
    except ValueError:
        raise ValueError(
            f"`{key}` must be a word of at most 64 printable ASCII characters, not {word!r}"
        ) from None


def check_wait(key: str, seconds: float) -> None:
    """For settings: how long somebody else has time.

    Raises:
        ValueError: that is none at all.
    """
    if seconds <= 0:
        raise ValueError(f"`{key}` must be more than 0 s")
