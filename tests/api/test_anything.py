"""Whatever is asked: no query, path, header or body makes the server fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from elemta.api.app import ENDPOINTS, create_app
from elemta.api.problem import MEDIA_TYPE, Document
from elemta.queue import Timeline
from tests.api.asgi import Call
from tests.api.fakes import ALL, site_of
from tests.control.fake import FakeControl, message

if TYPE_CHECKING:
    from elemta.api.endpoint import Endpoint

ID = message().id
#: Those of other modules have doors of their own, which `tests.api.fakes` does not build.
ASKED = [each for each in ENDPOINTS if each.tag not in ("access", "inbox")]

NAMES = st.sampled_from(
    sorted(
        {
            field.encode_name
            for each in ASKED
            for schema in (each.query, each.body)
            for field in msgspec.structs.fields(schema)
        }
    )
)
TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["", "null", "nan", "1e999", "-1", "0", "true", ID, ID.lower(), "all", "domain:", "d@",
         "destination:", "a@b.example", "A <a@b.example>", "<>", "hold", "high", "hour", "\0",
         "domain:@", "\r\n", "9" * 400, "2030-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "::1",
         "maildir"]
    ),
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | TEXTS, inner, max_size=4),
    max_leaves=12,
)
QUERIES = st.one_of(
    st.binary(max_size=60),
    st.lists(st.tuples(NAMES, TEXTS), max_size=4).map(
        lambda pairs: "&".join(f"{name}={value}" for name, value in pairs).encode("utf-8")
    ),
)
BODIES = st.binary(max_size=60) | JSON.map(
    lambda value: msgspec.json.encode(value) if value == value else b"NaN"
)
TYPES = st.sampled_from(
    [
        "application/json",
        "application/json; charset=latin-1",
        "message/rfc822",
        "text/plain",
        "",
        ";",
    ]
)


HEADERS = st.dictionaries(
    st.sampled_from(
        ["Host", "Content-Length", "Cookie", "Accept", "Idempotency-Key", "Transfer-Encoding",
         "Remote-Addr", "X-Forwarded-For", "Range", "If-Match"]
    ),
    st.sampled_from(["", "x", "-1", "é", "\xff", "a;b=c;;=", "[::1", "a:b:c", "9" * 20])
    | st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=10),
    max_size=2,
)  # fmt: skip


@pytest.mark.parametrize("endpoint", ASKED, ids=lambda each: each.name)
def test_nothing_that_is_asked_makes_it_fail(endpoint: Endpoint) -> None:
    control = FakeControl()
    control.known = Timeline(message=message(1, 2), finished_at=None, attempts=())
    app = create_app(site_of(control))

    @settings(max_examples=12, deadline=None)
    @given(QUERIES, BODIES, TYPES, st.sampled_from([ID, "x", "\0", "é"]), HEADERS)
    def ask(query: bytes, body: bytes, media_type: str, name: str, others: dict[str, str]) -> None:
        path = endpoint.path.replace("{id}", name).replace("{name}", name)
        headers = ALL | {"Content-Type": media_type} | others
        call = Call(path, headers, method=endpoint.method, query=query)
        call.send(body, more=False)
        trio.run(call.run, app)
        response = call.response
        assert response.status_code < 500, response.status_code
        if response.status_code >= 400:
            assert response.content_type == MEDIA_TYPE
            told = msgspec.json.decode(call.content, type=Document)
            assert told.status == response.status_code
            assert told.detail

    ask()
