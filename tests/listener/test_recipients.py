from __future__ import annotations

import msgspec
import pytest

from elemta.config import Domain, load
from elemta.listener.expansion import (
    ALIAS_BROKEN,
    ALIAS_LOOP,
    ALIAS_TOO_LARGE,
    NO_SUCH_MAILBOX,
)
from elemta.listener.recipients import RELAY_DENIED, Recipients, told
from elemta.protocol import (
    Mailbox,
    Notify,
    OriginalRecipient,
    RcptParams,
    Reply,
    parse_mailbox,
)
from elemta.queue import Addressee
from tests.dialogue import CONFIG, STRANGER, TRUSTED

CONFIGURED = load(CONFIG)


def recipients(*domains: Domain) -> Recipients:
    return Recipients(msgspec.structs.replace(CONFIGURED, domains=list(domains)))


def decide(
    address: str, who: Recipients | None = None, client: str = STRANGER
) -> list[str] | Reply:
    found = (who or Recipients(CONFIGURED)).decide(parse_mailbox(address), client=client)
    return found if isinstance(found, Reply) else sorted(str(each.address) for each in found)


@pytest.mark.parametrize(
    "address",
    [
        "alice@here.example",
        "Alice@here.example",
        "o'brien@here.example",
        '"a b"@here.example',
        "postmaster@here.example",
        "PostMaster@here.example",
        "anything%at!all@any.example",
    ],
)
def test_what_exists_is_taken_as_it_is_written(address: str) -> None:
    assert decide(address) == [address]


def test_what_does_not_exist_is_refused() -> None:
    assert decide("mallory@here.example") is NO_SUCH_MAILBOX


def test_an_alias_stands_for_others_who_do_not_show_it() -> None:
    found = Recipients(CONFIGURED).decide(parse_mailbox("Team@here.example"), client=STRANGER)
    assert not isinstance(found, Reply)
    assert [(str(each.address), str(each.original)) for each in found] == [
        ("alice@here.example", "Team@here.example"),
        ("bob@here.example", "Team@here.example"),
        ("carol@here.example", "Team@here.example"),
    ]


def test_an_alias_may_lead_abroad_without_giving_leave_to_relay() -> None:
    assert decide("away@here.example") == ["someone@elsewhere.example"]
    assert decide("someone@elsewhere.example") is RELAY_DENIED


def test_aliases_lead_from_domain_to_domain() -> None:
    who = recipients(
        Domain(name="a.example", aliases={"x": ["y@b.example", "z"]}, mailboxes=["z"]),
        Domain(name="b.example", aliases={"y": ["w", "z@a.example"]}, mailboxes=["w"]),
    )
    assert decide("x@a.example", who) == ["w@b.example", "z@a.example"]


def test_a_loop_that_leads_to_nobody_defers() -> None:
    who = recipients(Domain(name="a.example", aliases={"x": ["y"], "y": ["x"]}))
    assert decide("x@a.example", who) is ALIAS_LOOP


def test_a_loop_does_not_keep_mail_from_others() -> None:
    who = recipients(
        Domain(name="a.example", mailboxes=["z"], aliases={"x": ["y"], "y": ["x", "z"]})
    )
    assert decide("x@a.example", who) == ["z@a.example"]


def test_an_alias_that_leads_nowhere_defers() -> None:
    who = recipients(Domain(name="a.example", mailboxes=["z"], aliases={"x": ["z", "gone"]}))
    assert decide("x@a.example", who) is ALIAS_BROKEN


@pytest.mark.parametrize(("depth", "taken"), [(98, True), (101, False)])
def test_a_chain_of_aliases_has_an_end(depth: int, taken: bool) -> None:
    aliases = {f"x{number}": [f"x{number + 1}"] for number in range(depth)}
    who = recipients(Domain(name="a.example", mailboxes=[f"x{depth}"], aliases=aliases))
    found = decide("x0@a.example", who)
    assert found == [f"x{depth}@a.example"] if taken else found is ALIAS_TOO_LARGE


@pytest.mark.parametrize(("size", "taken"), [(1000, True), (1001, False)])
def test_an_alias_stands_for_a_thousand_at_most(size: int, taken: bool) -> None:
    everybody = [f"x{number}" for number in range(size)]
    who = recipients(Domain(name="a.example", mailboxes=everybody, aliases={"all": everybody}))
    found = decide("all@a.example", who)
    assert isinstance(found, list) if taken else found is ALIAS_TOO_LARGE


def test_aliases_that_multiply_are_stopped_early() -> None:
    aliases = {f"x{n}": [f"x{n + 1}", f"y{n}@elsewhere.example"] * 10 for n in range(50)}
    who = recipients(Domain(name="a.example", mailboxes=["x50"], aliases=aliases))
    assert len(decide("x0@a.example", who)) == 51  # each once, however often it is named


