"""Commands: what is meant is what is read, whatever else is said gets an answer, and soon."""

from __future__ import annotations

import time
from typing import Final

import hypothesis.strategies as st
import pytest
from hypothesis import assume, example, given

from elemta.protocol import (
    Auth,
    Body,
    Chunk,
    Data,
    Hello,
    Help,
    Mail,
    MailParams,
    Noop,
    Notify,
    Offer,
    OriginalRecipient,
    Quit,
    Rcpt,
    RcptParams,
    Reply,
    Reset,
    Ret,
    StartTls,
    Verify,
    parse_mailbox,
)
from elemta.protocol.grammar import Hostile, parse
from fuzz.profiles import examples
from fuzz.strategies import NEARLY, addresses

EVERYTHING: Final = Offer(starttls=True, mechanisms=("PLAIN", "LOGIN"), mt_priority=True)
NOTHING: Final = Offer(
    size=False, eight_bit=False, smtputf8=False, dsn=False, chunking=False, pipelining=False
)


def xtext(text: str) -> str:
    """RFC 3461 §4, said a second time."""
    return "".join(
        char if "!" <= char <= "~" and char not in "+=" else f"+{ord(char):02X}" for char in text
    )


def utf8_xtext(text: str) -> str:
    """RFC 6533 §3, said a second time."""
    return "".join(
        char if "!" <= char <= "~" and char not in "+=\\" else f"\\x{{{ord(char):02X}}}"
        for char in text
    )


def cased(word: str, upper: list[bool]) -> str:
    return (
        "".join(c.upper() if up else c.lower() for c, up in zip(word, upper, strict=False))
        + (word[len(upper) :])
    )


UPPER: Final = st.lists(st.booleans(), max_size=10)
PRINTABLE: Final = st.text([chr(code) for code in range(32, 127)], min_size=1, max_size=20)
MAYBE_NOBODY: Final = st.just("") | addresses()
MAIL_PARAMS: Final = st.builds(
    MailParams,
    size=st.none() | st.integers(0, 10**20 - 1),
    body=st.none() | st.sampled_from(Body),
    ret=st.none() | st.sampled_from(Ret),
    envid=st.none() | PRINTABLE,
    auth=st.none() | st.just("<>") | addresses(smtputf8=False),
    mt_priority=st.none() | st.integers(-9, 9),
)
NOTIFY: Final = st.just(frozenset({Notify.NEVER})) | st.frozensets(
    st.sampled_from([Notify.SUCCESS, Notify.FAILURE, Notify.DELAY])
)
ORCPT: Final = st.builds(OriginalRecipient, st.just("rfc822"), PRINTABLE) | st.builds(
    OriginalRecipient, st.just("utf-8"), st.text("a用ü\\+=@.", min_size=1, max_size=20)
)
RCPT_PARAMS: Final = st.builds(RcptParams, notify=NOTIFY, orcpt=st.none() | ORCPT)


def mail_words(params: MailParams) -> list[str]:
    words: list[str] = []
    if params.size is not None:
        words.append(f"SIZE={params.size}")
    if params.body is not None:
        words.append(f"BODY={params.body.value}")
    if params.ret is not None:
        words.append(f"RET={params.ret.value}")
    if params.envid is not None:
        words.append(f"ENVID={xtext(params.envid)}")
    if params.auth is not None:
        words.append("AUTH=<>" if params.auth == "<>" else f"AUTH={xtext(params.auth)}")
    if params.mt_priority is not None:
        words.append(f"MT-PRIORITY={params.mt_priority}")
    return words


def rcpt_words(params: RcptParams) -> list[str]:
    words: list[str] = []
    if params.notify:
        words.append("NOTIFY=" + ",".join(notify.value for notify in params.notify))
    if (orcpt := params.orcpt) is not None:
        encode = utf8_xtext if orcpt.address_type == "utf-8" else xtext
        words.append(f"ORCPT={orcpt.address_type};{encode(orcpt.address)}")
    return words


