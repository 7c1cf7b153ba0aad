from __future__ import annotations

import base64
import email
import email.policy
from typing import TYPE_CHECKING

import msgspec
import pytest

from elemta.api.app import create_app
from elemta.api.problem import Document, Fault
from elemta.control.interface import RequestError, UnavailableError
from elemta.protocol import parse_mailbox
from elemta.queue import Priority
from tests.api.fakes import ALL, FakeAudit, site_of
from tests.control.fake import FakeControl, message

if TYPE_CHECKING:
    from quart.wrappers import Response

    from elemta.control.facts import Submission

ALICE = parse_mailbox("alice@example.org")
BOB = parse_mailbox("bob@example.net")
CAROL = parse_mailbox("carol@example.net")
DAVE = parse_mailbox("dave@example.net")
LEAST: dict[str, object] = {"from": "alice@example.org", "to": ["bob@example.net"]}


class Post:
    """Where mail is handed in."""

    def __init__(self) -> None:
        self.control = FakeControl()
        self.audit = FakeAudit()
        self._client = create_app(site_of(self.control, audit=self.audit)).test_client()

    async def draft(
        self, draft: dict[str, object], query: str = "", key: str | None = None
    ) -> Response:
        headers = ALL | ({} if key is None else {"Idempotency-Key": key})
        return await self._client.post(f"/v1/messages{query}", headers=headers, json=draft)

    async def raw(self, content: bytes, query: str) -> Response:
        return await self._client.post(
            f"/v1/messages{query}",
            headers=ALL | {"Content-Type": "message/rfc822"},
            data=content,
            scope_base={"client": ("192.0.2.1", 4711)},
        )

    @property
    def handed_in(self) -> Submission:
        """What was handed in."""
        [found] = self.control.submitted
        return found


async def faults(response: Response) -> tuple[Fault, ...]:
    """What is wrong with a request."""
    content = await response.get_data(as_text=False)
    assert response.status_code == 422, content
    return msgspec.json.decode(content, type=Document).faults


@pytest.fixture
def post() -> Post:
    return Post()


async def test_parts_become_a_message(post: Post) -> None:
    response = await post.draft(
        {
            "from": "Zoë <alice@example.org>", "to": ["bob@example.net"],
            "cc": ["Carol <carol@example.net>"], "bcc": ["dave@example.net"],
            "reply_to": ["bob@example.net"], "subject": "Grüße", "text": "hello\n",
            "html": "<p>hello</p>", "headers": {"X-Kind": "test", "In-Reply-To": "<a@b>"},
            "attachments": [
                {"name": "a.bin", "type": "application/x-a",
                 "content": base64.b64encode(b"\0\xff").decode()},
            ],
            "priority": "high", "tags": ["a", "b"], "send_at": "2030-01-01T00:00:00+00:00",
        },
        key="k1",
    )  # fmt: skip
    assert response.status_code == 201
    assert await response.get_json() == {"id": message().id, "again": False}
    handed_in = post.handed_in
    assert handed_in.sender == ALICE
    assert handed_in.recipients == (BOB, CAROL, DAVE)
    assert (handed_in.priority, handed_in.tags, handed_in.due, handed_in.key) == (
        Priority.HIGH, ("a", "b"), 1893456000.0, "k1"
    )  # fmt: skip
    found = email.message_from_bytes(handed_in.content, policy=email.policy.default)
    assert [(name, value) for name, value in found.items() if name != "Content-Type"] == [
        ("From", "Zoë <alice@example.org>"), ("To", "bob@example.net"),
        ("Cc", "Carol <carol@example.net>"), ("Reply-To", "bob@example.net"),
        ("Subject", "Grüße"), ("X-Kind", "test"), ("In-Reply-To", "<a@b>"), ("MIME-Version", "1.0"),
    ]  # fmt: skip
    assert b"dave" not in handed_in.content


