"""What is signed is what is sent: the delivered octets are held against the keys."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final, TypeVar

import dkim
import pytest
import trio
from typing_extensions import override

from elemta.config import ConfigError, PluginEntry
from elemta.delivery.signing import signed
from elemta.plugins import (
    CONTINUE,
    AddHeader,
    Chain,
    Content,
    Continue,
    Discard,
    Granted,
    Loaded,
    Plugin,
    Reject,
    RemoveHeader,
    TooLargeError,
    Transaction,
    Verdict,
    load,
)
from elemta.plugins.built_in.dkim_sign import DkimSign
from elemta.testing import CONFIG, TRUSTED, FakeContent, a_transaction, running
from elemta.testing.stand_ins import EPOCH, at_once, some_tools
from tests.mailauth.signing import ed25519_key, rsa_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from elemta.plugins import Session
    from elemta.protocol import Credentials
    from elemta.testing import Elemta

T = TypeVar("T")

pytestmark = pytest.mark.usefixtures("virtual_time")

RECORDS: Final = {
    b"r._domainkey.us.example.": rsa_key()[1].encode(),
    b"e._domainkey.us.example.": ed25519_key()[1].encode(),
}
MAIL: Final = "From: Ann <ann@us.example>\nTo: x@far.example\nSubject: hi\n\nHello,  there. \n\n\n"


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of dkimpy is that of the server."""
    monkeypatch.setattr(dkim, "time", SimpleNamespace(time=lambda: EPOCH + 60))


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    for name, octets in (("r", rsa_key()[0]), ("e", ed25519_key()[0])):
        path = tmp_path / name
        path.touch(0o600)
        path.write_bytes(octets)
    return tmp_path


def entry(keys: Path, selectors: str = "re", **settings: object) -> str:
    listed = [{"domain": "us.example", "selector": s, "key": str(keys / s)} for s in selectors]
    found = json.dumps({"keys": listed, **settings})
    return f"plugins:\n- {{name: dkim-sign, settings: {found}}}\n"


def results(octets: bytes) -> list[bool]:
    """What dkimpy says of each signature, from the top."""
    count = octets.partition(b"\r\n\r\n")[0].count(b"DKIM-Signature:")
    found: list[bool] = []
    for place in range(count):
        message = dkim.DKIM(octets)
        verified = message.verify(place, dnsfunc=lambda name, timeout=5: RECORDS[name])  # type: ignore[attr-defined] # no part of what is used outside of tests
        found.append(bool(verified))
    return found


async def sent(elemta: Elemta, mail: str | bytes = MAIL, client: str = TRUSTED) -> bytes:
    elemta.host("far.example")
    reply = await elemta.send("ann@us.example", "x@far.example", mail, client=client)
    assert reply.code == 250, reply
    return elemta.delivered[-1].content


async def test_all_keys_of_a_domain_sign_at_once(keys: Path) -> None:
    async with running(CONFIG + entry(keys)) as elemta:
        content = await sent(elemta)
        assert results(content) == [True, True]
        assert content.startswith(b"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;")
        assert elemta._parts._meters.signatures == {"signed": 1}


class Changes(Plugin):
    """Changes what is signed."""

    name = "changes"

    @override
    async def on_message(self, transaction: Transaction, content: Content) -> Verdict:
        return Continue(
            (
                RemoveHeader("Subject"),
                AddHeader("Subject", "another", top=False),
                AddHeader("Reply-To", "bob@us.example"),
                AddHeader("X-Long", "word " * 100),
            )
        )


class Adds(Plugin):
    """Adds a field of its own when all is done."""

    name = "adds"

    def __init__(self, *fields: AddHeader) -> None:
        self._fields = fields

    @override
    async def on_sign(
        self, transaction: Transaction | None, content: Content
    ) -> Sequence[AddHeader]:
        return self._fields


