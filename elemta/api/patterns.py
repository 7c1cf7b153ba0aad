"""How words in requests are written, as the OpenAPI document has it, and what people call them."""

from __future__ import annotations

from typing import Final

#: The id of a message: a ULID, its letters of any case.
ID: Final = "^[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}$"
MEDIA_TYPE: Final = "^[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,63}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,63}$"
#: What can be suspended (`elemta.queue.parse_scope`).
SCOPE: Final = "^(all|destination:.+|domain:@?[^@\\n].*)$"
TAG: Final = "^[!-~]+$"

_WORDS: Final = {
    repr(ID): "the id of a message",
    repr(MEDIA_TYPE): "a media type such as text/plain",
    repr(SCOPE): "all, destination:LANE or domain:NAME",
    repr(TAG): "a word of ASCII letters, digits and signs",
}


def words_for(pattern: str) -> str:
    """What is expected where a pattern stands.

    Args:
        pattern: as Python writes it down.
    """
    return _WORDS.get(pattern, f"what matches {pattern}")
