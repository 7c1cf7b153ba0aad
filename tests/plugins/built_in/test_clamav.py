from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from elemta.config import ConfigError, Service, check
from elemta.plugins import CONTINUE, Continue, Defer, Discard, Quarantine, Reject, Tag
from elemta.plugins.built_in.clamav import ClamAv, ScanError, Scanned, Settings
from elemta.testing import FakeContent, a_transaction, some_tools
from elemta.units import Octets
from tests.dialogue import Server
from tests.plugins.built_in.service import FakeService

if TYPE_CHECKING:
    from trio.testing import MockClock

    from elemta.plugins import Transaction, Verdict

CLEAN = b"Subject: hello\r\n\r\n" + b"x" * 5000 + b"\r\n"
SICK = b"Subject: hello\r\n\r\nMALWARE\r\n"


class Clamd:
    """Finds ``MALWARE``, as clamd does.

    Attributes:
        answer: said in place of what it finds.
        most: octets that it takes.
        chunks: sizes of what it was shown last.
    """

    def __init__(self) -> None:
        self.answer: bytes | None = None
        self.most = 10_000
        self.chunks: list[int] = []

    async def __call__(self, stream: trio.abc.Stream) -> None:
        held = b""

        async def take(size: int) -> bytes:
            nonlocal held
            while len(held) < size:
                some = await stream.receive_some(1000)
                assert some
                held += some
            taken, held = held[:size], held[size:]
            return taken

        command = b""
        while not command.endswith(b"\0"):
            command += await take(1)
        if command == b"zPING\0":
            await stream.send_all(self.answer or b"PONG\0")
            return
        assert command == b"zINSTREAM\0"
        shown, self.chunks = b"", []
        while size := int.from_bytes(await take(4), "big"):
            shown += await take(size)
            self.chunks.append(size)
            if len(shown) > self.most:
                await stream.send_all(b"INSTREAM size limit exceeded. ERROR\0")
                return
        found = b"stream: Test.Malware-1.UNOFFICIAL FOUND\0" if b"MALWARE" in shown else None
        await stream.send_all((found or b"stream: OK\0") if self.answer is None else self.answer)


@pytest.fixture
def clamd() -> Clamd:
    return Clamd()


@pytest.fixture
def service(nursery: trio.Nursery, clamd: Clamd) -> FakeService:
    return FakeService(nursery, clamd)


def a_plugin(service: FakeService, settings: Settings | None = None) -> ClamAv:
    plugin = ClamAv(settings or Settings())
    plugin.tools = some_tools("clamav", connect=service)
    return plugin


async def verdict(plugin: ClamAv, octets: bytes, transaction: Transaction | None = None) -> Verdict:
    return await plugin.on_inspect(transaction or a_transaction(), FakeContent(octets))


async def test_clean_mail_goes_on_and_was_shown_whole(clamd: Clamd, service: FakeService) -> None:
    plugin, transaction = a_plugin(service), a_transaction()
    assert await verdict(plugin, CLEAN, transaction) is CONTINUE
    assert sum(clamd.chunks) == len(CLEAN)
    assert max(clamd.chunks) <= 1000  # the pieces of the content: it is never in one
    assert transaction.results.told() == [("clamav", "clean")]
    assert plugin.tools.meters.scans == {"clean": 1}
    assert sum(plugin.tools.meters.scan_seconds.counts) == 1


async def test_words_are_no_malware(service: FakeService) -> None:
    # Fault 9 of the original: "virus" in a body was a virus, and no scanner was ever asked.
    words = b"Subject: virus\r\n\r\nvirus malware trojan\r\n"
    assert await verdict(a_plugin(service), words) is CONTINUE
    assert service.connections == 1


@pytest.mark.parametrize(
    ("infected", "wanted"),
    [
        ("reject", Reject((7, 1), "this message has malware in it", note="NAME")),
        ("quarantine", Quarantine("NAME")),
        ("discard", Discard("NAME")),
    ],
)
async def test_the_configuration_says_what_becomes_of_malware(
    service: FakeService, infected: str, wanted: Verdict
) -> None:
    plugin = a_plugin(service, check({"infected": infected}, Settings))
    transaction = a_transaction()
    found = await verdict(plugin, SICK, transaction)
    named = "infected: Test.Malware-1.UNOFFICIAL"
    assert str(found) == str(wanted).replace("NAME", named)
    # Whoever sent it need not learn what finds it.
    assert "Test.Malware" not in str(found.reply)
    assert transaction.results.told() == [("clamav", named)]
    assert plugin.tools.meters.scans == {"infected": 1}