async def test_what_plugins_behind_it_change_is_signed_as_it_is_by_then(keys: Path) -> None:
    async with running(CONFIG + entry(keys), [Changes()]) as elemta:
        content = await sent(elemta)
        assert results(content) == [True, True]
        assert elemta.delivered[-1].header("subject") == ["another"]
        signed = elemta.delivered[-1].header("dkim-signature")[0].replace(" ", "")
        assert signed.count("reply-to:reply-to:") == 1


@pytest.mark.parametrize(
    "mail",
    [
        pytest.param(MAIL.replace("\n", "\r\n").encode() + b"x \t y  \r\n" * 200_000, id="on disk"),
        pytest.param(b"From: a@us.example\r\n\r\n", id="empty"),
        pytest.param(b"From: a@us.example\r\n", id="no body"),
        pytest.param(b"From: a@us.example\r\n\r\n\r\n\r\n\r\n", id="empty lines"),
        pytest.param(b"From: a@us.example\r\n\r\n.\r\n..\r\n.x\r\n", id="dots"),
        pytest.param(
            b"FROM:\r\n a@us.example\r\nSubject:\r\n\tx\r\n\ty\r\nTo:\r\n\r\nx\r\n", id="folds"
        ),
        pytest.param("From: é <a@us.example>\r\nSubject: é\r\n\r\né\r\n".encode(), id="8 bits"),
        pytest.param(
            b"Subject: a\r\nSubject: b\r\nTo: c\r\nTo: d\r\nFrom: a@us.example\r\n\r\nx\r\n",
            id="twice",
        ),
    ],
)
async def test_whatever_comes_is_signed_as_it_is_delivered(keys: Path, mail: bytes) -> None:
    async with running(CONFIG + entry(keys), [Changes()]) as elemta:
        assert results(await sent(elemta, mail)) == [True, True]


class Anybody(Plugin):
    """Lets people in under the name that they say."""

    name = "anybody"

    @override
    async def on_authenticate(
        self, session: Session, credentials: Credentials
    ) -> Granted | Verdict:
        return Granted(credentials.user)


async def test_what_a_submission_listener_completes_is_signed_as_it_is_then(keys: Path) -> None:
    config = CONFIG.replace("auth: always", "auth: always, kind: submission")
    async with running(config + entry(keys), [Anybody()]) as elemta:
        elemta.host("far.example")
        async with elemta.client() as client:
            await client.say("EHLO client.example")
            assert (await client.log_in("ann@us.example", "x")).code == 235
            for line in ("MAIL FROM:<ann@us.example>", "RCPT TO:<x@far.example>"):
                assert (await client.say(line)).code == 250
            assert (await client.send("Bcc: y@far.example\n" + MAIL)).code == 250
        await elemta.settled()
        (taken,) = elemta.delivered
        assert [len(taken.header(name)) for name in ("date", "message-id", "bcc")] == [1, 1, 0]
        assert results(taken.content) == [True, True]
        assert "date:date" in taken.header("dkim-signature")[0].replace(" ", "")


async def test_nobody_is_vouched_for_who_only_says_that_he_is_ours(keys: Path) -> None:
    async with running(CONFIG + entry(keys)) as elemta:
        assert (await elemta.send("a@us.example", "bob@us.example", MAIL)).code == 250
        assert elemta.delivered[0].header("dkim-signature") == []
        assert not elemta._parts._meters.signatures


async def test_who_hands_in_by_the_api_is_signed_for(keys: Path) -> None:
    async with running(CONFIG + entry(keys)) as elemta:
        elemta.host("far.example")
        await elemta.submit("ann@us.example", "x@far.example", MAIL)
        assert results(elemta.delivered[0].content) == [True, True]
        assert len(elemta.delivered[0].header("date")) == 1


