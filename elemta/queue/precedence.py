"""What MT-PRIORITY (RFC 6710) means for us, and what we say to others.

================  ==========  =========
value             priority    passed on
================  ==========  =========
-9 to -1          `LOW`       -4
0 to 3            `NORMAL`    nothing
4 to 6            `HIGH`      4
7 to 9            `CRITICAL`  7
================  ==========  =========

-4, 0 and 4 are the steps of the RFC's default profile (MIXER: non-urgent, normal, urgent). The last
column is for a message whose priority somebody else gave it: a plugin, an operator. If it is still
the one that its value stands for, the value itself is passed on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from elemta.queue.model import Priority

if TYPE_CHECKING:
    from elemta.queue.model import Message

_VALUES: Final = {Priority.LOW: -4, Priority.NORMAL: 0, Priority.HIGH: 4, Priority.CRITICAL: 7}


def priority_of(value: int) -> Priority:
    """What a value from -9 to 9 means here."""
    if value < 0:
        return Priority.LOW
    if value < _VALUES[Priority.HIGH]:
        return Priority.NORMAL
    return Priority.HIGH if value < _VALUES[Priority.CRITICAL] else Priority.CRITICAL


def value_of(message: Message) -> int | None:
    """What the next host is told; None: nothing, as nobody has said anything of it."""
    said = message.params.mt_priority
    if said is None and message.priority is Priority.NORMAL:
        return None
    if said is not None and priority_of(said) is message.priority:
        return said
    return _VALUES[message.priority]
