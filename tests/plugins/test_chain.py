from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest
import trio
from typing_extensions import override

from elemta.plugins import (
    CONTINUE,
    Chain,
    Defer,
    Discard,
    Loaded,
    Plugin,
    Reject,
    Session,
    Transaction,
    Verdict,
    hooks,
)
from elemta.protocol import LocalProtocolError, MailParams
from elemta.testing import FakeContent, a_transaction
from tests.plugins.saying import saying

if TYPE_CHECKING:
    from trio.testing import MockClock

SESSION = Session(id="s1", address="192.0.2.1", port=1, listener="mx")


def transaction() -> Transaction:
    return Transaction(session=SESSION, id="Q1", sender=None, params=MailParams())


class Says(Plugin):
    """Says what it is told to, and that it was asked."""

    name = "says"

    def __init__(self, verdict: Verdict = CONTINUE) -> None:
        self._verdict = verdict
        self.asked = 0

    @override
    async def on_connect(self, session: Session) -> Verdict:
        self.asked += 1
        return self._verdict


class Raises(Plugin):
    name = "raises"

    @override
    async def on_connect(self, session: Session) -> Verdict:
        raise ExceptionGroup("of a nursery", [ValueError()])


class LetsThrough(Raises):
    """Would rather take mail unseen than not at all."""

    on_error: ClassVar[Verdict] = CONTINUE


def chain(*plugins: Plugin, timeout: float = 30) -> Chain:
    return Chain([Loaded(plugin, timeout) for plugin in plugins])


def test_a_hook_that_nobody_overrides_costs_nothing() -> None:
    asked = chain(Says(), Says())
    assert len(asked.connect) == 2
    for hook in (asked.hello, asked.mail, asked.rcpt, asked.data, asked.message):
        assert hook == ()


async def test_the_first_objection_decides() -> None:
    first, second, third = Says(), Says(Defer((7, 1), "not now")), Says(Reject((7, 1), "never"))
    assert await chain(first, second, third).on_connect(SESSION) == Defer((7, 1), "not now")
    assert [first.asked, second.asked, third.asked] == [1, 1, 0]


async def test_without_objection_mail_goes_on() -> None:
    assert await chain(Says(), Says()).on_connect(SESSION) is CONTINUE
    assert await chain(Says()).on_mail(transaction()) is CONTINUE


async def test_a_plugin_that_raises_defers() -> None:
    last = Says()
    assert await chain(Raises(), last).on_connect(SESSION) == Defer((3, 0), "try again later")
    assert last.asked == 0


async def test_a_plugin_may_say_what_its_failure_means() -> None:
    last = Says(Reject((7, 1), "never"))
    assert await chain(LetsThrough(), last).on_connect(SESSION) == Reject((7, 1), "never")
    assert last.asked == 1


async def test_a_plugin_that_hangs_defers(autojump_clock: MockClock) -> None:
    class Hangs(Plugin):
        name = "hangs"

        @override
        async def on_connect(self, session: Session) -> Verdict:
            await trio.sleep_forever()
            raise AssertionError

    began = trio.current_time()
    assert isinstance(await chain(Hangs(), timeout=7).on_connect(SESSION), Defer)
    assert trio.current_time() - began == pytest.approx(7)


async def test_a_cancellation_is_no_failure_of_the_plugin(autojump_clock: MockClock) -> None:
    class Sleeps(Plugin):
        name = "sleeps"

        @override
        async def on_connect(self, session: Session) -> Verdict:
            await trio.sleep(10)
            return CONTINUE

    with trio.move_on_after(1) as scope:
        await chain(Sleeps()).on_connect(SESSION)
    assert scope.cancelled_caught


@pytest.mark.parametrize("kind", [Defer, Reject])
@pytest.mark.parametrize("text", ["two\r\n250 lines", "bell\a", "x" * 600])
def test_what_cannot_stand_in_a_reply_is_refused_where_it_is_made(
    kind: type[Defer | Reject], text: str
) -> None:
    with pytest.raises(LocalProtocolError):
        kind((7, 1), text)


