"""Keys are made, and their records shown and checked."""

from __future__ import annotations

import json
import os
import stat
import time
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from elemta.cli import codes, main, signing
from elemta.mailauth import key_record, read_private_key
from elemta.net.dns import DnsResolver
from elemta.testing import FakeDns
from tests.mailauth.signing import ed25519_key, rsa_key

if TYPE_CHECKING:
    from pathlib import Path


class Place:
    """A server that does not run, with keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "elemta.yaml"
        self.write()

    def write(self, *selectors: str) -> None:
        keys = [
            {"domain": "us.example", "selector": each, "key": str(self.folder / each)}
            for each in selectors
        ]
        plugins = [{"name": "dkim-sign", "settings": {"keys": keys}}] if keys else []
        self.config.write_text(
            "hostname: mx.us.example\ndata_dir: data\n"
            f'listeners: [{{name: mx, address: "127.0.0.1:0"}}]\nplugins: {json.dumps(plugins)}\n'
        )

    def key(self, selector: str, octets: bytes) -> None:
        (path := self.folder / selector).touch(0o600)
        path.write_bytes(octets)

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, ["dkim", *arguments])

    def run_here(self, *arguments: str) -> Result:
        return self.run(*arguments, "--config", str(self.config))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> FakeDns:
    fake = FakeDns()
    monkeypatch.setattr(signing, "DnsResolver", lambda *_, **__: DnsResolver(backend=fake))
    return fake


@pytest.mark.parametrize(("kind", "strings"), [("rsa", 2), ("ed25519", 1)])
def test_a_key_is_made_and_its_record_printed(place: Place, kind: str, strings: int) -> None:
    folder = place.folder / "keys"
    months = [time.strftime("%Y%m", time.gmtime())]
    done = place.run("generate", "US.example.", "--kind", kind, "--directory", str(folder))
    months.append(time.strftime("%Y%m", time.gmtime()))  # another one, if it has just ended
    assert done.exit_code == 0, done.output
    (path,) = folder.iterdir()
    short = "rsa" if kind == "rsa" else "ed"
    assert path.name in [f"us.example.{short}{month}.pem" for month in months]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    key = read_private_key(path)
    texts = done.stdout.split('"')[1::2]
    assert ("".join(texts), len(texts)) == (key_record(key), strings)
    assert done.stdout.startswith(f"{path.name.split('.')[2]}._domainkey.us.example. IN TXT ")
    assert str(path) in done.stderr
    assert "PRIVATE" not in done.output


def test_no_key_is_written_over(place: Place) -> None:
    make = ("generate", "us.example", "--selector", "s", "--directory", str(place.folder))
    assert place.run(*make).exit_code == 0
    before = (place.folder / "us.example.s.pem").read_bytes()
    done = place.run(*make)
    assert done.exit_code == codes.UNREADABLE
    assert "is there, and may sign" in done.stderr
    assert (place.folder / "us.example.s.pem").read_bytes() == before
    assert not [each for each in place.folder.iterdir() if each.name.startswith(".")]


def test_programs_are_told_in_json(place: Place) -> None:
    done = place.run("generate", "us.example", "--directory", str(place.folder), "--json")
    told = json.loads(done.stdout)
    assert (told["kind"], told["bits"], told["domain"]) == ("rsa", 2048, "us.example")
    assert told["record"].startswith("v=DKIM1; k=rsa; p=")
    assert told["name"] == f"{told['selector']}._domainkey.us.example"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_makes_belongs_to_whom_the_directory_belongs_to(place: Place) -> None:
    os.chown(place.folder, 4711, 4712)
    place.run("generate", "us.example", "--selector", "s", "--directory", str(place.folder))
    state = (place.folder / "us.example.s.pem").stat()
    assert (state.st_uid, state.st_gid) == (4711, 4712)


@pytest.mark.parametrize(
    "wrong",
    [("a b",), ("us.example", "--selector", "a_b"), ("us.example", "--bits", "1024"), ()],
)
def test_what_cannot_be_is_misuse(place: Place, wrong: tuple[str, ...]) -> None:
    done = place.run("generate", *wrong, "--directory", str(place.folder))
    assert done.exit_code == codes.USAGE
    assert list(place.folder.iterdir()) == [place.config]


def test_a_place_where_nothing_can_be_written_is_told(place: Place) -> None:
    done = place.run("generate", "us.example", "--directory", str(place.config))
    assert done.exit_code == codes.UNREADABLE
    assert "cannot be written" in done.stderr


def test_records_are_those_of_the_configuration_or_of_a_file(place: Place) -> None:
    place.key("r", rsa_key()[0])
    place.key("e", ed25519_key()[0])
    place.write("r", "e")
    done = place.run_here("record")
    assert done.stdout.count("._domainkey.us.example. IN TXT") == 2
    done = place.run_here("record", "us.example", "--selector", "e")
    assert done.stdout == f'e._domainkey.us.example. IN TXT "{ed25519_key()[1]}"\n'
    file = ("--key", str(place.folder / "e"), "--selector", "new")
    done = place.run_here("record", "them.example", *file)
    assert done.stdout == f'new._domainkey.them.example. IN TXT "{ed25519_key()[1]}"\n'
    assert place.run_here("record", *file).exit_code == codes.USAGE
    assert place.run_here("record", "them.example").exit_code == codes.NOT_FOUND
    lost = ("--key", str(place.folder / "lost"), "--selector", "new")
    assert place.run_here("record", "them.example", *lost).exit_code == codes.UNREADABLE
    told = json.loads(place.run_here("record", "--json").stdout)
    assert [each["selector"] for each in told] == ["r", "e"]


def test_records_that_are_right_are_good(place: Place, dns: FakeDns) -> None:
    place.key("r", rsa_key()[0])
    place.key("e", ed25519_key()[0])
    place.write("r", "e")
    dns.text("r._domainkey.us.example", rsa_key()[1])
    dns.text("e._domainkey.us.example", ed25519_key()[1] + "; t=y")
    done = place.run_here("check")
    assert done.exit_code == 0
    first, second = done.stdout.splitlines()
    assert first == ("r._domainkey.us.example  rsa, 1024 bits: good; fewer than 2048 bits are weak")
    assert second.startswith("e._domainkey.us.example  ed25519, 256 bits: good; but only tried")
    told = json.loads(place.run_here("check", "us.example", "--json").stdout)
    assert [(each["result"], each["testing"]) for each in told] == [("good", False), ("good", True)]


@pytest.mark.parametrize(
    ("records", "told"),
    [
        ([], "missing: there is no such record"),
        ([rsa_key(1025)[1]], "wrong: it is of another key"),
        ([ed25519_key()[1]], "wrong: it is of a key of another kind, ed25519"),
        (["v=DKIM1; p="], "wrong: the key was revoked"),
        (["v=spf1 -all"], "wrong: "),
        ([rsa_key()[1] + "; h=sha1"], "wrong: it does not allow SHA-256"),
        ([rsa_key()[1], rsa_key()[1] + ";"], "wrong: there are 2 records"),
    ],
    ids=range(7),
)
def test_records_that_are_wrong_are_told(
    place: Place, dns: FakeDns, records: list[str], told: str
) -> None:
    place.key("r", rsa_key()[0])
    place.write("r")
    for each in records:
        dns.text("r._domainkey.us.example", each)
    done = place.run_here("check")
    assert told in done.stdout
    assert done.exit_code == codes.NOT_FOUND


def test_what_the_dns_cannot_say_is_to_be_asked_again(place: Place, dns: FakeDns) -> None:
    place.key("r", rsa_key()[0])
    place.write("r")
    dns.failing = {"r._domainkey.us.example"}
    done = place.run_here("check")
    assert done.exit_code == codes.TRY_LATER
    assert "temperror: the DNS cannot say" in done.stdout


def test_without_a_key_nothing_is_good(place: Place, dns: FakeDns) -> None:
    assert place.run_here("check").exit_code == codes.NOT_FOUND
    place.write("lost")
    done = place.run_here("check")
    assert done.exit_code == codes.MISCONFIGURED
    assert "plugins[0].settings.keys[0].key" in done.stderr
