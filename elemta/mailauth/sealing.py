"""Seals messages that are passed on (RFC 8617): a header, a body's digest and our word, fields out.

dkimpy finds the sets that are there and brings them into order, as it does to verify them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import dkim
from dkim.util import InvalidTagValueList, parse_tag_value

from elemta.mailauth.arc import SETS
from elemta.mailauth.signed import QUIET
from elemta.mailauth.signing import SIGNED, Selection, Signing, relaxed, signature
from elemta.message import fold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elemta.mailauth.signing import Signer

#: What became of the chain before us (``cv=``).
Chain: TypeAlias = Literal["none", "pass", "fail"]
#: Why there can be no seal.
NoSeal: TypeAlias = Literal["limit", "over", "malformed"]

#: What the author has signed is part of what is passed on (RFC 8617 §4.1.2).
_SELECTION: Final = Selection((*SIGNED, "dkim-signature"), ("from",))
_STATED: Final = "ARC-Authentication-Results"
_SIGNATURE: Final = "ARC-Message-Signature"
_SEAL: Final = "ARC-Seal"


class SealError(Exception):
    """A message cannot be sealed.

    Attributes:
        why: ``limit``: it has as many sets as there may be; ``over``: the last one says that the
            chain has failed, which nobody can mend; ``malformed``: it cannot be read.
    """

    def __init__(self, why: NoSeal) -> None:
        super().__init__(why)
        self.why: NoSeal = why


def seal(
    header: bytes, body: bytes, signer: Signer, *, chain: Chain, stated: str, now: float
) -> tuple[tuple[str, str], ...]:
    """A set more: names of fields and their values as they stand behind the colon, top first.

    Args:
        header: as it will be sent, each line with its CRLF.
        body: the SHA-256 digest of the body in its relaxed form.
        signer: whose seal it is.
        chain: what we have found of the sets that are there.
        stated: what we have found out about the message, as Authentication-Results have it.
        now: seconds since the epoch.

    Raises:
        SealError: that cannot be.
    """
    newest, sets = _sets(header)
    if newest >= SETS:
        raise SealError("limit")
    number, tags = newest + 1, f"d={signer.domain}; s={signer.selector};"
    kind = f"a={signer.key.kind}-sha256;"
    times = f"t={int(now)};"
    said = fold(_STATED, f"i={number}; {stated}").decode("ascii")
    results = said.removeprefix(f"{_STATED}:").removesuffix("\r\n")
    lines = [f" i={number}; {kind} c=relaxed/relaxed;", tags, times]
    signing = Signing(header, _SELECTION)
    signed = signing.tagged(_SIGNATURE, lines, signer.key, body)
    own = [
        (name.lower().encode("ascii"), relaxed(value.encode("ascii")))
        for name, value in ((_STATED, results), (_SIGNATURE, signed))
    ]
    # Of a chain that has failed nothing is sealed but our own set (§5.1.2).
    before = () if chain == "fail" else sets
    sealed = b"".join([b"%s:%s" % (name, value) for name, value in (*before, *own)])
    lines = [f" i={number}; {kind} cv={chain};", tags, times]
    return (
        (_SEAL, signature(_SEAL, lines, signer.key, sealed)),
        (_SIGNATURE, signed),
        (_STATED, results),
    )


def _sets(header: bytes) -> tuple[int, Sequence[tuple[bytes, bytes]]]:
    """The number of the newest set, and the fields of all, in their relaxed form, as sealed.

    Raises:
        SealError: they cannot be read, or the newest says that it is over.
    """
    try:
        newest, found = dkim.ARC(header + b"\r\n", logger=QUIET).sorted_arc_headers()
        for number, (name, value) in found:
            if number == newest and name == b"arc-seal":
                if parse_tag_value(value).get(b"cv", b"").lower() == b"fail":
                    raise SealError("over")
                break
    except (dkim.DKIMException, InvalidTagValueList, IndexError):
        raise SealError("malformed") from None
    return newest, [field for _, field in reversed(found)]
