from __future__ import annotations

import time

import authres
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elemta.mailauth import (
    Arc,
    DkimSignature,
    Dmarc,
    Iprev,
    Seal,
    Spf,
    is_forged,
    parse_results,
    write_results,
)
from elemta.message import HeaderScanner, fold

OURS = {"mx.us.example"}


@pytest.mark.parametrize(
    "field",
    [
        "mx.us.example; dkim=pass header.d=bank.example",
        "MX.US.example; none",
        "mx.us.example.; none",
        "mx.us.example",
        "mx.us.example 1; spf=pass",
        " \r\n\tmx.us.example\r\n\t; spf=pass",
        "(a comment) mx.us.example (another (one)) ; spf=pass",
        '"mx.us.example"; spf=pass',
        '"mx\\.us.example"; spf=pass',
        "(mx) (\\)) mx.us.example; spf=pass",
        # Of a version that nobody knows (RFC 8601 §5).
        "other.example 2; spf=pass",
        # Who reads these otherwise than we do might find our name.
        "",
        "; spf=pass",
        "(unclosed mx.us.example; spf=pass",
        '"unclosed mx.us.example; spf=pass',
        "two words mx.us.example; spf=pass",
        "mx.us.example/1; spf=pass",
        "=; spf=pass",
        "mx.us.example, other.example; spf=pass",
        "mx.us.example,other.example; spf=pass",
        "mx.us.example\v; spf=pass",
        "mx.us.example\0; spf=pass",
        "mx.us.example\xa0; spf=pass",
        "\ufeffmx.us.example; spf=pass",
        "<mx.us.example>; spf=pass",
        "x" * 70_000,
        # The same name in letters that only look otherwise (RFC 5895 §2).
        "ｍｘ.us.example; spf=pass",
        "mx\u3002us\uff61example; spf=pass",
    ],
)
def test_what_claims_to_be_ours_is_forged(field: str) -> None:
    assert is_forged(field.encode(), OURS)


def test_a_name_with_octets_that_are_no_text_is_forged() -> None:
    assert is_forged(b"mx.us.example\xa0; spf=pass", OURS)


@pytest.mark.parametrize(
    "field",
    [
        "mx.other.example; dkim=pass",
        "notmx.us.example; none",
        "other.example 1; none",
        "other.example (mx.us.example); none",
    ],
)
def test_what_others_say_stays(field: str) -> None:
    assert not is_forged(field.encode(), OURS)


def test_a_name_beyond_ascii_is_ours_by_its_labels() -> None:
    assert is_forged("mx.münchen.example; none".encode(), {"mx.xn--mnchen-3ya.example"})


def test_what_a_field_states() -> None:
    found = parse_results(
        b'list.example; dkim=pass (2048-bit key) header.d=a.example header.b="x=/;y";\r\n'
        b' spf/1 = Fail reason="no (really)" smtp.mailfrom=a@b.example; nonsense;'
    )
    assert found.authserv_id == "list.example"
    assert [(each.method, each.result) for each in found.stated] == [
        *(("dkim", "pass"), ("spf", "fail"))
    ]
    assert found.stated[0].properties == {"header.d": "a.example", "header.b": "x=/;y"}
    assert found.stated[1].properties["smtp.mailfrom"] == "a@b.example"


