"""What may be a secret, kept out of logs and transcripts."""

from __future__ import annotations

import re
from typing import Final

#: What stands for a secret.
MASK: Final = b"***"

_AUTH: Final = re.compile(rb"\s*AUTH", re.IGNORECASE)
#: Whatever is no name of a mechanism may be a password that was put in its place.
_NAMED: Final = re.compile(
    rb"\s*AUTH +(?:PLAIN|LOGIN|CRAM-MD5|DIGEST-MD5|SCRAM-SHA-[0-9]{1,3}(?:-PLUS)?|XOAUTH2"
    rb"|OAUTHBEARER|EXTERNAL|ANONYMOUS|NTLM|GSSAPI)(?=\s|$)",
    re.IGNORECASE,
)


#: A challenge, but for the two questions of LOGIN.
_CHALLENGE: Final = re.compile(rb"^(334 )(?!VXNlcm5hbWU6|UGFzc3dvcmQ6)[^\r\n]+", re.MULTILINE)


def is_login(line: bytes) -> bool:
    """Whether a line begins as an AUTH command does (RFC 4954 §4), well formed or not."""
    return _AUTH.match(line) is not None


def mask_login(line: bytes) -> bytes:
    """An AUTH command without its initial response; other lines as they are.

    Args:
        line: its CRLF gone.
    """
    if (auth := _AUTH.match(line)) is None:
        return line
    named = _NAMED.match(line)
    shown = line[: (named or auth).end()]
    rest = line[len(shown) :].strip()
    return shown + (b" " + MASK if rest else b"")


def mask_challenges(replies: bytes) -> bytes:
    """Replies without what they challenge a client with that logs in.

    A server's last word in SCRAM is made from the password: with the salt and the nonces before it,
    guesses could be tried against it wherever a transcript lies (RFC 5802 §9).

    Args:
        replies: whole lines.
    """
    if b"334 " not in replies:
        return replies
    return _CHALLENGE.sub(rb"\g<1>" + MASK, replies)