@pytest.mark.parametrize(
    ("author", "why"),
    [
        ("Ann <ann@us.example>", ""),
        ("ann@mail.us.example", "there is no key for mail.us.example"),
        ("a@b.example, c@d.example", "there is no key for b.example or d.example"),
        ("ann@us.example\nFrom: bob@us.example", "2 From fields"),
        ("ann@us.example\nFrom\0: bob@us.example", "a line is nearly a From field"),
        ("nobody", "an author without a domain"),
    ],
)
async def test_the_timeline_says_why_a_message_was_not_signed(
    keys: Path, author: str, why: str
) -> None:
    async with running(CONFIG + entry(keys)) as elemta:
        elemta.host("far.example")
        content = MAIL.replace("Ann <ann@us.example>", author)
        reply = await elemta.send("ann@us.example", "x@far.example", content, client=TRUSTED)
        told = [each for each in elemta.notes(reply) if "not signed" in each]
        assert told == ([f"plugin:dkim-sign: found: not signed: {why}"] if why else [])


@pytest.mark.parametrize(
    ("author", "subdomains", "result"),
    [
        ("ann@us.example", False, "signed"),
        ("ANN@US.EXAMPLE.", False, "signed"),
        ("ann@mail.us.example", False, "no_key"),
        ("ann@mail.us.example", True, "signed"),
        ("ann@example", True, "no_key"),
        ("ann@them.example, bob@us.example", False, "signed"),
        ("ann@us.example\nFrom: bob@us.example", False, "author"),
        ("nobody", False, "author"),
        ("ann@us.example\nFrom\0: bob@us.example", False, "author"),
    ],
)
async def test_the_author_says_whose_key_signs(
    keys: Path, author: str, subdomains: bool, result: str
) -> None:
    async with running(CONFIG + entry(keys, subdomains=subdomains)) as elemta:
        content = await sent(elemta, MAIL.replace("Ann <ann@us.example>", author))
        assert (b"\nDKIM-Signature:" in b"\n" + content) == (result == "signed")
        assert elemta._parts._meters.signatures == {result: 1}


async def test_reports_of_our_own_are_signed_by_the_domain_above_the_host(keys: Path) -> None:
    config = CONFIG.replace("mx.us.example", "mx.us.example") + entry(keys)
    async with running(config) as elemta:
        assert elemta.config.hostname == "mx.us.example"
        far = elemta.host("far.example")
        far.says["RCPT"] = "550 5.1.1 nobody"
        await elemta.send("bob@us.example", "x@far.example", MAIL, client=TRUSTED)
        await elemta.settled()
        (report,) = elemta.delivered
        assert report.header("from") == ["Mail Delivery System <MAILER-DAEMON@mx.us.example>"]
        assert results(report.content.partition(b"Delivered-To:")[2].partition(b"\r\n")[2]) == [
            True,
            True,
        ]


class Fails(Plugin):
    name = "fails"

    @override
    async def on_sign(
        self, transaction: Transaction | None, content: Content
    ) -> Sequence[AddHeader]:
        raise LookupError("a bug")


class Confused(Plugin):
    name = "confused"

    @override
    async def on_sign(  # type: ignore[override] # what an author may do who has no types
        self, transaction: Transaction | None, content: Content
    ) -> Verdict:
        return Continue()


@pytest.mark.parametrize(
    "plugin",
    [Fails(), Confused(), Adds(AddHeader("X", "y", top=False))],
    ids=["raises", "verdict", "bottom"],
)
async def test_what_cannot_be_signed_is_put_off(keys: Path, plugin: Plugin) -> None:
    async with running(CONFIG + entry(keys), [plugin]) as elemta:
        elemta.host("far.example")
        reply = await elemta.send("a@us.example", "x@far.example", MAIL, client=TRUSTED)
        assert str(reply) == "451 4.3.0 try again later"
        assert elemta.queued() == []
        assert {each.event for each in elemta.errors} == {"plugin.failed"}
        elemta.errors.clear()