@pytest.mark.parametrize("by", ["us", "clamd"])
@pytest.mark.parametrize(
    ("too_large", "wanted"),
    [
        ("continue", Continue((Tag("unscanned"),), note="not scanned: too large")),
        (
            "defer",
            Defer((3, 4), "this message is too large to be scanned", note="not scanned: too large"),
        ),
        (
            "reject",
            Reject(
                (3, 4), "this message is too large to be scanned", note="not scanned: too large"
            ),
        ),
        ("quarantine", Quarantine("not scanned: too large", changes=(Tag("unscanned"),))),
    ],
)
async def test_what_is_too_large_is_never_told_to_be_clean(
    clamd: Clamd, service: FakeService, by: str, too_large: str, wanted: Verdict
) -> None:
    clamd.most = 1000
    plugin = a_plugin(service, check({"too_large": too_large, "max_size": "20 KiB"}, Settings))
    transaction = a_transaction()
    octets = CLEAN * 10 if by == "us" else CLEAN
    assert await verdict(plugin, octets, transaction) == wanted
    assert service.connections == (by == "clamd")
    assert transaction.results.told() == [("clamav", "not scanned: too large")]
    assert plugin.tools.meters.scans == {"too_large": 1}


@pytest.mark.parametrize(
    "answer",
    [
        *(b"", b"\0", b"stream: \0", b"UNKNOWN COMMAND\0", b"stream: Can't open file ERROR\0"),
        *(b"x" * 10_000, b"stream: OK, or not\0", b"stream: OK\nstream: X FOUND but no\0"),
    ],
)
async def test_an_answer_that_says_nothing_is_no_clean_bill(
    clamd: Clamd, service: FakeService, answer: bytes
) -> None:
    clamd.answer = answer
    plugin, transaction = a_plugin(service), a_transaction()
    with pytest.raises(ScanError):
        await verdict(plugin, CLEAN, transaction)
    assert transaction.results.first(Scanned) is None
    assert plugin.tools.meters.scans == {"failed": 1}


async def test_a_name_from_the_wire_cannot_write_into_the_log(
    clamd: Clamd, service: FakeService
) -> None:
    clamd.answer = b"stream: a\x1b[2Jb\xff c" + b"d" * 500 + b" FOUND\0"
    transaction = a_transaction()
    await verdict(a_plugin(service), CLEAN, transaction)
    scanned = transaction.results.first(Scanned)
    assert scanned is not None
    assert scanned.signature.startswith("a?[2Jb?c")
    assert len(scanned.signature) == 200


async def test_a_scanner_that_does_not_answer_is_given_up(
    service: FakeService, autojump_clock: MockClock
) -> None:
    service.deaf = True
    with pytest.raises(trio.TooSlowError):
        await verdict(a_plugin(service), CLEAN)
    assert trio.current_time() == pytest.approx(5)


async def test_a_scan_that_is_broken_off_leaves_no_connection(
    clamd: Clamd, service: FakeService, autojump_clock: MockClock
) -> None:
    plugin = a_plugin(service)

    async def dawdles(_: trio.abc.Stream) -> None:
        await trio.sleep(10)

    service.serves = dawdles
    with trio.move_on_after(3):
        await verdict(plugin, CLEAN)
    await trio.sleep(10)
    assert service.open == 0
    assert plugin.tools.meters.scans == {"failed": 1}


async def test_no_more_scans_go_on_at_a_time_than_there_are_connections(
    service: FakeService,
) -> None:
    plugin = a_plugin(service, check({"connections": 2}, Settings))
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(verdict, plugin, CLEAN)
    assert (service.connections, service.most) == (10, 2)


async def test_it_says_that_the_scanner_is_not_there_until_it_is(
    service: FakeService, clamd: Clamd, autojump_clock: MockClock
) -> None:
    plugin = a_plugin(service)
    service.down = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(plugin.run)
        await trio.sleep(90)
        service.down, clamd.answer = False, b"who?\0"
        await trio.sleep(60)
        clamd.answer = None
    assert trio.current_time() == pytest.approx(180)


async def test_mail_waits_with_its_sender_as_long_as_there_is_no_scanner(
    service: FakeService, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = Server(a_plugin(service))
    nursery.start_soon(server.run)
    await server.play("S: 220 ...\nC: EHLO client.example\nS: 250 ...")
    for down, answer in ((True, "451 4.3.0 try again later"), (False, "250 ...")):
        service.down = down
        await server.play(f"""
            C: MAIL FROM:<>
            S: 250 ...
            C: RCPT TO:<alice@here.example>
            S: 250 ...
            C: DATA
            S: 354 ...
            C: Subject: hello
            C:
            C: .
            S: {answer}
        """)


def test_settings_are_checked_with_their_place() -> None:
    assert ClamAv.configured({}, "").settings.address == Service.parse("/run/clamav/clamd.ctl")
    for settings, problem in (
        ({"address": "clamd"}, "expected HOST:PORT or the path of a socket"),
        ({"address": 3310}, "expected HOST:PORT or the path of a socket, not 3310"),
        ({"infected": "continue"}, "expected discard or quarantine or reject"),
        ({"max_size": 100}, "expected a number with a unit"),
        ({"connections": 0}, "at least 1"),
        ({"connect_timeout": "0 s"}, "connect_timeout must be more than 0 s"),
    ):
        with pytest.raises(ConfigError, match=problem):
            ClamAv.configured(settings, "plugins[0].settings")
    assert Octets(25 * 2**20) == Settings().max_size
