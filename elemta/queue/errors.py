"""Why the queue cannot do what it was asked."""

from __future__ import annotations


class StoreUnavailable(Exception):  # noqa: N818 # a state that passes, not a fault of the caller
    """The disk is full or broken just now. Nothing of what was asked has been kept.

    The message is for our log.
    """


class KeyReusedError(Exception):
    """Something was handed in with the key of something else. It was not taken."""


class SpoolError(Exception):
    """This queue cannot be opened at all: in use by another process, or from the future."""
