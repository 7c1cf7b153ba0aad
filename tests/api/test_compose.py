"""What is composed is read again by another's reader: the standard library's."""

from __future__ import annotations

import email
import email.policy
import re
import time
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import getaddresses

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from elemta.api.compose import Letter, Part, Person, compose, parse_person
from elemta.protocol import has_clean_lines, parse_mailbox

ALICE = Person("Alice", parse_mailbox("alice@example.org"))
BOB = Person("", parse_mailbox("bob@example.net"))


def read(letter: Letter) -> EmailMessage:
    """The message as a reader finds it; its lines are what servers take."""
    content = compose(letter)
    assert has_clean_lines(content)
    lines = content.split(b"\r\n")
    assert max(map(len, lines)) <= 998
    assert b"\0" not in content
    header = content.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert all(line.strip() for line in header)
    found = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    assert all(not part.defects for part in found.walk())
    return found


def people(content: bytes, name: str) -> list[tuple[str, str]]:
    # Not the newer policy's reader: until Python 3.13 it kept the space between two encoded words.
    old = email.message_from_bytes(content, policy=email.policy.compat32)
    return [
        (str(make_header(decode_header(each))), address)
        for each, address in getaddresses(old.get_all(name, []))
    ]


def test_a_letter_has_its_fields_in_order() -> None:
    letter = Letter(
        author=ALICE, to=(BOB,), cc=(ALICE, BOB), answers=(BOB,), subject="A letter",
        text="hello\n", fields=(("X-A", "b"), ("References", "<a@b> <c@d>")),
    )  # fmt: skip
    assert compose(letter) == (
        b"From: Alice <alice@example.org>\r\n"
        b"To: bob@example.net\r\n"
        b"Cc: Alice <alice@example.org>,\r\n"
        b" bob@example.net\r\n"
        b"Reply-To: bob@example.net\r\n"
        b"Subject: A letter\r\n"
        b"X-A: b\r\n"
        b"References: <a@b> <c@d>\r\n"
        b"MIME-Version: 1.0\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Transfer-Encoding: 7bit\r\n"
        b"\r\n"
        b"hello\r\n"
    )


def test_a_letter_of_everything_is_alternatives_and_files() -> None:
    letter = Letter(
        author=ALICE, to=(BOB,), text="café", html="<p>café</p>",
        parts=(Part("a.pdf", "application/pdf", b"%PDF"), Part("", "text/plain", b"\r\n.\n\0")),
    )  # fmt: skip
    found = read(letter)
    assert [part.get_content_type() for part in found.walk()] == [
        "multipart/mixed", "multipart/alternative", "text/plain", "text/html", "application/pdf",
        "text/plain",
    ]  # fmt: skip
    text, html = found.get_body(("plain",)), found.get_body(("html",))
    assert text is not None
    assert html is not None
    assert (text.get_content(), html.get_content()) == ("café", "<p>café</p>")
    files = list(found.iter_attachments())
    assert [each.get_filename() for each in files] == ["a.pdf", None]
    assert [each.get_payload(decode=True) for each in files] == [b"%PDF", b"\r\n.\n\0"]


def test_the_same_is_composed_to_the_same() -> None:
    letter = Letter(author=ALICE, to=(BOB,), text="a", html="b", parts=(Part("c", "a/b", b"d"),))
    assert compose(letter) == compose(letter)
    borders = set(re.findall(rb'boundary="(.*)"', compose(letter)))
    assert len(borders) == 2


def test_a_letter_without_a_body_has_an_empty_one() -> None:
    assert read(Letter(author=ALICE, to=(BOB,))).get_content() == ""


def test_an_address_is_written_so_that_all_servers_understand_it() -> None:
    letter = Letter(author=Person("", parse_mailbox("a@bücher.example")), to=(BOB,))
    assert b"From: a@xn--bcher-kva.example\r\n" in compose(letter)


def test_an_address_that_needs_smtputf8_is_written_as_it_is() -> None:
    letter = Letter(author=Person("", parse_mailbox("zoë@example.net")), to=(BOB,))
    assert "From: zoë@example.net\r\n".encode() in compose(letter)