@pytest.mark.parametrize(
    ("client", "allowed"),
    [
        (TRUSTED, True),
        ("2001:db8:1::25", True),
        (STRANGER, False),
        ("10.0.0.1", False),
        ("127.0.0.1", False),
        ("::1", False),
        ("2001:db8:2::1", False),
        ("", False),
    ],
)
def test_who_may_send_anywhere_is_written_in_the_configuration(client: str, allowed: bool) -> None:
    who = Recipients(CONFIGURED)
    assert who.trusts(client) is allowed
    found = decide("victim@elsewhere.example", who, client)
    assert found == ["victim@elsewhere.example"] if allowed else found is RELAY_DENIED


def test_a_login_may_send_anywhere() -> None:
    found = Recipients(CONFIGURED).decide(
        parse_mailbox("x@elsewhere.example"), client=STRANGER, login="alice"
    )
    assert isinstance(found, tuple)


def test_the_memory_of_clients_is_bounded() -> None:
    who = Recipients(CONFIGURED)
    for number in range(20_001):
        assert not who.trusts(f"10.0.{number >> 8}.{number & 255}")
    assert who.trusts(TRUSTED)
    assert len(who._trusted) <= 10_000


def test_a_bare_postmaster_is_that_of_the_first_domain() -> None:
    assert decide("postmaster@here.example") == ["postmaster@here.example"]
    found = Recipients(CONFIGURED).decide(Mailbox("postmaster", ""), client=STRANGER)
    assert not isinstance(found, Reply)
    assert [str(each.address) for each in found] == ["postmaster@here.example"]


def test_a_bare_postmaster_without_domains_is_that_of_the_host() -> None:
    found = recipients().decide(Mailbox("postmaster", ""), client=STRANGER)
    assert not isinstance(found, Reply)
    assert [str(each.address) for each in found] == ["postmaster@mx.example"]


def test_the_postmaster_may_be_an_alias() -> None:
    who = recipients(Domain(name="a.example", mailboxes=["z"], aliases={"Postmaster": ["z"]}))
    assert decide("postmaster@a.example", who) == ["z@a.example"]


@pytest.mark.parametrize("name", ["почта.рф", "xn--80a1acny.xn--p1ai"])
def test_a_domain_beyond_ascii_is_ours_in_either_form(name: str) -> None:
    who = recipients(Domain(name=name, mailboxes=["info"]))
    for domain in ("почта.рф", "xn--80a1acny.xn--p1ai"):
        assert decide(f"info@{domain}", who) == [f"info@{domain}"]


@pytest.mark.parametrize("domain", ["backup.example", "deep.backup.example"])
def test_domains_that_we_relay_for_take_no_routes(domain: str) -> None:
    assert decide(f"x@{domain}") == [f"x@{domain}"]
    for local_part in ("x%y", "y!x", '"x@y"'):
        assert decide(f"{local_part}@{domain}") is RELAY_DENIED
        assert decide(f"{local_part}@{domain}", client=TRUSTED) == [f"{local_part}@{domain}"]


@pytest.mark.parametrize("deliver", ["smtp://192.0.2.1", "smtps://192.0.2.1"])
@pytest.mark.parametrize("local_part", ["x%y.example", "y.example!x", '"x@y.example"', "bob+x%y"])
def test_no_route_is_handed_to_a_server_behind_us_that_may_relay_for_us(
    deliver: str, local_part: str
) -> None:
    any_of = recipients(Domain(name="a.example", mailboxes=["*"], deliver=deliver))
    named = tagged("bob", "p%q", deliver=deliver)
    for who in (any_of, named):
        assert decide(f"{local_part}@a.example", who) is NO_SUCH_MAILBOX
        assert decide("bob@a.example", who) == ["bob@a.example"]
    assert decide("p%q@a.example", named) == ["p%q@a.example"]


BEHIND = [Addressee(address=Mailbox(name, "here.example")) for name in ("alice", "bob", "carol")]


@pytest.mark.parametrize(
    ("notify", "others"),
    [
        ({Notify.SUCCESS, Notify.FAILURE}, {Notify.FAILURE}),
        ({Notify.SUCCESS}, {Notify.NEVER}),
        ({Notify.FAILURE, Notify.DELAY}, {Notify.FAILURE, Notify.DELAY}),
        ({Notify.NEVER}, {Notify.NEVER}),
    ],
    ids=["success and failure", "success", "failure and delay", "never"],
)
def test_of_those_behind_an_alias_the_success_of_one_is_told(
    notify: set[Notify], others: set[Notify]
) -> None:
    orcpt = OriginalRecipient("rfc822", "team@here.example")
    params = RcptParams(notify=frozenset(notify), orcpt=orcpt)
    first, *rest = told(BEHIND, params)
    assert first.params == params
    assert [(each.params.notify, each.params.orcpt) for each in rest] == [(others, orcpt)] * 2


def test_who_named_nothing_gives_nothing_on() -> None:
    assert told(BEHIND, RcptParams()) is BEHIND


