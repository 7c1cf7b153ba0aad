"""What we read of any message, and what we write whatever anybody says."""

from __future__ import annotations

import email
import email.policy
import re
from email.message import EmailMessage
from typing import TYPE_CHECKING, Final

import hypothesis.strategies as st
from hypothesis import example, given

from elemta.message import (
    Action,
    HeaderFault,
    HeaderScanner,
    RecipientStatus,
    date,
    delivered_to,
    fold,
    received,
    return_path,
    split,
    without,
    write_report,
)
from elemta.protocol import Mailbox, OriginalRecipient, Reply, parse_mailbox
from fuzz.profiles import examples
from fuzz.strategies import addresses

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What headers are made of, and what they are cut by.
PIECES: Final = [
    *(b"\r\n", b"\r\n", b"\r\n", b"\r", b"\n", b" ", b"\t", b":", b"x", b"\xff", b"\0"),
    *(b"Received:", b"received :", b"RECEIVED\t:", b"Received", b"Received-SPF: p", b"To: a"),
    *(b"\r\nReceived: from a\r\n\tby b", b"Subject: a\r\n b", b"\r\n\r\n", b"y" * 90),
]
CONTENT: Final = st.lists(st.sampled_from(PIECES), max_size=24).map(b"".join)
CUTS: Final = st.lists(st.integers(1, 200), max_size=6)

#: Text that somebody hostile would choose, and any other.
EVIL: Final = st.lists(
    st.sampled_from(
        [
            *("\r\n", "\r", "\n", "\0", "\x7f", "\x85", "\u2028", "\udc80", "\t", " ", "  "),
            *("(", ")", "\\", '"', "<", ">", "[", "]", ";", ",", ":", "=", "--=_", "Bcc: e@v"),
            *("a", "relay.example", "ü", "\N{PILE OF POO}", "x" * 90, "y" * 1000, "z" * 5000),
        ]
    ),
    max_size=8,
).map("".join)
#: What is fine but for its end.
NEARLY_FINE: Final = st.tuples(
    st.sampled_from(["relay.example", "[192.0.2.1]"]), st.sampled_from(["\n", "\r", ")", "\\"])
).map("".join)
TEXT: Final = EVIL | NEARLY_FINE | st.text(st.characters())
MAILBOXES: Final = addresses().map(parse_mailbox)
#: None that was ever parsed: what a bug elsewhere would let through.
IMPOSSIBLE: Final = st.builds(Mailbox, TEXT, st.just("example.net"))
TIMES: Final = st.floats(0, 4e9)
#: The engine lets nothing unprintable into a reply; an escape it makes is printable.
REPLIES: Final = st.builds(
    Reply,
    st.integers(200, 599),
    st.none() | st.tuples(st.integers(0, 9), st.integers(0, 99)),
    st.lists(
        TEXT.map(lambda text: "".join(each for each in text if each.isprintable())),
        min_size=1,
        max_size=4,
    ).map(tuple),
)


def pieces(octets: bytes, cuts: list[int]) -> Iterator[bytes]:
    """`octets` in pieces of these sizes, the rest one by one."""
    for cut in cuts:
        yield octets[:cut]
        octets = octets[cut:]
    for octet in octets:
        yield bytes([octet])


def logical_lines(content: bytes) -> list[bytes]:
    """The fields of a message as the RFC describes them, line by line: the oracle."""
    fields: list[bytes] = []
    for line in content.split(b"\r\n"):
        if not line:
            break
        if line[:1] in {b" ", b"\t"} and fields:
            fields[-1] += b"\r\n" + line
        else:
            fields.append(line)
    return fields


def is_received(field: bytes) -> bool:
    name = field.replace(b"\r\n", b"").split(b":")[0]
    return b":" in field and name.rstrip(b" \t").lower() == b"received"


def unfolded(field: bytes) -> str:
    return re.sub(r"\r\n(?=[ \t])", "", field.decode()).removesuffix("\r\n")