def valid(text: str) -> str:
    """Of the drawn addresses those that are not too long."""
    if text:
        assume(len(text.rpartition("@")[0].encode()) <= 64 and len(text.encode()) <= 254)
    return text


@given(sender=MAYBE_NOBODY, params=MAIL_PARAMS, upper=UPPER, data=st.data())
@examples(400)
def test_mail_is_read_as_it_is_meant(
    sender: str, params: MailParams, upper: list[bool], data: st.DataObject
) -> None:
    valid(sender)
    if params.auth and params.auth != "<>":
        valid(params.auth)
    words = mail_words(params)
    smtputf8 = not sender.isascii() or data.draw(st.booleans())
    if smtputf8:
        words.append("SMTPUTF8")
    words = data.draw(st.permutations(words))
    line = cased("MAIL FROM:", upper) + data.draw(st.sampled_from(["", " "])) + f"<{sender}>"
    line += "".join(f" {word}" for word in words) + data.draw(st.sampled_from(["", " ", " \t"]))
    said = MailParams(
        size=params.size,
        body=params.body,
        smtputf8=smtputf8,
        ret=params.ret,
        envid=params.envid,
        auth=params.auth,
        mt_priority=params.mt_priority,
    )
    path = parse_mailbox(sender) if sender else None
    assert parse(line.encode(), EVERYTHING) == Mail(path, said)
    for word in words:
        repeated = parse(f"{line.rstrip()} {word}".encode(), EVERYTHING)
        assert isinstance(repeated, Reply)
        assert (repeated.code, repeated.enhanced) == (501, "5.5.4")
    if words:
        refused = parse(line.encode(), NOTHING)
        assert isinstance(refused, Reply)
        assert (refused.code, refused.enhanced) == (555, "5.5.4")


@given(recipient=addresses(), params=RCPT_PARAMS, upper=UPPER, smtputf8=st.booleans())
@examples(400)
def test_rcpt_is_read_as_it_is_meant(
    recipient: str, params: RcptParams, upper: list[bool], smtputf8: bool
) -> None:
    valid(recipient)
    line = cased("RCPT TO:", upper) + f"<{recipient}>"
    line += "".join(f" {word}" for word in rcpt_words(params))
    got = parse(line.encode(), EVERYTHING, smtputf8=smtputf8)
    if recipient.isascii() or smtputf8:
        assert got == Rcpt(parse_mailbox(recipient), params)
    else:
        assert isinstance(got, Reply)
        assert (got.code, got.enhanced) == (553, "5.6.7")
    if rcpt_words(params):
        refused = parse(line.encode(), NOTHING, smtputf8=smtputf8)
        assert isinstance(refused, Reply)
        assert refused.code == (555 if recipient.isascii() or smtputf8 else 553)


@given(words=st.lists(st.sampled_from(["NEVER", "SUCCESS", "failure", "DELAY", "", "X"])))
@examples(100)
def test_never_stands_alone(words: list[str]) -> None:
    got = parse(f"RCPT TO:<postmaster> NOTIFY={','.join(words)}".encode(), EVERYTHING)
    known = words and not {"", "X"} & set(words)
    if known and ("NEVER" not in words or set(words) == {"NEVER"}):
        assert isinstance(got, Rcpt)
        assert {notify.value for notify in got.params.notify} == {word.upper() for word in words}
    else:
        assert isinstance(got, Reply)
        assert got.code == 501


@given(route=st.lists(st.sampled_from(["@a.example", "@b"]), min_size=1), recipient=addresses())
@examples(100)
def test_a_source_route_is_ignored(route: list[str], recipient: str) -> None:
    valid(recipient)
    line = f"RCPT TO:<{','.join(route)}:{recipient}>".encode()
    assert parse(line, EVERYTHING, smtputf8=True) == Rcpt(parse_mailbox(recipient), RcptParams())


