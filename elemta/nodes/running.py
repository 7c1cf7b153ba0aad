"""What the first process knows of the configuration that its nodes run, each a share of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elemta import log as logs
from elemta.config import applicable, read, shown
from elemta.control.facts import Configuration

if TYPE_CHECKING:
    from pathlib import Path

    from elemta.config import Config


class Running:
    """The configuration of the whole server: what a node would tell of it has been divided.

    Args:
        config: what was read at the start.
        file: where from.

    Attributes:
        config: what runs now.
    """

    def __init__(self, config: Config, file: Path) -> None:
        self.config = config
        self._file = file

    def reload(self) -> None:
        """Take over what can change while mail flows, as each node does.

        Raises:
            ConfigError: there is a mistake in it; nothing has changed.
        """
        self.config = applicable(self.config, read(self._file))
        logs.set_level(None)  # somebody may have set another for a while

    def told(self) -> Configuration:
        """See `Control.configuration`."""
        return Configuration(file=str(self._file), values=shown(self.config))
