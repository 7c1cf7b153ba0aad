"""What a listener says. The text is for the peer: it names no path, rule or program of ours."""

from __future__ import annotations

from typing import Final

from elemta.protocol import Fault, Reply, reply

OK: Final = reply(250, 0, 0, "OK")
SENDER_OK: Final = reply(250, 1, 0, "sender OK")
#: Begins with the priority that the message has now (RFC 6710, status X.3.6).
PRIORITY_LOWERED: Final = reply(250, 3, 6, "0 is its priority: you may not raise it; sender OK")
RECIPIENT_OK: Final = reply(250, 1, 5, "recipient OK")
CHUNK_OK: Final = reply(250, 0, 0, "chunk taken")
#: No class of enhanced codes is for it (RFC 2034 §4).
GO_AHEAD: Final = Reply(354, None, ("end with <CRLF>.<CRLF>",))
BYE: Final = reply(221, 0, 0, "bye")
#: We will not say who exists, but would take the mail and try (RFC 5321 §3.5.3).
NOT_VERIFIED: Final = reply(252, 0, 0, "cannot verify, but send some mail and it will be tried")
HELP: Final = reply(214, 0, 0, "this is a mail server; see RFC 5321")

# To who logs in (RFC 4954 §4, §6).
LOGGED_IN: Final = reply(235, 7, 0, "you are logged in")
#: To who does not, where all who send must.
NOT_LOGGED_IN: Final = reply(530, 7, 0, "Authentication required")
#: Whether there is such a user is not told.
LOGIN_REFUSED: Final = reply(535, 7, 8, "these credentials are not right")
LOGIN_LATER: Final = reply(454, 7, 0, "nobody can say now who you are, try again later")
LOGIN_LOCKED: Final = reply(454, 7, 0, "too many failed logins, try again later")
LOGIN_CANCELLED: Final = reply(501, 7, 0, "cancelled")
LOGIN_NONSENSE: Final = reply(501, 5, 2, "no credentials are written so")

# Goodbyes.
SHUTTING_DOWN: Final = reply(421, 3, 2, "shutting down, come again")
TIMED_OUT: Final = reply(421, 4, 2, "timed out waiting for you")
BROKEN: Final = reply(421, 3, 0, "internal error, come again")
TOO_MANY_CONNECTIONS: Final = reply(421, 3, 2, "too many connections, come again")
TOO_MANY_OF_YOURS: Final = reply(421, 7, 0, "too many connections from your network")
TOO_MANY_MESSAGES: Final = reply(421, 4, 5, "enough for one connection, connect again")
TOO_MANY_ERRORS: Final = reply(421, 7, 0, "too many errors")
TOO_MANY_LOGINS: Final = reply(421, 7, 0, "too many failed logins")
LOGIN_OVER: Final = reply(421, 7, 0, "your login is over, log in again")
TOO_MUCH_TALK: Final = reply(421, 7, 0, "too many commands without a message")
#: A client that talks before it is greeted does not listen: a proxy abused, or a spammer in haste.
SPOKE_FIRST: Final = reply(554, 5, 0, "you spoke before you were greeted")
#: Somebody in the middle may have put commands behind it (RFC 3207 §6, CVE-2011-0411).
INJECTED: Final = reply(554, 5, 0, "commands behind STARTTLS")

TLS_READY: Final = reply(220, 0, 0, "go ahead with TLS")
#: RFC 3207 §4.
TLS_FIRST: Final = reply(530, 7, 0, "must issue a STARTTLS command first")

# The size of things.
TOO_BIG: Final = reply(552, 3, 4, "message too big")
HEADER_TOO_BIG: Final = reply(552, 3, 4, "message header too big")
TOO_MANY_RECIPIENTS: Final = reply(452, 5, 3, "too many recipients, send them the message again")
#: Where there is no second message for the rest.
TOO_MANY_AT_ONCE: Final = reply(550, 5, 3, "too many recipients for one message")
NO_ROOM: Final = reply(452, 3, 1, "no room for mail now, try again later")
NOT_STORED: Final = reply(451, 3, 0, "cannot keep mail now, try again later")
GOING_ROUND: Final = reply(554, 4, 6, "too many hops, this message goes round in circles")

#: Whoever lets a bare CR or LF through, or a NUL before a dot, may carry a second message within
#: the first (RFC 5321 §2.3.8, CVE-2023-51764).
FAULTS: Final = {
    Fault.BARE_NEWLINE: reply(550, 5, 2, "bare CR or LF in message"),
    Fault.LEADING_NUL: reply(550, 5, 2, "a line of the message begins with NUL"),
    Fault.LINE_TOO_LONG: reply(550, 5, 2, "line over 1000 octets in message"),
    Fault.TOO_BIG: TOO_BIG,
}
