"""What DKIM and ARC have in common: fields that sign others, with a key in the DNS.

dkimpy reads, canonicalises and hashes; what an attacker could make it do without end is looked at
here before it does.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
import re
from typing import TYPE_CHECKING, Final, cast

import dkim
from dkim.canonicalization import CanonicalizationPolicy, InvalidCanonicalizationPolicyError
from dkim.util import InvalidTagValueList, parse_tag_value
from typing_extensions import override

from elemta.mailauth.keys import Key, UnverifiedError, key_of
from elemta.mailauth.signing import relaxed
from elemta.net.dns import Kind
from elemta.protocol import domain_to_ascii

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from elemta.mailauth.asking import Answers, Question
    from elemta.mailauth.body import Body, Canonical

#: Octets of a field that signs: real ones have a quarter of it.
_LONGEST: Final = 8192
#: Fields that one signature may sign.
_MOST_NAMES: Final = 150
#: What is light: a header and a body of so many octets, so many lines, so many signatures and
#: octets of each.
_LIGHT_HEADER: Final = 8192
_LIGHT_LINES: Final = 150
_LIGHT_BODY: Final = 32 * 1024
_LIGHT_SIGNATURES: Final = 2
_LIGHT_SIGNATURE: Final = 2048
#: Spaces in a row, over which dkimpy's expressions would go again and again; and those with which
#: they take a while: nobody needs so many for a fold.
_SPACES: Final = re.compile(rb"\s{200}")
_SOME_SPACES: Final = re.compile(rb"\s{32}")
#: Dkimpy takes such a line for the first of a mailbox file, and not for the field that it may be.
_FROM_LINE: Final = b"From "
#: The value of ``b=``, which a signature does not sign. dkimpy's own expression finds the same, in
#: a hundred times as many steps: it looks for folds before each letter.
_SIGNATURE: Final = re.compile(rb"([;\s]b\s*=)(?:[a-zA-Z0-9+/=\s]*[a-zA-Z0-9+/=])?(?:\r?\n\Z)?")
#: Dkimpy would log what an attacker wrote; what is worth telling is in the result.
QUIET: Final = logging.Logger("dkimpy", logging.CRITICAL + 1)  # noqa: LOG001 # in no hierarchy


class Signed(dkim.DomainSigner):
    """Verifies with what the DNS has said.

    Args:
        header: of the message, each line with its CRLF.
        body: what is behind it.
        answers: of the DNS.

    Raises:
        DKIMException: the header has lines that are no fields.
    """

    def __init__(self, header: bytes, body: Body, answers: Answers) -> None:
        if header.startswith(_FROM_LINE) or b"\n" + _FROM_LINE in header:
            raise UnverifiedError("permerror", "a line that begins with 'From '")
        super().__init__(header + b"\r\n", logger=QUIET)
        self._body = body
        self._answers = answers
        #: Keys, in the order in which they were found.
        self.used: list[Key] = []

    @override
    def verify_sig(
        self,
        sig: dict[bytes, bytes],
        include_headers: list[bytes],
        sig_header: Sequence[bytes],
        dnsfunc: object = None,
    ) -> bool:
        """Whether a signature is right.

        Raises:
            UnverifiedError: it could not even be looked at.
            MissingError, TemporaryError: its key.
        """
        kind, _, hashed = sig[b"a"].partition(b"-")
        if hashed != b"sha256":
            raise UnverifiedError("policy", f"{sig[b'a'].decode('ascii')} is too weak")
        if len(include_headers) > _MOST_NAMES:
            raise UnverifiedError("permerror", f"it signs more than {_MOST_NAMES} fields")
        key = self._key_of(sig)
        self.used.append(key)
        if key.kind.encode() != kind:
            raise UnverifiedError("permerror", f"the key is of the kind {key.kind}")
        if key.hashes and hashed not in key.hashes:
            raise UnverifiedError("permerror", "the key is not for this hash")
        try:
            policy = CanonicalizationPolicy.from_c_value(sig.get(b"c", b"simple/simple"))
        except InvalidCanonicalizationPolicyError:
            raise UnverifiedError("permerror", "an unknown canonicalization") from None
        if b"bh" in sig:
            self._check_body(sig, policy)
        names = [*include_headers, b"from"] if b"from" in include_headers else include_headers
        signed = selected(self.headers, names)
        return key.verifies(_decoded(sig[b"b"]), digest_of(policy, signed, sig_header))

    def _key_of(self, sig: dict[bytes, bytes]) -> Key:
        name = key_name(sig)
        if name is None:
            raise UnverifiedError("permerror", "no name of a key")
        records = self._answers.texts(name)
        # There should be one (RFC 6376 §3.6.2.2).
        record = next((each for each in records if b"p=" in each), next(iter(records), None))
        if record is None:
            raise UnverifiedError("permerror", "no key for this signature")
        return key_of(record)

    def _check_body(self, sig: dict[bytes, bytes], policy: CanonicalizationPolicy) -> None:
        canonical = cast("Canonical", policy.body_algorithm.name)  # dkimpy has these two alone
        if b"l" in sig:
            size, signed = self._body.measured(canonical).size, int(sig[b"l"] or b"0")
            if signed > size:
                raise UnverifiedError("fail", "l= counts more than there is")
            if signed < size:
                # Anybody could have written the rest (RFC 6376 §8.2).
                raise UnverifiedError("policy", f"l= leaves {size - signed} octets unsigned")
        if self._body.measured(canonical).digest != _decoded(sig[b"bh"]):
            raise UnverifiedError("fail", "the body was changed")


def is_light(header: bytes, body: Body, signing: Sequence[bytes]) -> bool:
    """Whether signatures are verified in a millisecond or two, whatever is in them.

    What is longer must not be waited for by others: it goes to a thread.

    Args:
        header: of the message.
        body: what is behind it.
        signing: the values of the fields that sign.
    """
    return (
        len(signing) <= _LIGHT_SIGNATURES
        and len(header) <= _LIGHT_HEADER
        and header.count(b"\n") <= _LIGHT_LINES
        and body.size <= _LIGHT_BODY
        and all(len(each) <= _LIGHT_SIGNATURE and not _SOME_SPACES.search(each) for each in signing)
    )


def tags_of(value: bytes) -> dict[bytes, bytes]:
    """The tags of a field that signs.

    Raises:
        UnverifiedError: it cannot be read, or we will not.
    """
    if len(value) > _LONGEST:
        raise UnverifiedError("permerror", f"a field of more than {_LONGEST} octets")
    if _SPACES.search(value):
        raise UnverifiedError("permerror", "a field with hundreds of spaces in a row")
    try:
        return parse_tag_value(value)
    except InvalidTagValueList:
        raise UnverifiedError("permerror", "no list of tags") from None


def key_name(tags: dict[bytes, bytes]) -> str | None:
    """Where the key of a signature is; None: nowhere."""
    try:
        selector, domain = tags[b"s"].decode(), tags[b"d"].decode()
        return domain_to_ascii(f"{selector}._domainkey.{domain}")
    except (KeyError, ValueError):
        return None


def key_questions(signing: Iterable[dict[bytes, bytes]]) -> list[Question]:
    """What the DNS will be asked for signatures.

    Args:
        signing: the tags of their fields.
    """
    names = [key_name(tags) for tags in signing]
    return [(name, Kind.TXT) for name in names if name is not None]


def selected(headers: Sequence[Sequence[bytes]], names: Iterable[bytes]) -> list[Sequence[bytes]]:
    """The fields that are signed: of several of one name the lowest first (RFC 6376 §5.4.2).

    Args:
        headers: names and values.
        names: in lower case, as ``h=`` has them.
    """
    there: dict[bytes, list[Sequence[bytes]]] = {}
    for each in headers:
        there.setdefault(each[0].lower(), []).append(each)
    return [left.pop() for name in names if (left := there.get(name))]


def digest_of(
    policy: CanonicalizationPolicy, signed: Sequence[Sequence[bytes]], field: Sequence[bytes]
) -> bytes:
    """The hash of the fields that are signed, and of the one that signs (RFC 6376 §3.7).

    Only these are brought into their canonical form, where dkimpy does so with the whole header,
    and looks through all of it for each of them. The tests hold this against what it finds.

    Args:
        policy: their canonical form.
        signed: names and values.
        field: likewise.
    """
    name, value = field
    signing = (name, _SIGNATURE.sub(rb"\1", value))
    if policy.header_algorithm.name == b"relaxed":
        parts = [b"%s:%s" % (each.lower(), relaxed(value)) for each, value in signed]
        parts.append(b"%s:%s" % (name.lower(), relaxed(signing[1]).rstrip()))
    else:
        parts = [b"%s:%s" % (each, value) for each, value in signed]
        parts.append(b"%s:%s" % (name, signing[1].rstrip()))
    return hashlib.sha256(b"".join(parts)).digest()


def _decoded(value: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(value.split()))
    except binascii.Error:
        raise UnverifiedError("permerror", "no base64") from None