async def test_the_audit_log_knows_the_envelope_and_not_the_content(post: Post) -> None:
    await post.draft({**LEAST, "text": "a secret"})
    [noted] = post.audit.noted
    assert noted.told.startswith("from alice@example.org to bob@example.net, ")
    assert "secret" not in noted.told


async def test_the_same_parts_are_the_same_message(post: Post) -> None:
    for _ in range(2):
        await post.draft({**LEAST, "text": "a", "html": "b"})
    first, second = post.control.submitted
    assert first == second


async def test_the_query_says_more_about_the_envelope_than_the_body(post: Post) -> None:
    await post.draft(
        {**LEAST, "tags": ["a"], "priority": "low"},
        "?from=%3C%3E&to=carol@example.net&tag=b&priority=critical&send_at=5",
    )
    handed_in = post.handed_in
    assert (handed_in.sender, handed_in.recipients) == (None, (CAROL,))
    assert (handed_in.tags, handed_in.priority, handed_in.due) == (("b",), Priority.CRITICAL, 5.0)
    assert b"To: bob@example.net" in handed_in.content


async def test_a_time_that_is_given_must_be_one(post: Post) -> None:
    for text in ("", "nan", "inf", "-1e400", "-1", "1e12"):
        [fault] = await faults(await post.draft(LEAST, f"?send_at={text}"))
        assert fault.field == "send_at"


async def test_a_message_is_handed_in_as_it_is(post: Post) -> None:
    content = b"Subject: x\r\n\r\nhello\r\n"
    response = await post.raw(
        content, "?from=alice@example.org&to=bob@example.net&to=carol@example.net"
    )
    assert response.status_code == 201
    handed_in = post.handed_in
    assert (handed_in.sender, handed_in.recipients) == (ALICE, (BOB, CAROL))
    assert (handed_in.content, handed_in.client) == (content, "192.0.2.1")


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (b"Subject: x\n\nhello\n", b"Subject: x\r\n\r\nhello\r\n"),
        (b"Subject: x\r\n\nhello\r\n", b"Subject: x\r\n\r\nhello\r\n"),
        (b"Subject: x\r\n\r\na\rb\r\n", b"Subject: x\r\n\r\na\rb\r\n"),
        (b"A: b\nBcc: dave@example.net,\n\terin@example.net\nC: d\n\nBcc: e\n",
         b"A: b\r\nC: d\r\n\r\nBcc: e\r\n"),
        (b"", b""),
    ],
)  # fmt: skip
async def test_line_ends_become_those_of_smtp_and_bcc_is_not_sent(
    post: Post, content: bytes, kept: bytes
) -> None:
    await post.raw(content, "?from=alice@example.org&to=bob@example.net")
    assert post.handed_in.content == kept


async def test_a_message_as_it_is_needs_an_envelope(post: Post) -> None:
    assert await faults(await post.raw(b"a: b\n\n", "")) == (
        Fault("from", "this parameter is missing"), Fault("to", "this parameter is missing"),
    )  # fmt: skip


