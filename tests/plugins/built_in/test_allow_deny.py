from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import trio

from elemta.config import ConfigError
from elemta.plugins import CONTINUE, Accept, Allowed, Continue, Defer, Reject
from elemta.plugins.built_in.allow_deny import AllowDeny
from elemta.protocol import Mailbox
from elemta.testing import a_session, a_transaction, mailbox, some_tools
from tests.plugins.built_in.refused_once import ADDRESSES

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from elemta.plugins import Session

BOB = mailbox("bob@us.example")


def plugin(**settings: object) -> AllowDeny:
    made = AllowDeny.configured(settings, "settings")
    made.tools = some_tools("allow-deny")
    return made


async def outcome(
    made: AllowDeny,
    session: Session | None = None,
    sender: str = "ann@sender.example",
    recipient: str = "bob@us.example",
) -> str:
    """What becomes of one recipient, and whether the message is exempt."""
    session = session or a_session()
    assert await made.on_connect(session) is CONTINUE
    transaction = a_transaction(session, sender=sender, recipients=[])
    assert await made.on_mail(transaction) is CONTINUE
    exempt = " exempt" if transaction.exempt else ""
    match await made.on_rcpt(transaction, mailbox(recipient)):
        case Continue():
            return f"taken{exempt}"
        case Accept():
            return f"accepted{exempt}"
        case Reject(status=(7, 1)):
            return f"refused{exempt}"
        case Defer(status=(7, 1)):
            return f"deferred{exempt}"
        case verdict:
            raise AssertionError(verdict)


NET, HOST = {"networks": ["192.0.2.0/24"]}, {"networks": ["192.0.2.1"]}
HELO, SENDER = {"helo": ["client.example"]}, {"senders": ["sender.example"]}
ANN = {"senders": ["ann@sender.example"]}
US, RCPT = {"recipients": ["us.example"]}, {"recipients": ["bob@us.example"]}


@pytest.mark.parametrize(
    ("allow", "deny", "want"),
    [
        ({}, {}, "taken"),
        ({}, NET, "refused"),
        ({}, HELO, "refused"),
        ({}, SENDER, "refused"),
        ({}, RCPT, "refused"),
        (NET, {}, "taken exempt"),
        (HELO, {}, "taken exempt"),
        (SENDER, {}, "taken exempt"),
        (RCPT, {}, "accepted"),
        # Of one kind, the most specific.
        (HOST, NET, "taken exempt"),
        (NET, HOST, "refused"),
        (NET, NET, "refused"),
        (ANN, SENDER, "taken exempt"),
        (SENDER, ANN, "refused"),
        ({"senders": ["*.example"]}, SENDER, "refused"),
        (RCPT, US, "accepted"),
        # Of several kinds, the one that says more.
        (HELO, NET, "taken exempt"),
        (SENDER, HELO, "taken exempt"),
        (SENDER, NET, "taken exempt"),
        (RCPT, SENDER, "accepted"),
        (NET, SENDER, "refused exempt"),
        (SENDER, RCPT, "refused exempt"),
        ({"networks": ["198.51.100.0/24"], "helo": ["x.example"]}, {"senders": ["<>"]}, "taken"),
    ],
)
async def test_the_most_specific_entry_decides(
    allow: dict[str, list[str]], deny: dict[str, list[str]], want: str
) -> None:
    assert await outcome(plugin(allow=allow, deny=deny)) == want


@pytest.mark.parametrize(("deny", "counted"), [(NET, 1), (HELO, 0), (SENDER, 0), (RCPT, 0)])
async def test_who_is_denied_by_his_network_is_counted_as_he_always_was(
    deny: dict[str, list[str]], counted: int
) -> None:
    made = plugin(deny=deny)
    assert await outcome(made) == "refused"
    assert made.tools.meters.rate_limits["blacklist_hits"] == counted


async def test_a_claim_vouches_for_one_message_alone() -> None:
    made = plugin(allow=SENDER)
    session = a_session()
    assert await outcome(made, session) == "taken exempt"
    assert await outcome(made, session, sender="x@other.example") == "taken"
    assert not session.exempt
    network = plugin(allow=NET)
    assert await network.on_connect(session) is CONTINUE
    assert session.results.of(Allowed) == (Allowed("allow-deny"),)


async def test_null_senders_and_ipv6_and_sockets() -> None:
    made = plugin(deny={"senders": ["<>"], "networks": ["2001:db8::/32", "::ffff:0:0/96"]})
    assert await outcome(made, sender="") == "refused"
    assert await outcome(made, a_session("2001:db8::1")) == "refused"
    assert await outcome(made, a_session("::ffff:192.0.2.1")) == "taken", "that is IPv4"
    assert await outcome(made, a_session("")) == "taken"


async def test_clients_of_our_own_are_only_kept_from_recipients() -> None:
    made = plugin(deny={**NET, **SENDER, **RCPT})
    own = a_session(trusted=True)
    assert await outcome(made, own, recipient="carol@us.example") == "taken exempt"
    assert await outcome(made, own) == "refused exempt"


