r"""Regular expressions whose search takes time in proportion to the text, whoever wrote the text.

Python's own go back and try again: ``(a+)+$`` takes hours for thirty letters, and a stranger may
choose the letters of a header field. RE2 does not; what cannot be had so (references to groups,
looking ahead or behind) it refuses.
"""

from __future__ import annotations

from typing import Final

import re2

#: Octets of one pattern: its program, and what RE2 remembers of searches.
MEMORY: Final = 256 * 1024
#: Instructions of a program. The longest may take 0.1 s for 1000 octets, if nearly all of it is at
#: work at each; of the 1200 of a class such as ``\pL`` few are.
LONGEST: Final = 4000
#: Octets of a complaint, which may quote the whole pattern.
_SAID: Final = 200


class Pattern:
    r"""A regular expression, ready to be searched for; ``.`` is any character, line ends too.

    Args:
        text: in RE2's syntax.
        case: capitals are no small letters.

    Raises:
        ValueError: it is none, or it is too large.
    """

    def __init__(self, text: str, *, case: bool = False) -> None:
        options = re2.Options()
        options.max_mem = MEMORY
        options.case_sensitive = case
        options.dot_nl = True
        options.never_capture = True  # nobody asks for the groups
        options.log_errors = False  # to standard error, and whoever made one is told anyway
        try:
            # Octets, here and below: of `str` it would count characters for places nobody asks for.
            self._found = re2.compile(text.encode("utf-8"), options)
        except UnicodeEncodeError:
            raise ValueError("half of a surrogate pair is no character") from None
        except re2.error as error:
            said = error.args[0][:_SAID].decode("utf-8", "replace")
            raise ValueError(f"{said} (says RE2)") from None
        if (size := self._found.programsize) > LONGEST:
            raise ValueError(f"pattern too large: {size} steps, and at most {LONGEST} are taken")

    def search(self, text: str) -> bool:
        """Whether it matches somewhere. Halves of surrogate pairs are looked at as ``?``."""
        return self._found.search(text.encode("utf-8", "replace")) is not None
