"""ARC: what those say who passed a message on, and whether they can be believed (RFC 8617)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import dkim
import trio
from msgspec import Struct
from typing_extensions import override

from elemta.mailauth.asking import MissingError, TemporaryError, always, never, replay
from elemta.mailauth.body import cut
from elemta.mailauth.keys import UnverifiedError
from elemta.mailauth.results import comment
from elemta.mailauth.signed import Signed, is_light, key_questions, tags_of
from elemta.message import HeaderScanner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elemta.mailauth.asking import Answers
    from elemta.net.dns import Records
    from elemta.threads import InThread

ArcResult: TypeAlias = Literal["none", "pass", "fail", "temperror", "permerror"]

#: Sets that a message may have (RFC 8617 §4.2.1).
SETS: Final = 50
#: Seconds that all of it may take.
SECONDS: Final = 20.0
_SEAL: Final = b"arc-seal"
_SIGNATURE: Final = b"arc-message-signature"
_STATED: Final = b"arc-authentication-results"
_NUMBER: Final = re.compile(rb"(\A|;)(?:\A\s*|\s+)(i=[0-9]+;)", re.IGNORECASE)


class Seal(Struct, frozen=True):
    """What one of those says who passed the message on.

    Attributes:
        domain: whose seal it is; in lower case.
        stated: his Authentication-Results, without the number.
    """

    domain: str
    stated: bytes


class Arc(Struct, frozen=True):
    """What became of the chain.

    Attributes:
        result: ``none``: there is no chain.
        seals: from the newest on; none unless the chain passes.
        reason: why it does not pass, for operators.
        looked: it was looked at; else nobody knows.
    """

    result: ArcResult
    seals: tuple[Seal, ...] = ()
    reason: str = ""
    looked: bool = True

    @override
    def __str__(self) -> str:
        """As RFC 8617 §10.2 has it."""
        said, ours = self.reason, ""
        if self.seals:
            said, ours = f"sealed by {self.seals[0].domain}", f"i={len(self.seals)}"
        return f"arc={self.result}{comment(said, ours)}"


async def check_arc(
    message: bytes,
    *,
    resolver: Records,
    in_thread: InThread,
    seconds: float = SECONDS,
) -> Arc:
    """Whether the chain of a message is whole. Never raises.

    Args:
        message: as its client sent it, with CRLFs.
        resolver: asks the DNS.
        in_thread: where it is verified.
        seconds: for all of it.
    """
    header, body = cut(message)
    scanner = HeaderScanner()
    scanner.feed(header + b"\r\n")
    fields = [(name, each) for name, each in scanner.fields if name.startswith(b"arc-")]
    signing = [each for name, each in fields if name in (_SEAL, _SIGNATURE)]
    if not signing and all(name != _STATED for name, _ in fields):
        return Arc("none")
    for name in (_SEAL, _SIGNATURE, _STATED):
        if sum(each == name for each, _ in fields) > SETS:
            return Arc("fail", reason=f"more than {SETS} sets")
    try:
        tags = [tags_of(each) for each in signing]
    except UnverifiedError as error:
        return Arc("fail", reason=error.reason)

    def verify(answers: Answers) -> Arc:
        return _Arc(header, body, answers).verified()

    try:
        return await replay(
            verify,
            resolver=resolver,
            in_thread=in_thread,
            first=key_questions(tags),
            light=always if is_light(header, body, signing) else never,
            seconds=seconds,
        )
    except trio.TooSlowError:
        return Arc("temperror", reason=f"no answer in {seconds:g} s")
    except dkim.DKIMException as error:
        return Arc("permerror", reason=str(error))
    except Exception as error:  # of a library that was given what an attacker wrote
        return Arc("permerror", reason=f"{type(error).__name__}: {error}")


class _Arc(Signed, dkim.ARC):
    """A message with a chain."""

    def verified(self) -> Arc:
        try:
            newest, _ = self.sorted_arc_headers()
            if not newest:
                return Arc("fail", reason="sets without a number")
            if newest > SETS:
                return Arc("fail", reason=f"more than {SETS} sets")
            self._make_findable()
            result, sets, reason = self.verify()
        except MissingError:
            raise
        except TemporaryError as error:
            return Arc("temperror", reason=str(error))
        except Exception as error:  # what an attacker wrote, in the hands of a library
            return Arc("permerror", reason=f"{type(error).__name__}: {error}")
        if result == b"pass":
            seals = [
                Seal(_text(each["as-domain"]).lower(), _stated(each["aar-value"])) for each in sets
            ]
            return Arc("pass", tuple(seals))
        return Arc("fail", reason=reason)

    def _make_findable(self) -> None:
        """Let dkimpy find signatures, whose raw fields it tells apart by `` i=1;``.

        Another space there is the same one in a relaxed header, which all ARC signatures are over.
        """
        self.headers = [
            [name, _findable(raw) if name.lower() == _SIGNATURE else raw]
            for name, raw in self.headers
        ]

    @override
    def verify_sig(
        self,
        sig: dict[bytes, bytes],
        include_headers: list[bytes],
        sig_header: Sequence[bytes],
        dnsfunc: object = None,
    ) -> bool:
        if sig_header[0].lower() == _SIGNATURE and b"from" not in include_headers:
            raise UnverifiedError("permerror", "From is not signed")
        return super().verify_sig(sig, include_headers, sig_header)


def _findable(raw: bytes) -> bytes:
    return _NUMBER.sub(rb"\1 \2", raw, count=1)


def _text(found: bytes | int | bool) -> str:
    return found.decode("utf-8", "replace") if isinstance(found, bytes) else ""


def _stated(found: bytes | int | bool) -> bytes:
    return found.partition(b";")[2].strip() if isinstance(found, bytes) else b""
