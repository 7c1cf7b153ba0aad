"""Mail is what it says, or it is not: the daemon, a real name server, and the plugins of an MX."""

from __future__ import annotations

import smtplib
from typing import TYPE_CHECKING, Final

import pytest

from tests.mailauth.signing import MESSAGE, rsa_key, signed
from tests.scenarios import ports
from tests.scenarios.conftest import needs
from tests.scenarios.daemon import message_id

if TYPE_CHECKING:
    from tests.scenarios.conftest import MakeDaemon, ServeZones
    from tests.scenarios.daemon import Daemon

pytestmark = [pytest.mark.scenario, needs("nsd")]

KEY: Final = rsa_key(2048)
_RECORD: Final = " ".join(f'"{KEY[1][start : start + 200]}"' for start in range(0, 600, 200))
ZONES: Final = {
    "sender.example": f"""
@ IN TXT "v=spf1 include:_hosts.sender.example -all"
_hosts IN TXT "v=spf1 ip4:127.0.0.1 -all"
_dmarc IN TXT "v=DMARC1; p=reject"
s1._domainkey IN TXT {_RECORD}
host IN A 127.0.0.1
""",
    "elsewhere.example": '@ IN TXT "v=spf1 -all"\n_dmarc IN TXT "v=DMARC1; p=quarantine"\n',
    "0.0.127.in-addr.arpa": "1 IN PTR host.sender.example.\n",
}
NAMES: Final = ("iprev", "spf", "dkim", "arc", "dmarc", "authentication-results")
FORGED: Final = b"Authentication-Results: MX.example.org; dmarc=pass header.from=bank.example\r\n"


def send(daemon: Daemon, sender: str, message: bytes) -> tuple[int, bytes]:
    with smtplib.SMTP("127.0.0.1", daemon.port, "host.sender.example") as client:
        client.ehlo()
        client.mail(sender)
        client.rcpt("alice@example.org")
        return client.data(message)


def test_an_mx_takes_what_is_true_and_says_so(
    make_elemta: MakeDaemon, serve_zones: ServeZones
) -> None:
    nameserver = serve_zones(ZONES)
    daemon = make_elemta(
        {
            "relay": {"networks": ["192.0.2.1/32"]},
            "dns": {"nameservers": [f"127.0.0.1:{nameserver}"], "timeout": "5 s"},
            "plugins": [{"name": name} for name in NAMES],
        }
    )
    daemon.start()

    # What comes from the domain's own host is taken.
    assert send(daemon, "ann@sender.example", FORGED + MESSAGE)[0] == 250
    # What comes from another domain, but is signed, is taken.
    assert send(daemon, "x@elsewhere.example", signed(key=KEY[0]))[0] == 250
    # What is neither is refused, or held, as its author's domain wants.
    code, text = send(daemon, "x@elsewhere.example", MESSAGE)
    assert code == 550
    assert text == b"5.7.1 the DMARC policy of sender.example does not let you send this message"
    other = MESSAGE.replace(b"ann@sender", b"ann@elsewhere")
    code, reply = send(daemon, "ann@elsewhere.example", other)
    assert code == 250

    delivered = ports.eventually(
        lambda: found if len(found := daemon.maildir("alice@example.org")) == 2 else []
    )
    fields = [b" ".join(each.partition(b"\n\n")[0].split()) for each in delivered]
    (first,) = [each for each in fields if b"spf=pass" in each]
    assert first.count(b"Authentication-Results:") == 1
    assert (
        b"mx.example.org; iprev=pass (host.sender.example) policy.iprev=127.0.0.1;"
        b" spf=pass smtp.mailfrom=sender.example; dkim=none; arc=none;"
        b" dmarc=pass (p=reject) header.from=sender.example"
    ) in first
    (second,) = [each for each in fields if b"spf=fail" in each]
    assert b"dkim=pass (2048-bit key) header.d=sender.example" in second
    assert b"dmarc=pass" in second

    timeline = daemon.tell("queue", "timeline", message_id(reply))
    assert "the DMARC policy of elsewhere.example" in timeline
    assert "spf=fail smtp.mailfrom=elsewhere.example" in timeline
    assert len(daemon.maildir("alice@example.org")) == 2