@pytest.mark.parametrize(
    ("on_failure", "answer", "held", "asked"),
    [
        ("continue", CONTINUE, 0, True),
        ("quarantine", CONTINUE, 1, True),
        ("reject", Reject((3, 0), "this mail cannot be taken"), 0, False),
    ],
)
async def test_the_configuration_says_what_becomes_of_what_cannot_be_signed(
    on_failure: str, answer: Verdict, held: int, *, asked: bool
) -> None:
    last = Adds(AddHeader("X-Next", "is asked"))
    chain = Chain([Loaded(Fails(), on_failure=on_failure), Loaded(last)])
    transaction = a_transaction()
    assert await chain.on_sign(transaction, lambda: FakeContent(MAIL.encode())) == answer
    assert (len(transaction.doomed), transaction.fields_changed) == (held, asked)


async def test_a_report_goes_without_the_fields_of_who_fails(keys: Path) -> None:
    class SeesAll(Adds):
        name = "sees-all"

        @override
        async def on_sign(
            self, transaction: Transaction | None, content: Content
        ) -> Sequence[AddHeader]:
            assert (await content.read()).count(b"X-First: 1") == 1
            with pytest.raises(TooLargeError):
                await content.read(10)
            return [AddHeader("X-Second", "2")]

    plugins = [Adds(AddHeader("X-First", "1")), Fails(), SeesAll()]
    async with running(CONFIG, plugins) as elemta:
        chain = elemta._parts.delivery.reporter._plugins()
        found = await signed(chain, b"Subject: a report\r\n\r\n", "ID")
        assert found == b"X-Second: 2\r\nX-First: 1\r\nSubject: a report\r\n\r\n"
        assert {each.event for each in elemta.errors} == {"plugin.failed"}
        elemta.errors.clear()


async def test_a_report_does_not_wait_for_ever(keys: Path) -> None:
    class Hangs(Adds):
        @override
        async def on_sign(
            self, transaction: Transaction | None, content: Content
        ) -> Sequence[AddHeader]:
            await trio.sleep_forever()

    async with running(CONFIG, [Hangs()]) as elemta:
        chain = elemta._parts.delivery.reporter._plugins()
        report = b"Subject: a report\r\n\r\n"
        assert await signed(chain, report, "ID") == report


async def test_each_that_signs_sees_what_the_ones_before_it_have_added(keys: Path) -> None:
    seen: list[list[str]] = []

    class Looks(Adds):
        @override
        async def on_sign(
            self, transaction: Transaction | None, content: Content
        ) -> Sequence[AddHeader]:
            seen.append([name.decode() for name, _ in content.header.fields])
            whole = await content.read()
            assert whole.startswith(content.header.header + b"\r\n")
            assert content.size == len(whole)
            return ()

    async with running(
        CONFIG, [Adds(AddHeader("X-A", "1"), AddHeader("X-B", "2")), Looks()]
    ) as elemta:
        await sent(elemta)
    assert seen[0][:3] == ["x-b", "x-a", "received"]


class Discards(Plugin):
    name = "discards"

    @override
    async def on_message(self, transaction: Transaction, content: Content) -> Verdict:
        return Discard("nobody wants it")


async def test_what_is_thrown_away_is_not_signed(keys: Path) -> None:
    async with running(CONFIG + entry(keys), [Discards()]) as elemta:
        await elemta.send("a@us.example", "bob@us.example", MAIL, client=TRUSTED)
        assert not elemta._parts._meters.signatures


def made(folder: Path, before: Sequence[Loaded] = (), **settings: object) -> list[Loaded]:
    listed = [{"domain": "us.example", "selector": s, "key": str(folder / s)} for s in "re"]
    entry = PluginEntry(name="dkim-sign", settings={"keys": listed, **settings})
    return load([entry], before)


def test_a_reload_reads_keys_again_and_keeps_what_is_the_same(keys: Path) -> None:
    first = made(keys)
    (second,) = made(keys, first)
    assert second.plugin is first[0].plugin
    (keys / "e").write_bytes(rsa_key(1025)[0])
    (third,) = made(keys, [second])
    assert third.plugin is not second.plugin
    (keys / "e").unlink()
    with pytest.raises(ConfigError, match=r"keys\[1\]\.key"):
        made(keys, [third])


