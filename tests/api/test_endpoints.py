"""Each endpoint, and what it asks of the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from elemta.api.app import create_app
from elemta.api.problem import Document, Fault
from elemta.config import Change, ConfigError, Mistake
from elemta.control.facts import (
    Hypothesis,
    LogEntry,
    PluginStatus,
    Said,
    SessionStatus,
    Transcript,
)
from elemta.control.interface import UnavailableError
from elemta.protocol import parse_mailbox, reply
from elemta.queue import (
    Bounce,
    Deferred,
    Delete,
    Filter,
    Hold,
    Parked,
    Priority,
    Redirect,
    Release,
    Reprioritise,
    Reroute,
    Reschedule,
    Retry,
    Suspension,
    Timeline,
    View,
)
from tests.api.fakes import ALL, FakeAudit, site_of
from tests.control.fake import Acted, FakeControl, message

if TYPE_CHECKING:
    from quart.wrappers import Response

ID = message().id
BOB = parse_mailbox("bob@example.net")


class Api:
    """The API of a server that is none, asked by somebody who may do everything."""

    def __init__(self) -> None:
        self.control = FakeControl()
        self.control.known = Timeline(message=message(1, 2), finished_at=None, attempts=())
        self.audit = FakeAudit()
        self._client = create_app(site_of(self.control, audit=self.audit)).test_client()

    async def ask(self, method: str, path: str, body: object = None) -> Response:
        if body is None:
            return await self._client.open(path, method=method, headers=ALL)
        return await self._client.open(path, method=method, headers=ALL, json=body)

    async def told(self, method: str, path: str, body: object = None, status: int = 200) -> object:
        """What an answer says."""
        response = await self.ask(method, path, body)
        content = await response.get_data(as_text=False)
        assert response.status_code == status, content
        return msgspec.json.decode(content)

    async def faults(self, method: str, path: str, body: object = None) -> tuple[Fault, ...]:
        """What is wrong with a request."""
        response = await self.ask(method, path, body)
        content = await response.get_data(as_text=False)
        assert response.status_code == 422, content
        return msgspec.json.decode(content, type=Document).faults


@pytest.fixture
def api() -> Api:
    return Api()


TALLY = {"messages": 1, "recipients": 2, "octets": 3, "busy": 0, "dry_run": False}


async def test_the_queue_tells_how_full_it_is_and_where_mail_goes(api: Api) -> None:
    told = await api.told("GET", "/v1/queue")
    assert told == {
        "messages": 7, "oldest": None, "history": 0, "destinations": [],
        "recipients": {
            "ready": 0, "deferred": 0, "held": 0, "delivered": 0, "failed": 0, "expired": 0,
            "deleted": 0,
        },
    }  # fmt: skip


async def test_messages_come_page_by_page(api: Api) -> None:
    api.control.messages = [message(number) for number in range(5)]
    ids: list[object] = []
    path = "/v1/queue/messages?limit=2"
    for _ in range(3):
        match await api.told("GET", path):
            case {"messages": [*found], "next": str(cursor)}:
                path = f"/v1/queue/messages?limit=2&cursor={cursor}"
            case {"messages": [*found], "next": None}:
                path = ""
            case other:
                raise AssertionError(other)
        ids += [each["id"] for each in found]
    assert path == ""
    assert ids == [message(number).id for number in range(5)]


async def test_the_newest_messages_come_first_if_asked(api: Api) -> None:
    api.control.messages = [message(number) for number in range(3)]
    told = await api.told("GET", "/v1/queue/messages?newest=true&limit=1")
    assert isinstance(told, dict)
    assert told["messages"][0]["id"] == message(2).id


async def test_a_search_means_what_its_parameters_say(api: Api) -> None:
    await api.told(
        "GET",
        f"/v1/queue/messages?id={ID.lower()}&id={ID}&view=hold&view=failed&domain=example.net"
        "&sender=%3C%3E&recipient=bob@example.net&tag=a&older_than=60&younger_than=1e3"
        "&larger_than=1&smaller_than=2&error=no&destination=maildir&priority=high&owner=me&text=x",
    )
    assert api.control.sought == [
        Filter(
            ids=(ID.lower(), ID), views=(View.HOLD, View.FAILED), domain="example.net", sender="<>",
            recipient="bob@example.net", tag="a", older_than=60, younger_than=1000, larger_than=1,
            smaller_than=2, error="no", destination="maildir", priority=Priority.HIGH, owner="me",
            text="x",
        )
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("cursor=x", Fault("cursor", "expected the id of a message")),
        ("id=x", Fault("id[0]", "expected the id of a message")),
        ("view=held", Fault("view[0]", "expected active or deferred or hold or failed or "
                            "delivered, not 'held'")),
        ("priority=2", Fault("priority", "expected critical or high or low or normal, not '2'")),
        ("limit=0", Fault("limit", "expected a whole number, at least 1")),
        ("limit=501", Fault("limit", "expected a whole number, at most 500")),
        ("older_than=-1", Fault("older_than", "expected a number, at least 0.0")),
        ("domain=", Fault("domain", "expected at least 1 characters")),
        ("newest=x", Fault("newest", "expected true or false, not text")),
    ],
)  # fmt: skip
async def test_a_search_that_makes_no_sense_is_told_where(
    api: Api, query: str, fault: Fault
) -> None:
    assert await api.faults("GET", f"/v1/queue/messages?{query}") == (fault,)


ACTIONS = [
    ("retry", {}, Retry()),
    ("hold", {}, Hold()),
    ("release", {}, Release()),
    ("delete", {}, Delete()),
    ("bounce", {}, Bounce()),
    ("reprioritise", {"priority": "low"}, Reprioritise(priority=Priority.LOW)),
    ("redirect", {"to": "bob@example.net"}, Redirect(to=BOB)),
    ("reroute", {"via": ["mx:example.org", "maildir"]}, Reroute(("mx:example.org", "maildir"))),
    ("reroute", {"via": []}, Reroute(())),
    ("reschedule", {"at": 5}, Reschedule(5.0)),
    ("reschedule", {"at": "1970-01-01T00:00:05Z"}, Reschedule(5.0)),
]


@pytest.mark.parametrize(("word", "extra", "action"), ACTIONS)
async def test_an_action_is_done_to_all_that_is_meant(
    api: Api, word: str, extra: dict[str, object], action: object
) -> None:
    body = {"filter": {"domain": "example.net"}, "reason": "why", **extra}
    assert await api.told("POST", f"/v1/queue/{word}", body) == TALLY
    assert api.control.acted == [Acted(action, Filter(domain="example.net"), "why", False)]


@pytest.mark.parametrize(("word", "extra", "action"), ACTIONS)
async def test_an_action_is_done_to_a_message(
    api: Api, word: str, extra: dict[str, object], action: object
) -> None:
    body = {"reason": "why", "dry_run": True, **extra}
    told = await api.told("POST", f"/v1/messages/{ID}/{word}", body)
    assert told == {**TALLY, "dry_run": True}
    assert api.control.acted == [Acted(action, Filter(ids=(ID,)), "why", True)]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/queue/hold", {"all": True}),
        (f"/v1/messages/{ID}/hold", {}),
        ("/v1/destinations/suspend", {"scope": "all"}),
        ("/v1/destinations/resume", {"scope": "all"}),
        ("/v1/destinations/flush", {"destination": "maildir"}),
    ],
)
async def test_a_dry_run_is_audited_only_if_it_is_refused(
    api: Api, path: str, body: dict[str, object]
) -> None:
    await api.told("POST", path, {**body, "dry_run": True})
    assert api.audit.noted == []
    api.control.failure = UnavailableError("the disk")
    await api.told("POST", path, {**body, "dry_run": True}, status=503)
    assert [each.status for each in api.audit.noted] == [503]
    api.control.failure = None
    await api.told("POST", path, body)
    assert [each.status for each in api.audit.noted] == [503, 200]


async def test_a_query_can_ask_for_a_dry_run_too(api: Api) -> None:
    await api.told("DELETE", f"/v1/messages/{ID}?dry_run=true")
    assert api.control.acted == [Acted(Delete(), Filter(ids=(ID,)), "", True)]
    assert api.audit.noted == []


async def test_an_action_needs_no_body_where_nothing_must_be_said(api: Api) -> None:
    assert await api.told("POST", f"/v1/messages/{ID}/hold") == TALLY


async def test_an_action_is_done_to_some_recipients(api: Api) -> None:
    body = {"recipients": ["r0@example.net", "R1@example.net", "r0@example.net"]}
    assert await api.told("POST", f"/v1/messages/{ID}/hold", body) == {**TALLY, "recipients": 4}
    assert [each.filter.recipient for each in api.control.acted] == [
        "r0@example.net", "R1@example.net"
    ]  # fmt: skip


async def test_an_action_on_somebody_else_is_refused(api: Api) -> None:
    body = {"recipients": ["r0@example.net", "who@example.net"]}
    assert await api.faults("POST", f"/v1/messages/{ID}/hold", body) == (
        Fault("recipients[1]", "is no recipient of this message"),
    )
    assert api.control.acted == []


async def test_a_message_is_deleted(api: Api) -> None:
    assert await api.told("DELETE", f"/v1/messages/{ID}?reason=why") == TALLY
    assert api.control.acted == [Acted(Delete(), Filter(ids=(ID,)), "why", False)]


@pytest.mark.parametrize("body", [{}, {"filter": {}}, {"filter": {"ids": [], "views": []}}])
async def test_all_mail_is_meant_only_if_that_is_said(api: Api, body: dict[str, object]) -> None:
    [fault] = await api.faults("POST", "/v1/queue/delete", body)
    assert fault.field == "filter"
    assert api.control.acted == []
    await api.told("POST", "/v1/queue/delete", {**body, "all": True})
    assert api.control.acted == [Acted(Delete(), Filter(), "", False)]


@pytest.mark.parametrize(
    ("path", "body", "fault"),
    [
        ("queue/hold", {"filter": {"view": ["hold"]}},
         Fault("filter.view", "there is no such key; did you mean `views`?")),
        ("queue/hold", {"filter": {"ids": [ID, "x"]}},
         Fault("filter.ids[1]", "expected the id of a message")),
        ("queue/hold", {"filter": {"text": ""}},
         Fault("filter.text", "expected at least 1 characters")),
        ("queue/redirect", {"all": True, "to": "bob"},
         Fault("to", "expected an address, and this has no local part, an @ and a domain")),
        ("queue/redirect", {"all": True}, Fault("to", "this key is missing")),
        ("queue/reprioritise", {"all": True, "priority": "urgent"},
         Fault("priority", "expected critical or high or low or normal, not 'urgent'")),
        ("queue/hold", {"all": "yes"}, Fault("all", "expected true or false, not text")),
        (f"messages/{ID}/hold", {"recipients": []},
         Fault("recipients", "expected at least 1 entries")),
        (f"messages/{ID}/hold", {"recipients": ["x"]},
         Fault("recipients[0]", "expected an address, and this has no local part, an @ and a "
               "domain")),
    ],
)  # fmt: skip
async def test_an_action_that_makes_no_sense_is_told_where(
    api: Api, path: str, body: object, fault: Fault
) -> None:
    assert await api.faults("POST", f"/v1/{path}", body) == (fault,)
    assert api.control.acted == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""), ("GET", "/why"), ("POST", "/hold"), ("DELETE", ""),
    ],
)  # fmt: skip
async def test_a_message_that_is_not_known_is_not_found(api: Api, method: str, path: str) -> None:
    told = await api.told(method, f"/v1/messages/nobody{path}", status=404)
    assert told == {
        "title": "Not Found", "status": 404, "detail": "no message 'nobody'"
    }  # fmt: skip


async def test_a_message_is_shown_with_what_happened_to_it(api: Api) -> None:
    told = await api.told("GET", f"/v1/messages/{ID}")
    assert isinstance(told, dict)
    assert (told["id"], told["attempts"], told["notes"]) == (ID, [], [])


async def test_a_message_is_read_as_it_is(api: Api) -> None:
    api.control.pieces = [b"Subject: x\r\n\r\n", b"hello\r\n"]
    response = await api.ask("GET", f"/v1/messages/{ID}/raw")
    assert await response.get_data(as_text=False) == b"Subject: x\r\n\r\nhello\r\n"
    assert response.content_type == "message/rfc822"
    assert api.control.closed == 1


async def test_an_empty_message_is_read(api: Api) -> None:
    response = await api.ask("GET", f"/v1/messages/{ID}/raw")
    assert (response.status_code, await response.get_data(as_text=False)) == (200, b"")


async def test_a_message_that_cannot_be_read_is_a_problem(api: Api) -> None:
    api.control.failure = LookupError("no such thing")
    await api.told("GET", f"/v1/messages/{ID}/raw", status=500)


async def test_what_a_message_says_is_shown(api: Api) -> None:
    api.control.pieces = [b"Subject: x\r\n\r\n", b"hello\r\n"]
    assert await api.told("GET", f"/v1/messages/{ID}/content") == {
        "headers": [["Subject", "x"]], "text": "hello\r\n", "html": None, "attachments": [],
        "cut": False,
    }  # fmt: skip


async def test_only_the_beginning_of_a_long_message_is_read(api: Api) -> None:
    api.control.pieces = [b"Subject: x\r\n\r\n", *[b"hello\r\n" * 10_000] * 20, b"\r\n"]
    told = await api.told("GET", f"/v1/messages/{ID}/content")
    assert isinstance(told, dict)
    assert told["cut"]
    assert api.control.closed == 1


async def test_what_was_said_about_a_message_is_shown(api: Api) -> None:
    said = Said(1.0, "C", "EHLO x")
    api.control.recorded = [
        Transcript(
            id="s", direction="out", place="maildir", peer="p", began=0.0, ended=None,
            messages=(ID,), said=(said,),
        )
    ]  # fmt: skip
    assert await api.told("GET", f"/v1/messages/{ID}/transcripts") == {
        "transcripts": [
            {
                "id": "s", "direction": "out", "place": "maildir", "peer": "p", "began": 0.0,
                "ended": None, "messages": [ID], "cut": 0,
                "said": [{"at": 1.0, "speaker": "C", "text": "EHLO x"}],
            }
        ]
    }  # fmt: skip


async def test_why_a_message_waits_is_told(api: Api) -> None:
    assert await api.told("GET", f"/v1/messages/{ID}/why") == {
        "summary": "it waits for its time", "steps": [], "next_at": 60.0
    }  # fmt: skip


async def test_what_is_suspended_is_listed(api: Api) -> None:
    api.control.suspended = [Suspension(scope="all", reason="why", who="me", since=1.0)]
    assert await api.told("GET", "/v1/suspensions") == {
        "suspensions": [{"scope": "all", "reason": "why", "who": "me", "since": 1.0, "until": None}]
    }
    assert await api.told("GET", "/v1/destinations") == {"destinations": []}


@pytest.mark.parametrize(
    ("extra", "until"), [({}, None), ({"for": 60}, 1060.0), ({"until": 2000.0}, 2000.0)]
)
async def test_a_scope_is_suspended_and_resumed(
    api: Api, extra: dict[str, object], until: float | None
) -> None:
    body = {"scope": "domain:example.net", "reason": "why", **extra}
    told = await api.told("POST", "/v1/destinations/suspend", body)
    assert told == {"scope": "domain:example.net", "dry_run": False, "tally": None}
    assert api.control.stopped == [("domain:example.net", "why", until)]
    await api.told("POST", "/v1/destinations/resume", {"scope": "domain:example.net"})
    assert api.control.stopped == []


@pytest.mark.parametrize("word", ["suspend", "resume"])
async def test_what_a_suspension_would_stop_is_counted(api: Api, word: str) -> None:
    told = await api.told("POST", f"/v1/destinations/{word}", {"scope": "all", "dry_run": True})
    assert isinstance(told, dict)
    assert told["dry_run"]
    assert told["tally"]["dry_run"]


async def test_a_suspension_has_one_end(api: Api) -> None:
    body = {"scope": "all", "for": 1, "until": 2000}
    assert await api.faults("POST", "/v1/destinations/suspend", body) == (
        Fault("until", "say either `for` or `until`"),
    )


async def test_a_destination_is_flushed_by_trying_it(api: Api) -> None:
    body = {"destination": "mx:example.net", "reason": "why"}
    assert await api.told("POST", "/v1/destinations/flush", body) == TALLY
    assert api.control.acted == [Acted(Retry(), Filter(destination="mx:example.net"), "why", False)]


async def test_the_server_tells_how_it_is(api: Api) -> None:
    told = await api.told("GET", "/v1/status")
    assert isinstance(told, dict)
    assert (told["hostname"], told["queue"]["messages"]) == ("mx.example", 7)


@pytest.mark.parametrize("scale", ["hour", "day", "week", "month"])
async def test_statistics_are_told_step_by_step(api: Api, scale: str) -> None:
    assert await api.told("GET", f"/v1/statistics?scale={scale}") == {
        "scale": scale, "step": 60.0, "buckets": [{"start": 0.0, "counts": {"queued": 2}}],
        "total": {"queued": 2},
    }  # fmt: skip


async def test_attempts_that_failed_are_told(api: Api) -> None:
    no = reply(451, 0, 0, "later")
    api.control.failed = [
        Deferred(2, 2.0, ID, BOB, "mx:example.net", "mx", no, 9.0),
        Parked(1, 1.0, "mx:example.net", 5.0, "no answer"),
    ]
    assert await api.told("GET", "/v1/errors?limit=5") == {
        "errors": [
            {
                "type": "Deferred", "number": 2, "at": 2.0, "id": ID, "due": 9.0, "host": "mx",
                "lane": "mx:example.net", "recipient": "bob@example.net",
                "reply": "451 4.0.0 later",
            }
        ]
    }  # fmt: skip


async def test_who_is_connected_is_told(api: Api) -> None:
    api.control.connected = [
        SessionStatus(
            id="s", direction="in", place="mx", peer="192.0.2.1:1", name="x", state="READY", tls="",
            login="", since=1.0, messages=0,
        )
    ]  # fmt: skip
    assert await api.told("GET", "/v1/sessions") == {
        "sessions": [
            {
                "id": "s", "direction": "in", "place": "mx", "peer": "192.0.2.1:1", "name": "x",
                "state": "READY", "tls": "", "login": "", "since": 1.0, "messages": 0,
                "message": None, "sender": None, "recipients": 0, "octets": 0,
            }
        ]
    }  # fmt: skip


async def test_a_hypothetical_message_is_explained(api: Api) -> None:
    told = await api.told(
        "GET",
        "/v1/explain?to=bob@example.net&from=alice@example.org&client=2001:DB8::1&helo=mx"
        "&login=me&listener=in&size=9",
    )
    assert isinstance(told, dict)
    assert told["summary"] == "it would go to a Maildir"
    assert api.control.supposed == [
        Hypothesis(
            recipient=BOB, sender=parse_mailbox("alice@example.org"), client="2001:db8::1",
            helo="mx", login="me", listener="in", size=9,
        )
    ]  # fmt: skip
    await api.told("GET", "/v1/explain?to=bob@example.net&from=%3C%3E")
    assert api.control.supposed[1] == Hypothesis(recipient=BOB)


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("", Fault("to", "this parameter is missing")),
        ("to=bob@example.net&client=mx", Fault("client", "expected an IP address")),
        ("to=bob@example.net&from=x",
         Fault("from", "expected an address, and this has no local part, an @ and a domain")),
    ],
)  # fmt: skip
async def test_a_hypothesis_that_makes_no_sense_is_told_where(
    api: Api, query: str, fault: Fault
) -> None:
    assert await api.faults("GET", f"/v1/explain?{query}") == (fault,)


async def test_the_log_is_read_by_level(api: Api) -> None:
    api.control.logged = [
        LogEntry(at=1.0, level=level, event="x", logger="y", fields={"z": 1})
        for level in ("debug", "warning", "error")
    ]
    told = await api.told("GET", "/v1/logs?level=warning&limit=1")
    assert told == {
        "entries": [
            {
                "type": "LogEntry", "at": 1.0, "level": "error", "event": "x", "logger": "y",
                "fields": {"z": 1},
            }
        ]
    }  # fmt: skip


async def test_the_level_of_the_log_is_changed(api: Api) -> None:
    assert await api.told("GET", "/v1/logs/level") == {"level": "info"}
    assert await api.told("PUT", "/v1/logs/level", {"level": "debug"}) == {"level": "debug"}
    assert api.control.level == "debug"


async def test_the_configuration_is_told_checked_and_read_again(api: Api) -> None:
    assert await api.told("GET", "/v1/configuration") == {
        "file": "/etc/elemta/elemta.yaml", "values": {"hostname": "mx.example"}
    }  # fmt: skip
    api.control.changes = (Change("nodes", "1", "2"),)
    changes = {"changes": [{"place": "nodes", "before": "1", "after": "2", "needs_restart": True}]}
    assert await api.told("POST", "/v1/configuration/check") == changes
    assert api.audit.noted == []
    assert await api.told("POST", "/v1/configuration/reload") == changes
    assert [each.path for each in api.audit.noted] == ["/v1/configuration/reload"]


async def test_each_mistake_of_the_configuration_is_told(api: Api) -> None:
    api.control.failure = ConfigError(
        Mistake("listeners[0].address", "is taken", 3, 5), Mistake("hostname", "is missing"),
        where="a.yaml",
    )  # fmt: skip
    assert await api.faults("POST", "/v1/configuration/check") == (
        Fault("listeners[0].address", "line 3: is taken"), Fault("hostname", "is missing"),
    )  # fmt: skip


async def test_a_plugin_is_switched_off(api: Api) -> None:
    api.control.installed = [
        PluginStatus(
            name="x", about="y", enabled=True, hooks=("on_rcpt",), timeout=5.0, kinds=("rcpt",),
            listeners=("mx",), on_failure={"on_rcpt": "defer"}, objected=1, events={"seen": 2},
        )
    ]  # fmt: skip
    assert (await api.told("GET", "/v1/plugins"))["order"] == {"on_rcpt": ["x"]}
    told = await api.told("PUT", "/v1/plugins/x", {"enabled": False})
    assert told == await api.told("GET", "/v1/plugins")
    assert told == {
        "plugins": [
            {
                "name": "x", "about": "y", "enabled": False, "hooks": ["on_rcpt"], "timeout": 5.0,
                "asked": 0, "failed": 0, "kinds": ["rcpt"], "listeners": ["mx"],
                "on_failure": {"on_rcpt": "defer"}, "objected": 1, "events": {"seen": 2},
            }
        ],
        "order": {},
    }  # fmt: skip
    await api.told("PUT", "/v1/plugins/z", {"enabled": False}, status=404)
