from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import trio

from elemta.config import ConfigError, check, load, shown
from elemta.mailauth import Iprev
from elemta.net.http import HttpError
from elemta.net.tls import Encryption
from elemta.plugins import (
    CONTINUE,
    AddHeader,
    Allowed,
    Continue,
    Defer,
    Discard,
    Quarantine,
    Reject,
    RemoveHeader,
    Tag,
    rewritten,
)
from elemta.plugins.built_in.rspamd import AnswerError, Checked, Rspamd, Settings
from elemta.testing import FakeContent, a_session, a_transaction, some_tools
from tests.dialogue import CONFIG
from tests.plugins.built_in.service import FakeService

if TYPE_CHECKING:
    from trio.testing import MockClock

    from elemta.plugins import Transaction, Verdict

MAIL = b"Subject: cheap\r\nX-A: 1\r\nX-B: 1\r\nX-A: 2\r\nX-A: 3\r\n\r\nbuy\r\n"


class Server:
    """Answers as it is told to.

    Attributes:
        answer: JSON.
        raw: said in place of it, as it is.
        head: what it heard last, and `body`.
    """

    def __init__(self) -> None:
        self.answer: dict[str, object] = {"action": "no action"}
        self.raw: bytes | None = None
        self.head: list[str] = []
        self.body = b""

    async def __call__(self, stream: trio.abc.Stream) -> None:
        heard = b""
        while b"\r\n\r\n" not in heard:
            heard += await stream.receive_some(100)
        head, _, body = heard.partition(b"\r\n\r\n")
        self.head = head.decode().split("\r\n")
        size = next(int(each[16:]) for each in self.head if each.startswith("Content-Length: "))
        while len(body) < size:
            body += await stream.receive_some(100)
        self.body = body
        told = json.dumps(self.answer).encode()
        await stream.send_all(
            self.raw or b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(told), told)
        )


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def service(nursery: trio.Nursery, server: Server) -> FakeService:
    return FakeService(nursery, server)


def a_plugin(service: FakeService, **settings: object) -> Rspamd:
    plugin = Rspamd(check(settings, Settings))
    plugin.tools = some_tools("rspamd", connect=service)
    return plugin


async def verdict(plugin: Rspamd, transaction: Transaction | None = None) -> Verdict:
    return await plugin.on_inspect(transaction or a_transaction(), FakeContent(MAIL, 10))


async def test_it_is_told_all_that_is_known(server: Server, service: FakeService) -> None:
    session = a_session("2001:db8::1", helo="it's\x01me")
    session.login = "ann"
    session.encryption = Encryption(version="TLSv1.3", cipher="AES")
    session.results.add(Iprev("pass", "2001:db8::1", "mail.sender.example"))
    transaction = a_transaction(session, recipients=["bob@us.example", "eve@us.example"])
    await verdict(a_plugin(service, password="x y"), transaction)
    assert server.head[0] == "POST /checkv2 HTTP/1.1"
    assert server.head[1:] == [
        "Host: rspamd",
        "Queue-Id: MESSAGE",
        "MTA-Name: mx.us.example",
        "IP: 2001:db8::1",
        "Helo: it's?me",
        "Hostname: mail.sender.example",
        "User: ann",
        "TLS-Version: TLSv1.3",
        "TLS-Cipher: AES",
        "From: ann@sender.example",
        "Rcpt: bob@us.example",
        "Rcpt: eve@us.example",
        "Password: x y",
        f"Content-Length: {len(MAIL)}",
        "Connection: close",
    ]
    assert server.body == MAIL


async def test_a_report_and_a_single_recipient(server: Server, service: FakeService) -> None:
    await verdict(a_plugin(service), a_transaction(a_session(""), sender="", recipients=["b@x.y"]))
    assert {"From: <>", "Rcpt: b@x.y", "Deliver-To: b@x.y"} <= set(server.head)
    assert not any(each.startswith(("IP", "User", "Password")) for each in server.head)


