"""What a milter answers, as a verdict."""

from __future__ import annotations

import re
from typing import Final

from elemta.plugins.milter import wire
from elemta.plugins.milter.wire import MilterError
from elemta.plugins.verdicts import CONTINUE, Defer, Discard, Reject, Verdict

#: Octets of what a client is told.
_TEXT: Final = 400
_LINE: Final = re.compile(
    r"(?P<code>[45]\d\d)[ -]?(?:(?P<class>[45])\.(?P<subject>\d{1,3})\.(?P<detail>\d{1,3}) ?)?"
    r"(?P<text>.*)",
    re.DOTALL,
)
_UNPRINTABLE: Final = re.compile(r"[^ -~]+")


def verdict_of(response: wire.Response) -> Verdict:
    """What an answer at any step means; `wire.Accept` is no objection.

    Raises:
        MilterError: it is no answer to what was said.
    """
    match response:
        case wire.Continue() | wire.Accept():
            return CONTINUE
        case wire.Reject():
            return Reject((7, 1), "this mail is not wanted", note="the milter rejects it")
        case wire.TempFail():
            return Defer((7, 1), "try again later", note="the milter puts it off")
        case wire.ConnectionFailed() | wire.ShutDown():
            return Defer((3, 0), "try again later", note="the milter cannot answer just now")
        case wire.Discard():
            return Discard("the milter discards it")
        case wire.ReplyCode(text=text):
            return _replied(text)
        case _:
            raise MilterError(f"{type(response).__name__} is no answer to that")


def _replied(octets: bytes) -> Defer | Reject:
    """A reply in the milter's own words."""
    # Its library asks for a doubled percent sign, as other servers format the text.
    told = octets.decode("utf-8", "replace").replace("%%", "%")
    first, *more = [each for each in re.split(r"[\r\n]+", told) if each] or [""]
    found = _LINE.fullmatch(first)
    if found is None:
        raise MilterError(f"a reply that is none: {octets[:100]!r}")
    texts = [found["text"]]
    for line in more:
        other = _LINE.fullmatch(line)
        texts.append(line if other is None else other["text"])
    text = _UNPRINTABLE.sub("?", " ".join(filter(None, texts)))[:_TEXT].strip()
    code = int(found["code"])
    known = found["class"] is not None and found["class"] == found["code"][0]
    status = (int(found["subject"]), int(found["detail"])) if known else (7, 1)
    note = f"the milter says {code}"
    if code < 500:
        return Defer(status, text or "try again later", note, None if code == 421 else code)
    return Reject(status, text or "this mail is not wanted", note, code)