def assert_one_field(octets: bytes, name: bytes) -> None:
    """It is one field, whatever is in it (RFC 5322 §2.2)."""
    assert octets.startswith(name + b":")
    assert octets.endswith(b"\r\n")
    octets.decode("utf-8")
    first, *others = octets[:-2].split(b"\r\n")
    for line in (first, *others):
        assert len(line) <= 998
        assert not re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", line)
    for line in others:
        assert line[:1] in {b" ", b"\t"}
        assert line.strip()
    scanner = HeaderScanner()
    scanner.feed(octets + b"\r\n")
    assert len(scanner.fields) == 1
    assert len(email.message_from_bytes(octets + b"\r\n").items()) == 1


@given(content=CONTENT, cuts=CUTS)
@example(content=b"\r\nReceived: body\r\n\r\n", cuts=[1])
@example(content=b"Received: a\r\n\r\nReceived: body\r\n\r\n", cuts=[13, 1, 1])
@examples(500)
def test_how_a_message_is_cut_never_shows_in_its_header(content: bytes, cuts: list[int]) -> None:
    whole, bits = HeaderScanner(), HeaderScanner()
    whole.feed(content)
    for piece in pieces(content, cuts):
        bits.feed(piece)
    assert bits.done == whole.done
    assert bits.header == whole.header
    assert bits.hops == whole.hops
    assert bits.fields == whole.fields
    assert bits.fault is None
    if whole.done:
        assert (whole.header, content[len(whole.header) :]) == split(content)


@given(content=CONTENT, cuts=CUTS, octets=st.integers(0, 120), lines=st.integers(0, 6))
@examples(500)
def test_nor_in_what_is_wrong_with_it(
    content: bytes, cuts: list[int], octets: int, lines: int
) -> None:
    content += b"\r\n\r\n"
    header, _ = split(content)
    want = None
    if len(header) > octets:
        want = HeaderFault.TOO_LONG
    elif header.count(b"\r\n") > lines:
        want = HeaderFault.TOO_MANY_LINES
    for sizes in (cuts, [len(content)]):
        scanner = HeaderScanner(octets, lines)
        for piece in pieces(content, sizes):
            scanner.feed(piece)
        assert scanner.done
        assert scanner.fault is want
        assert scanner.header == header[:octets]


@given(content=CONTENT)
@example(content=b"Received\r\n : x\r\n\r\n")
@example(content=b" Received: x\r\nReceived: y\r\n\r\n")
@examples(1000)
def test_hops_are_counted_as_the_rfc_describes_fields(content: bytes) -> None:
    scanner = HeaderScanner()
    scanner.feed(content + b"\r\n\r\n")
    assert scanner.hops == sum(map(is_received, logical_lines(content)))


@given(
    content=CONTENT,
    names=st.sets(st.sampled_from([b"received", b"subject", b"to", b"bcc", b"received-spf"])),
)
@examples(500)
def test_removing_fields_changes_nothing_else(content: bytes, names: set[bytes]) -> None:
    header, rest = split(content + b"\r\n")
    left = without(header, *names)

    def fields_of(octets: bytes) -> list[tuple[bytes, bytes]]:
        scanner = HeaderScanner()
        scanner.feed(octets)
        return scanner.fields

    assert fields_of(left) == [each for each in fields_of(header) if each[0] not in names]
    lines = left.split(b"\r\n")
    remaining = iter(header.split(b"\r\n"))
    assert all(line in remaining for line in lines)  # the rest, in order, octet by octet
    assert header + rest == content + b"\r\n"


@given(content=CONTENT, helo=TEXT, recipient=MAILBOXES)
@examples(300)
def test_a_trace_field_on_top_changes_nothing_below(
    content: bytes, helo: str, recipient: Mailbox
) -> None:
    before, after = HeaderScanner(), HeaderScanner()
    before.feed(content)
    after.feed(one_hop(helo=helo, recipient=recipient) + content)
    # A first line that continues something, which is no header at all, is another matter.
    if content[:1] not in {b" ", b"\t"}:
        assert after.hops == before.hops + 1
        assert after.fields[1:] == before.fields
        assert after.done == before.done


def one_hop(
    *,
    helo: str = "relay.example",
    address: str = "192.0.2.1",
    rdns: str | None = None,
    by: str = "mx.example",
    protocol: str = "ESMTP",
    id: str = "1",  # noqa: A002 # the word of people
    recipient: Mailbox | None = None,
    tls: str | None = None,
    time: float = 0,
) -> bytes:
    return received(
        helo=helo,
        address=address,
        rdns=rdns,
        by=by,
        protocol=protocol,
        id=id,
        recipient=recipient,
        tls=tls,
        time=time,
    )