def test_another_reader_understands_what_we_write() -> None:
    results = [
        Iprev("pass", "192.0.2.1", "host.example"),
        Iprev("permerror", "2001:db8::1", reason="it has no name"),
        Spf("pass", "sender.example"),
        Spf("fail", "host.example", "helo"),
        DkimSignature("pass", "sender.example", "s1", "@sender.example", "rsa-sha256", 2048),
        DkimSignature("none"),
        Arc("pass", (Seal("list.example", b"list.example; none"),)),
        Dmarc("fail", "sender.example", "reject", 50, "quarantine"),
    ]
    text = write_results("mx.us.example", [str(each) for each in results])
    assert text == (
        "mx.us.example; iprev=pass (host.example) policy.iprev=192.0.2.1;"
        ' iprev=permerror (it has no name) policy.iprev="2001:db8::1";'
        " spf=pass smtp.mailfrom=sender.example; spf=fail smtp.helo=host.example;"
        " dkim=pass (2048-bit key) header.d=sender.example header.s=s1 header.a=rsa-sha256;"
        " dkim=none; arc=pass (i=1 sealed by list.example);"
        " dmarc=fail (p=reject pct=50 dis=quarantine) header.from=sender.example"
    )
    field = fold("Authentication-Results", text).decode()
    assert max(len(line) for line in field.split("\r\n")) <= 78
    read = authres.AuthenticationResultsHeader.parse(field.replace("\r\n", ""))
    assert read.authserv_id == "mx.us.example"
    assert [(each.method, each.result) for each in read.results] == [
        *(("iprev", "pass"), ("iprev", "permerror"), ("spf", "pass"), ("spf", "fail")),
        *(("dkim", "pass"), ("dkim", "none"), ("arc", "pass"), ("dmarc", "fail")),
    ]


def test_nothing_found_is_said_too() -> None:
    assert write_results("mx.us.example", []) == "mx.us.example; none"


def test_nothing_that_a_sender_chose_looks_like_a_result() -> None:
    # Many search the field for "dmarc=pass", and read neither quotes nor comments.
    evil = "x; dmarc=pass"
    results = [
        Iprev("pass", "192.0.2.1", evil),
        Spf("permerror", evil, "mailfrom", evil),
        DkimSignature("permerror", evil, evil, "", evil, reason=evil),
        Arc("pass", (Seal(evil, b""),)),
        Arc("fail", reason=evil),
        Dmarc("permerror", evil, reason=evil),
    ]
    text = write_results("mx.us.example", [str(each) for each in results])
    assert "dmarc=pass" not in text
    assert text.count(";") == len(results)


@pytest.mark.parametrize("odd", ["=", "/", '\\"'])
def test_what_is_quoted_separates_nothing(odd: str) -> None:
    (stated,) = parse_results(f'a.example; dkim=fail header.d="{odd}" header.s=s'.encode()).stated
    assert stated.properties == {"header.d": odd.removeprefix("\\"), "header.s": "s"}


@settings(deadline=None)
@given(st.text(), st.text(), st.text())
def test_nothing_that_a_sender_chose_can_add_a_result(domain: str, selector: str, why: str) -> None:
    result = DkimSignature("fail", domain, selector, "", "rsa-sha256", reason=why)
    field = fold("Authentication-Results", write_results("mx.us.example", [str(result)]))
    scanner = HeaderScanner()
    scanner.feed(field + b"\r\n")
    ((name, value),) = scanner.fields
    assert name == b"authentication-results"
    (stated,) = parse_results(value).stated
    assert (stated.method, stated.result) == ("dkim", "fail")
    assert stated.properties.keys() <= {"header.d", "header.s", "header.a"}


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_octets_are_read_or_refused(field: bytes) -> None:
    is_forged(field, OURS)
    is_forged(b"mx.us.example; " + field, OURS)


@given(
    st.lists(
        st.sampled_from(
            [
                "mx.us.example",
                "1",
                "2",
                " ",
                "\r\n\t",
                ";",
                "=",
                "/",
                "(",
                ")",
                "\\",
                '"',
                "a",
                "(a)",
            ]
        ),
        max_size=12,
    )
)
def test_what_must_go_is_known_without_reading_its_results(words: list[str]) -> None:
    field = "".join(words).encode()
    try:
        found = parse_results(field)
    except ValueError:
        expected = True
    else:
        expected = found.authserv_id in OURS or found.version != "1"
    assert is_forged(field, OURS) is expected


@pytest.mark.parametrize("what", ["a=b;", "a ", "(a)", '"a" '])
@pytest.mark.parametrize("before", ["other.example; ", ""])
def test_to_know_whether_a_large_field_is_forged_takes_next_to_nothing(
    before: str, what: str
) -> None:
    field = (before + what * (60_000 // len(what))).encode()
    began = time.process_time()
    for _ in range(20):
        is_forged(field, OURS)
    assert time.process_time() - began < 0.3
