"""DKIM: whether domains vouch for a message (RFC 6376, RFC 8301, RFC 8463)."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import dkim
import trio
from msgspec import Struct
from typing_extensions import override

from elemta.mailauth.asking import MissingError, TemporaryError, always, never, replay
from elemta.mailauth.body import cut
from elemta.mailauth.keys import UnverifiedError
from elemta.mailauth.results import comment, value
from elemta.mailauth.signed import Signed, is_light, key_questions, tags_of
from elemta.message import HeaderScanner
from elemta.protocol import domain_to_ascii

if TYPE_CHECKING:
    from elemta.mailauth.asking import Answers
    from elemta.mailauth.keys import Key
    from elemta.net.dns import Records
    from elemta.threads import InThread

DkimResult: TypeAlias = Literal[
    "none", "pass", "fail", "policy", "neutral", "temperror", "permerror"
]

#: Signatures of one message that are verified; whoever needs more does not mean well.
SIGNATURES: Final = 10
#: Seconds that all of them may take.
SECONDS: Final = 20.0
#: By how much clocks may differ, in seconds.
_SLOP: Final = 3600
_NAME: Final = b"dkim-signature"
_COLON: Final = re.compile(rb"\s*:\s*")
_NUMBER: Final = re.compile(rb"[0-9]{1,12}")


class DkimSignature(Struct, frozen=True):
    """What became of one signature.

    Attributes:
        result: ``none``: the message has no signature; ``policy``: it may be right, but we do not
            accept such ones.
        domain: who signed (``d=``); in lower case, A-labels or as it stands.
        selector: of the key.
        identity: for whom (``i=``).
        algorithm: as ``a=`` has it.
        bits: of the key.
        testing: the domain only tries it (``t=y``).
        reason: why it did not pass, for operators.
    """

    result: DkimResult
    domain: str = ""
    selector: str = ""
    identity: str = ""
    algorithm: str = ""
    bits: int = 0
    testing: bool = False
    reason: str = ""

    @override
    def __str__(self) -> str:
        """As RFC 8601 §2.7.1 has it."""
        said = self.reason or (f"{self.bits}-bit key" if self.bits else "")
        if self.testing:
            said = f"{said}, testing" if said else "testing"
        text = f"dkim={self.result}{comment(said)}"
        for name, found in (("d", self.domain), ("s", self.selector), ("a", self.algorithm)):
            if found:
                text += f" header.{name}={value(found)}"
        return text


async def check_dkim(
    message: bytes,
    *,
    resolver: Records,
    in_thread: InThread,
    now: float,
    signatures: int = SIGNATURES,
    seconds: float = SECONDS,
) -> list[DkimSignature]:
    """What became of each signature of a message, from the top; one ``none`` if there is none.

    Never raises: what cannot be read is a permerror, what the DNS cannot say in `seconds` is a
    temperror.

    Args:
        message: as its client sent it, with CRLFs.
        resolver: asks the DNS.
        in_thread: where it is verified.
        now: seconds since the epoch.
        signatures: that are verified; of the rest one result says that they were not.
        seconds: for all of it.
    """
    header, body = cut(message)
    scanner = HeaderScanner()
    scanner.feed(header + b"\r\n")
    found = scanner.named(_NAME)
    if not found:
        return [DkimSignature("none")]
    wanted = [_Signing(each) for each in found[:signatures]]

    def verify(answers: Answers) -> list[DkimSignature]:
        message = _Dkim(header, body, answers)
        return [message.verified(place, each, now) for place, each in enumerate(wanted)]

    try:
        results = await replay(
            verify,
            resolver=resolver,
            in_thread=in_thread,
            first=key_questions(each.tags for each in wanted),
            light=always if is_light(header, body, found[: len(wanted)]) else never,
            seconds=seconds,
        )
    except trio.TooSlowError:
        reason = f"no answer in {seconds:g} s"
        results = [_described(each.tags, "temperror", reason, None) for each in wanted]
    except dkim.DKIMException as error:
        results = [_described(each.tags, "permerror", str(error), None) for each in wanted]
    except Exception as error:  # of a library that was given what an attacker wrote
        reason = f"{type(error).__name__}: {error}"
        results = [_described(each.tags, "permerror", reason, None) for each in wanted]
    if len(found) > len(wanted):
        more = len(found) - len(wanted)
        results.append(DkimSignature("policy", reason=f"{more} more signatures not looked at"))
    return results


class _Signing:
    """A field that signs, before anything of it is verified.

    Args:
        value: of the field, unfolded.

    Attributes:
        tags: in it; none if they cannot be read.
    """

    __slots__ = ("_error", "tags")

    def __init__(self, value: bytes) -> None:
        self.tags: dict[bytes, bytes] = {}
        self._error: UnverifiedError | None = None
        try:
            self.tags = tags_of(value)
        except UnverifiedError as error:
            self._error = error

    def check(self) -> None:
        """See that its tags could be read.

        Raises:
            UnverifiedError: they could not.
        """
        if self._error is not None:
            raise self._error


class _Dkim(Signed, dkim.DKIM):
    """A message with signatures."""

    def verified(self, place: int, signing: _Signing, now: float) -> DkimSignature:
        """What became of one of them.

        Args:
            place: of its field among those of its name.
            signing: what it says.
            now: seconds since the epoch.
        """
        fields = [each for each in self.headers if each[0].lower() == _NAME]
        sig = signing.tags
        self.used.clear()
        result: DkimResult = "pass"
        reason = ""
        try:
            signing.check()
            name, text = fields[place]
            names = _checked(sig, now)
            if not self.verify_sig(sig, names, (name, text)):
                result, reason = "fail", "the signature does not match"
            elif self.used[0].strict and _of_subdomain(sig):
                result, reason = "permerror", "the key is not for subdomains"
        except MissingError:
            raise
        except TemporaryError as error:
            result, reason = "temperror", str(error)
        except UnverifiedError as error:
            result, reason = error.result, error.reason
        except dkim.DKIMException as error:
            result, reason = "permerror", str(error)
        except Exception as error:  # what an attacker wrote, in the hands of a library
            result, reason = "permerror", f"{type(error).__name__}: {error}"
        key = self.used[0] if self.used else None
        return _described(sig, result, reason, key)


def _checked(sig: dict[bytes, bytes], now: float) -> list[bytes]:
    """The names of the fields that a signature signs, in lower case.

    Raises:
        DKIMException: something is missing, or cannot be.
    """
    times = {tag: _time(sig[tag]) for tag in (b"t", b"x") if tag in sig}
    dkim.validate_signature_fields({k: v for k, v in sig.items() if k not in times})
    if times.get(b"t", 0) > now + _SLOP:
        raise UnverifiedError("policy", "it was signed in the future")
    if times.get(b"x", now) < now - _SLOP:
        raise UnverifiedError("policy", "the signature has expired")
    if b"x" in times and times[b"x"] < times.get(b"t", 0):
        raise UnverifiedError("permerror", "it expires before it was signed")
    names = [each.lower() for each in _COLON.split(sig[b"h"])]
    if b"from" not in names:
        raise UnverifiedError("permerror", "From is not signed")  # RFC 6376 §6.1.1
    return names


def _time(text: bytes) -> int:
    if not _NUMBER.fullmatch(text):
        raise UnverifiedError("permerror", "no time")
    return int(text)


def _of_subdomain(sig: dict[bytes, bytes]) -> bool:
    domain = sig[b"d"].lower()
    return sig.get(b"i", b"@" + domain).lower().rpartition(b"@")[2] != domain


def _described(
    sig: dict[bytes, bytes], result: DkimResult, reason: str, key: Key | None
) -> DkimSignature:
    def text(tag: bytes) -> str:
        return sig.get(tag, b"").decode("utf-8", "replace")

    domain = text(b"d").lower()
    with suppress(ValueError):  # what is none stays as somebody wrote it, aligned with nothing
        domain = domain_to_ascii(domain)
    return DkimSignature(
        result,
        domain,
        text(b"s"),
        text(b"i") or (f"@{text(b'd')}" if b"d" in sig else ""),
        text(b"a"),
        0 if key is None else key.bits,
        key is not None and key.testing,
        reason,
    )
