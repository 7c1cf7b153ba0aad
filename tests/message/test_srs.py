from __future__ import annotations

import pytest

from elemta.message.srs import LIFETIME, Srs, is_rewritten
from elemta.protocol import Mailbox, parse_mailbox

DAY = 86400
NOW = 1_800_000_000.0
ANN = Mailbox("Ann.Bee", "far.example")
SRS = Srs("us.example", [b"first secret"])
OTHER = Srs("second.example", [b"second secret"])


def rewritten(srs: Srs, sender: Mailbox, now: float = NOW) -> Mailbox:
    found = srs.rewritten(sender, now)
    assert found is not None
    return found


def test_a_sender_is_rewritten_and_found_again() -> None:
    ours = rewritten(SRS, ANN)
    head, hash_, day, rest = ours.local_part.split("=", 3)
    assert (head, len(hash_), len(day), rest) == ("SRS0", 6, 2, "far.example=Ann.Bee")
    assert ours.domain == "us.example"
    assert is_rewritten(ours.local_part)
    assert SRS.original(ours, NOW) == ANN
    assert parse_mailbox(str(ours)) == ours


@pytest.mark.parametrize(
    "sender", ["a=b+c@far.example", '"a b"@far.example', "x@[192.0.2.1]", "müller@far.example"]
)
def test_whatever_an_address_has_in_it(sender: str) -> None:
    mailbox = parse_mailbox(sender)
    assert SRS.original(rewritten(SRS, mailbox), NOW) == mailbox


def test_servers_on_the_way_may_change_the_case() -> None:
    ours = rewritten(SRS, ANN)
    lower = Mailbox(ours.local_part.lower(), ours.domain)
    assert SRS.original(lower, NOW) == Mailbox("ann.bee", "far.example")


def test_a_forwarder_of_a_forwarder_leads_back_to_the_first() -> None:
    first = rewritten(OTHER, Mailbox("a", "f.example"))
    second = rewritten(SRS, first)
    assert second.local_part.startswith("SRS1=")
    third = Srs("t.example", [b"t"]).rewritten(second, NOW)
    assert third is not None
    assert third.local_part.count("SRS") == 1  # it does not grow with each
    assert SRS.original(second, NOW) == first
    assert Srs("t.example", [b"t"]).original(third, NOW) == first
    assert OTHER.original(first, NOW) == Mailbox("a", "f.example")


def test_others_may_separate_by_another_sign() -> None:
    sender = Mailbox("SRS0+abcd=AB=f.example=a", "s.example")
    ours = rewritten(SRS, sender)
    assert ours.local_part.endswith("=s.example=+abcd=AB=f.example=a")
    assert SRS.original(ours, NOW) == sender


@pytest.mark.parametrize("local_part", ["SRS1=h==x", "SRS1=h=host", "SRS1=h=host=x"])
def test_what_only_looks_like_one_is_a_sender_like_others(local_part: str) -> None:
    sender = Mailbox(local_part, "f.example")
    ours = rewritten(SRS, sender)
    assert ours.local_part.startswith("SRS0=")
    assert SRS.original(ours, NOW) == sender


@pytest.mark.parametrize(
    ("days", "valid"),
    [(0, True), (LIFETIME, True), (LIFETIME + 1, False), (500, False), (-1, True), (-2, False)],
)
def test_it_holds_for_three_weeks(days: int, valid: bool) -> None:
    ours = rewritten(SRS, ANN)
    assert (SRS.original(ours, NOW + days * DAY) is not None) is valid


def test_a_secret_may_be_replaced() -> None:
    ours = rewritten(SRS, ANN)
    both = Srs("us.example", [b"new secret", b"first secret"])
    assert both.original(ours, NOW) == ANN
    assert Srs("us.example", [b"new secret"]).original(ours, NOW) is None
    assert Srs("us.example", [b"new secret"]).original(rewritten(both, ANN), NOW) == ANN


@pytest.mark.parametrize("place", range(len("SRS0=hhhhhh=dd=far.example=Ann.Bee")))
def test_what_was_changed_anywhere_leads_nowhere(place: int) -> None:
    text = rewritten(SRS, ANN).local_part
    changed = text[:place] + ("1" if text[place] != "1" else "2") + text[place + 1 :]
    if is_rewritten(changed):
        assert SRS.original(Mailbox(changed, "us.example"), NOW) is None
    else:
        assert place < 5


@pytest.mark.parametrize(
    "local_part",
    [
        *("SRS0=", "SRS0=======", "SRS0=h=d=x", "SRS1=", "SRS1=h", "SRS1=h=host=", "SRS1=h=host=x"),
        *("SRS0-h-d-x-y", "srs1=======", "SRS0=é=é=é=é"),
    ],
)
def test_what_nobody_has_made_leads_nowhere(local_part: str) -> None:
    assert is_rewritten(local_part)
    assert SRS.original(Mailbox(local_part, "us.example"), NOW) is None


def test_a_hash_of_what_is_no_address_or_no_day_leads_nowhere() -> None:
    for day, domain, user in (("A1", "f.example", "a"), ("AAA", "f.example", "a")):
        hash_ = SRS._hash(b"first secret", day, domain, user)
        made = Mailbox(f"SRS0={hash_}={day}={domain}={user}", "us.example")
        assert SRS.original(made, NOW) is None
    day = rewritten(SRS, ANN).local_part.split("=")[2]
    hash_ = SRS._hash(b"first secret", day, "-", "a")
    assert SRS.original(Mailbox(f"SRS0={hash_}={day}=-=a", "us.example"), NOW) is None


@pytest.mark.parametrize("local_part", ["srs0", "SRS2=x", "SRS0.x", "bob", ""])
def test_other_names_are_no_such_addresses(local_part: str) -> None:
    assert not is_rewritten(local_part)


def test_what_would_be_too_long_for_an_address_is_not_rewritten() -> None:
    assert SRS.rewritten(Mailbox("a" * 64, "far.example"), NOW) is None
