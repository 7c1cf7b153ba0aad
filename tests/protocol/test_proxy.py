from __future__ import annotations

import pytest

from elemta.protocol import BadHeader, Proxied, ProxyHeader, Wait
from elemta.protocol.proxy import MAX_V2

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
TCP4 = Proxied(("192.0.2.1", 56324), ("198.51.100.7", 25))
TCP6 = Proxied(("2001:db8::1", 56324), ("2001:db8::2", 25))
V4_BLOCK = bytes([192, 0, 2, 1, 198, 51, 100, 7, 0xDC, 0x04, 0, 25])
V6_BLOCK = bytes.fromhex(
    "20010db8 00000000 00000000 00000001 20010db8 00000000 00000000 00000002 dc04 0019"
)


def v2(command: int, family: int, block: bytes) -> bytes:
    return SIGNATURE + bytes([command, family]) + len(block).to_bytes(2, "big") + block


HEADERS = [
    (b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 25\r\n", TCP4),
    (b"PROXY TCP6 2001:DB8::1 2001:db8::2 56324 25\r\n", TCP6),
    (
        b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.7 56324 25\r\n",
        TCP4,
    ),
    (b"PROXY UNKNOWN\r\n", Proxied(None, None)),
    (b"PROXY UNKNOWN ffff::1 ffff::1 65535 65535\r\n", Proxied(None, None)),
    (v2(0x21, 0x11, V4_BLOCK), TCP4),
    (v2(0x21, 0x11, V4_BLOCK + b"\x04\x00\x03abc"), TCP4),
    (v2(0x21, 0x21, V6_BLOCK), TCP6),
    (v2(0x20, 0x00, b""), Proxied(None, None)),
    (v2(0x20, 0x11, V4_BLOCK), Proxied(None, None)),
    (v2(0x21, 0x31, bytes(216)), Proxied(None, None)),
]


@pytest.mark.parametrize(("header", "result"), HEADERS)
def test_a_header_is_read_in_whatever_pieces_it_comes(header: bytes, result: Proxied) -> None:
    whole = ProxyHeader()
    assert whole.receive_data(header + b"EHLO a\r\n") == result
    assert whole.rest == b"EHLO a\r\n"
    bits = ProxyHeader()
    for octet in header[:-1]:
        assert bits.receive_data(bytes([octet])) is Wait.FOR_DATA
        assert bits.rest == b""
    assert bits.receive_data(header[-1:]) == result
    assert bits.receive_data(b"EHLO") == result
    assert bits.rest == b"EHLO"


@pytest.mark.parametrize(
    "said",
    [
        b"EHLO a\r\n",
        b"PROXX",
        b"PROXY TCP4 192.0.2.1 198.51.100.7 56324\r\n",
        b"PROXY TCP4  192.0.2.1 198.51.100.7 56324 25\r\n",
        b"PROXY TCP4 2001:db8::1 198.51.100.7 56324 25\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.7 65536 25\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.7 -1 25\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.7 000025 25\r\n",
        b"PROXY TCP6 fe80::1%eth0 2001:db8::2 56324 25\r\n",
        b"PROXY TCP5 192.0.2.1 198.51.100.7 56324 25\r\n",
        b"PROXY TCP4 \xff\r\n",
        b"PROXY " + b"x" * 101,
        b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
        v2(0x11, 0x11, V4_BLOCK),
        v2(0x22, 0x11, V4_BLOCK),
        v2(0x21, 0x11, V4_BLOCK[:-1]),
        v2(0x21, 0x21, V4_BLOCK),
        v2(0x21, 0x11, bytes(MAX_V2 + 1)),
    ],
)
def test_what_is_no_header_is_found_out(said: bytes) -> None:
    header = ProxyHeader()
    assert isinstance(bad := header.receive_data(said), BadHeader)
    assert bad.reason
    assert header.rest == b""


def test_a_header_of_v1_is_of_107_octets_at_most() -> None:
    longest = b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n"
    assert len(longest) == 107
    assert ProxyHeader().receive_data(longest) == Proxied(None, None)


def test_an_endless_header_is_found_out_early() -> None:
    header = ProxyHeader()
    fed = 0
    while header.receive_data(b"PROXY "[fed : fed + 1] or b"x") is Wait.FOR_DATA:
        fed += 1
    assert fed < 107


def test_the_end_of_the_stream_is_no_header() -> None:
    assert isinstance(ProxyHeader().receive_eof(), BadHeader)
