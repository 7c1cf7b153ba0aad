"""Why clients are refused, in a word each: few enough to count them apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from elemta.listener import expansion, ownership, recipients, replies
from elemta.protocol import Fault

if TYPE_CHECKING:
    from elemta.protocol import Reply

_REASONS: Final = {
    recipients.RELAY_DENIED: "relay_denied",
    expansion.NO_SUCH_MAILBOX: "unknown_mailbox",
    expansion.ALIAS_LOOP: "alias",
    expansion.ALIAS_TOO_LARGE: "alias",
    expansion.ALIAS_BROKEN: "alias",
    recipients.MAP_DOWN: "map_down",
    replies.TOO_BIG: "too_big",
    replies.HEADER_TOO_BIG: "too_big",
    replies.TOO_MANY_RECIPIENTS: "too_many_recipients",
    replies.TOO_MANY_AT_ONCE: "too_many_recipients",
    replies.TOO_MANY_MESSAGES: "too_many_messages",
    replies.TOO_MANY_ERRORS: "too_many_errors",
    replies.TOO_MUCH_TALK: "too_much_talk",
    replies.TOO_MANY_LOGINS: "too_many_logins",
    replies.LOGIN_REFUSED: "login",
    replies.LOGIN_LATER: "login",
    replies.NOT_LOGGED_IN: "not_logged_in",
    replies.NO_ROOM: "no_room",
    replies.NOT_STORED: "not_stored",
    replies.GOING_ROUND: "loop",
    replies.FAULTS[Fault.BARE_NEWLINE]: "bare_newline",
    replies.FAULTS[Fault.LEADING_NUL]: "leading_nul",
    replies.FAULTS[Fault.LINE_TOO_LONG]: "line_too_long",
    replies.SPOKE_FIRST: "spoke_first",
    replies.INJECTED: "injected",
    replies.TLS_FIRST: "tls_required",
}
#: What the engine refuses, by code, but for what it does not understand.
_OF_ENGINE: Final = {502: "not_offered", 503: "sequence"}
#: All that there are.
REASONS: Final = frozenset(
    {*_REASONS.values(), *_OF_ENGINE.values(), "foreign_sender", "plugin", "syntax"}
)


def reason(refusal: Reply, *, by_plugin: bool = False) -> str:
    """Why a client was refused. What is none of ours is the engine's.

    Args:
        refusal: what it hears.
        by_plugin: a plugin's verdict says so, which may have any code, and words as ours.
    """
    if by_plugin:
        return "plugin"
    if (known := _REASONS.get(refusal)) is not None:
        return known
    if refusal.status == ownership.STATUS:
        return "foreign_sender"  # each names an address
    return _OF_ENGINE.get(refusal.code, "syntax")
