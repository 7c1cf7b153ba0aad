"""What the program of this name before us did to mail, where only a running daemon shows it.

The others are in the tests of their rooms; each says "fault" and its number.
"""

from __future__ import annotations

import smtplib
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from elemta.protocol import Mailbox
from elemta.queue import Addressee, Envelope, Holder, RetryPolicy, open_queue
from tests.scenarios import messages, ports
from tests.scenarios.nameserver import Nameserver
from tests.scenarios.sink import Sink, Step, offering

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.scenarios.conftest import MakeDaemon
    from tests.scenarios.daemon import Daemon

pytestmark = pytest.mark.scenario

DAY = 86400.0


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as sink:
        yield sink


def route(sink: Sink) -> dict[str, object]:
    return {"routes": [{"match": "far.example", "via": [f"smtp://127.0.0.1:{sink.port}"]}]}


def test_fault_1_mail_for_others_goes_to_their_exchanger_and_not_to_the_local_lmtp_server(
    make_elemta: MakeDaemon, sink: Sink
) -> None:
    with ExitStack() as stack:
        lmtp = stack.enter_context(Sink())
        nameserver = stack.enter_context(
            Nameserver({"far.test": ["MX 10 mx.far.test."], "mx.far.test": ["A 127.0.0.1"]})
        )
        elemta = make_elemta(
            {
                "domains": [
                    {
                        "name": "example.org",
                        "mailboxes": ["*"],
                        "deliver": f"lmtp://127.0.0.1:{lmtp.port}",
                    }
                ],
                "dns": {"nameservers": [f"127.0.0.1:{nameserver.port}"]},
                "delivery": {"port": sink.port, "allow_targets": ["127.0.0.1"]},
            }
        )
        elemta.start()

        elemta.send(messages.AWKWARD, ["carol@far.test"])

        (delivery,) = ports.eventually(lambda: sink.deliveries)
        assert delivery.recipients == ["carol@far.test"]
        assert lmtp.connections == 0


def test_fault_2_a_first_4xx_keeps_the_mail(make_elemta: MakeDaemon, sink: Sink) -> None:
    # With nothing said of retries: what was not configured was 0 retries.
    sink.answer(Step.RCPT, "451 4.3.0 not now")
    elemta = make_elemta({"queue": {"disk_reserve": "1 MiB"}, **route(sink)})
    elemta.start()
    message_id = elemta.send(messages.AWKWARD, ["carol@far.example"])
    ports.eventually(lambda: elemta.events("delivery.deferred"), what="a first attempt")

    elemta.terminate()
    elemta.start()

    assert message_id in str(elemta.ask("queue", "list"))
    sink.answer(Step.RCPT, None)
    elemta.flush()
    (delivery,) = ports.eventually(lambda: sink.deliveries)
    assert messages.without_trace(delivery.content) == messages.lines(messages.AWKWARD)
    assert not elemta.maildir("alice@example.org")


def test_fault_3_a_refused_connection_keeps_the_mail(make_elemta: MakeDaemon) -> None:
    port = ports.free_port()
    elemta = make_elemta(
        {"routes": [{"match": "far.example", "via": [f"smtp://127.0.0.1:{port}"]}]}
    )
    elemta.start()
    elemta.send(messages.numbered("refused"), ["carol@far.example"])
    ports.eventually(lambda: elemta.events("delivery.deferred"), what="a first attempt")

    with Sink(port=port) as sink:
        elemta.flush()

        ports.eventually(lambda: sink.deliveries)
        assert sink.ids == {"refused": 1}
    assert not elemta.maildir("alice@example.org")


def test_fault_7_old_mail_that_is_deferred_or_held_outlives_a_start(
    make_elemta: MakeDaemon,
) -> None:
    port = ports.free_port()
    elemta = make_elemta(
        {
            "routes": [{"match": "far.example", "via": [f"smtp://127.0.0.1:{port}"]}],
            "queue": {"disk_reserve": "1 MiB"},
        }
    )
    elemta.data.mkdir()
    deferred = trio.run(_put, elemta.data / "queue", "deferred", 3 * DAY)
    held = trio.run(_put, elemta.data / "queue", "held", 30 * DAY)
    elemta.start()
    ports.eventually(lambda: elemta.events("delivery.deferred"), what="an attempt")

    elemta.terminate()
    elemta.start()

    assert deferred in elemta.tell("queue", "list")
    assert held in elemta.tell("queue", "list", "--view", "hold")
    with Sink(port=port) as sink:
        elemta.flush()
        ports.eventually(lambda: sink.ids["deferred"])
    assert elemta.waiting() == 1