async def test_a_plugin_that_says_what_cannot_be_said_defers() -> None:
    class Forges(Plugin):
        name = "forges"

        @override
        async def on_connect(self, session: Session) -> Verdict:
            return Reject((7, 1), "no\r\n250 OK")

    assert await chain(Forges()).on_connect(SESSION) == Defer((3, 0), "try again later")


async def test_a_plugin_that_is_switched_off_is_not_asked() -> None:
    stern = Says(Reject((7, 1), "never"))
    asked = chain(stern)
    off = asked.switched("says", enabled=False)
    assert off.connect == ()
    assert await off.on_connect(SESSION) is CONTINUE
    assert [each.enabled for each in off.plugins] == [False]
    assert isinstance(await asked.on_connect(SESSION), Reject), "who began with the others goes on"
    on = off.switched("says", enabled=True)
    assert isinstance(await on.on_connect(SESSION), Reject)
    with pytest.raises(LookupError):
        on.switched("nobody", enabled=False)


async def test_answers_and_failures_are_counted() -> None:
    class Forgets(Plugin):
        name = "forgets"
        on_error: ClassVar[Verdict] = CONTINUE

        @override
        async def on_connect(self, session: Session) -> Verdict:
            return None  # type: ignore[return-value] # the mistake

    asked = chain(Says(), LetsThrough(), Forgets(), Says(Reject((7, 1), "no")), Says())
    for _ in range(3):
        await asked.on_connect(SESSION)
    told = [(each.counts.asked, each.counts.failed) for each in asked.plugins]
    assert told == [(3, 0), (3, 3), (3, 3), (3, 0), (0, 0)]
    assert [each.counts.objected for each in asked.plugins] == [0, 0, 0, 3, 0]
    assert [sum(each.counts.seconds.counts) for each in asked.plugins] == [3, 3, 3, 3, 0]


async def test_how_long_a_plugin_takes_is_measured_also_when_it_hangs(
    autojump_clock: MockClock,
) -> None:
    class Sleeps(Plugin):
        name = "sleeps"

        @override
        async def on_connect(self, session: Session) -> Verdict:
            await trio.sleep(9)
            return CONTINUE

    for timeout, seconds in ((20, 9), (7, 7)):
        asked = chain(Sleeps(), timeout=timeout)
        await asked.on_connect(SESSION)
        assert asked.plugins[0].counts.seconds.total == pytest.approx(seconds)


def test_hooks_are_named_in_the_order_of_a_conversation() -> None:
    class Judges(Says):
        @override
        async def on_data(self, transaction: Transaction) -> Verdict:
            return CONTINUE

        @override
        async def on_mail(self, transaction: Transaction) -> Verdict:
            return CONTINUE

    assert hooks(Judges()) == ("on_connect", "on_mail", "on_data")
    assert hooks(Plugin()) == ()


async def test_only_those_that_may_be_asked_dry_are_and_nothing_is_counted() -> None:
    class Harmless(Says):
        name = "harmless"
        dry = True

    real, harmless, off = Says(), Harmless(Reject((7, 1), "never")), Harmless()
    whole = chain(real, harmless)
    assert await whole.dry().on_connect(SESSION) == Reject((7, 1), "never")
    assert (real.asked, harmless.asked) == (0, 1)
    assert [each.counts.asked for each in whole.plugins] == [0, 0]
    assert chain(off).switched("harmless", enabled=False).dry().connect == ()


async def test_what_one_discards_who_inspects_it_the_next_step_may_still_refuse() -> None:
    asked = Chain(
        [
            Loaded(saying("junk", on_inspect=Discard("junk"))),
            Loaded(saying("late", on_inspect=Reject((7, 1), "unheard"))),
            Loaded(saying("policy", on_message=Reject((7, 1), "never"))),
        ]
    )
    transaction = a_transaction()
    verdict = await asked.on_message(transaction, FakeContent(b"Subject: x\r\n\r\n"))
    assert verdict == Reject((7, 1), "never")
    assert [each.plugin for each in transaction.doomed] == ["junk"]
