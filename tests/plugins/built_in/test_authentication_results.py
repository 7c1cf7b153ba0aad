from __future__ import annotations

import pytest

from elemta.config import ConfigError
from elemta.mailauth import Arc, DkimSignature, Dmarc, Iprev, Spf
from elemta.plugins import Continue, rewritten
from elemta.plugins.built_in.authentication_results import AuthenticationResults, Settings
from elemta.testing import FakeContent, a_session, a_transaction, some_tools

HEADER = b"From: ann@sender.example\r\n"


def plugin(settings: Settings | None = None) -> AuthenticationResults:
    made = AuthenticationResults(settings or Settings())
    made.tools = some_tools("authentication-results")
    return made


async def header_after(
    header: bytes, settings: Settings | None = None, *, trusted: bool = False
) -> bytes:
    transaction = a_transaction(a_session(trusted=trusted))
    verdict = await plugin(settings).on_message(transaction, FakeContent(header + b"\r\nx\r\n"))
    assert isinstance(verdict, Continue)
    return rewritten(header, verdict.changes)


async def test_all_that_was_found_stands_in_one_field() -> None:
    transaction = a_transaction()
    for result in (
        Dmarc("pass", "sender.example"),
        Arc("none"),
        DkimSignature("pass", "sender.example", "s1"),
        DkimSignature("fail", "other.example", "s1", reason="the body was changed"),
        Spf("fail", "sender.example"),
    ):
        transaction.results.add(result)
    transaction.session.results.add(Iprev("pass", "192.0.2.1", "host.example"))
    verdict = await plugin().on_message(transaction, FakeContent(HEADER + b"\r\n"))
    assert isinstance(verdict, Continue)
    assert rewritten(HEADER, verdict.changes) == (
        b"Authentication-Results: mx.us.example; iprev=pass (host.example)\r\n"
        b" policy.iprev=192.0.2.1; spf=fail smtp.mailfrom=sender.example; dkim=pass\r\n"
        b" header.d=sender.example header.s=s1; dkim=fail (the body was changed)\r\n"
        b" header.d=other.example header.s=s1; arc=none; dmarc=pass (p=none)\r\n"
        b" header.from=sender.example\r\n" + HEADER
    )


async def test_that_nothing_was_found_is_said_too() -> None:
    assert await header_after(HEADER) == b"Authentication-Results: mx.us.example; none\r\n" + HEADER


OURS = b"Authentication-Results: mx.us.example; none\r\n"


@pytest.mark.parametrize(
    "forged",
    [
        b"Authentication-Results: mx.us.example; dmarc=pass\r\n",
        b"AUTHENTICATION-results : MX.US.Example;\r\n dmarc=pass\r\n",
        b"Authentication-Results:\r\n (I am)\r\n mx.us.example; dmarc=pass\r\n",
        b"Authentication-Results\r\n : mx.us.example; dmarc=pass\r\n",
        b"Authentication-Results: old.us.example; dmarc=pass\r\n",
    ],
)
@pytest.mark.parametrize("trusted", [False, True])
async def test_forged_fields_go_and_others_stay(forged: bytes, trusted: bool) -> None:
    other = b"Authentication-Results: other.example; dmarc=pass\r\n"
    found = await header_after(
        other + forged + HEADER + forged + other,
        Settings(also_ours=("Old.us.example",)),
        trusted=trusted,
    )
    assert found == (b"" if trusted else OURS) + other + HEADER + other


@pytest.mark.parametrize("name", ["mx us.example", "mx.us.example;", "", "mx.us.example\n"])
async def test_another_name_that_nobody_can_have_is_a_mistake_of_the_file(name: str) -> None:
    with pytest.raises(ConfigError, match=r"here\.also_ours\[0\]"):
        AuthenticationResults.configured({"also_ours": [name]}, "here")


async def test_a_field_that_is_odd_saves_no_other() -> None:
    odd = b"Authentication-Results\r\n : other.example; none\r\n"
    forged = b"Authentication-Results: mx.us.example; dmarc=pass\r\n"
    assert await header_after(odd + forged + HEADER) == OURS + odd + HEADER


async def test_whoever_forges_many_loses_all() -> None:
    forged = b"Authentication-Results: mx.us.example; dmarc=pass\r\n"
    transaction = a_transaction()
    content = FakeContent(forged * 500 + HEADER + b"\r\n")
    verdict = await plugin().on_message(transaction, content)
    assert isinstance(verdict, Continue)
    assert len(verdict.changes) == 2
    assert rewritten(forged * 500 + HEADER, verdict.changes) == OURS + HEADER


async def test_it_can_have_another_name() -> None:
    settings = AuthenticationResults.configured({"authserv_id": "us.example"}, "here").settings
    assert (await header_after(HEADER, settings)).startswith(
        b"Authentication-Results: us.example; none\r\n"
    )
    with pytest.raises(ConfigError, match=r"here\.authserv_id"):
        AuthenticationResults.configured({"authserv_id": "us; dmarc=pass"}, "here")