async def _put(folder: Path, name: str, age: float) -> str:
    """Queue a message as it would have been so long ago."""
    envelope = Envelope(
        sender=Mailbox("alice", "example.org"),
        recipients=(Addressee(address=Mailbox("carol", "far.example")),),
        holder=Holder(owner="operator:root", since=time.time() - age) if name == "held" else None,
    )
    async with open_queue(
        folder, RetryPolicy(), lane=lambda to, _: to.address.domain, clock=lambda: time.time() - age
    ) as queue:
        return await queue.accept(envelope, messages.numbered(name))


def test_fault_18_a_loop_of_two_servers_ends_in_one_report(
    make_elemta: MakeDaemon, place: Path
) -> None:
    servers = []
    for name in ("first", "second"):
        (place / name).mkdir()
        servers.append(make_elemta(folder=place / name))
    for one, other in (servers, servers[::-1]):
        one.settings["routes"] = [
            {"match": "loop.example", "via": [f"smtp://127.0.0.1:{other.port}"]},
            {"match": "*", "via": [f"smtp://127.0.0.1:{other.port}"]},
        ]
    for server in servers:
        server.start()

    servers[0].send(messages.numbered("loop"), ["carol@loop.example"])

    def reports() -> list[bytes]:
        return [mail for server in servers for mail in server.maildir("alice@example.org")]

    (report,) = ports.eventually(reports, what="the end of the loop")
    assert b"Status: 5.4.6" in report  # RFC 3463 §3.5: a routing loop
    ports.eventually(lambda: not any(server.waiting() for server in servers))
    assert len(reports()) == 1


def test_fault_19_a_large_message_does_not_stand_in_memory(
    make_elemta: MakeDaemon, sink: Sink
) -> None:
    elemta = make_elemta(route(sink))
    elemta.start()
    elemta.send(messages.numbered("small"), ["carol@far.example", "bob@example.org"])
    ports.eventually(lambda: elemta.waiting() == 0)
    before = _peak(elemta)

    elemta.send(messages.numbered("large", 45 * 2**20), ["carol@far.example", "bob@example.org"])

    ports.eventually(lambda: elemta.waiting() == 0, within=60.0, what="an empty queue")
    assert sink.ids["large"] == 1
    assert _peak(elemta) - before < 20 * 2**20


def _peak(elemta: Daemon) -> int:
    """The most octets of memory that it ever had."""
    status = Path(f"/proc/{elemta.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def test_fault_23_what_a_client_asks_of_reports_is_passed_on_or_done(
    make_elemta: MakeDaemon, sink: Sink
) -> None:
    with Sink() as plain:
        plain.answer(Step.EHLO, offering("PIPELINING"))
        elemta = make_elemta()
        elemta.settings["routes"] = [
            {"match": "dsn.example", "via": [f"smtp://127.0.0.1:{sink.port}"]},
            {"match": "plain.example", "via": [f"smtp://127.0.0.1:{plain.port}"]},
        ]
        elemta.start()
        asked = "NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;carol@old.example"
        with smtplib.SMTP("127.0.0.1", elemta.port, "client.example", timeout=60.0) as client:
            client.ehlo()
            client.mail("alice@example.org", ["RET=HDRS", "ENVID=QQ314159"])
            client.rcpt("carol@dsn.example", asked.split())
            client.rcpt("carol@plain.example", asked.split())
            client.data(messages.numbered("asked"))

        (delivery,) = ports.eventually(lambda: sink.deliveries)
        assert "RET=HDRS" in delivery.commands[0]
        assert "ENVID=QQ314159" in delivery.commands[0]
        assert "NOTIFY=SUCCESS,FAILURE" in delivery.commands[1]
        assert "ORCPT=rfc822;carol@old.example" in delivery.commands[1]
        # The other host does not know reports: so we say that nothing more will be heard of it.
        (report,) = ports.eventually(lambda: elemta.maildir("alice@example.org"))
        assert plain.ids == {"asked": 1}
        assert b"Action: relayed" in report
        assert b"Original-Envelope-Id: QQ314159" in report
        assert b"Original-Recipient: rfc822; carol@old.example" in report
        assert b"carol@dsn.example" not in report


def test_fault_23_what_is_not_honoured_is_not_taken(elemta: Daemon) -> None:
    with smtplib.SMTP("127.0.0.1", elemta.port, "client.example", timeout=60.0) as client:
        client.ehlo()
        assert not client.has_extn("requiretls")
        assert client.mail("alice@example.org", ["REQUIRETLS"])[0] == 555
