"""How many mistakes a client may make, and what each costs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elemta.listener.replies import TOO_MANY_ERRORS, TOO_MUCH_TALK

if TYPE_CHECKING:
    from elemta.config import Listener
    from elemta.protocol import Reply


class Patience:
    """What is left of ours with one client.

    A message that is taken makes up for what came before it (as in Postfix): a mailing list has
    dead addresses in it, and somebody who guesses names sends no mail.

    Args:
        limits: how much of it there is.
        tireless: the client may name as many unknown recipients as it likes: it is our own
            mail server (LMTP), and guesses no names.
    """

    __slots__ = ("_errors", "_idle", "_limits", "_strange", "_unknown", "tireless")

    def __init__(self, limits: Listener, *, tireless: bool = False) -> None:
        self._limits = limits
        self.tireless = tireless
        self._errors = 0  # refused commands and messages
        self._strange = 0  # commands that SMTP does not know
        self._unknown = 0  # recipients that do not exist
        self._idle = 0  # NOOP, RSET and the like

    @property
    def mistakes(self) -> int:
        """How many there were since the last message that was taken."""
        return self._errors + self._unknown

    def mistake(self, *, strange: bool = False) -> float | Reply:
        """Note a command or message that was refused.

        Returns:
            Seconds to wait before the answer, or the goodbye to say in its place.
        """
        self._errors += 1
        self._strange += strange
        limits = self._limits
        if self._errors > limits.hard_errors or self._strange > limits.unknown_commands:
            return TOO_MANY_ERRORS
        return max(0, self._errors - limits.soft_errors) * limits.error_delay

    def unknown_recipient(self) -> float | Reply:
        """Note a recipient that does not exist; returns what `mistake` does."""
        if self.tireless:
            return 0.0
        self._unknown += 1
        limits = self._limits
        if self._unknown > limits.hard_unknown_recipients:
            return TOO_MANY_ERRORS
        return max(0, self._unknown - limits.soft_unknown_recipients) * limits.error_delay

    def small_talk(self) -> Reply | None:
        """Note a command that leads to no message; returns the goodbye, if it is one too many."""
        self._idle += 1
        return TOO_MUCH_TALK if self._idle > self._limits.idle_commands else None

    def message_taken(self) -> None:
        """Forget what was."""
        self._errors = self._strange = self._unknown = self._idle = 0
