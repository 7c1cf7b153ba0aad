"""A real Postfix that wants TLS and a login before it takes mail of ours for others."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
import trustme

from tests.scenarios import messages, ports
from tests.scenarios.conftest import needs, needs_root
from tests.scenarios.sink import Sink
from tests.scenarios.smarthost import PASSWORD, USER, Smarthost, smarthost
from tests.scenarios.test_submission import ANN, FAR, House
from tests.scenarios.test_submission import PASSWORD as SECRET

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.scenarios.conftest import MakeDaemon
    from tests.scenarios.daemon import Daemon

pytestmark = [pytest.mark.scenario, needs("postfix", "dovecot"), needs_root]

TO = "bob@postfix.example"


@pytest.fixture(params=["scram-sha-256 plain login", "plain login", "login"])
def host(place: Path, request: pytest.FixtureRequest) -> Iterator[Smarthost]:
    mechanisms: str = request.param
    with smarthost(place / "smarthost", *mechanisms.split()) as running:
        running.best = mechanisms.split()[0].upper()
        yield running


@pytest.fixture
def usual(place: Path) -> Iterator[Smarthost]:
    with smarthost(place / "smarthost", "scram-sha-256", "plain") as running:
        yield running


def route(host: Smarthost, place: Path, *via: str, **keys: object) -> dict[str, object]:
    file = place / "password"
    file.write_text(f"{PASSWORD}\n")
    file.chmod(0o600)
    return {
        "match": "*",
        "via": [*via] or [f"smtp://127.0.0.1:{host.starttls}"],
        "server_name": "localhost",
        "authorities": str(host.authorities),
        "login": {"user": USER, "password_file": str(file)},
        **keys,
    }


def arrived(host: Smarthost) -> bytes:
    (content,) = ports.eventually(host.postfix.mail, what="mail at the smarthost")
    return content


def deferred(elemta: Daemon) -> dict[str, object]:
    found = ports.eventually(lambda: elemta.events("delivery.deferred"), what="an attempt in vain")
    return found[0]


@pytest.mark.parametrize("implicit", [False, True], ids=["STARTTLS", "implicit"])
def test_mail_goes_out_verified_and_logged_in(
    make_elemta: MakeDaemon, place: Path, host: Smarthost, implicit: bool
) -> None:
    via = f"smtps://127.0.0.1:{host.implicit}" if implicit else ""
    elemta = make_elemta({"routes": [route(host, place, *filter(None, [via]))]})
    elemta.start()

    elemta.send(messages.AWKWARD, [TO])

    content = arrived(host)
    assert messages.without_trace(content) == messages.lines(messages.AWKWARD)
    assert b"Authenticated sender: " + USER.encode() in content
    assert b"using TLSv1.3" in content
    (delivered,) = ports.eventually(lambda: elemta.events("delivery.delivered"))
    assert str(delivered["tls"]).endswith(" verified")
    assert PASSWORD not in elemta.log.read_text()
    told = elemta.tell("queue", "transcript", str(delivered["id"]))
    assert f"AUTH {host.best}" in told
    assert PASSWORD not in told


def test_who_is_vouched_for_by_a_stranger_gets_nothing_until_that_is_mended(
    make_elemta: MakeDaemon, place: Path, usual: Smarthost
) -> None:
    stranger = place / "stranger.pem"
    stranger.write_bytes(trustme.CA().cert_pem.bytes())
    entry = route(usual, place, authorities=str(stranger))
    elemta = make_elemta({"routes": [entry]})
    elemta.start()

    elemta.send(messages.numbered("secret"), [TO])

    reply = str(deferred(elemta)["reply"])
    assert "the certificate is not good" in reply
    assert elemta.waiting() == 1
    assert "AUTH" not in usual.postfix.log()
    entry["authorities"] = str(usual.authorities)
    elemta.write_config()
    elemta.signal(signal.SIGHUP)
    ports.eventually(lambda: elemta.events("config.reloaded"), what="the reload")
    elemta.flush()
    arrived(usual)


def test_a_wrong_password_keeps_mail_waiting_until_the_right_one_is_read(
    make_elemta: MakeDaemon, place: Path, usual: Smarthost
) -> None:
    elemta = make_elemta({"routes": [route(usual, place)]})
    (place / "password").write_text("wrong\n")
    elemta.start()

    elemta.send(messages.numbered("kept"), [TO])

    assert deferred(elemta)["reply"]
    (refused,) = ports.eventually(lambda: elemta.events("delivery.login_refused"))[:1]
    assert (refused["level"], refused["user"]) == ("error", USER)
    (place / "password").write_text(f"{PASSWORD}\n")
    elemta.signal(signal.SIGHUP)
    ports.eventually(lambda: elemta.events("config.reloaded"), what="the reload")
    elemta.flush()
    arrived(usual)


def test_a_password_that_anybody_may_read_is_told_before_anything_runs(
    make_elemta: MakeDaemon, place: Path, usual: Smarthost
) -> None:
    elemta = make_elemta({"routes": [route(usual, place)]})
    (place / "password").chmod(0o644)
    elemta.write_config()
    process = elemta.begin("check")
    _, error = process.communicate(timeout=60.0)
    assert process.returncode
    assert "routes[0].login.password_file: no password: others may read" in error


def test_explain_says_which_route_a_sender_has_and_who_we_are_there(
    make_elemta: MakeDaemon, place: Path, usual: Smarthost
) -> None:
    entry = route(usual, place, senders=["@shop.example"])
    elemta = make_elemta({"routes": [entry, {"match": "*", "via": ["discard"]}]})
    elemta.start()

    told = elemta.tell("explain", "--from", "sales@shop.example", "--to", TO)
    assert "is among its senders: @shop.example" in told
    assert f"logged in as {USER}" in told
    assert "and a certificate for localhost" in told
    assert PASSWORD not in told
    assert "discarded" in elemta.tell("explain", "--from", "ann@else.example", "--to", TO)


@pytest.mark.parametrize("implicit", [False, True], ids=["STARTTLS", "implicit"])
def test_one_of_us_is_the_smarthost_of_another(
    make_elemta: MakeDaemon, place: Path, implicit: bool
) -> None:
    with Sink() as sink:
        there, here = place / "there", place / "here"
        there.mkdir()
        here.mkdir()
        house = House(make_elemta(folder=there), there, sink)
        file = here / "password"
        file.write_text(f"{SECRET}\n")
        file.chmod(0o600)
        elemta = make_elemta(
            {
                "domains": [],
                "routes": [
                    {
                        "match": "*",
                        "senders": [ANN],
                        # Its certificate is for this address, and it vouches for itself.
                        "via": [f"smtp{'s' * implicit}://{house.at(implicit)}"],
                        "authorities": str(house.certificate),
                        "login": {"user": ANN, "password_file": str(file)},
                    },
                    {"match": "*", "via": ["discard"]},
                ],
            },
            here,
        )
        elemta.start()
        content = f"From: {ANN}\r\nSubject: by way of us\r\n\r\nhello\r\n".encode()
        elemta.send(content, [FAR], sender=ANN)
        (delivery,) = ports.eventually(lambda: sink.deliveries, what="a message for carol")
        assert delivery.recipients == [FAR]
        assert b"ESMTPSA" in delivery.content
        (delivered,) = ports.eventually(lambda: elemta.events("delivery.delivered"))
        assert str(delivered["tls"]).endswith(" verified")
        assert "AUTH SCRAM-SHA-256" in elemta.tell("queue", "transcript", str(delivered["id"]))
