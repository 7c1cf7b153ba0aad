"""`elemta cert`: what certificates are, and what is wrong with them."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import trustme
import yaml
from click.testing import CliRunner

from elemta.cli import main
from tests.net.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from click.testing import Result


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def cert(tmp_path: Path) -> Callable[..., Result]:
    def run(command: str, *arguments: str, pairs: list[dict[str, str]] | None = None) -> Result:
        config = {
            "hostname": "mx.example",
            "listeners": [{"name": "mx", "address": "127.0.0.1:0"}],
            "tls": {"certificates": pairs or []},
        }
        (tmp_path / "elemta.yaml").write_text(yaml.safe_dump(config))
        file = str(tmp_path / "elemta.yaml")
        return CliRunner().invoke(main, ["cert", command, *arguments, "--config", file])

    return run


def test_what_they_are_is_told(authority: Authority, cert: Callable[..., Result]) -> None:
    pairs = [authority.issue("mx.example", "*.b.example"), authority.issue("c.example")]
    done = cert("info", pairs=pairs)
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert lines[0] == f"tls.certificates[0]: {pairs[0]['certificate']}"
    assert "  names      mx.example *.b.example" in lines
    assert "  key        ECDSA P-256" in lines
    told = json.loads(cert("info", "--json", pairs=pairs).output)
    assert [each["names"] for each in told] == [["mx.example", "*.b.example"], ["c.example"]]
    assert told[1]["place"] == "tls.certificates[1]"
    assert told[0]["days_left"] > 300


def test_without_any_that_is_told(cert: Callable[..., Result]) -> None:
    assert cert("info").output == "the configuration names no certificates\n"
    assert cert("check").output == "there are none\n"


def test_what_cannot_be_read_is_told_and_the_rest_too(
    authority: Authority, cert: Callable[..., Result], tmp_path: Path
) -> None:
    gone = str(tmp_path / "gone")
    done = cert("info", pairs=[{"certificate": gone, "key": gone}, authority.issue("a.example")])
    assert done.exit_code == 74
    assert f"tls.certificates[0]: {gone} cannot be read" in done.output
    assert "  names      a.example" in done.output


def test_all_may_be_well(authority: Authority, cert: Callable[..., Result]) -> None:
    done = cert("check", pairs=[authority.issue("mx.example")])
    assert (done.exit_code, done.output) == (0, "all is well with 1 of them\n")


def test_what_is_wrong_is_told(authority: Authority, cert: Callable[..., Result]) -> None:
    soon = datetime.now(UTC) + timedelta(days=3, hours=1)
    pairs = [authority.issue("a.example", not_after=soon), authority.issue("b.example")]
    pairs[1]["key"] = pairs[0]["key"]
    done = cert("check", "--json", pairs=pairs)
    assert done.exit_code == 65
    told = [(each["place"], each["problem"]) for each in json.loads(done.output)]
    assert told[0] == ("tls.certificates[0]", "it runs out in 3 days")
    assert "no certificate and its key" in told[1][1]
    assert told[2] == (
        "tls.certificates[0]",
        "none of them is for mx.example, the hostname",
    )


def test_a_server_that_cannot_be_reached_is_told(cert: Callable[..., Result]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    done = cert("check", f"127.0.0.1:{port}")
    assert done.exit_code == 69
    assert "Connection refused" in done.output
    assert cert("check", "--name", "x.example").exit_code == 64
    assert cert("check", ":465").exit_code == 64


def test_a_server_that_offers_no_tls_is_told(cert: Callable[..., Result]) -> None:
    def serve() -> None:
        client, _ = listening.accept()
        with client:
            client.sendall(b"220 x ESMTP\r\n")
            client.recv(1000)
            client.sendall(b"250 x\r\n")
            client.recv(1000)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(60)  # nobody comes if what is tested fails before
        thread = threading.Thread(target=serve)
        thread.start()
        done = cert("check", f"127.0.0.1:{listening.getsockname()[1]}")
        thread.join()
    assert done.exit_code == 69
    assert "it does not offer STARTTLS" in done.output


def test_check_of_the_configuration_warns_of_what_is_no_mistake(
    authority: Authority, tmp_path: Path
) -> None:
    pair = authority.issue("mx.example", not_after=datetime.now(UTC) + timedelta(days=3, hours=1))
    config = {
        "hostname": "mx.example",
        "tls": {"certificates": [pair], "client_authorities": str(authority.file)},
        "listeners": [
            {"name": "mx", "address": ":25", "tls": "required", "client_certificates": "asked"},
        ],
    }
    (tmp_path / "elemta.yaml").write_text(yaml.safe_dump(config))
    done = CliRunner().invoke(main, ["check", "--config", str(tmp_path / "elemta.yaml")])
    assert done.exit_code == 0, done.output
    warnings = [line for line in done.output.splitlines() if line.startswith("warning: ")]
    assert [line.split(": ")[1] for line in warnings] == [
        "listeners[0].tls",
        "listeners[0].client_certificates",
        pair["certificate"],
    ]
    assert warnings[2].endswith(": it runs out in 3 days")


def test_check_of_the_configuration_finds_certificates_that_are_wrong(
    authority: Authority, tmp_path: Path
) -> None:
    pair, other = authority.issue("mx.example"), authority.issue("other.example")
    config = {
        "hostname": "mx.example",
        "tls": {"certificates": [{**pair, "key": other["key"]}]},
        "listeners": [{"name": "mx", "address": ":25"}],
    }
    (tmp_path / "elemta.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    done = CliRunner().invoke(main, ["check", "--config", str(tmp_path / "elemta.yaml")])
    assert done.exit_code == 78
    assert "elemta.yaml:4:18: tls.certificates[0].certificate: " in done.output


def test_one_that_nobody_is_shown_is_complained_of(
    authority: Authority, cert: Callable[..., Result]
) -> None:
    pairs = [
        authority.issue("mx.example", "mail.example"),
        authority.issue("mail.example", file="again"),
        authority.issue("mail.example", file="rsa", key_type=trustme.KeyType.RSA),
        authority.issue("mail.example", "pop.example", file="more"),
    ]
    told = json.loads(cert("check", "--json", pairs=pairs).output)
    assert told == [
        {
            "place": "tls.certificates[1]",
            "problem": "nobody is shown it: tls.certificates[0] is for the same, and has the same "
            "kind of key",
        }
    ]
    assert "key        RSA 2048" in cert("info", pairs=pairs).output


@pytest.mark.parametrize("kinds", [["ECDSA"], ["ECDSA", "RSA"]])
def test_a_server_is_asked_for_its_certificate_of_each_kind_of_key(
    kinds: list[str], authority: Authority, cert: Callable[..., Result]
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for kind in kinds:
        pair = authority.issue("mx.example", file=kind, key_type=trustme.KeyType[kind])
        context.load_cert_chain(pair["certificate"], pair["key"])

    def serve() -> None:
        while True:
            client, _ = listening.accept()
            client.settimeout(10)
            with (
                client,
                suppress(OSError),
                context.wrap_socket(client, server_side=True) as encrypted,
            ):
                if encrypted.recv(1) == b"!":
                    return

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        place = f"127.0.0.1:{listening.getsockname()[1]}"
        asking = ("check", place, "--tls", "implicit", "--name", "mx.example")
        told = json.loads(cert(*asking, "--json").output)
        shown = cert(*asking).output
        with (
            socket.create_connection(listening.getsockname()) as client,
            authority.client().wrap_socket(client, server_hostname="mx.example") as encrypted,
        ):
            encrypted.sendall(b"!")
        thread.join()
    found = [told, *told["others"]]
    assert [each["key"].partition(" ")[0] for each in found] == kinds
    assert all("not trusted by this machine" in each["problems"][0] for each in found)
    assert shown.count("  subject ") == len(kinds)
