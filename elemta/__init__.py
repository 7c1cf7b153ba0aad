"""Elemta: a mail transfer agent built on structured concurrency."""

from typing import Final

__version__: Final = "0.1.0"
