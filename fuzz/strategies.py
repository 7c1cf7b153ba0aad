"""What peers say, made of the octets that matter: the odd sequences are the common ones."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import hypothesis.strategies as st

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What framing is made of.
PIECES: Final = [
    *(b".", b"..", b"\r\n", b"\r\n", b"\r", b"\n", b"x", b"\r\n.\r", b"\xff", b"\0"),
    b"y" * 997,
]
OCTETS: Final = st.lists(st.sampled_from(PIECES), max_size=8).map(b"".join)
#: Content that breaks no rule, most of the time.
CLEAN: Final = st.lists(st.sampled_from([b".", b"x", b"\xc3\xbc", b"\r\n", b"\r\n."]), max_size=8)
CONTENT: Final = OCTETS | CLEAN.map(b"".join)
CUTS: Final = st.lists(st.integers(1, 1200), max_size=6)

ATOMS: Final = st.text("abzAZ09!#$%&'*+/=?^_`{|}~-", min_size=1, max_size=12)
UTF8_ATOMS: Final = st.text("aZ9ü用户é\u0301ßЖ", min_size=1, max_size=8)
#: What quotes make possible.
QUOTABLE: Final = st.text('a b@.,<>"\\()[]:;ü', max_size=10)
LABELS: Final = st.from_regex(r"[a-zA-Z0-9](?:[a-z0-9-]{0,10}[a-zA-Z0-9])?", fullmatch=True)
UTF8_LABELS: Final = st.sampled_from(
    ["münchen", "mu\u0308nchen", "例え", "bücher", "xn--p1ai", "ελληνικά"]
)
DOMAINS: Final = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
UTF8_DOMAINS: Final = st.lists(LABELS | UTF8_LABELS, min_size=1, max_size=4).map(".".join)
LITERALS: Final = st.ip_addresses(v=4).map("[{}]".format) | st.ip_addresses(v=6).map(
    "[IPv6:{}]".format
)


def quoted(text: str) -> str:
    """As a quoted local part (RFC 5321 §4.1.2)."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


ASCII_LOCAL: Final = st.lists(ATOMS, min_size=1, max_size=4).map(".".join) | QUOTABLE.map(
    lambda text: quoted(text.replace("ü", "u"))
)
LOCAL: Final = ASCII_LOCAL | UTF8_ATOMS | QUOTABLE.map(quoted)


@st.composite
def addresses(draw: st.DrawFn, *, smtputf8: bool = True) -> str:
    """A valid address, as it stands between angle brackets."""
    local = draw(LOCAL if smtputf8 else ASCII_LOCAL)
    domain = draw((UTF8_DOMAINS if smtputf8 else DOMAINS) | LITERALS)
    return f"{local}@{domain}"


#: Anything at all, of the characters that the grammar is made of.
NEARLY: Final = st.lists(
    st.sampled_from(
        [*'ab@@.."\\<>[]:, ü\x00\t=+-_\u202e', "1.2.3.4", "IPv6:", "::1", "x" * 63, "postmaster"]
    ),
    max_size=12,
).map("".join)


_ONE_BY_ONE: Final = re.compile(rb"[yA]{1,499}|(?:QUFB){1,99}|.", re.DOTALL)


def pieces(octets: bytes, cuts: list[int]) -> Iterator[bytes]:
    """`octets` in pieces of these sizes, the rest one by one (but padding, which takes long)."""
    for cut in cuts:
        yield octets[:cut]
        octets = octets[cut:]
    yield from _ONE_BY_ONE.findall(octets)