@pytest.mark.parametrize(
    ("settings", "mistake"),
    [
        ({"keys": []}, r"settings\.keys"),
        ({"headers": ["Subject"]}, "must have From"),
        ({"headers": ["From", "Received"]}, "received must not be signed"),
        ({"oversigned": ["From", "X-Mine"]}, "oversigned has X-Mine"),
        ({"expires": "5 min"}, "must be 1 h at least"),
        ({"keys": [{"domain": "a b", "selector": "x", "key": "k"}]}, "expected a domain"),
        ({"keys": [{"domain": "a.b", "selector": "x_y", "key": "k"}]}, "selector"),
        ({"keys": [{"domain": "a.b", "selector": "x", "key": "k"}]}, "expected a whole path"),
        (
            {"keys": [{"domain": "a.b", "selector": "x", "key": "/none"}]},
            r"keys\[0\]\.key: /none: No such",
        ),
    ],
)
def test_mistakes_are_told_with_their_place(
    keys: Path, settings: dict[str, object], mistake: str
) -> None:
    with pytest.raises(ConfigError, match=mistake):
        made(keys, (), **settings)


def test_a_file_that_others_may_read_is_a_mistake_unless_that_is_wanted(keys: Path) -> None:
    (keys / "r").chmod(0o644)
    with pytest.raises(ConfigError, match=r"plugins\[0\]\.settings\.keys\[0\]\.key: .*chmod 0600"):
        made(keys)
    assert made(keys, insecure_keys=True)


def test_two_keys_of_one_name_are_a_mistake(keys: Path) -> None:
    twice = [
        {"domain": d, "selector": "R", "key": str(keys / "r")}
        for d in ("us.example", "US.example.")
    ]
    with pytest.raises(
        ConfigError, match=r"keys\[1\]\.selector: there is another key of the name r\._d"
    ):
        made(keys, keys=twice)


async def test_a_weak_key_is_warned_of(keys: Path) -> None:
    async with running(CONFIG + entry(keys)) as elemta:
        (warned,) = [each for each in elemta.log if each.event == "dkim.weak_key"]
        assert (warned.fields["key"], warned.fields["bits"]) == ("r._domainkey.us.example", 1024)


async def test_signatures_may_expire(keys: Path) -> None:
    async with running(CONFIG + entry(keys, expires="7d")) as elemta:
        content = await sent(elemta)
        assert results(content) == [True, True]
        times = elemta.delivered[0].header("dkim-signature")[0].replace(" ", "").split(";")
        (t,) = [each.strip()[2:] for each in times if each.strip().startswith("t=")]
        assert f"x={int(t) + 7 * 86400}" in [each.strip() for each in times]


@pytest.mark.parametrize(("bits", "aside"), [(1024, False), (2560, True)])
async def test_a_key_that_takes_long_holds_up_nobody(
    tmp_path: Path, bits: int, aside: bool
) -> None:
    (tmp_path / "r").touch(0o600)
    (tmp_path / "r").write_bytes(rsa_key(bits)[0])
    key = {"domain": "us.example", "selector": "r", "key": str(tmp_path / "r")}
    plugin = DkimSign.configured({"keys": [key]}, "here")
    plugin.tools, threads = some_tools(), list[object]()

    async def briefly(call: Callable[[], T]) -> T:
        threads.append(call)
        return await at_once(call)

    plugin.tools.briefly = briefly
    mail = b"From: ann@us.example\r\n\r\nhello\r\n"
    (field,) = await plugin.on_sign(None, FakeContent(mail))
    assert bool(threads) == aside
    record = rsa_key(bits)[1].encode()
    found = dkim.DKIM(field.octets() + mail)
    assert found.verify(dnsfunc=lambda name, timeout=5: record)  # type: ignore[attr-defined] # no part of what is used outside of tests
