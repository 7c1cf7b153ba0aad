"""What a server announces in its answer to EHLO."""

from __future__ import annotations

from functools import lru_cache

from msgspec import Struct

from elemta.protocol.reply import Reply


class Offer(Struct, frozen=True, kw_only=True):
    """What EHLO announces. A parameter of an extension that is not offered is refused with 555.

    Attributes:
        pipelining: RFC 2920. We cannot help serving a client that pipelines.
        size: RFC 1870.
        eight_bit: RFC 6152.
        smtputf8: RFC 6531.
        enhanced_status_codes: RFC 2034. Without it replies are written without them.
        dsn: RFC 3461.
        chunking: RFC 3030.
        starttls: RFC 3207.
        mt_priority: RFC 6710. Whose wishes count, the caller decides.
        mechanisms: SASL mechanisms, upper case (RFC 4954); none: AUTH is not offered.
        rcpt_max: the most recipients of a transaction (RFC 9422).
        mail_max: the most transactions of a connection (RFC 9422).
    """

    pipelining: bool = True
    size: bool = True
    eight_bit: bool = True
    smtputf8: bool = True
    enhanced_status_codes: bool = True
    dsn: bool = True
    chunking: bool = True
    starttls: bool = False
    mt_priority: bool = False
    mechanisms: tuple[str, ...] = ()
    rcpt_max: int | None = None
    mail_max: int | None = None


@lru_cache(maxsize=64)
def announcement(hostname: str, offer: Offer, max_message: int) -> Reply:
    """The reply to EHLO or LHLO (RFC 5321 §4.1.1.1).

    Args:
        hostname: our own name.
        offer: what we offer.
        max_message: octets, for SIZE.
    """
    keywords = {
        "PIPELINING": offer.pipelining,
        f"SIZE {max_message}": offer.size,
        "8BITMIME": offer.eight_bit,
        "SMTPUTF8": offer.smtputf8,
        "ENHANCEDSTATUSCODES": offer.enhanced_status_codes,
        "DSN": offer.dsn,
        "CHUNKING": offer.chunking,
        "STARTTLS": offer.starttls,
        "MT-PRIORITY": offer.mt_priority,
        " ".join(("AUTH", *offer.mechanisms)): bool(offer.mechanisms),
        _limits(offer): offer.rcpt_max is not None or offer.mail_max is not None,
    }
    return Reply(250, None, (hostname, *(text for text, offered in keywords.items() if offered)))


def _limits(offer: Offer) -> str:
    words = ["LIMITS"]
    if offer.rcpt_max is not None:
        words.append(f"RCPTMAX={offer.rcpt_max}")
    if offer.mail_max is not None:
        words.append(f"MAILMAX={offer.mail_max}")
    return " ".join(words)