WORDS: Final = [
    *["MAIL FROM:<", "RCPT TO:<", ">", "EHLO ", "LHLO ", "BDAT ", "AUTH PLAIN ", "STARTTLS"],
    *["VRFY ", "NOOP ", " SIZE=", " BODY=8BITMIME", " SMTPUTF8", " ORCPT=utf-8;", " ENVID="],
    *[" MT-PRIORITY=", "-9"],
    *[" NOTIFY=", "NEVER", ",SUCCESS", " AUTH=", "\\x{110000}", "+0D+0A", "99999999999999999999"],
    *["\xff", "\r", "\n", "GET / HTTP/1.1", "\x16\x03\x01"],
]
LINES: Final = st.lists(st.sampled_from(WORDS) | NEARLY, max_size=8).map("".join)


@given(text=LINES, latin=st.booleans(), lmtp=st.booleans(), smtputf8=st.booleans())
@example(text="RCPT TO:<a@b> ORCPT=utf-8;\\x{110000}", latin=False, lmtp=False, smtputf8=True)
@example(text="RCPT TO:<a@b> ORCPT=rfc822;a+0D+0Ab", latin=False, lmtp=False, smtputf8=True)
@example(text="MAIL FROM:<> ENVID=+E4", latin=False, lmtp=False, smtputf8=True)
@examples(1500)
def test_every_line_is_a_command_or_a_reply(
    text: str, latin: bool, lmtp: bool, smtputf8: bool
) -> None:
    line = text.encode("latin-1", "replace") if latin else text.encode()
    match parse(line, EVERYTHING, lmtp=lmtp, smtputf8=smtputf8):
        case Reply(code=code) | Hostile(Reply(code=code)):
            assert code in (500, 501, 502, 503, 504, 553, 554, 555)
        case Mail(path, params):
            shown = f"{path} {params.envid} {params.auth}"
            assert shown.isprintable()
            assert params.smtputf8 or path is None or path.is_ascii
        case Rcpt(path, params):
            assert smtputf8 or path.is_ascii
            assert params.orcpt is None or params.orcpt.address.isprintable()
        case Hello(name):
            assert name.isprintable()
            assert name.isascii()
            assert " " not in name
        case Chunk(size):
            assert 0 <= size < 10**20
        case Auth(mechanism):
            assert mechanism in EVERYTHING.mechanisms
        case Verify(words):
            assert words.isprintable()
        case Data() | Reset() | Quit() | Noop() | Help() | StartTls() as bare:
            assert text[:4].upper() in type(bare).__name__.upper() + " RSET"


#: Beginnings that repeat, and an end that makes the whole no match.
SLOW: Final = [
    ("MAIL FROM:", " ", "x"),
    ("MAIL FROM:<", "a", ">x"),
    ("MAIL FROM:<", "a.", ">"),
    ("MAIL FROM:<", '"', ">"),
    ("MAIL FROM:<", '\\"', ">"),
    ("MAIL FROM:<a@", "b-", ">"),
    ("MAIL FROM:<a@", "b.", ">"),
    ("MAIL FROM:<a@[", "1.", "]>"),
    ("RCPT TO:<", "@a,", ":b@c>"),
    ("RCPT TO:<", "@a.", ":b@c>"),
    ("MAIL FROM:<>", " ", "x"),
    ("MAIL FROM:<> ENVID=", "+2B", "+"),
    ("RCPT TO:<a@b> ORCPT=utf-8;", "\\x{61}", "\\x{"),
    ("EHLO ", "a-", ""),
    ("AUTH PLAIN ", "A", "\x7f"),
    ("BDAT ", "1", " "),
]


@pytest.mark.parametrize(("head", "body", "tail"), SLOW)
def test_no_expression_is_slower_than_linear(head: str, body: str, tail: str) -> None:
    def seconds(times: int) -> float:
        line = f"{head}{body * times}{tail}".encode()
        best = float("inf")
        for _ in range(3):
            start = time.process_time()
            parse(line, EVERYTHING, smtputf8=True)
            best = min(best, time.process_time() - start)
        return best

    # 100 times as long may take 100 times as long, and ten times that to be safe from noise;
    # quadratic would be 10,000 times.
    assert seconds(20_000) < 1000 * max(seconds(200), 1e-5)
