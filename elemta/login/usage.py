"""When somebody logged in last, and by which of his passwords: kept beside, never in, his file.

It is of no weight: written seldom, and what a crash loses is that of an hour.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from elemta.files import replace_file

if TYPE_CHECKING:
    from pathlib import Path

#: By user, by app password (empty: his own): seconds since the epoch.
Used: TypeAlias = dict[str, dict[str, float]]

# Made before any thread asks: two that decode the first of a kind at once end the process.
_used: Final = msgspec.json.Decoder(dict[str, dict[str, float]])
_LARGEST: Final = 64 * 2**20


class Usage:
    """The file that has it.

    Args:
        path: of it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Used:
        """What is in it; nothing, if it is not there, or damaged: it is of no weight.

        Raises:
            OSError: the disk.
        """
        try:
            with self.path.open("rb") as file:
                return _used.decode(file.read(_LARGEST))
        except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
            return {}

    def add(self, used: Used) -> None:
        """Write down what happened since, beside what is there.

        Raises:
            OSError: the disk.
        """
        octets = msgspec.json.encode(merged(self.read(), used))
        replace_file(self.path, octets, durable=False)


def merged(one: Used, other: Used) -> Used:
    """The later of what both say."""
    found = {user: dict(apps) for user, apps in one.items()}
    for user, apps in other.items():
        known = found.setdefault(user, {})
        for app, at in apps.items():
            known[app] = max(at, known.get(app, 0.0))
    return found


def usage_name(file: Path) -> str:
    """What the file is called that has when the users of another logged in."""
    return f"usage-{hashlib.sha256(str(file).encode()).hexdigest()[:16]}.json"
