"""Why a host is of no use to us just now. None of it says anything of the mail."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elemta.protocol import Reply


class HostUnusable(Exception):  # noqa: N818 # a finding about a host, no fault of anybody's
    """This host will not talk to us now: try the next.

    Attributes:
        reply: the host's, or of our own making.
        remote: whether it is the host's own words.
    """

    def __init__(self, reply: Reply, *, remote: bool) -> None:
        super().__init__(str(reply))
        self.reply = reply
        self.remote = remote


class TlsFailed(HostUnusable):
    """The host offers TLS, but it does not work: in clear it may."""


class LoginRefused(HostUnusable):
    """The host is there, but not for us: it will say the same until somebody mends something."""
