from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from typing_extensions import override

from elemta import log as logs
from elemta.config import ConfigError, Table
from elemta.control.interface import RequestError
from elemta.plugins import (
    CONTINUE,
    AddHeader,
    Continue,
    Plugin,
    PluginWith,
    Quarantine,
    Reject,
    Tag,
    Transaction,
    Verdict,
)
from elemta.testing import (
    CONFIG,
    EPOCH,
    STRANGER,
    TRUSTED,
    Elemta,
    HungUpError,
    PluginFailedError,
    running,
)

if TYPE_CHECKING:
    from elemta.plugins import Content
    from elemta.protocol import Mailbox

HERE = "tests.testing.test_running"


class Settings(Table, frozen=True):
    #: Whom it does not like.
    recipient: str = "eve@us.example"


class Picky(PluginWith[Settings]):
    """Marks mail, and turns one recipient down."""

    name = "picky"

    @override
    async def start(self) -> None:
        self.tools.count("started")

    @override
    async def on_rcpt(self, transaction: Transaction, recipient: Mailbox) -> Verdict:
        if str(recipient) == self.settings.recipient:
            return Reject((7, 1), "not her")
        return Continue((Tag("seen"),))

    @override
    async def on_message(self, transaction: Transaction, content: Content) -> Verdict:
        return Continue((AddHeader("X-Seen", "yes"),))

    @override
    async def stop(self) -> None:
        self.tools.count("stopped")


class Raises(Plugin):
    name = "raises"

    @override
    async def on_mail(self, transaction: Transaction) -> Verdict:
        raise LookupError("a bug")


class Holds(Plugin):
    name = "holds"

    @override
    async def on_message(self, transaction: Transaction, content: Content) -> Verdict:
        return Quarantine("looks odd")


async def test_mail_comes_in_and_goes_out(elemta: Elemta) -> None:
    far = elemta.host("far.example")
    reply = await elemta.send(
        "ann@sender.example",
        ["bob@us.example", "x@far.example"],
        "Subject: hi\n\n.\n",
        client=TRUSTED,
    )
    assert reply.code == 250
    ours, theirs = elemta.delivered
    assert (ours.sender, ours.recipients, ours.place) == (
        "ann@sender.example",
        ("bob@us.example",),
        "maildir",
    )
    assert theirs == far.taken[0]
    assert theirs.content.endswith(b"Subject: hi\r\n\r\n.\r\n")
    assert theirs.header("subject") == ["hi"]
    assert elemta.queued() == []
    assert len(elemta.timeline(reply).attempts) == 2
    assert not [each for each in elemta.log if each.event == "plugin.failed"]


@pytest.mark.parametrize("elemta_plugins", [[Picky(Settings())]])
async def test_plugins_that_are_there_are_asked(elemta: Elemta) -> None:
    assert (await elemta.send("", "eve@us.example")).text == "not her"
    reply = await elemta.send("", ["eve@us.example", "bob@us.example"])
    assert elemta.delivered[0].header("x-seen") == ["yes"]
    assert elemta.notes(reply) == ["plugin:picky: tag seen", "plugin:picky: add header X-Seen"]
    assert elemta.counts("picky").asked == 4
    with pytest.raises(LookupError):
        elemta.counts("other")


@pytest.mark.parametrize("elemta_config", [CONFIG + f"plugins: [{{name: '{HERE}:Picky'}}]"])
@pytest.mark.parametrize("elemta_plugins", [[Holds()]])
async def test_a_reload_keeps_what_is_given_and_ends_what_is_gone(elemta: Elemta) -> None:
    counts = elemta.counts(f"{HERE}:Picky")
    assert (await elemta.send("", "eve@us.example")).code == 550
    with pytest.raises(ConfigError):
        await elemta.reload(CONFIG + "plugins: [{name: nobodys}]")
    assert (await elemta.send("", "eve@us.example")).code == 550
    assert len([each for each in elemta.errors if each.event == "config.refused"]) == 1
    elemta.errors.clear()
    assert counts.events["stopped"] == 0
    async with elemta.client() as client:
        await elemta.reload(CONFIG)
        for line in ("EHLO client.example", "MAIL FROM:<>"):
            assert (await client.say(line)).code == 250
        assert (await client.say("RCPT TO:<eve@us.example>")).code == 550
    reply = await elemta.send("", "eve@us.example")
    assert counts.events["stopped"] == 1
    assert [each.id for each in elemta.held()] == [elemta.timeline(reply).message.id]
    await elemta.release(reply)
    assert elemta.held() == []
    assert len(elemta.delivered) == 1


@pytest.mark.parametrize("elemta_config", [CONFIG + "queue: {lifetime: 1 d}"])
async def test_days_pass_in_no_time(elemta: Elemta) -> None:
    far, home = elemta.host("far.example"), elemta.host("sender.example")
    far.says["RCPT"] = "450 4.2.1 later"
    await elemta.send("ann@sender.example", "x@far.example", client=TRUSTED)
    assert elemta.clock() == EPOCH
    await elemta.advance(hours=1)
    assert len(elemta.queued()) == 1
    await elemta.advance(days=1)
    assert elemta.clock() == EPOCH + 86400 + 3600
    assert elemta.queued() == []
    warning, failure = home.taken
    assert b"450 4.2.1 later" in failure.content
    assert warning.recipients == failure.recipients == ("ann@sender.example",)


