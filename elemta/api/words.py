"""Words in requests that several endpoints know: addresses, times, reasons."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

from msgspec import Meta

from elemta.api import patterns
from elemta.api.problem import Fault
from elemta.api.reading import refused
from elemta.protocol import parse_mailbox

if TYPE_CHECKING:
    from elemta.protocol import Mailbox, ReversePath

#: Characters of an address at most; `parse_mailbox` counts octets.
MAX_ADDRESS: Final = 254
#: Seconds, beyond any age of mail.
Age: TypeAlias = Annotated[float, Meta(ge=0, le=1e10)]
#: The end of the year 9999, the last that RFC 3339 can write.
LAST: Final = 253402300799
#: Seconds since the epoch, up to the year 9999.
Moment: TypeAlias = Annotated[float, Meta(ge=0, le=LAST)]
#: RFC 3339, or seconds since the epoch.
When: TypeAlias = Moment | Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
#: Octets.
Size: TypeAlias = Annotated[int, Meta(ge=0, le=2**53)]
#: A reason, or what else people write.
Text: TypeAlias = Annotated[str, Meta(max_length=1000)]
#: A name, or what is looked for. An empty one would be found everywhere.
Needle: TypeAlias = Annotated[str, Meta(min_length=1, max_length=1000)]
#: The id of a message.
Id: TypeAlias = Annotated[str, Meta(pattern=patterns.ID)]
#: What an event of the log is at least.
Level: TypeAlias = Literal["debug", "info", "warning", "error"]
#: A sender: an address, or ``<>`` for nobody.
Sender: TypeAlias = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_ADDRESS,
        examples=["alice@example.net", "<>"],
        extra_json_schema={"anyOf": [{"format": "email"}, {"const": "<>"}]},
    ),
]
#: An address as people write it.
Address: TypeAlias = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_ADDRESS,
        examples=["alice@example.net"],
        extra_json_schema={"format": "email"},
    ),
]


def mailbox(text: str, field: str) -> Mailbox:
    """An address that somebody wrote.

    Raises:
        Problem: it is none.
    """
    try:
        return parse_mailbox(text)
    except ValueError as error:
        raise refused(Fault(field, f"expected an address, and this has {error}")) from None


def reverse_path(text: str | None, field: str) -> ReversePath:
    """A sender that somebody wrote: none, or ``<>``, is the null sender.

    Raises:
        Problem: it is no address.
    """
    return None if text in (None, "<>") else mailbox(text, field)


def moment_of(when: float | str, place: str) -> float:
    """A time, seconds since the epoch.

    Raises:
        Problem: it is none.
    """
    if isinstance(when, (int, float)):
        return when
    try:
        if 0 <= (seconds := float(when)) <= LAST:
            return seconds
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(when)
        if found.tzinfo is not None:
            return found.timestamp()
    except (ValueError, OverflowError):
        pass
    raise refused(
        Fault(place, "expected a time such as 2030-01-31T12:00:00Z, or seconds")
    ) from None
