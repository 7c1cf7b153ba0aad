from __future__ import annotations

import pytest

from elemta.config import ConfigError
from elemta.mailauth import Iprev
from elemta.plugins import CONTINUE, Allowed, Continue, Defer, Quarantine, Reject, Tag
from elemta.plugins.built_in.fcrdns import Fcrdns
from elemta.testing import FakeDns, a_session, a_transaction, mailbox, some_tools

BOB = mailbox("bob@us.example")
GOOD, WRONG, NAMELESS, BROKEN, LOST = (f"192.0.2.{number}" for number in range(1, 6))


def plugin(**settings: object) -> Fcrdns:
    dns = FakeDns()
    dns.add("1.2.0.192.in-addr.arpa", "PTR", "good.example.")
    dns.add("good.example", "A", GOOD)
    dns.add("2.2.0.192.in-addr.arpa", "PTR", "wrong.example.")
    dns.add("wrong.example", "A", GOOD)
    dns.failing.add("4.2.0.192.in-addr.arpa")
    dns.add("5.2.0.192.in-addr.arpa", "PTR", "lost.example.")
    dns.failing.add("lost.example")
    made = Fcrdns.configured(settings, "settings")
    made.tools = some_tools("fcrdns", dns=dns)
    return made


async def outcome(made: Fcrdns, address: str) -> str:
    transaction = a_transaction(a_session(address))
    match await made.on_rcpt(transaction, BOB):
        case Reject(status=(7, 25)):
            return "reject"
        case Defer(status=(7, 25)):
            return "defer"
        case _:
            pass
    match await made.on_data(transaction):
        case Quarantine():
            return "quarantine"
        case Continue(changes=(Tag("fcrdns"),)):
            return "tag"
        case verdict:
            assert verdict is CONTINUE
            return "none"


@pytest.mark.parametrize(
    ("address", "want"),
    [(GOOD, "none"), (WRONG, "tag"), (NAMELESS, "tag"), (BROKEN, "none"), (LOST, "none")],
)
async def test_nobody_is_refused_by_default(address: str, want: str) -> None:
    assert await outcome(plugin(), address) == want


@pytest.mark.parametrize("action", ["reject", "defer", "quarantine", "tag", "none"])
async def test_each_case_has_an_action(action: str) -> None:
    assert await outcome(plugin(mismatch=action), WRONG) == action
    assert await outcome(plugin(no_name=action), NAMELESS) == action
    assert await outcome(plugin(mismatch=action, no_name=action), GOOD) == "none"


async def test_what_nobody_can_say_is_deferred_at_most() -> None:
    made = plugin(unknown="defer", mismatch="reject", no_name="reject")
    for address in (BROKEN, LOST):
        assert await outcome(made, address) == "defer"
    with pytest.raises(ConfigError):
        plugin(unknown="reject")


async def test_what_is_found_stands_with_the_session() -> None:
    session = a_session(WRONG)
    await plugin().on_rcpt(a_transaction(session), BOB)
    found = session.results.first(Iprev)
    assert found is not None
    assert found.result == "fail"


async def test_our_own_are_left_alone() -> None:
    made = plugin(no_name="reject")
    vouched = a_session(NAMELESS)
    vouched.results.add(Allowed("me"))
    inner = a_session("10.0.0.1")
    for session in (vouched, inner, a_session(""), a_session(NAMELESS, trusted=True)):
        assert await made.on_rcpt(a_transaction(session), BOB) is CONTINUE
        assert await made.on_data(a_transaction(session)) is CONTINUE
    assert isinstance(await made.on_rcpt(a_transaction(a_session(NAMELESS)), BOB), Reject)
    postmaster = mailbox("postmaster@us.example")
    assert await made.on_rcpt(a_transaction(a_session(NAMELESS)), postmaster) is CONTINUE