@pytest.mark.parametrize(
    ("action", "wanted"),
    [
        ("no action", Continue(note="no action, 0.00 of 0.00")),
        ("greylist", Defer((7, 1), "greylisted, try again later", "greylist, 0.00 of 0.00")),
        ("soft reject", Defer((7, 1), "try again later", "soft reject, 0.00 of 0.00")),
        ("reject", Reject((7, 1), "this message looks like spam", "reject, 0.00 of 0.00")),
        ("quarantine", Quarantine("quarantine, 0.00 of 0.00")),
        ("discard", Discard("discard, 0.00 of 0.00")),
        (
            "add header",
            Continue(
                (RemoveHeader("X-Spam"), AddHeader("X-Spam", "Yes"), Tag("spam")),
                "add header, 0.00 of 0.00",
            ),
        ),
    ],
)
async def test_what_it_wants_is_done(
    server: Server, service: FakeService, action: str, wanted: Verdict
) -> None:
    server.answer = {"action": action}
    plugin = a_plugin(service)
    assert await verdict(plugin) == wanted
    assert plugin.tools.meters.checks == {action.replace(" ", "_"): 1}


async def test_what_it_found_stands_in_the_timeline(server: Server, service: FakeService) -> None:
    server.answer = {
        "action": "no action",
        "score": 3.456,
        "required_score": 15,
        "is_skipped": False,
        "symbols": {
            "R_SPF_ALLOW": {"name": "R_SPF_ALLOW", "score": -0.2, "options": ["x"]},
            "BAD\nNAME": {"score": 4.0},
            **{f"S{number}": {"score": 1.0} for number in range(30)},
        },
    }
    transaction = a_transaction()
    await verdict(a_plugin(service), transaction)
    (told,) = transaction.results.told()
    assert told[1].startswith("no action, 3.46 of 15.00: BAD?NAME, S0, S1")
    checked = transaction.results.first(Checked)
    assert checked is not None
    assert len(checked.symbols) == 20


@pytest.mark.parametrize("action", ["reject", "soft reject", "greylist"])
async def test_the_client_is_told_what_the_operator_of_rspamd_says(
    server: Server, service: FakeService, action: str
) -> None:
    server.answer = {"action": action, "messages": {"smtp_message": "no,\r\nb\xfcy less" * 100}}
    found = await verdict(a_plugin(service))
    assert isinstance(found, (Defer, Reject))
    assert found.text.startswith("no,?b?y lessno")


async def test_greylisting_of_an_rspamd_that_keeps_no_list_need_not_be_heeded(
    server: Server, service: FakeService
) -> None:
    server.answer = {"action": "greylist"}
    assert isinstance(await verdict(a_plugin(service, greylist="continue")), Continue)


async def changed(server: Server, service: FakeService, **answer: object) -> bytes:
    """What becomes of the header of `MAIL`."""
    server.answer = {"action": "no action", **answer}
    found = await verdict(a_plugin(service))
    assert isinstance(found, Continue)
    return rewritten(MAIL.partition(b"\r\n\r\n")[0] + b"\r\n", found.changes)


async def test_the_subject_is_rewritten(server: Server, service: FakeService) -> None:
    header = await changed(server, service, action="rewrite subject", subject="[spam] ch\xeb\nap")
    assert b"Subject: [spam] =?utf-8?" in header
    assert b"Subject: cheap" not in header
    header = await changed(server, service, action="rewrite subject", subject="[spam] cheap")
    assert header.startswith(b"X-Spam: Yes\r\n")
    assert header.endswith(b"\r\nSubject: [spam] cheap\r\n")
    header = await changed(server, service, action="rewrite subject")
    assert header.startswith(b"X-Spam: Yes\r\nSubject: cheap\r\n")


async def test_numbers_that_are_none_are_null(server: Server, service: FakeService) -> None:
    server.answer |= {"score": None, "required_score": None, "symbols": {"X": {"score": None}}}
    assert await verdict(a_plugin(service)) == Continue(note="no action, 0.00 of 0.00: X")