@given(
    helo=TEXT,
    address=TEXT,
    rdns=st.none() | TEXT,
    by=TEXT,
    protocol=TEXT,
    id=TEXT,
    recipient=st.none() | MAILBOXES | IMPOSSIBLE,
    tls=st.none() | TEXT,
    time=TIMES,
)
@examples(300)
def test_a_received_field_is_one_field_whatever_anybody_says(
    helo: str,
    address: str,
    rdns: str | None,
    by: str,
    protocol: str,
    id: str,  # noqa: A002 # the word of people
    recipient: Mailbox | None,
    tls: str | None,
    time: float,
) -> None:
    octets = one_hop(
        helo=helo,
        address=address,
        rdns=rdns,
        by=by,
        protocol=protocol,
        id=id,
        recipient=recipient,
        tls=tls,
        time=time,
    )
    assert_one_field(octets, b"Received")
    text = unfolded(octets).replace("\t", " ")
    assert text.endswith("; " + date(time))
    if recipient is None:
        # The clauses come in the order of RFC 5321 §4.4, and nobody can add one.
        comment = r"(?: \([^()]*\))?"
        assert re.fullmatch(
            rf"Received: from \S+{comment} by \S+ with \S+{comment} id [^\s;]+; [^;]+", text
        )
        assert not {"\\", '"', "<", ">"} & set(text)


@given(recipient=MAILBOXES)
@examples(200)
def test_an_address_comes_back_from_a_trace_field_as_it_was(recipient: Mailbox) -> None:
    found = re.search(r" for <(.*)>;[ \t][^;]*$", unfolded(one_hop(recipient=recipient)))
    assert found is not None
    assert parse_mailbox(found[1]) == recipient
    assert unfolded(return_path(recipient)) == f"Return-Path: <{recipient}>"
    assert unfolded(delivered_to(recipient)) == f"Delivered-To: {recipient}"


@given(mailbox=IMPOSSIBLE)
@examples(300)
def test_no_address_breaks_out_of_a_field(mailbox: Mailbox) -> None:
    assert_one_field(return_path(mailbox), b"Return-Path")
    assert_one_field(delivered_to(mailbox), b"Delivered-To")


@given(value=TEXT)
@example(value=" ".join(["x" * 77] * 5))
@example(value=" " * 2000 + "x" + " " * 2000 + "y")
@examples(500)
def test_a_folded_field_unfolds_to_what_it_was(value: str) -> None:
    octets = fold("X-Test", value)
    assert_one_field(octets, b"X-Test")
    want = re.sub(r"[\x00-\x1f\x7f]+", " ", value).strip(" ")
    want = want.encode("utf-8", "replace").decode()
    if not re.search(r"[^ ]{200}| {60}", want):
        assert unfolded(octets) == f"X-Test: {want}".removesuffix(" ")
    # Where longer things had to be cut, no more than spaces came or went.
    assert unfolded(octets).replace(" ", "") == f"X-Test:{want}".replace(" ", "")


RECIPIENTS: Final = st.builds(
    RecipientStatus,
    address=MAILBOXES | IMPOSSIBLE,
    orcpt=st.none() | st.builds(OriginalRecipient, TEXT, TEXT),
    reply=REPLIES,
    remote=st.booleans(),
    host=TEXT,
    attempted=st.none() | TIMES,
    retry_until=st.none() | TIMES,
)


#: What makes a report whose parts are all as harmless as can be, but for one thing.
PLAIN: Final = {
    "hostname": "mx.example",
    "report_id": "1",
    "to": Mailbox("a", "example.net"),
    "recipients": [
        RecipientStatus(address=Mailbox("b", "c.example"), reply=Reply(550, None, ("",)))
    ],
    "content": b"A: b\r\n",
    "whole": False,
    "message_id": "2",
    "arrived": 0.0,
    "now": 0.0,
    "envid": None,
    "action": Action.FAILED,
}


