"""What would become of a message."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from typing_extensions import override

from elemta.control.interface import RequestError
from elemta.plugins import (
    CONTINUE,
    Chain,
    Content,
    Defer,
    Discard,
    Loaded,
    Plugin,
    Quarantine,
    Reject,
    Session,
    Transaction,
    Verdict,
)
from elemta.queue import StoreUnavailable, Suspension
from tests.explaining.scene import scene, step
from tests.plugins.saying import saying
from tests.queue.mail import EPOCH, Disks, envelope

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from elemta.control.facts import Explanation
    from elemta.protocol import Mailbox

A, B = "198.51.100.1", "198.51.100.2"


def ends(found: Explanation) -> tuple[str, str]:
    """Where it ends, and what is said then."""
    assert [each.good for each in found.steps[:-1]].count(False) == 0
    last = found.steps[-1]
    assert last.good is False
    assert found.summary == f"It would be refused ({last.question}): {last.reply}"
    return last.question, last.reply


async def test_mail_for_a_mailbox_of_ours_is_told_of_from_beginning_to_end(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as here:
        found = await here.explain(size=1000)
        assert [each.question for each in found.steps] == [
            *("listener", "client", "hello", "size", "sender", "queue", "recipient"),
            *("route", "lane", "retries"),
        ]
        assert found.summary == "It would be taken, and tried at once"
        listener = step(found, "listener")
        assert listener.answer == "mx (smtp) takes the connection"
        assert listener.details == (
            f"0 of 2 connections of 192.0.2.77, 0 of {here.house.roster.places} in all",
            "messages up to 10 MiB, for up to 1000 recipients",
        )
        recipient = step(found, "recipient")
        assert recipient.answer == "alice@us.example is a mailbox here"
        assert recipient.reply == "250 2.1.5 recipient OK"
        route = step(found, "route")
        assert route.answer == "alice@us.example goes into a Maildir of this machine"
        assert route.details == ("domains[0] is for us.example",)
        assert step(found, "retries").details[0].startswith("after each failed attempt: 5 min, 1 h")
        assert step(found, "retries").answer == "tried for 2 d, then given up"
        assert here.zone.asked == []


@pytest.mark.parametrize(
    ("what", "question", "reply"),
    [
        ({"to": "nobody@us.example"}, "recipient", "550 5.1.1 no such mailbox"),
        ({"to": "x@far.example"}, "relay permission", "550 5.7.1 relay access denied"),
        ({"to": "x%y@a.backup.example"}, "relay permission", "550 5.7.1 relay access denied"),
        ({"size": 11 * 2**20}, "size", "552 5.3.4 message too big"),
        ({"size": 10**25}, "sender", "501 5.5.4 syntax error in parameters"),
        ({"helo": "no name"}, "hello", "501 5.5.4 syntax error in parameters"),
    ],
)
async def test_where_it_ends_that_is_told_with_the_reply(
    tmp_path: Path, what: dict[str, object], question: str, reply: str
) -> None:
    async with scene(tmp_path) as here:
        found = await here.explain(**what)  # type: ignore[arg-type] # one of them is the recipient
        assert ends(found) == (question, reply)


async def test_who_may_relay_is_told_why(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        here.zone.hosts |= {"far.example": [A], "a.backup.example": [A]}

        async def answer(to: str = "x@far.example", **what: object) -> str:
            return step(await here.explain(to, **what), "relay permission").answer

        assert (
            await answer(client="198.51.100.9")
            == "far.example is not ours, and 198.51.100.9 is in 198.51.100.0/24 of relay.networks"
        )
        assert await answer(login="jane") == "far.example is not ours, and jane has logged in"
        told = "and anybody may send to *.backup.example of relay.domains"
        assert await answer("x@a.backup.example") == f"a.backup.example is not ours, {told}"
        assert await answer() == "far.example is not ours, and nothing lets 192.0.2.77 send there"
        assert await answer("x%y@a.backup.example") == "x%y may be a route, which is never relayed"


async def test_the_client_is_trusted_or_not(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        told = step(await here.explain(client="198.51.100.9"), "client").answer
        assert told.startswith("198.51.100.9 is in 198.51.100.0/24 of relay.networks")
        told = step(await here.explain(login="jane"), "client")
        assert told.answer == "192.0.2.77 is in none of relay.networks"
        assert told.details == ("logged in as jane",)


async def test_each_target_of_an_alias_has_its_way_and_a_lane_is_told_of_once(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as here:
        here.zone.mx_records["far.example"] = [(10, "mx.far.example")]
        here.zone.hosts["mx.far.example"] = [A]
        found = await here.explain("team@us.example")
        recipient = step(found, "recipient")
        assert recipient.answer == "team@us.example leads to 2 addresses"
        assert recipient.details == (
            "alice@us.example",
            "carol@far.example",
            "team@us.example is an alias: alice@us.example, carol@far.example",
        )
        routes = [each.answer for each in found.steps if each.question == "route"]
        assert routes == [
            "alice@us.example goes into a Maildir of this machine",
            "carol@far.example goes to the mail exchangers of far.example",
        ]
        found = await here.explain("all@us.example")
        lanes = [each.answer for each in found.steps if each.question == "lane"]
        assert lanes == ["maildir is open; nothing waits there", "maildir: see above"]


async def test_of_many_addressees_the_first_are_told_of(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        found = await here.explain("list@us.example")
        recipient = step(found, "recipient")
        assert recipient.details[19:21] == ("r19@gone.example", "and 10 more")
        routes = [each.answer for each in found.steps if each.question == "route"]
        assert len(routes) == 11
        assert routes[-1] == "and 20 more"


async def test_hosts_are_named_with_addresses_and_what_was_left_out(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        here.zone.mx_records["far.example"] = [
            *((20, "b.far.example"), (10, "a.far.example"), (30, "private.far.example")),
            (40, "dead.far.example"),
        ]
        here.zone.hosts |= {
            "a.far.example": [A],
            "b.far.example": [B],
            "private.far.example": ["10.0.0.1"],
        }
        found = await here.explain("x@far.example", login="jane")
        hosts = step(found, "hosts")
        assert hosts.answer == "2 addresses would be called, in this order"
        assert hosts.details == (
            "1. a.far.example[198.51.100.1]:25: TLS if it offers it",
            "2. b.far.example[198.51.100.2]:25: TLS if it offers it",
            "MX 10 a.far.example: 198.51.100.1",
            "MX 20 b.far.example: 198.51.100.2",
            "MX 30 private.far.example: 10.0.0.1",
            "MX 40 dead.far.example: no address: dead.far.example",
            "10.0.0.1 of private.far.example is left out: it is no public address",
        )
        assert step(found, "conversation").answer == (
            "SMTP as mx.us.example, from whichever address the system chooses; TLS is opportunistic"
        )


async def test_trouble_with_dns_is_an_answer(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        zone = here.zone
        zone.failing.add("failing.example")
        zone.mx_records["null.example"] = [(0, ".")]
        zone.mx_records["us2.example"] = [(10, "mx.us.example")]

        async def told(domain: str) -> tuple[bool | None, str, str]:
            found = await here.explain(f"x@{domain}", login="jane")
            hosts = step(found, "hosts")
            return hosts.good, hosts.answer, found.summary

        good, answer, summary = await told("failing.example")
        assert (good, answer) == (
            None,
            "nobody can be called just now: 451 4.4.3 DNS: SERVFAIL for failing.example",
        )
        assert summary == f"It would be taken; then it would wait: {answer}"
        good, answer, summary = await told("null.example")
        assert good is False
        assert answer == "nobody can be called: 556 5.1.10 the domain accepts no mail"
        assert summary == f"It would be taken; then its sender would be told of a failure: {answer}"
        assert (await told("nowhere.example"))[1].endswith("550 5.1.2 no such domain")
        found = await here.explain("x@us2.example", login="jane")
        hosts = step(found, "hosts")
        assert hosts.answer.endswith("mail for this domain loops back to this host")
        assert hosts.details == ("mx.us.example is left out: that is ourselves",)


async def test_dns_that_does_not_answer_has_its_time(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with scene(tmp_path) as here:

        async def hang(domain: str) -> list[object]:
            await trio.sleep_forever()
            raise AssertionError(domain)

        here.zone.mx = hang  # type: ignore[method-assign,assignment] # DNS that hangs
        began = trio.current_time()
        found = await here.explain("x@far.example", login="jane")
        assert trio.current_time() - began == pytest.approx(30)
        assert step(found, "hosts").answer == "DNS has not answered within 30 s"
        assert "it would wait" in found.summary


async def test_what_a_route_says_is_told(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        here.zone.hosts |= {"relay.example": [B], "a.clear.example": [A, "2001:db8::1"]}
        found = await here.explain("x@routed.example", login="jane")
        route = step(found, "route")
        assert route.answer == "x@routed.example goes by SMTP to 192.0.2.1:2600, relay.example:25"
        assert route.details == ("routes[0] matches: routed.example",)
        assert step(found, "hosts").details[:2] == (
            "1. 192.0.2.1[192.0.2.1]:2600: TLS required",
            "2. relay.example[198.51.100.2]:25: TLS required",
        )
        found = await here.explain("x@a.clear.example", login="jane")
        hosts = step(found, "hosts")
        assert hosts.details == (
            "1. a.clear.example[198.51.100.1]:25: in clear",
            "a.clear.example has no MX, so that its own addresses are asked for",
            "MX 0 a.clear.example: 198.51.100.1, 2001:db8::1",
            "2001:db8::1 of a.clear.example is left out: "
            "the route connects from no address of its kind",
        )
        told = step(found, "conversation").answer
        assert told == "SMTP as out.us.example, from 192.0.2.9; TLS is off"


@pytest.mark.parametrize(
    ("sender", "named"), [("sales@shop.example", "sales@shop.example"), (None, "")]
)
async def test_a_route_for_some_senders_is_told_with_who_we_are_there(
    sender: str | None, named: str, tmp_path: Path
) -> None:
    async with scene(tmp_path) as here:
        here.zone.hosts |= {"relay.example": [B]}
        found = await here.explain("x@far.sent.example", sender=sender, login="jane")
        assert step(found, "route").details == (
            f"routes[5] matches: *.sent.example, and <{named}> is among its senders: "
            "@shop.example, <>",
        )
        assert step(found, "hosts").details[:2] == (
            "1. 192.0.2.3[192.0.2.3]:465: TLS from the first octet, and a certificate for "
            "mail.shop.example",
            "2. relay.example[198.51.100.2]:587: TLS required, and a certificate for "
            "mail.shop.example",
        )
        told = step(found, "conversation").answer
        assert told.endswith("; TLS is verified; logged in as shop")
        assert "hush" not in str(found)
        found = await here.explain("x@far.sent.example", sender="ann@else.example", login="jane")
        assert step(found, "route").answer == (
            "x@far.sent.example goes to the mail exchangers of far.sent.example"
        )


@pytest.mark.parametrize(
    ("to", "answer"),
    [
        ("x@gone.example", "x@gone.example goes nowhere: it is taken, and discarded"),
        ("x@piped.example", "x@piped.example goes to a program: pipe:/bin/cat '{recipient}'"),
        ("x@socket.example", "x@socket.example goes by LMTP to /run/lmtp"),
    ],
)
async def test_other_ways_are_told_in_words(tmp_path: Path, to: str, answer: str) -> None:
    async with scene(tmp_path) as here:
        found = await here.explain(to, login="jane")
        assert step(found, "route").answer == answer
        if "socket" in to:
            (host,) = step(found, "hosts").details
            assert host == "1. /run/lmtp: in clear, as it is on this machine"


async def test_mail_for_a_suspended_domain_would_wait(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        here.zone.hosts["far.example"] = [A]
        suspension = Suspension(
            scope="domain:far.example", reason="moving", who="operator:jane", since=EPOCH
        )
        await here.queue.suspend(suspension)
        found = await here.explain("x@far.example", login="jane")
        lane = step(found, "lane")
        assert lane.good is None
        assert lane.answer == (
            "mx:far.example is suspended (domain:far.example) by operator:jane "
            "until it is resumed: moving"
        )
        assert found.summary == f"It would be taken; then it would wait: {lane.answer}"


async def test_who_is_too_many_would_be_sent_away(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        clients = here.listeners.clients("mx")
        with clients.hold("192.0.2.77"), clients.hold("192.0.2.77"):
            question, reply = ends(await here.explain())
            assert (question, reply) == (
                "listener",
                "421 4.7.0 too many connections from your network",
            )
            assert (await here.explain(client="192.0.2.78")).steps[0].good
        here.house.roster.places = 0
        assert ends(await here.explain())[1].startswith("421 4.3.2 too many connections")
        here.house.roster.drain()
        assert ends(await here.explain()) == ("listener", "421 4.3.2 shutting down, come again")


async def test_a_full_disk_takes_no_mail(tmp_path: Path) -> None:
    async with scene(tmp_path, full=True) as here:
        found = await here.explain()
        assert ends(found) == ("queue", "452 4.3.1 no room for mail now, try again later")
        assert found.steps[-1].answer == "its disk is nearly full"


async def test_a_queue_that_cannot_be_written_takes_no_mail(tmp_path: Path) -> None:
    disks = Disks()
    async with scene(tmp_path, disks=disks) as here:
        disks.disk.full = True
        with pytest.raises(StoreUnavailable):
            await here.accept(envelope())
        found = await here.explain()
        assert ends(found) == ("queue", "452 4.3.1 no room for mail now, try again later")
        assert found.steps[-1].answer == "it cannot be written just now"


async def test_a_listener_is_found_by_its_name(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        found = await here.explain(listener="lmtp")
        assert found.steps[0].answer == "lmtp (lmtp) takes the connection"
        with pytest.raises(RequestError, match="no listener 'x'; there are mx, lmtp") as caught:
            await here.explain(listener="x")
        assert caught.value.place == "listener"


async def test_addresses_beyond_ascii_and_no_sender_are_taken(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        assert step(await here.explain(sender=None), "sender").answer == "<> is taken"
        found = await here.explain("jörg@us.example")
        assert ends(found) == ("recipient", "550 5.1.1 no such mailbox")


# Plugins.


class Asked(Plugin):
    """Notes that it was asked."""

    name = "asked"

    def __init__(self, verdict: Verdict = CONTINUE) -> None:
        self._verdict = verdict
        self.count = 0

    @override
    async def on_hello(self, session: Session, name: str) -> Verdict:
        self.count += 1
        return self._verdict

    @override
    async def on_message(self, transaction: Transaction, content: Content) -> Verdict:
        self.count += 1
        return self._verdict


class Harmless(Asked):
    name = "harmless"
    dry = True


async def test_only_plugins_that_may_be_asked_are_asked(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        real, harmless = Asked(), Harmless()
        chain = Chain([Loaded(real), Loaded(harmless)])
        here.with_plugins(chain)
        found = await here.explain()
        told = step(found, "plugins, on_hello")
        assert told.answer == "none objects of those that may be asked"
        assert told.good is None
        assert told.details == ("asked would be asked", "harmless was asked")
        assert step(found, "plugins, on_message").details == (
            "asked would be asked",
            "harmless would be asked",
        )
        assert (real.count, harmless.count) == (0, 1)
        assert [each.counts.asked for each in chain.plugins] == [0, 0]
        assert found.summary == (
            "It would be taken, unless a plugin objects that is asked of real mail alone, "
            "and tried at once"
        )


async def test_a_plugin_that_objects_ends_it(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        here.with_plugins(Chain([Loaded(Harmless(Reject((7, 1), "not you")))]))
        found = await here.explain()
        assert ends(found) == ("plugins, on_hello", "550 5.7.1 not you")


async def test_a_plugin_that_is_off_is_not_asked(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        chain = Chain([Loaded(Harmless(Reject((7, 1), "not you")))])
        here.with_plugins(chain.switched("harmless", enabled=False))
        assert (await here.explain()).summary == "It would be taken, and tried at once"


async def test_all_hooks_that_would_be_asked_are_named(tmp_path: Path) -> None:
    asked = ("on_greylist", "on_header", "on_body", "on_inspect", "on_message")
    hooks = ("on_connect", "on_hello", "on_mail", "on_rcpt", asked[0], "on_data", *asked[1:])
    plugin = saying("all", **dict.fromkeys(hooks, CONTINUE))
    async with scene(tmp_path) as here:
        here.with_plugins(Chain([Loaded(plugin)]))
        found = await here.explain()
        questions = [each.question for each in found.steps if each.question.startswith("plugins")]
        assert questions == [f"plugins, {each}" for each in hooks]
        assert step(found, "plugins, on_greylist").details == ("all would be asked",)
        # Greylisting is for strangers, and a plugin for the listeners that it is for.
        trusted = await here.explain(login="ann")
        assert "plugins, on_greylist" not in [each.question for each in trusted.steps]
        here.with_plugins(Chain([Loaded(plugin, listeners=("elsewhere",))]))
        found = await here.explain()
        assert found.summary == "It would be taken, and tried at once"


@pytest.mark.parametrize("hook", ["on_connect", "on_hello", "on_mail", "on_rcpt", "on_data"])
@pytest.mark.parametrize(
    ("verdict", "what"),
    [
        (Quarantine("looks odd"), "holds it: looks odd"),
        (Discard("junk"), "gives it to nobody: junk"),
    ],
    ids=["hold", "discard"],
)
async def test_what_a_plugin_would_do_with_what_it_lets_in_is_told(
    hook: str, verdict: Verdict, what: str, tmp_path: Path
) -> None:
    plugin = saying("strict", **{hook: verdict})
    type(plugin).dry = True
    async with scene(tmp_path) as here:
        here.with_plugins(Chain([Loaded(plugin)]))
        found = await here.explain()
        assert found.summary == f"It would be taken; then the plugin strict {what}"
        if hook not in ("on_connect", "on_hello"):  # there is no message yet
            assert step(found, f"plugins, {hook}").answer == f"strict lets it in, and {what}"


class ByEnvelope(Plugin):
    """Objects to one recipient, and to a sender."""

    name = "by-envelope"
    dry = True

    @override
    async def on_mail(self, transaction: Transaction) -> Verdict:
        bad = transaction.sender is None
        return Reject((7, 1), "no sender, no mail") if bad else CONTINUE

    @override
    async def on_rcpt(self, transaction: Transaction, recipient: Mailbox) -> Verdict:
        bad = recipient.local_part == "bob"
        return Reject((7, 1), "not to bob") if bad else CONTINUE


async def test_plugins_see_the_envelope(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        here.with_plugins(Chain([Loaded(ByEnvelope())]))
        found = await here.explain()
        assert found.summary == "It would be taken, and tried at once"
        assert step(found, "plugins, on_mail").answer == "none objects"
        assert ends(await here.explain(sender=None))[1] == "550 5.7.1 no sender, no mail"
        question, reply = ends(await here.explain("bob@us.example"))
        assert (question, reply) == ("plugins, on_rcpt", "550 5.7.1 not to bob")


@pytest.mark.parametrize(
    ("verdict", "end"),
    [
        (Defer((7, 0), "too many"), ("plugins, on_unknown", "451 4.7.0 too many")),
        (CONTINUE, ("recipient", "550 5.1.1 no such mailbox")),
    ],
)
async def test_plugins_may_have_another_word_for_names_that_nobody_has(
    tmp_path: Path, verdict: Verdict, end: tuple[str, str]
) -> None:
    guard = saying("guard", on_unknown=verdict)
    type(guard).dry = True
    async with scene(tmp_path) as here:
        here.with_plugins(Chain([Loaded(guard)]))
        assert ends(await here.explain("nobody@us.example")) == end
