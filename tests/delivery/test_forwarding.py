from __future__ import annotations

import msgspec

from elemta.config import load
from elemta.delivery.forwarding import Forwarding
from elemta.message import Srs
from elemta.protocol import Mailbox, parse_mailbox
from elemta.queue import Message, MessageId, Recipient

NOW = 1_800_000_000.0
CONFIG = load(
    "hostname: mx.us.example\n"
    'listeners: [{name: mx, address: ":25"}]\n'
    "domains: [{name: us.example}, {name: bücher.example}]\n"
)
SRS = Srs("us.example", [b"0123456789abcdef"])
ANN, FAR, BOB = (parse_mailbox(f"{name}.example") for name in ("ann@s", "x@far", "bob@us"))


def named(sender: Mailbox | None, address: Mailbox, original: Mailbox | None) -> Mailbox | None:
    return Forwarding(CONFIG, SRS).sender(sender, address, original, NOW)


def test_only_what_is_led_from_ours_to_elsewhere_is_rewritten() -> None:
    there = named(ANN, FAR, BOB)
    assert there is not None
    assert there.domain == "us.example"
    assert SRS.original(there, NOW) == ANN
    assert named(ANN, FAR, parse_mailbox("a@xn--bcher-kva.example")) == there
    assert named(ANN, FAR, None) == ANN
    assert named(ANN, BOB, parse_mailbox("alias@us.example")) == ANN
    assert named(ANN, FAR, parse_mailbox("y@far.example")) == ANN
    assert named(BOB, FAR, BOB) == BOB
    assert named(None, FAR, BOB) is None
    assert Forwarding(CONFIG, None).sender(ANN, FAR, BOB, NOW) == ANN
    long = Mailbox("a" * 60, "s.example")
    assert named(long, FAR, BOB) == long


def test_recipients_are_parted_by_whom_is_named_to_their_server() -> None:
    message = Message(
        id=MessageId("01JD0000000000000000000000"),
        sender=ANN,
        recipients=[
            Recipient(number=0, address=FAR),
            Recipient(number=1, address=parse_mailbox("y@far.example"), original=BOB),
            Recipient(number=2, address=parse_mailbox("z@far.example")),
        ],
        received_at=NOW,
        expires_at=NOW,
        size=1,
    )
    parts = list(Forwarding(CONFIG, SRS).parted(message, message.recipients, NOW))
    assert [(told.sender, [each.number for each in who]) for told, who in parts] == [
        (ANN, [0, 2]),
        (named(ANN, FAR, BOB), [1]),
    ]
    assert parts[0][0] is message
    assert message.sender == ANN
    assert msgspec.structs.replace(parts[1][0], sender=ANN) == message
    (one,) = Forwarding(CONFIG, None).parted(message, message.recipients, NOW)
    assert one == (message, message.recipients)
