"""The two ways a conversation can go wrong: our fault, or theirs."""

from __future__ import annotations


class ProtocolError(Exception):
    """SMTP was violated. Abstract: catch this, raise one of the two below."""


class LocalProtocolError(ProtocolError):
    """Our own code asked for something SMTP forbids. Always a bug in the caller."""


class RemoteProtocolError(ProtocolError):
    """The server broke SMTP in a way that leaves nothing to say but goodbye.

    Raised by the client engine's parsers alone: on the server's side every fault of a peer is an
    event. The message is for our log.
    """
