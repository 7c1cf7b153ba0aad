from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta.protocol import (
    Auth,
    AuthResponse,
    Limits,
    Offer,
    Refused,
    Reply,
    ServerConnection,
    Wait,
    is_login,
    mask_challenges,
    mask_login,
)

NOTHING, LOGINS = Offer(), Offer(mechanisms=("PLAIN", "LOGIN"))


@pytest.mark.parametrize(
    ("line", "masked"),
    [
        (b"AUTH PLAIN AGFubgBzZWNyZXQ=", b"AUTH PLAIN ***"),
        (b"auth  login  YW5u", b"auth  login ***"),
        (b"AUTH CRAM-MD5", b"AUTH CRAM-MD5"),
        (b"AUTH SCRAM-SHA-256-PLUS biws", b"AUTH SCRAM-SHA-256-PLUS ***"),
        (b" AUTH PLAIN\tAGFubgBz", b" AUTH PLAIN ***"),
        (b"AUTH", b"AUTH"),
        (b"AUTH ", b"AUTH"),
        (b"AUTH aHVudGVyMg==", b"AUTH ***"),
        (b"AUTH PLAINAGFubgBz", b"AUTH ***"),
        (b"AUTHPLAIN AGFubgBz", b"AUTH ***"),
        (b"MAIL FROM:<a@b> AUTH=<>", b"MAIL FROM:<a@b> AUTH=<>"),
        (b"", b""),
    ],
)
def test_a_login_keeps_nothing_but_its_mechanism(line: bytes, masked: bytes) -> None:
    assert mask_login(line) == masked
    assert is_login(line) == line.strip().upper().startswith(b"AUTH")


def played(offer: Offer, *said: bytes, code: int = 250) -> list[tuple[bytes | None, object]]:
    """Each line that the engine gives for a transcript, and the event that it made."""
    smtp = ServerConnection(Limits(command_line=512), offer)
    smtp.send(Reply(220, None, ("mx",)))
    found: list[tuple[bytes | None, object]] = []
    for octets in said:
        smtp.receive_data(octets)
        while not isinstance(event := smtp.next_event(), Wait) and smtp.replies_owed:
            found.append((smtp.line, event))
            wanted = 535 if isinstance(event, (Auth, AuthResponse, Refused)) else code
            if isinstance(event, Auth) and event.initial is None:
                wanted = 334
            smtp.send(Reply(wanted, None, ("said",)))
    return found


def test_each_command_is_told_as_it_came() -> None:
    found = played(NOTHING, b"EHLO a\r\nnoop \r\nFROB nicate\r\n\r\n")
    assert [line for line, _ in found] == [b"EHLO a", b"noop ", b"FROB nicate", b""]


def test_what_is_no_line_is_not_told() -> None:
    found = played(NOTHING, b"EHLO a\r\n", b"x" * 600 + b"\r\n", b"\x16\x03\x01")
    assert [line for line, _ in found] == [b"EHLO a", None, None]


def test_a_chunk_that_nobody_wants_is_told_by_its_command() -> None:
    found = played(NOTHING, b"EHLO a\r\nBDAT 6 LAST\r\nsec", b"ret")
    assert [line for line, _ in found] == [b"EHLO a", b"BDAT 6 LAST"]


def test_a_login_is_told_without_its_secrets() -> None:
    found = played(
        LOGINS, b"EHLO a\r\n", b"AUTH PLAIN AGFubgBz\r\n", b"AUTH LOGIN\r\n", b"YW5u\r\n",
        b"AUTH LOGIN\r\n", b"*\r\n",
    )  # fmt: skip
    assert [line for line, _ in found] == [
        b"EHLO a", b"AUTH PLAIN ***", b"AUTH LOGIN", b"***", b"AUTH LOGIN", b"*",
    ]  # fmt: skip


def test_what_a_client_says_after_a_login_that_was_refused_may_be_its_answers() -> None:
    found = played(NOTHING, b"EHLO a\r\nAUTH LOGIN\r\nYW5u\r\nc2VjcmV0\r\nNOOP\r\nFROB\r\n")
    assert [line for line, _ in found] == [
        b"EHLO a", b"AUTH LOGIN", b"***", b"***", b"NOOP", b"FROB",
    ]  # fmt: skip
    assert [event.line for _, event in found if isinstance(event, Refused)] == [
        b"", b"", b"", b"FROB",
    ]  # fmt: skip


@given(
    offer=st.sampled_from((NOTHING, LOGINS)),
    user=st.binary(min_size=1, max_size=12),
    password=st.binary(min_size=9, max_size=40),
    form=st.sampled_from(("initial", "asked", "login", "no mechanism", "no base64", "lower")),
    pipelined=st.booleans(),
)
def test_no_password_is_ever_told(
    offer: Offer, user: bytes, password: bytes, form: str, pipelined: bool
) -> None:
    plain, alone = b64encode(b"\0" + user + b"\0" + password), b64encode(password)
    lines = {
        "initial": [b"AUTH PLAIN " + plain],
        "asked": [b"AUTH PLAIN", plain],
        "login": [b"AUTH LOGIN", b64encode(user), alone],
        "no mechanism": [b"AUTH " + alone],
        "no base64": [b"AUTH PLAIN =" + plain],
        "lower": [b"auth plain " + plain, plain],
    }[form]
    said = [b"EHLO a\r\n", *(line + b"\r\n" for line in lines)]
    found = played(offer, *([b"".join(said)] if pipelined else said))
    told = b"\n".join(line or b"" for line, _ in found)
    told += b"".join(event.line for _, event in found if isinstance(event, Refused))
    assert plain not in told
    assert alone not in told


@pytest.mark.parametrize(
    ("replies", "written"),
    [
        (b"334 dj1wcm9vZg==\r\n", b"334 ***\r\n"),
        (b"250 ok\r\n334 cj1h\r\n", b"250 ok\r\n334 ***\r\n"),
        (b"334 \r\n", b"334 \r\n"),
        (b"334 VXNlcm5hbWU6\r\n", b"334 VXNlcm5hbWU6\r\n"),
        (b"334 UGFzc3dvcmQ6\r\n", b"334 UGFzc3dvcmQ6\r\n"),
        (b"250 2.0.0 334 octets\r\n", b"250 2.0.0 334 octets\r\n"),
        (b"235 2.7.0 in\r\n", b"235 2.7.0 in\r\n"),
    ],
)
def test_what_a_server_proves_in_a_login_is_masked(replies: bytes, written: bytes) -> None:
    assert mask_challenges(replies) == written
