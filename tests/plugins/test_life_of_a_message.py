"""What docs/plugins.md says of the hooks, held against a server."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typing_extensions import override

from elemta.plugins import (
    CONTINUE,
    HOOKS,
    KINDS,
    Accept,
    Content,
    Continue,
    Defer,
    Discard,
    Plugin,
    Quarantine,
    Reject,
    Session,
    Tag,
    Transaction,
    Verdict,
)
from elemta.plugins.loader import BUILT_IN
from elemta.testing import CONFIG, TRUSTED, running

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from elemta.testing import Elemta

FOLDER = Path(__file__).parent.parent.parent / "docs"
PAGE = (FOLDER / "plugins.md").read_text()

pytestmark = pytest.mark.usefixtures("virtual_time")


def _recording(hook: str) -> Callable[..., Awaitable[object]]:
    plain = getattr(Plugin, hook)

    async def record(self: Recorder, *shown: object) -> object:
        self.asked.append(hook)
        found: object = await plain(self, *shown)
        return found

    return record


class Recorder(Plugin):
    """Writes down what it is asked."""

    name = "recorder"

    def __init__(self) -> None:
        self.asked: list[str] = []


for _hook in HOOKS:
    if inspect.iscoroutinefunction(getattr(Plugin, _hook)):
        setattr(Recorder, _hook, _recording(_hook))


def test_the_page_has_every_hook_with_its_kind() -> None:
    rows = re.findall(r"^\| `(on_\w+)` \| (\w+) \|", PAGE, re.MULTILINE)
    assert sorted(rows) == sorted((hook, kind) for kind, of in KINDS.items() for hook in of)


def test_the_page_leads_to_the_page_of_each_built_in_plugin() -> None:
    section = PAGE.partition("## What ships with Elemta\n")[2].partition("\n## ")[0]
    found = re.findall(r"\[`([\w-]+)`\]\(([\w-]+\.md)", section)
    assert sorted(name for name, _ in found) == sorted(BUILT_IN)
    for name, page in found:
        heading = rf"(?mi)^#+ `?{name}`?$"
        assert re.search(heading, (FOLDER / page).read_text()), name


async def test_hooks_are_asked_in_the_order_of_the_page() -> None:
    recorder = Recorder()
    config = CONFIG.replace('["*"]', '[bob], deliver: "plugin:recorder"')
    async with running(config, [recorder]) as elemta:
        async with elemta.client() as client:
            for line in ("EHLO client.example", "MAIL FROM:<>", "RCPT TO:<bob@us.example>"):
                assert (await client.say(line)).code == 250
            assert (await client.say("RCPT TO:<nobody@us.example>")).code == 550
            assert (await client.send("Subject: hi\n\nHello.\n")).code == 250
            await client.say("QUIT")
        await elemta.settled()
        asked = [each for each in recorder.asked if each != "on_event"]
    told = [hook for hook, _ in re.findall(r"^\| `(on_\w+)` \| (\w+) \|", PAGE, re.MULTILINE)]
    # Delivery does not wait for the client to go.
    without = (
        *("on_authenticate", "on_verifier", "on_token", "on_account"),
        *("on_disconnect", "on_event", "on_route", "on_unknown"),
    )
    assert [each for each in asked if each not in without] == [
        each for each in told if each not in without
    ]
    assert (asked.count("on_unknown"), asked.count("on_disconnect")) == (1, 1)
    assert "on_event" in recorder.asked


class Says(Plugin):
    """Answers the same at each step it is told to."""

    name = "says"

    def __init__(self, verdict: Verdict, *steps: str) -> None:
        self._verdict = verdict
        self._steps = steps

    def _say(self, step: str) -> Verdict:
        return self._verdict if step in self._steps else CONTINUE

    @override
    async def on_connect(self, session: Session) -> Verdict:
        return self._say("connect")

    @override
    async def on_mail(self, transaction: Transaction) -> Verdict:
        return self._say("mail")

    @override
    async def on_message(self, transaction: Transaction, content: Content) -> Verdict:
        return self._say("message")


async def sent(elemta: Elemta) -> str:
    return str(await elemta.send("", "bob@us.example"))


@pytest.mark.parametrize(
    ("verdict", "at_connection", "at_message"),
    [
        (Defer((7, 1), "later"), "421 4.7.1 later", "451 4.7.1 later"),
        (Reject((7, 1), "no"), "554 5.7.1 no", "550 5.7.1 no"),
        (Reject((7, 1), "no", code=551), "554 5.7.1 no", "551 5.7.1 no"),
    ],
)
async def test_objections_are_heard_as_the_page_says(
    verdict: Verdict, at_connection: str, at_message: str
) -> None:
    for step, answer in (("connect", at_connection), ("message", at_message)):
        async with running(plugins=[Says(verdict, step)]) as elemta:
            assert await sent(elemta) == answer


@pytest.mark.parametrize(
    ("verdict", "asked_later"),
    [(CONTINUE, True), (Continue((Tag("seen"),)), True), (Accept("welcome"), False)],
)
async def test_who_accepts_is_the_last_to_be_asked_at_that_step(
    verdict: Verdict, asked_later: bool
) -> None:
    later = Recorder()
    async with running(plugins=[Says(verdict, "message"), later]) as elemta:
        reply = await elemta.send("", "bob@us.example")
        assert reply.code == 250
        assert (reply.lines[1:] == ("welcome",)) == isinstance(verdict, Accept)
        assert len(elemta.delivered) == 1
    assert ("on_message" in later.asked) == asked_later
    assert "on_mail" in later.asked


@pytest.mark.parametrize("step", ["connect", "mail", "message"])
async def test_what_is_discarded_or_held_is_never_gone_without_a_trace(step: str) -> None:
    async with running(plugins=[Says(Discard("unwanted"), step)]) as elemta:
        reply = await elemta.send("", "bob@us.example")
        assert reply.code == 250
        assert (elemta.queued(), elemta.delivered) == ([], [])
        assert elemta.notes(reply) == ["plugin:says: discard: unwanted"]
    async with running(plugins=[Says(Quarantine("odd"), step)]) as elemta:
        reply = await elemta.send("", "bob@us.example")
        assert (reply.code, len(elemta.held())) == (250, 1)
        assert elemta.notes(reply) == ["plugin:says: quarantine: odd"]


async def test_who_is_trusted_is_never_put_off() -> None:
    recorder = Recorder()
    async with running(plugins=[recorder]) as elemta:
        await elemta.send("", "bob@us.example", client=TRUSTED)
    assert "on_greylist" not in recorder.asked