NO_ADDRESS = "expected an address, and this has no local part, an @ and a domain"
ONE_LINE = "expected one line of printable text"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"from": "alice"}, [Fault("from", NO_ADDRESS)]),
        ({"to": ["bob@example.net", "x"], "cc": ["y"]},
         [Fault("to[1]", NO_ADDRESS), Fault("cc[0]", NO_ADDRESS)]),
        ({"to": ["bob@example.net\r\nBcc: eve@example.net"]},
         [Fault("to[0]", "expected an address, and this has an unprintable character")]),
        ({"to": []}, [Fault("to", "expected somebody to whom it goes")]),
        ({"subject": "a\r\nBcc: eve@example.net"}, [Fault("subject", ONE_LINE)]),
        ({"headers": {"X-A": "b\nc"}}, [Fault("headers.X-A", ONE_LINE)]),
        ({"headers": {"X A": "b"}},
         [Fault("headers.X A", "is no name of a header field (RFC 5322 §3.6.8)")]),
        ({"headers": {"X-A: b\r\nBcc": "c"}},
         [Fault("headers.X-A: b\r\nBcc", "is no name of a header field (RFC 5322 §3.6.8)")]),
        ({"headers": {"bcc": "eve@example.net", "Content-Type": "x", "Received": "y"}},
         [Fault(f"headers.{name}", "is not for you to say, or has a key of its own")
          for name in ("bcc", "Content-Type", "Received")]),
        ({"headers": {"Message-ID": "x"}},
         [Fault("headers.Message-ID", "expected <LEFT@RIGHT> (RFC 5322 §3.6.4)")]),
        ({"attachments": [{"content": "", "name": "a\nb"}]},
         [Fault("attachments[0].name", "expected printable text")]),
        ({"attachments": [{"content": "", "type": "message/rfc822"}]},
         [Fault("attachments[0].type",
                "a message goes with another as application/octet-stream")]),
        ({"attachments": [{"content": "", "type": "text"}]},
         [Fault("attachments[0].type", "expected a media type such as text/plain")]),
        ({"attachments": [{"content": "%"}]},
         [Fault("attachments[0].content", "invalid base64 encoded string")]),
        ({"send_at": "tomorrow"},
         [Fault("send_at", "expected a time such as 2030-01-31T12:00:00Z, or seconds")]),
        ({"send_at": "2030-01-01T00:00:00"},
         [Fault("send_at", "expected a time such as 2030-01-31T12:00:00Z, or seconds")]),
        ({"tags": ["a b"]},
         [Fault("tags[0]", "expected a word of ASCII letters, digits and signs")]),
        ({"send": 1}, [Fault("send", "there is no such key; did you mean `send_at`?")]),
    ],
)  # fmt: skip
async def test_what_makes_no_sense_is_told_where(
    post: Post, change: dict[str, object], expected: list[Fault]
) -> None:
    assert await faults(await post.draft({**LEAST, **change})) == tuple(expected)
    assert post.control.submitted == []


@pytest.mark.parametrize("key", ["k" * 201, "", "a\tb"])
async def test_a_key_that_is_too_long_or_empty_or_odd_is_refused(post: Post, key: str) -> None:
    [fault] = await faults(await post.draft(LEAST, key=key))
    assert fault == Fault("Idempotency-Key", "expected 1 to 200 printable characters")


@pytest.mark.parametrize(
    ("place", "field"),
    [
        ("recipients[0]", "to[0]"), ("recipients[1]", "cc[0]"), ("recipients[2]", "bcc[0]"),
        ("sender", "from"), ("due", "send_at"), ("key", "Idempotency-Key"), ("content", "content"),
        ("recipients", "to"),
    ],
)  # fmt: skip
async def test_what_is_refused_is_told_where_it_stands(post: Post, place: str, field: str) -> None:
    post.control.failure = RequestError("550 5.1.1 no such mailbox", place)
    draft = {**LEAST, "cc": ["carol@example.net"], "bcc": ["dave@example.net"]}
    assert await faults(await post.draft(draft)) == (Fault(field, "550 5.1.1 no such mailbox"),)


async def test_mail_that_is_not_taken_now_may_be_handed_in_again(post: Post) -> None:
    post.control.failure = UnavailableError("452 4.3.1 no room")
    response = await post.draft(LEAST)
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")


@pytest.mark.parametrize(
    ("text", "due"),
    [
        ("5", 5.0),
        ("1e3", 1000.0),
        ("1970-01-01T00:00:05Z", 5.0),
        ("1970-01-01T01:00:05+01:00", 5.0),
    ],
)
async def test_a_time_is_seconds_or_as_people_write_it(post: Post, text: str, due: float) -> None:
    await post.draft({**LEAST, "send_at": text})
    assert post.handed_in.due == due
