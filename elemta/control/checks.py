"""Whether what came from outside can be what it says: nobody's parser has made it.

A `Mailbox` above all: an address must not be able to carry a line end into an SMTP command.
"""

from __future__ import annotations

import ipaddress
import math
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from elemta.config import TargetError, chosen_targets
from elemta.control.interface import RequestError
from elemta.protocol import parse_mailbox
from elemta.queue import Reroute

if TYPE_CHECKING:
    from elemta.control.facts import Hypothesis, Submission
    from elemta.protocol import Mailbox

#: Letters of an idempotency key, and of a tag; and tags of one message.
MAX_KEY: Final = 200
MAX_TAG: Final = 100
MAX_TAGS: Final = 50
#: Seconds: how far ahead a message may be wanted.
MAX_AHEAD: Final = 366 * 86400.0
#: Hosts that somebody may choose for a recipient.
MAX_HOSTS: Final = 10
#: Letters of what a client calls itself.
MAX_HELO: Final = 255

#: The one address without a domain (RFC 5321 §4.5.1).
_POSTMASTER: Final = "postmaster"


def check_address(mailbox: Mailbox, place: str) -> None:
    """Hold an address against the grammar.

    Raises:
        RequestError: it is none, or not spelt as our own parser spells it.
    """
    if not mailbox.domain and mailbox.local_part.lower() == _POSTMASTER:
        return
    try:
        right = parse_mailbox(str(mailbox)) == mailbox
    except ValueError as error:
        raise RequestError(str(error), place) from None
    if not right:
        raise RequestError("expected an address, its domain in small letters", place)


def checked_reroute(action: Reroute) -> Reroute:
    """The same with each target in its one spelling: who shares a host shares a lane.

    Raises:
        RequestError: one of them is none, or none that can be chosen.
    """
    if len(action.via) > MAX_HOSTS:
        raise RequestError(f"expected at most {MAX_HOSTS} targets", f"action.via[{MAX_HOSTS}]")
    try:
        return Reroute(tuple(map(str, chosen_targets(action.via))))
    except TargetError as error:
        raise RequestError(str(error), f"action.via[{error.index}]") from None


def client_address(text: str, place: str) -> str:
    """An IP address in its one spelling.

    Raises:
        RequestError: it is none.
    """
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise RequestError("expected an IP address", place) from None


def check_submission(submission: Submission, now: float) -> None:
    """See that a message can be handed in.

    Args:
        submission: the message.
        now: seconds since the epoch.

    Raises:
        RequestError: it cannot; the place says where.
    """
    if submission.sender is not None:
        check_address(submission.sender, "sender")
    if not submission.recipients:
        raise RequestError("expected at least one recipient", "recipients")
    for number, mailbox in enumerate(submission.recipients):
        check_address(mailbox, f"recipients[{number}]")
    if len(submission.tags) > MAX_TAGS:
        raise RequestError(f"expected at most {MAX_TAGS} tags", "tags")
    for number, tag in enumerate(submission.tags):
        if not (tag.isprintable() and 0 < len(tag) <= MAX_TAG):
            text = f"expected a word of at most {MAX_TAG} letters"
            raise RequestError(text, f"tags[{number}]")
    due = submission.due
    if due is not None and not (math.isfinite(due) and due <= now + MAX_AHEAD):
        raise RequestError("expected a time within a year from now", "due")
    if len(submission.key) > MAX_KEY or not submission.key.isprintable():
        raise RequestError(f"expected at most {MAX_KEY} printable letters", "key")
    if submission.client and client_address(submission.client, "client") != submission.client:
        raise RequestError("expected an IP address in its usual spelling", "client")


def checked_hypothesis(hypothesis: Hypothesis) -> Hypothesis:
    """What can be thought through, its client's address in the spelling that the listeners use.

    Raises:
        RequestError: it cannot; the place says where.
    """
    check_address(hypothesis.recipient, "recipient")
    if hypothesis.sender is not None:
        check_address(hypothesis.sender, "sender")
    client = client_address(hypothesis.client, "client")
    if len(hypothesis.helo) > MAX_HELO or not hypothesis.helo.isprintable():
        raise RequestError(f"expected at most {MAX_HELO} printable letters", "helo")
    if hypothesis.size < 0:
        raise RequestError("expected a number of octets", "size")
    return replace(hypothesis, client=client)
