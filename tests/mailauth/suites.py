"""Test suites of the libraries, out of their source distributions: installing these leaves them."""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path
from typing import Final

#: Where `make` puts them.
PLACE: Final = Path(sys.prefix) / "suites"


def read(package: str, path: str) -> bytes:
    """A file of a source distribution.

    Args:
        package: its name.
        path: of the file, behind the folder with name and version.
    """
    found = sorted(PLACE.glob(f"{package}-*.tar.gz"))
    assert found, f"{PLACE} has no source distribution of {package}: run `make` once more"
    with tarfile.open(found[-1]) as archive:
        name = f"{found[-1].name.removesuffix('.tar.gz')}/{path}"
        file = archive.extractfile(name)
        assert file is not None, f"no {name} in {found[-1]}"
        return file.read()
