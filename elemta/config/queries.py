"""Queries of databases as the configuration writes them: text with named parameters in it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

#: What is in quotes or a comment is text, and ``::`` is a cast of PostgreSQL.
_PIECE: Final = re.compile(
    r"""'(?:[^']|'')*+'|"(?:[^"]|"")*+"|--[^\n]*+|::|:(?P<name>[A-Za-z_]\w*+)|.""", re.DOTALL
)


class Query:
    """One query, which a driver writes its own way.

    Attributes:
        names: of its parameters, in order.
    """

    __slots__ = ("_pieces", "names")

    def __init__(self, pieces: list[tuple[str, str]]) -> None:
        #: Text, and the name of the parameter behind it.
        self._pieces = pieces
        self.names = tuple(name for _, name in pieces if name)

    @classmethod
    def parse(cls, text: str, known: Collection[str]) -> Self:
        """Read a query.

        Args:
            text: SQL, with ``:name`` where a value goes.
            known: the names that there may be.

        Raises:
            ValueError: it has none of them, or others.
        """
        pieces: list[tuple[str, str]] = []
        plain = ""
        for found in _PIECE.finditer(text):
            name = found["name"]
            if name is None:
                plain += found[0]
                continue
            if name not in known:
                raise ValueError(f"expected one of {_listed(known)}, not :{name}")
            pieces.append((plain, name))
            plain = ""
        if not pieces:
            raise ValueError(f"expected a query with one of {_listed(known)} in it")
        return cls([*pieces, (plain, "")])

    def written(self, parameter: Callable[[str], str], text: Callable[[str], str] = str) -> str:
        """The query as a driver wants it.

        Args:
            parameter: how it writes one of this name.
            text: how it writes what is none.
        """
        return "".join(
            text(plain) + (parameter(name) if name else "") for plain, name in self._pieces
        )


def _listed(names: Collection[str]) -> str:
    return ", ".join(f":{name}" for name in names)
