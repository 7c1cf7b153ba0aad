"""The commands of RFC 5321 §4.1, read from one line each.

More is read than the RFC asks for where that is harmless and common: white space at the end of a
line and behind the colon of ``MAIL FROM:``, and a HELO name with an underscore or an address
literal of any make. A source route is read and ignored (RFC 5321 Appendix F.2).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeAlias

from msgspec import Struct

from elemta.protocol import events
from elemta.protocol.address import DOMAIN, LITERAL, POSTMASTER, Mailbox, parse_mailbox
from elemta.protocol.params import parse_mail_params, parse_rcpt_params
from elemta.protocol.reply import Reply, reply
from elemta.protocol.sasl import decode_base64

if TYPE_CHECKING:
    from elemta.protocol.offer import Offer

UNKNOWN: Final = reply(500, 5, 1, "command not recognized")
UNPRINTABLE: Final = reply(500, 5, 2, "unprintable octets in command")
NOT_IMPLEMENTED: Final = reply(502, 5, 1, "command not implemented")
SYNTAX: Final = reply(501, 5, 4, "syntax error in parameters")
BAD_SENDER: Final = reply(501, 1, 7, "bad sender address syntax")
BAD_RECIPIENT: Final = reply(501, 1, 3, "bad recipient address syntax")
NEEDS_SMTPUTF8: Final = reply(553, 6, 7, "an address beyond ASCII needs SMTPUTF8")
NO_MECHANISM: Final = reply(504, 5, 4, "unrecognized authentication mechanism")
BAD_BASE64: Final = reply(501, 5, 2, "cannot decode base64")
NOT_SMTP: Final = reply(554, 5, 1, "this is an SMTP server")
NO_CHUNK_SIZE: Final = reply(501, 5, 4, "no chunk size, so no telling where the chunk ends")


class Hostile(Struct, frozen=True):
    """A line that leaves nothing to say but `reply` and goodbye."""

    reply: Reply


Parsed: TypeAlias = events.Command | events.Chunk | Reply | Hostile

_HELLO: Final = re.compile(rf"{DOMAIN}\.?|{LITERAL}")
#: What stands between the angle brackets may have some of its own within quotes.
_PATH: Final = r" *<((?:[^<>\"]|\"(?:[^\"\\]|\\.)*+\")*+)>((?: .*)?)"
_MAIL: Final = re.compile(rf"FROM:{_PATH}", re.IGNORECASE)
_RCPT: Final = re.compile(rf"TO:{_PATH}", re.IGNORECASE)
_SOURCE_ROUTE: Final = re.compile(rf"@{DOMAIN}(?:, *@{DOMAIN})*+:")
_CHUNK: Final = re.compile(r"([0-9]{1,20})( +LAST)?", re.IGNORECASE)
_LOGIN: Final = re.compile(r"([A-Za-z0-9_-]{1,20})(?: +([!-~]+))?")

#: Octets of a HELO name (RFC 5321 §4.5.3.1.2).
MAX_NAME: Final = 255

_BARE: Final[dict[str, events.Command]] = {
    "DATA": events.Data(),
    "RSET": events.Reset(),
    "QUIT": events.Quit(),
}
_NOT_IMPLEMENTED: Final = frozenset({"EXPN", "TURN", "ETRN", "SEND", "SOML", "SAML"})
#: First octet of a TLS handshake record (RFC 8446 §5.1); no command begins so.
TLS_HELLO: Final = b"\x16"

#: First words of a browser that was made to speak to a mail server.
_HTTP: Final = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}
)


def parse(line: bytes, offer: Offer, *, lmtp: bool = False, smtputf8: bool = False) -> Parsed:
    """Read one command line, its CRLF already gone.

    Args:
        line: what the peer said.
        offer: what we announced.
        lmtp: whether the greeting is LHLO (RFC 2033 §4.1).
        smtputf8: whether the MAIL before said so.

    Returns:
        The command, or what refuses it.
    """
    if line.startswith(TLS_HELLO):
        return Hostile(NOT_SMTP)
    try:
        text = line.decode().rstrip(" \t")
    except UnicodeDecodeError:
        return UNPRINTABLE
    if not text.isprintable():
        return UNPRINTABLE
    verb, _, rest = text.partition(" ")
    match verb.upper():
        case "MAIL":
            return _mail(rest, offer)
        case "RCPT":
            return _rcpt(rest, offer, smtputf8=smtputf8)
        case bare if bare in _BARE:
            return SYNTAX if rest else _BARE[bare]
        case "EHLO" | "HELO" | "LHLO" as hello if lmtp == (hello == "LHLO"):
            return _hello(rest.strip(" "), extended=hello != "HELO")
        case "NOOP":
            return events.Noop()
        case "BDAT":  # offered or not: the octets of the chunk are on their way
            return _chunk(rest.strip(" "))
        case "STARTTLS" if offer.starttls:
            return SYNTAX if rest else events.StartTls()
        case "AUTH" if offer.mechanisms:
            return _login(rest.strip(" "), offer)
        case "VRFY":
            return events.Verify(rest.strip(" ")) if rest else SYNTAX
        case "HELP":
            return events.Help()
        case "STARTTLS" | "AUTH":
            return NOT_IMPLEMENTED
        case other if other in _NOT_IMPLEMENTED:
            return NOT_IMPLEMENTED
        case other if other in _HTTP:
            return Hostile(NOT_SMTP)
        case _:
            return UNKNOWN


def _hello(name: str, *, extended: bool) -> events.Hello | Reply:
    if not _HELLO.fullmatch(name) or len(name) > MAX_NAME:
        return SYNTAX
    return events.Hello(name.rstrip(".").lower(), extended)


def _mail(text: str, offer: Offer) -> events.Mail | Reply:
    found = _MAIL.fullmatch(text)
    if found is None:
        return SYNTAX
    params = parse_mail_params(found[2], offer)
    if isinstance(params, Reply):
        return params
    path = found[1]
    if not path:
        return events.Mail(None, params)
    sender = _mailbox(path, BAD_SENDER, smtputf8=params.smtputf8)
    return sender if isinstance(sender, Reply) else events.Mail(sender, params)


def _rcpt(text: str, offer: Offer, *, smtputf8: bool) -> events.Rcpt | Reply:
    found = _RCPT.fullmatch(text)
    if found is None:
        return SYNTAX
    path = found[1]
    if path.lower() == POSTMASTER.local_part:
        recipient: Mailbox | Reply = POSTMASTER
    else:
        recipient = _mailbox(path, BAD_RECIPIENT, smtputf8=smtputf8)
    if isinstance(recipient, Reply):
        return recipient
    params = parse_rcpt_params(found[2], offer, smtputf8=smtputf8)
    return params if isinstance(params, Reply) else events.Rcpt(recipient, params)


def _mailbox(path: str, bad: Reply, *, smtputf8: bool) -> Mailbox | Reply:
    if path.startswith("@") and (route := _SOURCE_ROUTE.match(path)):
        path = path[route.end() :]
    if not smtputf8 and not path.isascii():
        return NEEDS_SMTPUTF8
    try:
        return parse_mailbox(path, smtputf8=smtputf8)
    except ValueError:
        return bad


def _chunk(text: str) -> events.Chunk | Hostile:
    found = _CHUNK.fullmatch(text)
    if found is None:
        # Content follows, and nobody knows how much: none of it may be taken for commands.
        return Hostile(NO_CHUNK_SIZE)
    return events.Chunk(int(found[1]), last=found[2] is not None)


def _login(text: str, offer: Offer) -> events.Auth | Reply:
    found = _LOGIN.fullmatch(text)
    if found is None:
        return SYNTAX
    mechanism, initial = found[1].upper(), found[2]
    if mechanism not in offer.mechanisms:
        return NO_MECHANISM
    if initial is None:
        return events.Auth(mechanism, None)
    if initial == "=":  # an initial response of no octets (RFC 4954 §4)
        return events.Auth(mechanism, b"")
    response = decode_base64(initial.encode())
    return BAD_BASE64 if response is None else events.Auth(mechanism, response)
