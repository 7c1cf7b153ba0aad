"""The parameters of MAIL FROM and RCPT TO: one RFC a parameter.

A parameter of an extension that is not offered is unknown (555); one that is said twice, or with a
value that cannot be, is a syntax error (501).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from elemta.protocol.address import parse_mailbox
from elemta.protocol.events import (
    Body,
    MailParams,
    Notify,
    OriginalRecipient,
    RcptParams,
    Ret,
)
from elemta.protocol.reply import Reply, reply

if TYPE_CHECKING:
    from elemta.protocol.offer import Offer

#: Also for a value that this keyword cannot have, such as BODY=BINARYMIME without BINARYMIME.
SYNTAX: Final = reply(501, 5, 4, "syntax error in parameters")
UNKNOWN: Final = reply(555, 5, 4, "parameter not recognized or not implemented")

_NO_MAIL_PARAMS: Final = MailParams()
_NO_RCPT_PARAMS: Final = RcptParams()

#: RFC 5321 §4.1.2, but "=" may stand in a value: addresses are often said as they are.
_PARAM: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([^\x00-\x20\x7f]+))?")
_SIZE: Final = re.compile(r"[0-9]{1,20}")
_XTEXT: Final = re.compile(r"(?:[!-*,-~]|\+[0-9A-Fa-f]{2})+")
#: RFC 6533 §3: utf-8-addr-xtext, or utf-8-addr-unitext where the message is SMTPUTF8.
_UTF8_XTEXT: Final = re.compile(
    r"(?:[^\x00-\x20+\\\x7f]|\+[0-9A-Fa-f]{2}|\\x\{[0-9A-Fa-f]{2,6}\})+"
)
_ENCODED: Final = re.compile(r"\+(..)|\\x\{([^}]*)\}")
_PRIORITY: Final = re.compile(r"0|-?[1-9]")
_ADDRESS_TYPE: Final = re.compile(r"[A-Za-z0-9-]+")
#: AUTH= of a message that nobody is known to have submitted (RFC 4954 §5).
_NOBODY: Final = "<>"

MAX_ENVID: Final = 100  #: characters as sent (RFC 3461 §4.4)
MAX_ORCPT: Final = 500  #: characters as sent (RFC 3461 §4.2)


def parse_mail_params(text: str, offer: Offer) -> MailParams | Reply:
    """What stands behind the path of MAIL FROM; or the reply that refuses it."""
    if not text:
        return _NO_MAIL_PARAMS
    try:
        return _mail_params(_words(text), offer)
    except ValueError:
        return SYNTAX


def parse_rcpt_params(text: str, offer: Offer, *, smtputf8: bool) -> RcptParams | Reply:
    """What stands behind the path of RCPT TO; or the reply that refuses it."""
    if not text:
        return _NO_RCPT_PARAMS
    try:
        return _rcpt_params(_words(text), offer, smtputf8=smtputf8)
    except ValueError:
        return SYNTAX


def _words(text: str) -> dict[str, str]:
    """Keywords, upper case, and their values, empty where there is none."""
    words: dict[str, str] = {}
    for word in text.split():
        found = _PARAM.fullmatch(word)
        if found is None or (key := found[1].upper()) in words:
            raise ValueError("no parameter, or one that was said before")
        words[key] = found[2] or ""
    return words


def _mail_params(words: dict[str, str], offer: Offer) -> MailParams | Reply:
    size = body = ret = envid = login = mt_priority = None
    smtputf8 = False
    for key, value in words.items():
        match key:
            case "SIZE" if offer.size:
                size = _size(value)
            case "BODY" if offer.eight_bit:
                body = Body(value.upper())
            case "SMTPUTF8" if offer.smtputf8:
                smtputf8 = _bare(value)
            case "RET" if offer.dsn:
                ret = Ret(value.upper())
            case "ENVID" if offer.dsn:
                envid = _xtext(value, MAX_ENVID)
            case "AUTH" if offer.mechanisms:
                login = _login(value)
            case "MT-PRIORITY" if offer.mt_priority:
                mt_priority = parse_priority(value)
            case _:
                return UNKNOWN
    return MailParams(
        size=size,
        body=body,
        smtputf8=smtputf8,
        ret=ret,
        envid=envid,
        auth=login,
        mt_priority=mt_priority,
    )


def _rcpt_params(words: dict[str, str], offer: Offer, *, smtputf8: bool) -> RcptParams | Reply:
    notify: frozenset[Notify] = frozenset()
    orcpt: OriginalRecipient | None = None
    for key, value in words.items():
        match key:
            case "NOTIFY" if offer.dsn:
                notify = _notify(value.upper())
            case "ORCPT" if offer.dsn:
                orcpt = _original_recipient(value, smtputf8=smtputf8)
            case _:
                return UNKNOWN
    return RcptParams(notify=notify, orcpt=orcpt)


def _bare(value: str) -> bool:
    if value:
        raise ValueError("takes no value")
    return True


def _size(value: str) -> int:
    if not _SIZE.fullmatch(value):
        raise ValueError("no size")
    return int(value)


def parse_priority(value: str) -> int:
    """A value of MT-PRIORITY, or of the field of that name (RFC 6710 §3, RFC 6758 §3).

    Raises:
        ValueError: it is none.
    """
    if not _PRIORITY.fullmatch(value):
        raise ValueError("no priority from -9 to 9")
    return int(value)


def _notify(value: str) -> frozenset[Notify]:
    notify = frozenset(map(Notify, value.split(",")))
    if Notify.NEVER in notify and len(notify) > 1:
        raise ValueError("NEVER stands alone")
    return notify


def _original_recipient(value: str, *, smtputf8: bool) -> OriginalRecipient:
    address_type, _, encoded = value.partition(";")
    if not _ADDRESS_TYPE.fullmatch(address_type) or len(value) > MAX_ORCPT:
        raise ValueError("no address type, or too long")
    if address_type.lower() != "utf-8":
        address = _xtext(encoded, MAX_ORCPT)
    elif smtputf8 or encoded.isascii():
        address = _decoded(_UTF8_XTEXT, encoded)
    else:
        raise ValueError("utf-8-addr-unitext needs SMTPUTF8")
    return OriginalRecipient(address_type.lower(), address)


def _login(value: str) -> str:
    if value != _NOBODY:
        value = _xtext(value, MAX_ORCPT)
        parse_mailbox(value)
    return value


def _xtext(value: str, most: int) -> str:
    text = _decoded(_XTEXT, value)
    if len(value) > most or not text.isascii():
        raise ValueError("too long, or what xtext is not for")
    return text


def _decoded(pattern: re.Pattern[str], value: str) -> str:
    """Take the encoding off (RFC 3461 §4, RFC 6533 §3)."""
    if not pattern.fullmatch(value):
        raise ValueError("no xtext")
    # A number beyond Unicode is a ValueError of chr's.
    text = _ENCODED.sub(lambda found: chr(int(found[1] or found[2], 16)), value)
    if not text.isprintable():
        # It ends up in a report's header: no line end may come out of it.
        raise ValueError("unprintable")
    return text