def test_leave_to_relay_is_told_with_its_reason() -> None:
    who = Recipients(CONFIGURED)
    far, backup = parse_mailbox("a@far.example"), parse_mailbox("a@mx.backup.example")
    assert who.permission(far, client="192.0.2.1", login="jane") == "login"
    assert who.permission(far, client="198.51.100.7") == "relay.networks"
    assert str(who.network("198.51.100.7")) == "198.51.100.0/24"
    assert who.permission(backup, client="192.0.2.1") == "relay.domains"
    assert who.relayed("mx.backup.example") == "*.backup.example"
    assert who.permission(far, client="192.0.2.1") == ""
    assert who.permission(far, client="") == ""
    assert who.relayed("far.example") is None
    route = parse_mailbox("a%b@mx.backup.example")
    assert who.permission(route, client="192.0.2.1") == ""
    assert who.relayed("bücher.backup.example") == "*.backup.example"


def test_what_is_ours_needs_no_leave() -> None:
    who = Recipients(CONFIGURED)
    assert who.is_ours(parse_mailbox("a@here.example"))
    assert who.is_ours(Mailbox("postmaster", ""))
    assert not who.is_ours(parse_mailbox("a@far.example"))


def tagged(*mailboxes: str, deliver: str = "maildir", **keys: object) -> Recipients:
    domain = Domain(name="a.example", mailboxes=list(mailboxes), delimiter="+", deliver=deliver)
    return recipients(msgspec.structs.replace(domain, **keys))


def led(address: str, who: Recipients) -> list[tuple[str, str]]:
    found = who.decide(parse_mailbox(address), client=STRANGER)
    assert not isinstance(found, Reply), found
    return [(str(each.address), str(each.original or "")) for each in found]


def test_a_sub_address_comes_to_the_maildir_of_its_mailbox_and_is_remembered() -> None:
    assert led("Bob+Tag@a.example", tagged("bob")) == [("Bob@a.example", "Bob+Tag@a.example")]


def test_who_sorts_by_the_tag_is_given_it() -> None:
    who = tagged("bob", deliver="lmtp://127.0.0.1:24")
    assert led("bob+tag@a.example", who) == [("bob+tag@a.example", "")]


def test_a_name_in_full_comes_before_the_one_without_its_tag() -> None:
    who = tagged("bob", "bob+own", aliases={"bob+led": ["carol@b.example"]})
    assert led("bob+own@a.example", who) == [("bob+own@a.example", "")]
    assert led("bob+led@a.example", who) == [("carol@b.example", "bob+led@a.example")]


def test_what_is_named_comes_before_what_takes_any() -> None:
    who = tagged("*", "bob")
    assert led("bob+tag@a.example", who)[0][0] == "bob@a.example"
    assert led("eve+tag@a.example", who)[0][0] == "eve@a.example"


@pytest.mark.parametrize("address", ["+tag@a.example", "eve+tag@a.example"])
def test_a_tag_makes_no_mailbox(address: str) -> None:
    assert decide(address, tagged("bob")) is NO_SUCH_MAILBOX


def test_an_alias_may_be_named_with_a_tag_and_lead_to_one() -> None:
    who = tagged("bob", aliases={"sales": ["bob+sales"]})
    assert led("sales+x@a.example", who) == [("bob@a.example", "sales+x@a.example")]


def test_the_catch_all_gets_what_is_for_nobody_else() -> None:
    who = tagged("bob", "eve", aliases={"team": ["eve"]}, catch_all=["bob", "far@b.example"])
    assert led("eve@a.example", who) == [("eve@a.example", "")]
    assert led("team@a.example", who) == [("eve@a.example", "team@a.example")]
    assert led("gone+x@a.example", who) == [
        ("bob@a.example", "gone+x@a.example"),
        ("far@b.example", "gone+x@a.example"),
    ]


def test_a_catch_all_that_catches_itself_defers() -> None:
    assert decide("x@a.example", tagged(catch_all=["gone"])) is ALIAS_LOOP


async def test_an_address_of_ours_has_an_owner_if_it_comes_to_one_mailbox() -> None:
    who = tagged(
        "bob",
        "eve",
        aliases={
            "Sales": ["Bob+s"],
            "all": ["bob", "eve"],
            "out": ["x@b.example"],
            "loop": ["loop"],
        },
    )
    owners = {
        address: await who.owner_of(parse_mailbox(address))
        for address in (
            *("BOB@A.example", "bob+x@a.example", "sales@a.example", "all@a.example"),
            *("out@a.example", "loop@a.example", "gone@a.example", "bob@b.example"),
        )
    }
    bob = Mailbox("bob", "a.example")
    assert [address for address, owner in owners.items() if owner is not None] == [
        *("BOB@A.example", "bob+x@a.example", "sales@a.example"),
    ]
    assert owners["sales@a.example"] == owners["bob+x@a.example"] == bob
    assert await who.owner_of(Mailbox("postmaster", "")) == Mailbox("postmaster", "a.example")


async def test_the_owner_of_what_a_catch_all_catches_is_who_gets_it() -> None:
    who = tagged("bob", catch_all=["bob"])
    assert await who.owner_of(parse_mailbox("any@a.example")) == Mailbox("bob", "a.example")
    lmtp = tagged("bob", deliver="lmtp://127.0.0.1:24")
    assert await lmtp.owner_of(parse_mailbox("bob+x@a.example")) == Mailbox("bob", "a.example")
