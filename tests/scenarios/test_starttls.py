"""Next hops that offer STARTTLS, and what becomes of mail where they cannot do it."""

from __future__ import annotations

import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.scenarios import messages, ports
from tests.scenarios.conftest import needs
from tests.scenarios.sink import Silence, Sink, Step, offering

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.scenarios.conftest import MakeDaemon
    from tests.scenarios.sink import Answer

pytestmark = [pytest.mark.scenario, needs("openssl")]


@pytest.fixture
def sink(place: Path) -> Iterator[Sink]:
    """A next hop that offers STARTTLS, with a certificate that nobody vouches for."""
    key, certificate = place / "key.pem", place / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=sink.example",
         "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True, timeout=60.0,
    )  # fmt: skip
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with Sink(tls=tls) as sink:
        sink.answer(Step.EHLO, offering("PIPELINING", "8BITMIME", "STARTTLS"))
        yield sink


def route(sink: Sink, **keys: object) -> dict[str, object]:
    return {"routes": [{"match": "*", "via": [f"smtp://127.0.0.1:{sink.port}"], **keys}]}


def test_mail_goes_encrypted_where_starttls_is_offered(make_elemta: MakeDaemon, sink: Sink) -> None:
    elemta = make_elemta(route(sink))
    elemta.start()

    elemta.send(messages.AWKWARD, ["carol@far.example"])

    (delivery,) = ports.eventually(lambda: sink.deliveries)
    assert delivery.encrypted
    assert messages.without_trace(delivery.content) == messages.lines(messages.AWKWARD)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param("454 4.7.0 not today", id="454"),
        pytest.param(Silence.DROP, id="hangs up"),
        pytest.param(None, id="no TLS behind the 220"),
    ],
)
def test_where_starttls_is_broken_mail_goes_in_the_clear(
    make_elemta: MakeDaemon, answer: Answer | None
) -> None:
    with Sink() as sink:
        sink.answer(Step.EHLO, offering("PIPELINING", "8BITMIME", "STARTTLS"))
        if answer is not None:
            sink.answer(Step.STARTTLS, answer)
        elemta = make_elemta(route(sink))
        elemta.start()

        elemta.send(messages.numbered("broken"), ["carol@far.example"])

        (delivery,) = ports.eventually(lambda: sink.deliveries, within=60.0)
        assert not delivery.encrypted


def test_where_tls_is_required_nothing_goes_in_the_clear(make_elemta: MakeDaemon) -> None:
    with Sink() as sink:
        sink.answer(Step.EHLO, offering("PIPELINING", "STARTTLS"))
        sink.answer(Step.STARTTLS, "454 4.7.0 not today")
        elemta = make_elemta(route(sink, tls="required"))
        elemta.start()

        elemta.send(messages.numbered("secret"), ["carol@far.example"])

        ports.eventually(lambda: elemta.events("delivery.deferred"), what="a delivery in vain")
        assert elemta.waiting() == 1
        assert not sink.deliveries
