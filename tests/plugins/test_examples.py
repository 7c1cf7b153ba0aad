"""The examples of docs/plugins.md: each does what that says, which has them as they are."""

from __future__ import annotations

import importlib
import inspect
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from argon2 import PasswordHasher
from typing_extensions import override

from elemta.plugins import (
    KINDS,
    Plugin,
    Tag,
    Transaction,
    Verdict,
    change,
)
from elemta.testing import CONFIG, TRUSTED, FakeDns, running
from examples.plugins.external import External
from examples.plugins.my_plugin import MyPlugin

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from elemta.testing import Elemta

ROOT = Path(__file__).parent.parent.parent
FILES = sorted((ROOT / "examples" / "plugins").glob("*.py"))

ANN, BOB = "ann@sender.example", "bob@us.example"


pytestmark = pytest.mark.usefixtures("virtual_time")


def having(
    plugin: str,
    settings: str = "{}",
    more: str = "",
    *,
    folder: Path | None = None,
    dns: FakeDns | None = None,
) -> AbstractAsyncContextManager[Elemta]:
    """A server with one of the examples."""
    entry = f"plugins: [{{name: 'examples.plugins.{plugin}', settings: {settings}}}]\n"
    return running(CONFIG + entry + more, folder=folder, dns=dns)


def classes() -> list[type[Plugin]]:
    modules = [importlib.import_module(f"examples.plugins.{path.stem}") for path in FILES]
    return [
        each
        for module in modules
        for each in vars(module).values()
        if inspect.isclass(each) and issubclass(each, Plugin) and each.__module__ == module.__name__
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_page_has_each_example_as_it_is(path: Path) -> None:
    assert f"```python\n{path.read_text()}```" in (ROOT / "docs" / "plugins.md").read_text()


def test_there_is_an_example_of_each_kind() -> None:
    own = {hook for each in classes() for hook in vars(each)}
    assert [kind for kind, of_kind in KINDS.items() if own.isdisjoint(of_kind)] == []


def test_the_smallest_has_ten_lines() -> None:
    lines = (ROOT / "examples" / "plugins" / "external.py").read_text().split("\n")
    assert len([line for line in lines if line]) == 10


async def test_external() -> None:
    async with running(plugins=[External()]) as elemta:
        await elemta.send(ANN, BOB)
        await elemta.send(ANN, BOB, client=TRUSTED)
        assert [each.header("X-External") for each in elemta.delivered] == [["yes"], []]


async def test_my_plugin() -> None:
    async with running(plugins=[MyPlugin()]) as elemta:
        assert (await elemta.send(ANN, BOB)).code == 250
        [told] = [each for each in elemta.log if each.event == "plugin.decided"]
        assert told.fields["note"] == "plugin executed successfully"


async def test_partners() -> None:
    async with having("partners:Partners", "{networks: [203.0.113.0/24]}") as elemta:
        assert str(await elemta.send(ANN, BOB)) == "554 5.7.1 you are not expected here"
        assert (await elemta.send(ANN, BOB, client="203.0.113.9")).code == 250


async def test_not_us() -> None:
    async with having("not_us:NotUs") as elemta:
        assert (await elemta.send(ANN, BOB, helo="MX.us.example")).text == "that is our name"
        assert (await elemta.send(ANN, BOB, helo="MX.us.example", client=TRUSTED)).code == 250
        assert elemta.counts("examples.plugins.not_us:NotUs").events == {"impostor": 1}


async def test_password_file(tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text(f"ann:{PasswordHasher(1, 8, 1).hash('secret')}\nbroken:hash\n")
    async with having("password_file:PasswordFile", f"{{file: {file}}}") as elemta:
        async with elemta.client() as client:
            await client.say("EHLO client.example")
            for user, password in (("bob", "secret"), ("ann", "guess"), ("broken", "hash")):
                assert (await client.log_in(user, password)).code == 535
        async with elemta.client() as client:
            await client.say("EHLO client.example")
            assert (await client.log_in("ann", "secret")).code == 235
            for line in ("MAIL FROM:<ann@us.example>", "RCPT TO:<x@far.example>"):
                assert (await client.say(line)).code == 250


async def test_no_forgery() -> None:
    async with having("no_forgery:NoForgery") as elemta:
        assert (await elemta.send("boss@US.example", BOB)).code == 550
        assert (await elemta.send("boss@us.example", BOB, client=TRUSTED)).code == 250
        assert [(await elemta.send(each, BOB)).code for each in (ANN, "")] == [250, 250]


async def test_moved() -> None:
    settings = "{mailboxes: {bob@us.example: bob@new.example}}"
    async with having("moved:Moved", settings) as elemta:
        reply = await elemta.send(ANN, "Bob@us.example")
        assert str(reply) == "551 5.1.6 the address is bob@new.example now"
        assert (await elemta.send(ANN, "eve@us.example")).code == 250


async def test_once_more() -> None:
    async with having("once_more:OnceMore", "{delay: 5 min, most: 2}") as elemta:

        async def codes(*senders: str) -> list[int]:
            return [(await elemta.send(sender, BOB)).code for sender in senders]

        assert await codes(ANN, ANN) == [451, 451]
        assert (await elemta.send(ANN, BOB, client=TRUSTED)).code == 250
        await elemta.advance(minutes=5)
        assert await codes(ANN, "eve@sender.example") == [250, 451]
        assert await codes("", ANN) == [451, 451], "the oldest is forgotten"


ATTACHED = """Subject: look
MIME-Version: 1.0
Content-Type: application/octet-stream; name="{name}"

...
"""


async def test_attachments() -> None:
    async with having("attachments:Attachments") as elemta:
        held = await elemta.send(ANN, BOB, ATTACHED.format(name="Invoice.pdf.EXE"))
        assert (await elemta.send(ANN, BOB, ATTACHED.format(name="invoice.pdf"))).code == 250
        [message] = elemta.held()
        assert message.id == elemta.timeline(held).message.id
        assert elemta.notes(held) == [
            "plugin:examples.plugins.attachments:Attachments: quarantine: "
            "there is a program in it: 'Invoice.pdf.EXE'"
        ]
        await elemta.release(held)
        assert len(elemta.delivered) == 2


async def test_linked_names() -> None:
    dns = FakeDns({("bad.example.list.example", "A"): ["127.0.0.2"]})
    text = "Subject: hi\n\nSee https://fine.example/ and HTTPS://Bad.example/?x\n"
    async with having("linked_names:LinkedNames", "{zone: list.example}", dns=dns) as elemta:
        assert (await elemta.send(ANN, BOB)).code == 250
        assert (await elemta.send(ANN, BOB, text)).text == "it has a link that is not safe"
        reply = await elemta.send(ANN, BOB, text, client=TRUSTED)
        assert elemta.notes(reply) == [
            "plugin:examples.plugins.linked_names:LinkedNames: found: "
            "bad.example is listed by list.example"
        ]


async def test_full_mailboxes() -> None:
    async with having("full_mailboxes:FullMailboxes", "{patience: 1 h}") as elemta:
        far = elemta.host("far.example")
        far.says["RCPT full@far.example"] = "452 4.2.2 mailbox full"
        far.says["RCPT odd@far.example"] = "451 4.3.0 odd"
        full = await elemta.send(ANN, "full@far.example", client=TRUSTED)
        odd = await elemta.send(ANN, "odd@far.example", client=TRUSTED)
        [recipient] = elemta.timeline(full).message.recipients
        assert recipient.due == elemta.clock() + 3600
        assert elemta.notes(odd) == []


async def test_transport_map(tmp_path: Path) -> None:
    file = tmp_path / "transport"
    file.write_text("far.example smtp://192.0.2.80:2525\n\n")
    settings = f"{{file: {file}, every: 10 s}}"
    async with having("transport_map:TransportMap", settings, folder=tmp_path) as elemta:
        elemta.network.host("192.0.2.80")
        elemta.network.host("192.0.2.81")
        await elemta.send(ANN, "x@far.example", client=TRUSTED)
        file.write_text("Far.example smtp://192.0.2.81\n")
        await elemta.advance(seconds=11)
        await elemta.send(ANN, "x@far.example", client=TRUSTED)
        assert [each.place for each in elemta.delivered] == ["192.0.2.80", "192.0.2.81"]


async def test_night_mail() -> None:
    name = "examples.plugins.night_mail:NightMail"
    tags = "{name: 'tests.plugins.test_examples:Bulk'}"
    config = CONFIG + f"plugins: [{tags}, {{name: '{name}'}}]\n"
    async with running(config) as elemta:  # at eight in the morning
        await elemta.send(ANN, BOB)
        assert elemta.delivered == []
        await elemta.advance(hours=11.9)
        assert elemta.delivered == []
        await elemta.advance(hours=8)
        assert len(elemta.delivered) == 1
        assert elemta.counts(name).events["delivered"] == 1


class Bulk(Plugin):
    """Says of all mail that it has time."""

    name = "bulk"

    @override
    async def on_mail(self, transaction: Transaction) -> Verdict:
        return change(Tag("bulk"))


async def test_letterbox(tmp_path: Path) -> None:
    name = "examples.plugins.letterbox:Letterbox"
    config = CONFIG.replace('["*"]', f'["*"], deliver: "plugin:{name}"')
    entry = f"plugins: [{{name: '{name}'}}]\n"
    async with running(config + entry, folder=tmp_path) as elemta:
        reply = await elemta.send(ANN, [BOB, "eve@us.example"])
        assert elemta.queued() == []
        id_ = elemta.timeline(reply).message.id
    [folder] = os.listdir(tmp_path / "plugins")
    file = tmp_path / "plugins" / folder / "mail.sqlite"
    with closing(sqlite3.connect(file)) as connection:
        rows = connection.execute("SELECT id, mailbox FROM mail ORDER BY number").fetchall()
    assert rows == [(id_, BOB), (id_, "eve@us.example")]
