"""Addresses and bodies that are right, and that a filter of words refused (each was one's mail)."""

from __future__ import annotations

from typing import Final

#: Of senders and recipients.
ADDRESSES: Final = (
    "no-reply@dropbox.com",
    "updates@example.net",
    "subscription@example.net",
    "selection@example.net",
    "o'brien@example.net",
    "SRS0=HHH=TT=orig.example=user@forwarder.example",
    "bounce+user=example.org@list.example",
    "anna@xn--80ak6aa92e.xn--p1ai",
    "user@[192.0.2.4]",
    "user@[IPv6:2001:db8::4]",
    '"a b"@example.net',
    '"quoted@local"@example.net',
    "грета@пример.рф",
    "müller@bücher.example",
)

#: Whole messages, but for their line ends.
MESSAGES: Final = (
    'From: "Bob <bob@x>" <bob@example.net>\nSubject: hello\n\nHi\n',
    "From: Анна and Ann <anna@example.net>\nSubject: Привет and hello\n\nmixed Привет text\n",
    "From: =?utf-8?b?0JDQvdC90LA=?= <a@example.net>\nSubject: =?utf-8?q?caf=C3=A9?=\n\nHi\n",
    "From: a@example.net\nSubject: XSS\n\nNever write <script>alert(1)</script> into a page.\n",
    "From: a@example.net\nSubject: SQL\n\n' UNION SELECT * FROM users; DROP TABLE mail;--\n",
    "From: a@example.net\nSubject: antivirus\n\nThe virus, the malware and the trojan horse.\n",
    "From: a@example.net\nSubject: long\n\n" + "more than a thousand octets\n" * 60,
    "From: a@example.net\nSubject: file\nMIME-Version: 1.0\n"
    "Content-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n\nAAECAwQ=\n",
)
