"""Exit codes, as sysexits.h has them; nothing found is 1, as with grep."""

from __future__ import annotations

from typing import Final

NOT_FOUND: Final = 1
USAGE: Final = 64
DAMAGED: Final = 65
UNAVAILABLE: Final = 69
FAULT: Final = 70
UNREADABLE: Final = 74
TRY_LATER: Final = 75
FORBIDDEN: Final = 77
MISCONFIGURED: Final = 78