async def test_fields_come_and_go_as_it_says(server: Server, service: FakeService) -> None:
    header = await changed(
        server,
        service,
        milter={
            "remove_headers": {"x-a": [1, -1], "X-B": 0, "X-C": -1, "X-D": 7},
            "add_headers": {
                "X-Low": "a",
                "X-Top": {"value": "b", "order": 0},
                "X-Both": ["c", {"value": "d", "order": 1}, {"value": "e", "order": -1}],
            },
        },
    )
    assert header == (
        b"X-Both: d\r\nX-Top: b\r\nSubject: cheap\r\nX-A: 2\r\nX-Low: a\r\nX-Both: c\r\n"
        b"X-Both: e\r\n"
    )


async def test_signatures_are_added_as_they_were_folded(
    server: Server, service: FakeService
) -> None:
    header = await changed(
        server, service, **{"dkim-signature": ["v=1; a=b;\r\n\tb=x", "", "v=1; one line"]}
    )
    assert header.startswith(
        b"DKIM-Signature: v=1; one line\r\nDKIM-Signature: v=1; a=b;\r\n\tb=x\r\nSubject"
    )
    header = await changed(server, service, milter={"add_headers": {"ARC-Seal": "i=1;\n  b=y\n"}})
    assert header.endswith(b"ARC-Seal: i=1;\r\n  b=y\r\n")


@pytest.mark.parametrize(
    "milter",
    [
        {"add_headers": {"X-A": "x\nBcc: y"}},
        {"add_headers": {"X A": "x"}},
        {"add_headers": {"X-A": "x\0"}},
        {"remove_headers": {"": 1}},
    ],
)
async def test_changes_that_would_break_the_header_are_a_failure(
    server: Server, service: FakeService, milter: dict[str, object]
) -> None:
    server.answer = {"action": "no action", "milter": milter}
    plugin, transaction = a_plugin(service), a_transaction()
    with pytest.raises(ValueError, match=r"field|name"):
        await verdict(plugin, transaction)
    assert transaction.results.told() == []
    assert plugin.tools.meters.checks == {"failed": 1}


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"HTTP/1.1 403 no\r\nContent-Length: 0\r\n\r\n", AnswerError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", AnswerError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", AnswerError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n" + b'{"action":"x"}', AnswerError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n" + b'{"action":1}', AnswerError),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b'{"x":' + b"[" * 100_000, AnswerError),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 1_100_000, HttpError),
        (b"hello", HttpError),
    ],
)
async def test_what_is_no_answer_is_a_failure(
    server: Server, service: FakeService, raw: bytes, error: type[Exception]
) -> None:
    server.raw = raw
    plugin = a_plugin(service)
    with pytest.raises(error):
        await verdict(plugin)
    assert plugin.tools.meters.checks == {"failed": 1}


async def test_who_is_trusted_or_allowed_is_left_alone_unless_all_are_asked_about(
    service: FakeService,
) -> None:
    allowed = a_session()
    allowed.results.add(Allowed("dnswl"))
    for session in (a_session(trusted=True), allowed):
        assert await verdict(a_plugin(service), a_transaction(session)) is CONTINUE
    assert service.connections == 0
    await verdict(a_plugin(service, all_clients=True), a_transaction(allowed))
    assert service.connections == 1


async def test_it_is_not_asked_about_what_is_too_large(service: FakeService) -> None:
    found = await verdict(a_plugin(service, max_size="10 B"))
    assert found == Continue(note="not asked: too large")
    assert service.connections == 0


async def test_one_that_does_not_answer_is_given_up(
    service: FakeService, autojump_clock: MockClock
) -> None:
    service.deaf = True
    with pytest.raises(trio.TooSlowError):
        await verdict(a_plugin(service, connect_timeout="2 s"))
    assert trio.current_time() == pytest.approx(2)


def test_settings_are_checked_and_the_password_is_masked() -> None:
    with pytest.raises(ConfigError, match=r"plugins\[1\]\.settings\.greylist: expected"):
        Rspamd.configured({"greylist": "maybe"}, "plugins[1].settings")
    with pytest.raises(ConfigError, match="connect_timeout must be more than 0 s"):
        Rspamd.configured({"connect_timeout": "0 s"}, "")
    told = str(shown(load(f"{CONFIG}plugins: [{{name: rspamd, settings: {{password: s3cret}}}}]")))
    assert "s3cret" not in told
