"""What sendmail and Postfix tell milters beside the protocol, under the names that they use."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from elemta.mailauth import Iprev

if TYPE_CHECKING:
    from elemta.plugins.scene import Session, Transaction
    from elemta.protocol import Mailbox

#: Names, those of several letters in braces, and values.
Values: TypeAlias = tuple[tuple[bytes, bytes], ...]


def client_name(session: Session) -> str:
    """The client's name if it is proved, or else its address in brackets."""
    iprev = session.results.first(Iprev)
    if iprev is not None and iprev.name:
        return iprev.name
    return f"[{session.address}]" if session.address else "localhost"


def of_connection(session: Session, hostname: str) -> Values:
    """Before the client's address is told."""
    name = client_name(session)
    return _values(
        j=hostname,
        v="Elemta",
        daemon_name=session.listener,
        _=f"{name} [{session.address}]" if name[:1] != "[" else name,
        client_name=name,
        client_addr=session.address,
        client_port=str(session.port),
    )


def of_hello(session: Session) -> Values:
    """Before EHLO."""
    encryption = session.encryption
    if encryption is None:
        return _values(tls_version="")
    return _values(
        tls_version=encryption.version, cipher=encryption.cipher, cert_subject=encryption.client
    )


def of_mail(transaction: Transaction) -> Values:
    """Before MAIL FROM."""
    sender, login = transaction.sender, transaction.session.login
    return _values(
        i=transaction.id,
        # Which mechanism it was is not told: milters ask whether there was one.
        auth_type="PLAIN" if login else "",
        auth_authen=login or "",
        mail_addr=str(sender or "<>"),
        mail_host="" if sender is None else sender.domain,
        mail_mailer="esmtp",
    )


def of_rcpt(transaction: Transaction, recipient: Mailbox) -> Values:
    """Before RCPT TO."""
    return _values(
        i=transaction.id,
        rcpt_addr=str(recipient),
        rcpt_host=recipient.domain,
        rcpt_mailer="esmtp",
    )


def of_message(transaction: Transaction) -> Values:
    """Before DATA, and before the ends of the header and of the body."""
    return _values(i=transaction.id)


def _values(**values: str) -> Values:
    return tuple(
        ((name if len(name) == 1 else f"{{{name}}}").encode(), value.encode("utf-8", "replace"))
        for name, value in values.items()
        if value
    )
