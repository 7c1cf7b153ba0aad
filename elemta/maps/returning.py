"""The secrets by which senders are rewritten, so that reports find the way back to them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from elemta.config import ConfigError, Mistake
from elemta.files import read_private
from elemta.message import Srs
from elemta.protocol import domain_to_ascii

if TYPE_CHECKING:
    from pathlib import Path

    from elemta.config import Forwarding

#: Octets that a secret must have, for nobody to guess it.
_SHORTEST: Final = 16
#: Octets of a file that has more than secrets in it.
_LONGEST: Final = 65536


def srs_of(forwarding: Forwarding) -> Srs | None:
    """What rewrites senders; None: nothing does.

    Raises:
        ConfigError: the secrets cannot be read, others can read them, or they are none.
    """
    if forwarding.srs is None or forwarding.secret_file is None:
        return None
    try:
        secrets = _secrets(forwarding.secret_file)
    except OSError as error:
        problem = str(error) if error.errno is None else os.strerror(error.errno)
        told = f"no secrets: {problem}"
        raise ConfigError(Mistake("forwarding.secret_file", told)) from None
    return Srs(domain_to_ascii(forwarding.srs), secrets)


def _secrets(path: Path) -> list[bytes]:
    octets = read_private(path, _LONGEST)
    secrets = [line for each in octets.splitlines() if (line := each.strip())]
    if not secrets:
        raise OSError(f"expected a secret on each line of {path}")
    if min(map(len, secrets)) < _SHORTEST:
        raise OSError(f"a secret of {path} has less than {_SHORTEST} octets")
    return secrets
