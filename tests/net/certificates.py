"""Servers that speak TLS, with certificates made when they are first wanted."""

from __future__ import annotations

import ssl
import warnings
from functools import cache

import trustme


@cache
def server_context(name: str = "mx.example", *, tickets: int = 2) -> ssl.SSLContext:
    """A server whose certificate nobody knows the issuer of.

    Args:
        name: in the certificate.
        tickets: that the server sends once the handshake is over, unasked; 2 is what all do.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = tickets
    trustme.CA().issue_cert(name).configure_cert(context)
    return context


def old_server_context() -> ssl.SSLContext:
    """A server that knows nothing newer than TLS 1.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("old.example").configure_cert(context)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        # Python would rather that nobody did so. That is what the test is about.
        warnings.simplefilter("ignore", DeprecationWarning)
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context
