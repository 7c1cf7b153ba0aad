"""How the parts of a server are, and how that is told."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, ClassVar

import msgspec
import pytest
import trio
import trio.testing
import yaml
from typing_extensions import override

from elemta import log as logs
from elemta.config import ConfigError, load
from elemta.control.facts import Hypothesis, Submission
from elemta.control.interface import RequestError, UnavailableError, UnknownError
from elemta.delivery.routing import Router
from elemta.listener.sockets import bind
from elemta.net.dialogues import Dialogue
from elemta.parts import Outside, Parts
from elemta.plugins import Plugin, Tools
from elemta.privileges import Files
from elemta.protocol import parse_mailbox
from elemta.queue import Result, StoreReader, StoreUnavailable
from elemta.supervision import Supervision
from elemta.testing.stand_ins import at_once
from tests.net.certificates import Authority
from tests.queue.mail import CONTENT, Disks, envelope, now, settle_next, virtual_queue

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from elemta.config import Config

CONFIG = """
hostname: mx.example.org
data_dir: {data}
listeners: [{{name: mx, address: ["127.0.0.1:0", "127.0.0.2:0"]}}]
"""


@asynccontextmanager
async def parts_of(
    folder: Path,
    supervision: Supervision | None = None,
    disks: Disks | None = None,
    reread: Callable[[], Config] | None = None,
    more: str = "",
) -> AsyncGenerator[Parts]:
    """A server none of whose tasks run."""
    config = load(CONFIG.format(data=folder) + more)
    bound = bind(config)
    try:
        async with virtual_queue(folder / "queue", disk=disks or (lambda store: store)) as queue:
            with StoreReader(folder / "queue") as reader:
                parts = Parts(
                    config,
                    bound,
                    queue,
                    reader,
                    Router(config),
                    supervision or Supervision(),
                    Files(limit=5000, connections=2000, deliveries=500),
                    reread=reread,
                    clock=now,
                    file="/etc/elemta/elemta.yaml",
                    outside=Outside(in_thread=at_once),  # virtual time knows nothing of threads
                )
                async with parts.plugins_living():
                    yield parts
    finally:
        for each in bound:
            each.socket.close()


async def test_a_server_that_cannot_remember_wrong_passwords_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "login").mkdir()
    (tmp_path / "login" / "secret").write_bytes(b"no secret")
    with pytest.RaisesGroup(ConfigError, allow_unwrapped=True, flatten_subgroups=True):
        async with parts_of(tmp_path):
            raise AssertionError


def certified(authority: Authority, **more: object) -> str:
    """The table of a configuration that names one certificate."""
    return yaml.safe_dump({"tls": {"certificates": [authority.issue("mx.example", **more)]}})


async def test_a_certificate_that_has_run_out_is_told(tmp_path: Path) -> None:
    more = certified(Authority(tmp_path), not_after=datetime(2020, 1, 1, tzinfo=UTC))
    async with parts_of(tmp_path, more=more) as parts:
        assert parts.status().troubles == ("the certificate of mx.example has run out",)


async def test_whoever_connects_is_shown_new_certificates_within_a_minute(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    authority = Authority(tmp_path)
    async with parts_of(tmp_path, more=certified(authority)) as parts:
        (before,) = parts.house.certificates.known
        nursery.start_soon(parts.renew_certificates)
        authority.issue("new.example", file="mx")
        await trio.sleep(61)
        (after,) = parts.house.certificates.known
    assert (before.name, after.name) == ("mx.example", "new.example")


async def test_a_reload_shows_new_certificates_and_is_not_held_up_by_wrong_ones(
    tmp_path: Path,
) -> None:
    authority = Authority(tmp_path)
    more = certified(authority)
    again = CONFIG.format(data=tmp_path) + more
    async with parts_of(tmp_path, more=more, reread=lambda: load(again)) as parts:
        authority.issue("new.example", file="mx")
        for dry_run in (True, False):
            (change,) = await parts.reload(dry_run=dry_run)
            assert change.place == "tls.certificates[0]"
            assert change.before is not None
            assert change.before.startswith("mx.example until ")
            assert change.after is not None
            assert change.after.startswith("new.example until ")
        assert await parts.reload() == ()
        (after,) = parts.house.certificates.known
        assert after.name == "new.example"
        assert parts.troubles() == []
        (tmp_path / "mx.key").write_bytes(b"no key")
        assert await parts.reload() == ()
        assert parts.house.certificates.known == (after,)
        (trouble,) = parts.troubles()
        assert trouble.startswith("new certificates are not shown: tls.certificates[0]")
        authority.issue("mx.example", file="mx")
        await parts.reload()
        assert parts.troubles() == []


async def test_what_waits_is_counted_from_the_last_start_on(tmp_path: Path) -> None:
    async with parts_of(tmp_path) as parts:
        assert parts.summary() == "0 queued, 0 active, 0 clients"
        for _ in range(3):
            await parts.queue.accept(envelope(), CONTENT)
        assert parts.summary() == "3 queued, 0 active, 0 clients"
        await settle_next(parts.queue, Result.DELIVERED)
        with await parts.queue.claim():
            assert parts.summary() == "2 queued, 1 active, 0 clients"
    async with parts_of(tmp_path) as parts:
        assert parts.summary() == "2 queued, 0 active, 0 clients"
        parts.drain()
        assert parts.summary() == "stopping; 2 queued, 0 active, 0 clients"


async def test_a_store_that_cannot_write_is_told_until_it_can(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    disks = Disks()
    async with parts_of(tmp_path, disks=disks) as parts:
        disks.disk.full = True
        with pytest.raises(StoreUnavailable):
            await parts.queue.accept(envelope(), CONTENT)
        told = "no mail is taken, as the queue cannot be written: database or disk is full"
        assert parts.summary() == told
        assert parts.status().troubles == (told,)
        disks.disk.full = False
        await trio.sleep(61)  # without a thread nobody looks sooner
        assert parts.troubles() == []


async def test_a_part_that_failed_is_told_until_it_has_been_sound_for_a_minute(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    supervision, failures = Supervision(), [OSError("no such address")]

    async def run() -> None:
        if failures:
            raise failures.pop()
        await trio.sleep_forever()

    async with parts_of(tmp_path, supervision) as parts:
        nursery.start_soon(supervision.keep, "control", run)
        await trio.sleep(0.5)
        assert parts.summary() == "control failed: OSError: no such address"
        (part,) = [each for each in parts.status().parts if each.name == "control"]
        assert (part.running, part.restarts) == (False, 0)
        await trio.sleep(30)
        assert len(parts.troubles()) == 1
        await trio.sleep(60)
        assert parts.troubles() == []
    nursery.cancel_scope.cancel()


async def test_status_has_each_listener_with_all_its_addresses(tmp_path: Path) -> None:
    async with parts_of(tmp_path) as parts:
        status = parts.status()
    (listener,) = status.listeners
    assert (listener.name, listener.kind, listener.connections) == ("mx", "smtp", 0)
    assert [address.split(":")[0] for address in listener.addresses] == ["127.0.0.1", "127.0.0.2"]
    assert (status.deliveries, status.files, status.stopping) == (500, 5000, False)


#: Whose password nobody can read.
LOGIN = "{user: us, password_file: /nowhere/password}"


async def test_a_reload_is_all_or_nothing_and_dry_if_so_wished(tmp_path: Path) -> None:
    text = CONFIG.format(data=tmp_path)
    wanted = [text]

    def reread() -> Config:
        return load(wanted[-1], "elemta.yaml")

    async with parts_of(tmp_path, reread=reread) as parts:
        assert await parts.reload() == ()
        wanted.append(text + "limits: {connections: 7}\nuser: mail\n")
        dry = await parts.reload(dry_run=True)
        assert [change.place for change in dry] == ["limits.connections", "user"]
        assert parts.status().places == 2000
        assert await parts.reload() == dry
        assert (parts.status().places, parts.config.user) == (7, None)
        wanted.append(text + "limits: {connections: none}\n")
        for dry_run in (True, False):
            with pytest.raises(ConfigError, match=r"limits\.connections"):
                await parts.reload(dry_run=dry_run)
        wanted.append(text + "limits: {connections: 8}\nplugins: [{name: greylost}]\n")
        for dry_run in (True, False):
            with pytest.raises(ConfigError, match=r"plugins\[0\]\.name"):
                await parts.reload(dry_run=dry_run)
        route = f"routes: [{{match: b.example, via: ['smtp://a.example'], login: {LOGIN}}}]\n"
        wanted.append(text + "limits: {connections: 9}\n" + route)
        for dry_run in (True, False):
            with pytest.raises(ConfigError, match=r"routes\[0\]\.login\.password_file"):
                await parts.reload(dry_run=dry_run)
        pair = f"{{certificate: {tmp_path}/none.crt, key: {tmp_path}/none.key}}"
        wanted.append(text + f"limits: {{connections: 9}}\ntls: {{certificates: [{pair}]}}\n")
        for dry_run in (True, False):
            with pytest.raises(ConfigError, match=r"tls\.certificates\[0\]"):
                await parts.reload(dry_run=dry_run)
        assert parts.status().places == 7


async def test_a_sandbox_has_nothing_to_reload(tmp_path: Path) -> None:
    async with parts_of(tmp_path) as parts:
        for dry_run in (True, False):
            with pytest.raises(RequestError, match="no configuration file"):
                await parts.reload(dry_run=dry_run)


async def test_what_runs_is_shown_as_its_file_would_have_it(tmp_path: Path) -> None:
    text = CONFIG.format(data=tmp_path)
    async with parts_of(tmp_path, reread=lambda: load(text + "limits: {memory: 1 MiB}")) as parts:
        before = parts.configuration()
        assert before.file == "/etc/elemta/elemta.yaml"
        limits = {"connections": 2000, "memory": "256 MiB", "transcripts": 1000}
        assert before.values["limits"] == limits
        await parts.reload()
        assert parts.configuration().values["limits"] == {**limits, "memory": "1 MiB"}


async def test_a_reload_remembers_fewer_conversations_and_ends_another_level_of_the_log(
    tmp_path: Path,
) -> None:
    text = CONFIG.format(data=tmp_path)
    reread = text + "limits: {transcripts: 1}\n"
    async with parts_of(tmp_path, reread=lambda: load(reread)) as parts:
        for id_ in ("s1", "s2"):
            dialogue = Dialogue(parts.dialogues, "in", "mx", "192.0.2.1:1", id_)
            dialogue.about("M1")
            dialogue.end()
        logs.set_level(logs.Level.ERROR)
        await parts.reload()
        assert [each.id for each in parts.dialogues.about("M1")] == ["s2"]
        assert logs.level() < logs.Level.ERROR


async def test_a_plugin_is_switched_until_the_next_reload(tmp_path: Path) -> None:
    more = "plugins: [{name: recipient-limit, timeout: 5 s}]\n"
    text = CONFIG.format(data=tmp_path) + more
    async with parts_of(tmp_path, reread=lambda: load(text), more=more) as parts:
        (told,) = parts.plugins()
        assert (told.name, told.enabled, told.hooks) == ("recipient-limit", True, ("on_rcpt",))
        assert (told.timeout, told.asked, told.failed) == (5, 0, 0)
        assert (
            told.about == "Makes a stranger split what goes to many; who may relay is not bothered."
        )
        parts.switch_plugin("recipient-limit", enabled=False)
        assert not parts.plugins()[0].enabled
        with pytest.raises(UnknownError, match="no plugin 'nobody'"):
            parts.switch_plugin("nobody", enabled=False)
        assert await parts.reload() == ()
        assert parts.plugins()[0].enabled


def handed(to: str = "x@far.example", **what: object) -> Submission:
    right = Submission(sender=None, recipients=(parse_mailbox(to),), content=CONTENT)
    return msgspec.structs.replace(right, **what)


async def test_what_is_handed_in_is_durable_or_told_by_its_place(tmp_path: Path) -> None:
    more = "domains: [{name: example.org, mailboxes: [alice]}]\n"
    async with parts_of(tmp_path, more=more) as parts:
        first = await parts.submit(handed(key="k"), "token:shop")
        assert not first.again
        again = await parts.submit(handed(key="k"), "token:shop")
        assert (again.id, again.again) == (first.id, True)
        assert parts.queue.events.counts["Queued"] == 1
        with pytest.raises(RequestError, match="used for another message") as caught:
            await parts.submit(handed(key="k", tags=("t",)), "token:shop")
        assert caught.value.place == "key"
        with pytest.raises(RequestError, match=r"550 5\.1\.1 no such mailbox") as caught:
            await parts.submit(handed("nobody@example.org"), "token:shop")
        assert caught.value.place == "recipients[0]"
        parts.drain()
        with pytest.raises(UnavailableError, match="421"):
            await parts.submit(handed(), "token:shop")


async def test_without_a_disk_nothing_can_be_handed_in(tmp_path: Path) -> None:
    disks = Disks()
    async with parts_of(tmp_path, disks=disks) as parts:
        disks.disk.full = True
        with pytest.raises(UnavailableError, match="451"):
            await parts.submit(handed(), "token:shop")
        assert parts.queue.events.counts["Queued"] == 0


async def test_why_and_what_if_are_answered(tmp_path: Path) -> None:
    more = "domains: [{name: example.org, mailboxes: [alice]}]\n"
    async with parts_of(tmp_path, more=more) as parts:
        found = await parts.explain(Hypothesis(recipient=parse_mailbox("alice@example.org")))
        assert found.summary == "It would be taken, and tried at once"
        id_ = await parts.queue.accept(envelope("alice@example.org"), CONTENT)
        with StoreReader(tmp_path / "queue") as reader:
            timeline = reader.timeline(id_)
        assert timeline is not None
        assert parts.why(timeline).summary.startswith("1 of 1 recipient left to try")


class Sharing(Plugin):
    name = "sharing"
    found: ClassVar[list[Tools]] = []

    @override
    async def start(self) -> None:
        self.found.append(self.tools)


async def test_entries_of_one_name_share_what_outlives_a_reload(tmp_path: Path) -> None:
    more = "plugins: [{name: tests.test_parts:Sharing}, {name: tests.test_parts:Sharing}]\n"
    async with parts_of(tmp_path, more=more) as parts, parts.plugins_living():
        one, other = Sharing.found
        assert one.shared is other.shared
        assert one.folder == other.folder
        assert one.folder.parent == tmp_path / "plugins"