@pytest.mark.parametrize(
    ("text", "name", "address"),
    [
        ("bob@example.net", "", "bob@example.net"),
        ("<bob@example.net>", "", "bob@example.net"),
        (" Bob  <bob@EXAMPLE.net> ", "Bob", "bob@example.net"),
        ('"Bob, \\"B\\"" <bob@example.net>', 'Bob, "B"', "bob@example.net"),
        ("Zoë <zoe@example.net>", "Zoë", "zoe@example.net"),
        ("Bob (home) <bob@example.net>", "Bob (home)", "bob@example.net"),
        ("bob@home <bob@example.net>", "bob@home", "bob@example.net"),
        ('"a b"@example.net', "", '"a b"@example.net'),
    ],
)
def test_a_person_is_an_address_with_or_without_a_name(text: str, name: str, address: str) -> None:
    assert parse_person(text) == Person(name, parse_mailbox(address))


@pytest.mark.parametrize(
    "text",
    ["", "bob", "Bob", "Bob <bob>", "a@b <", "a@b, c@d", "a@b>", "Bob <a@b> <c@d>", "Bob\r\n<a@b>",
     "Bob <a@b\n>", "Bob <>"],
)  # fmt: skip
def test_what_is_no_person_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_person(text)


PRINTABLE = st.text(st.characters(exclude_categories=("C", "Z")) | st.just(" "), max_size=120)
NAMES = st.one_of(PRINTABLE, st.sampled_from(["a, b", 'q"', "\\", "=?utf-8?q?a?=", "a@b", "(c)"]))
ADDRESSES = st.sampled_from(
    ["a@b.example", '"a b"@c.example', "d+e@f.example", f"{'x' * 64}@{'y.' * 60}example"]
).map(parse_mailbox)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.builds(Person, NAMES.map(str.strip), ADDRESSES), min_size=1, max_size=4))
def test_people_are_read_as_they_were_said(everybody: list[Person]) -> None:
    letter = Letter(author=everybody[0], to=tuple(everybody))
    assert len(read(letter)["To"].addresses) == len(everybody)
    content = compose(letter)
    expected = [(each.name, str(each.address)) for each in everybody]
    told = [(" ".join(name.split()), address) for name, address in people(content, "To")]
    assert told == [(" ".join(name.split()), address) for name, address in expected]
    assert people(content, "From")[0][1] == expected[0][1]


@settings(max_examples=150, deadline=None)
@given(PRINTABLE.map(str.strip), PRINTABLE.map(str.strip))
@example("a" * 1500, "b " * 200 + "b")
@example("=?utf-8?q?a?=", "a  b")
@example("", "=?")
def test_free_text_is_read_as_it_was_said(subject: str, value: str) -> None:
    found = read(Letter(author=ALICE, to=(BOB,), subject=subject, fields=(("X-Free-Text", value),)))
    assert (found["Subject"] or "") == subject
    assert found["X-Free-Text"] == value


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=200), st.text(max_size=200) | st.none())
@example("--=_x\n--\n.\n..\nFrom x\n", "\r\r\n\n")
@example("a" * 2000, "é" * 500)
@example("trailing \n\ttab\t\n", None)
def test_a_body_is_read_as_it_was_said(text: str, html: str | None) -> None:
    found = read(Letter(author=ALICE, to=(BOB,), text=text, html=html))
    for kind, said in (("plain", text), ("html", html)):
        part = found.get_body((kind,))
        if said is None:
            assert part is None
            continue
        assert part is not None
        told = part.get_payload(decode=True)
        assert isinstance(told, bytes)
        lines = re.sub("\r\n?", "\n", said).encode("utf-8", "replace")
        assert told.replace(b"\r\n", b"\n") == lines


@settings(max_examples=100, deadline=None)
@given(PRINTABLE.map(str.strip), st.binary(max_size=200))
@example("a" * 200, b"")
@example("é" * 100 + '"\\%', b"--")
@example('x"; filename="y', b"")
def test_a_file_is_read_as_it_was_sent(name: str, content: bytes) -> None:
    part = Part(name, "application/octet-stream", content)
    [found] = read(Letter(author=ALICE, to=(BOB,), text="x", parts=(part,))).iter_attachments()
    # Not `get_filename`: it takes quotes and brackets off a name that has some of its own.
    assert found["Content-Disposition"].params.get("filename", "") == name
    assert found.get_payload(decode=True) == content


def test_a_large_file_is_soon_there() -> None:
    letter = Letter(author=ALICE, to=(BOB,), parts=(Part("a", "a/b", b"\xff" * 40 * 2**20),))
    began = time.process_time()
    assert len(compose(letter)) > 50 * 2**20
    assert time.process_time() - began < 10
