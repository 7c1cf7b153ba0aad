"""What plugins have in common that verify whole messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct, field

from elemta.config import Table
from elemta.plugins.built_in.asked import Asking
from elemta.units import Octets

if TYPE_CHECKING:
    from elemta.plugins import Session


class Sized(Table, frozen=True):
    """Settings of one that needs a message in memory."""

    #: What is larger is not verified: it would have to stand in memory.
    size: Octets = Octets(50 * 2**20)

    def __post_init__(self) -> None:
        if self.size <= 0:
            raise ValueError("`size` must be more than 0 B")


class Once(Struct):
    """What is verified once, whoever asks first; each has a class of its own below it."""

    asking: Asking = field(default_factory=Asking)


def is_stranger(session: Session) -> bool:
    """Whether a client's mail is looked at: our own people are known by other means."""
    return bool(session.address) and not session.trusted