async def test_a_client_may_do_what_clients_do(elemta: Elemta) -> None:
    async with elemta.client(early=b"EHLO too.early\r\n") as client:
        assert client.greeting.code == 554
        with pytest.raises(HungUpError):
            await client.hear()
        with pytest.raises(HungUpError):
            await client.say("NOOP")
    async with elemta.client() as client:
        assert client.greeting.code == 220
        await trio.sleep(3600)
        assert (await client.hear()).code == 421
    async with elemta.client() as client:
        assert (await client.send("Subject: early\n\n")).code == 503
        client.hang_up()


async def test_a_failure_that_nobody_expects_fails_the_test(
    autojump_clock: trio.testing.MockClock,
) -> None:
    with pytest.raises(PluginFailedError, match="LookupError: a bug"):
        async with running(plugins=[Raises()]) as elemta:
            assert (await elemta.send("", "bob@us.example")).code == 451
    async with running(plugins=[Raises()]) as elemta:
        assert (await elemta.send("", "bob@us.example")).code == 451
        [error] = elemta.errors
        assert error.fields["plugin"] == "raises"
        elemta.errors.clear()


async def test_what_a_test_raises_is_raised(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(KeyError):
        async with running():
            raise KeyError


async def test_what_a_test_raises_has_the_reason_with_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def test() -> None:
        async with running(plugins=[Raises()]) as elemta:
            assert (await elemta.send("", "bob@us.example")).code == 250

    with pytest.raises(AssertionError) as raised:
        await test()
    assert "LookupError: a bug" in raised.value.__notes__[0]


async def test_a_misspelt_hook_is_found(autojump_clock: trio.testing.MockClock) -> None:
    class Misspelt(Plugin):
        name = "misspelt"

        async def on_rctp(self) -> Verdict:
            return CONTINUE

    with pytest.raises(ConfigError, match="there is no such hook"):
        async with running(plugins=[Misspelt()]):
            raise AssertionError


async def test_a_plugin_that_cannot_start_is_told(autojump_clock: trio.testing.MockClock) -> None:
    class Broken(Plugin):
        name = "broken"

        @override
        async def start(self) -> None:
            raise OSError("no such file")

    with pytest.raises(ConfigError, match="no such file"):
        async with running(plugins=[Broken()]):
            raise AssertionError


async def test_without_virtual_time_it_says_so() -> None:
    with pytest.raises(RuntimeError, match="virtual time"):
        async with running():
            raise AssertionError


@pytest.mark.parametrize("elemta_plugins", [[Picky(Settings())]])
async def test_who_is_named_nowhere_is_not_there(elemta: Elemta) -> None:
    refused = await elemta.send("", "eve@us.example")
    for of in (refused, "01MCC5RM00A7Z8C2021YKME5W0"):
        with pytest.raises(LookupError):
            elemta.timeline(of)


@pytest.mark.parametrize("elemta_plugins", [[Picky(Settings())]])
async def test_mail_may_be_handed_in_otherwise(elemta: Elemta) -> None:
    with pytest.raises(RequestError, match="not her"):
        await elemta.submit("ann@us.example", "eve@us.example")
    id_ = await elemta.submit("", ["bob@us.example"])
    assert elemta.timeline(id_).message.origin.listener == "api"
    assert elemta.delivered[0].header("Date")


MX = """
plugins:
  - name: early-talker
  - name: spf
  - name: dkim
  - name: arc
  - name: dmarc
  - name: authentication-results
  - name: greylisting
"""


@pytest.mark.parametrize("elemta_config", [CONFIG + MX])
async def test_what_ships_judges_in_memory_as_elsewhere(elemta: Elemta) -> None:
    elemta.dns.text("sender.example", f"v=spf1 ip4:{STRANGER} -all")
    elemta.dns.text("_dmarc.sender.example", "v=DMARC1; p=reject")
    assert (await elemta.send("ann@sender.example", "bob@us.example")).code == 451
    await elemta.advance(hours=1)
    reply = await elemta.send("ann@sender.example", "bob@us.example")
    assert "dmarc=pass" in elemta.delivered[0].header("Authentication-Results")[0]
    assert any("dmarc=pass" in note for note in elemta.notes(reply))
    forger = "192.0.2.99"
    await elemta.send("ann@sender.example", "bob@us.example", client=forger)
    await elemta.advance(hours=1)
    refused = await elemta.send("ann@sender.example", "bob@us.example", client=forger)
    assert "DMARC" in refused.text


async def test_a_large_message_comes_through(elemta: Elemta) -> None:
    large = "Subject: large\n\n" + ("x" * 900 + "\n") * 1000
    assert (await elemta.send("", "bob@us.example", large)).code == 250
    assert elemta.delivered[0].content.count(b"x" * 900) == 1000


async def test_the_log_is_whole_whatever_level_somebody_has_left(
    autojump_clock: trio.testing.MockClock,
) -> None:
    logs.set_level(logs.Level.ERROR)
    try:
        async with running() as elemta:
            assert (await elemta.send("ann@sender.example", "bob@us.example")).code == 250
        assert "message.received" in [each.event for each in elemta.log]
        assert logs.level() is logs.Level.ERROR
    finally:
        logs.set_level(None)