async def test_the_postmaster_can_be_reached_unless_he_is_listed() -> None:
    made = plugin(deny={**NET, "recipients": ["postmaster@other.example"]})
    assert await outcome(made, recipient="Postmaster@us.example") == "taken"
    assert await outcome(made, recipient="postmaster@other.example") == "refused"
    verdict = await made.on_rcpt(a_transaction(), Mailbox("postmaster", ""))
    assert verdict is CONTINUE


async def test_it_may_defer_with_words_of_its_own() -> None:
    made = plugin(deny=NET, action="defer", text="come back later")
    verdict = await made.on_rcpt(a_transaction(), BOB)
    assert isinstance(verdict, Defer)
    assert str(verdict.reply) == "451 4.7.1 come back later"
    assert verdict.note == "its network is listed"


@pytest.mark.parametrize("address", ADDRESSES)
async def test_any_address_may_be_listed_and_none_is_refused_by_default(address: str) -> None:
    assert await outcome(plugin(), sender=address, recipient=address) == "taken"
    listed = plugin(deny={"senders": [address]})
    assert await outcome(listed, sender=address) == "refused"
    assert await outcome(listed, sender="other@elsewhere.example") == "taken"


async def test_entries_may_stand_in_files(tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.write_text("# spammers\n\n192.0.2.0/24   # all of them\r\n2001:db8::/32\n")
    good = tmp_path / "good"
    good.write_text("friend.example\na#b@other.example\t# a friend's odd address")
    made = plugin(
        deny={"networks": [f"file:{bad}", "198.51.100.1"]}, allow={"senders": [f"file:{good}"]}
    )
    await made.start()
    assert await outcome(made) == "refused"
    assert await outcome(made, a_session("198.51.100.1")) == "refused"
    assert await outcome(made, sender="x@friend.example") == "taken exempt"
    assert await outcome(made, sender="a#b@other.example") == "taken exempt"
    assert await outcome(made, a_session("203.0.113.1")) == "taken"


async def test_a_file_that_changes_is_read_again(
    tmp_path: Path,
    nursery: trio.Nursery,
    autojump_clock: MockClock,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "bad"
    path.write_text("192.0.2.0/24\n")
    made = plugin(deny={"networks": [f"file:{path}"]}, reload="10 s")
    await made.start()
    nursery.start_soon(made.run)

    async def becomes(text: str | None, want: str) -> None:
        if text is None:
            path.unlink()
        else:
            new = tmp_path / "new"
            new.write_text(text)
            new.replace(path)
        await trio.sleep(11)
        assert await outcome(made) == want

    await becomes("198.51.100.0/24\n", "taken")
    await becomes("192.0.2.0/24\n", "refused")
    await becomes("198.51.100.0/24\n192.0.2.1/24\n", "refused")
    assert f"{path}, line 2: 192.0.2.1/24 has bits set" in capsys.readouterr().err
    await becomes(None, "refused")
    await trio.sleep(100)
    assert capsys.readouterr().err.count("allow_deny.not_read") == 1
    assert made.tools.counts == {"read": 2, "not_read": 2}
    await becomes("198.51.100.0/24\n", "taken")


async def test_without_files_there_is_nothing_to_watch() -> None:
    made = plugin(deny=NET)
    await made.start()
    await made.run()
    assert await outcome(made) == "refused"


@pytest.mark.parametrize(
    ("octets", "problem"),
    [
        (b"192.0.2.0/24\n\nnonsense\n", "line 3: expected a network"),
        (b"192.0.2.0/24\n\xff\n", "line 2: no UTF-8"),
        (None, "No such file"),
    ],
)
async def test_a_file_with_a_mistake_keeps_it_from_starting(
    octets: bytes | None, problem: str, tmp_path: Path
) -> None:
    path = tmp_path / "bad"
    if octets is not None:
        path.write_bytes(octets)
    made = plugin(deny={"networks": [f"file:{path}"]})
    with pytest.raises((ValueError, OSError), match=problem) as caught:
        await made.start()
    assert str(path) in str(caught.value)


async def test_a_file_has_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "bad"
    path.touch()
    os.truncate(path, 33 * 2**20)
    with pytest.raises(ValueError, match="more than 33554432 octets"):
        await plugin(deny={"networks": [f"file:{path}"]}).start()


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"deny": {"networks": ["192.0.2.1/24"]}}, "bits set behind"),
        ({"deny": {"helo": ["two words"]}}, "expected a domain"),
        ({"allow": {"senders": ["@example.net"]}}, "expected an address"),
        ({"allow": {"recipients": ["file:relative"]}}, "expected a whole path"),
        ({"text": "a\nb"}, "cannot stand in a reply"),
        ({"action": "drop"}, "expected"),
        ({"reload": "0 s"}, "at least 1 s"),
    ],
)
def test_a_mistake_is_told_with_its_place(settings: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        AllowDeny.configured(settings, "plugins[0].settings")
    assert problem in str(caught.value)
    assert "plugins[0].settings" in str(caught.value)