@given(
    hostname=TEXT,
    report_id=TEXT,
    to=MAILBOXES | IMPOSSIBLE,
    recipients=st.lists(RECIPIENTS, min_size=1, max_size=3),
    content=CONTENT | st.binary() | st.just(b"--=_\r\n--=_=--\r\n" * 4000),
    whole=st.booleans(),
    message_id=TEXT,
    arrived=TIMES,
    now=TIMES,
    envid=st.none() | TEXT,
    action=st.sampled_from(Action),
)
@example(**PLAIN | {"content": b"A: \0\r\n"})
@example(**PLAIN | {"content": b"--=_1\r\n--=_1--\r\n--=_1=\r\n"})
@example(**PLAIN | {"content": b"A: b\r\n\r\n--=_1--\r\n", "whole": True})
@examples(150)
def test_a_report_is_a_valid_message_whatever_anybody_says(
    hostname: str,
    report_id: str,
    to: Mailbox,
    recipients: list[RecipientStatus],
    content: bytes,
    whole: bool,
    message_id: str,
    arrived: float,
    now: float,
    envid: str | None,
    action: Action,
) -> None:
    octets = write_report(
        hostname=hostname,
        report_id=report_id,
        to=to,
        recipients=recipients,
        content=content,
        whole=whole,
        message_id=message_id,
        arrived=arrived,
        now=now,
        envid=envid,
        action=action,
    )
    assert octets.count(b"\r\n") == octets.count(b"\r") == octets.count(b"\n")
    assert b"\0" not in octets
    assert all(len(line) <= 998 for line in octets.split(b"\r\n"))
    top, body = split(octets)
    assert body.isascii() or not to.is_ascii
    scanner = HeaderScanner()
    scanner.feed(octets)
    assert [name for name, _ in scanner.fields] == [
        *(b"from", b"to", b"subject", b"date", b"message-id", b"auto-submitted"),
        *(b"mime-version", b"content-type"),
    ]
    for field in logical_lines(top):
        assert_one_field(field + b"\r\n", field.split(b":")[0])
    read = email.message_from_bytes(octets)
    parts = read.get_payload()
    assert isinstance(parts, list)
    people, statuses, third = (part.get_content_type() for part in parts)
    assert people == "text/plain"
    if not to.is_ascii:
        assert statuses == "message/global-delivery-status"
        assert third.startswith("message/global") or not is_utf8(split(content)[0])
        return
    assert statuses == "message/delivery-status"
    about_message, *about_recipients = parts[1].get_payload()
    assert len(about_recipients) == len(recipients)
    assert set(about_message.keys()) <= {
        *("Original-Envelope-Id", "Reporting-MTA", "X-Elemta-Id", "Arrival-Date"),
    }
    for each, recipient in zip(about_recipients, recipients, strict=True):
        assert each.defects == []
        assert each["Action"] == action.value
        kind = {Action.FAILED: recipient.reply.code // 100, Action.DELAYED: 4}.get(action, 2)
        subject, detail = recipient.reply.status or (0, 0)
        assert each["Status"] == f"{kind}.{subject}.{detail}"
        assert each.keys() == [
            *(["Original-Recipient"] if recipient.orcpt is not None else []),
            *("Final-Recipient", "Action", "Status"),
            *(["Remote-MTA"] if recipient.host else []),
            "Diagnostic-Code",
            *(["Last-Attempt-Date"] if recipient.attempted is not None else []),
            *(["Will-Retry-Until"] if recipient.retry_until is not None else []),
        ]
    if third == "message/rfc822":
        assert whole
        assert b"\r\n\r\n" + content + b"\r\n--" in octets
        return
    assert third == "text/rfc822-headers"
    returned = parts[2].get_payload(decode=True)
    assert isinstance(returned, bytes)
    sent, _ = split(content)
    if len(sent) <= 50_000:
        assert returned == sent
    else:
        assert sent.startswith(returned)


@given(time=TIMES)
@examples(200)
def test_a_date_is_read_back_as_it_was(time: float) -> None:
    message = email.message_from_string(f"Date: {date(time)}\n\n", policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert message["Date"].datetime.timestamp() == int(time)


def is_utf8(octets: bytes) -> bool:
    try:
        octets.decode()
    except UnicodeDecodeError:
        return False
    return True
