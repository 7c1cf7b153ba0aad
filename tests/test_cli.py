from __future__ import annotations

import json
import os
import re
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from elemta import __version__, cli
from elemta.cli import options
from elemta.cli.sending import compose
from elemta.protocol import parse_mailbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from click.testing import Result

ROOT = Path(__file__).parent.parent
ELEMTA = [sys.executable, "-m", "elemta"]
#: Elsewhere, a program finds the sources by this.
ENVIRON = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}

GOOD = """
hostname: mx.example.org
data_dir: ./data
listeners: [{name: mx, address: ["127.0.0.1:2525", "[::1]:2525"]}]
relay: {networks: ["127.0.0.1/32"], domains: [example.com]}
domains: [{name: example.org, mailboxes: [bob], aliases: {sales: [bob]}}]
routes: [{match: "*.example.net", via: ["smtp://127.0.0.1:2600", "smtp://127.0.0.1:2601"]}]
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of our own, on a machine without configuration."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ELEMTA_CONFIG", raising=False)
    monkeypatch.setattr(options, "CONFIG", tmp_path / "etc" / "elemta.yaml")
    return tmp_path


def run(*args: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(cli.main, args, input=stdin)


def test_version() -> None:
    assert run("version").output == f"elemta {__version__}\n"


def test_a_server_without_an_api_does_not_pay_for_one() -> None:
    """It takes half a second of the processor, and 14 MB."""
    program = "import sys, elemta.cli.serving; print(sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], env=ENVIRON, capture_output=True, text=True, check=True
    )
    for module in ("quart", "quart_trio", "hypercorn", "argon2", "werkzeug"):
        assert f"'{module}'" not in done.stdout


@pytest.mark.parametrize(
    ("part", "strangers"),
    [
        # A command that asks the server: one that is typed by hand should answer at once.
        ("looking", {"dns", "prometheus_client", "elemta.delivery", "elemta.plugins"}),
        # A server that has no use for them.
        ("serving", {"dkim", "spf", "cryptography", "nacl", "h11", "elemta.mailauth"}),
    ],
)
def test_nobody_pays_for_what_others_need(part: str, strangers: set[str]) -> None:
    program = f"import sys, elemta.cli.{part}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], env=ENVIRON, capture_output=True, text=True, check=True
    )
    assert strangers.isdisjoint(done.stdout.split())


def test_help_lists_every_command_in_the_order_of_need() -> None:
    text = run("--help").output
    found = re.findall(r"^  (\w+) ", text.partition("Commands:")[2], re.MULTILINE)
    assert found == [
        "serve",
        "check",
        "send",
        "queue",
        "status",
        "statistics",
        "reload",
        "monitor",
        "explain",
        "sessions",
        "trace",
        "log",
        "config",
        "plugins",
        "cert",
        "token",
        "user",
        "dkim",
        "version",
    ]
    serve, server = (run(name, "--help").output for name in ("serve", "server"))
    assert serve == server.replace("main server", "main serve")


LIGHT = """
import sys
from click.testing import CliRunner
from elemta.cli import main
for command in ("version", "check"):
    assert CliRunner().invoke(main, [command]).exit_code == 0
print(sorted({"trio", "ssl", "sqlite3", "dns"} & set(sys.modules)))
"""


def test_commands_that_need_no_network_do_not_load_it(here: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIGHT], env=ENVIRON, capture_output=True, text=True
    )
    assert done.stdout == "[]\n", done.stderr


def test_check_finds_a_listener_for_people_whom_nobody_knows(here: Path) -> None:
    people = '{name: people, address: "127.0.0.1:0", kind: submission, auth: always}'
    (here / "bad.yaml").write_text(f"hostname: mx.example.org\nlisteners: [{people}]\n")
    done = run("check", "--config", "bad.yaml")
    assert done.exit_code == 78
    assert done.stderr.startswith(
        "bad.yaml:2:58: listeners[0].kind: nobody can log in here: none of `plugins` for this"
    )


def test_check_warns_of_passwords_in_clear_and_of_a_port_25_that_is_not_for_all(here: Path) -> None:
    (here / "users.yaml").write_text("users: {}\n")
    (here / "users.yaml").chmod(0o600)
    (here / "odd.yaml").write_text(
        "hostname: mx.example.org\n"
        'listeners: [{name: people, address: ":25", kind: submission, auth: always}]\n'
        f"plugins: [{{name: users-file, settings: {{file: {here / 'users.yaml'}}}}}]\n"
    )
    done = run("check", "--config", "odd.yaml")
    assert done.exit_code == 0, done.output
    assert "  listener   people: :25, in clear, for who logs in\n" in done.output
    assert done.stderr.splitlines() == [
        "warning: listeners[0].kind: submission on port 25 turns mail away of who does not log in",
        "warning: listeners[0].auth: always lets anybody on the way to it read passwords",
    ]


def test_check_warns_of_open_relays_and_of_what_is_never_asked(here: Path) -> None:
    (here / "odd.yaml").write_text(
        "hostname: mx.example.org\n"
        "user: nobody-of-this-name\n"
        'listeners: [{name: mx, address: "127.0.0.1:2525"}]\n'
        'relay: {networks: ["0.0.0.0/0", "::/0", 10.0.0.0/8], domains: ["*"]}\n'
        'api: {address: ["127.0.0.1:8025", ":8026"]}\n'
        "routes:\n"
        '  - {match: "*", senders: ["@a.example"], via: ["smtp://a.example"]}\n'
        '  - {match: "*.b.example", via: ["smtp://b.example"]}\n'
        "  - {match: bank.b.example, tls: required, server_name: domain}\n"
        '  - {match: "*"}\n'
        "  - {match: c.example, tls: required}\n"
        "plugins: [{name: authentication-results}, {name: dmarc}]\n"
    )
    done = run("check", "--config", "odd.yaml")
    assert done.exit_code == 0, done.output
    told = [line.removeprefix("warning: ") for line in done.stderr.splitlines()]
    assert told == [
        "relay.networks[0]: 0.0.0.0/0 is everybody, who may send to any domain",
        "relay.networks[1]: ::/0 is everybody, who may send to any domain",
        'relay.domains[0]: "*" lets everybody send to any domain',
        "routes[2].server_name: with `tls: required` servers are asked for domain, and nobody "
        "looks whether they are that: `tls: verified` does",
        "routes[2] (bank.b.example) is never asked, as the first match wins and routes[1]"
        " (*.b.example) stands before it",
        "routes[4] (c.example) is never asked, as the first match wins and routes[3] (*)"
        " stands before it",
        "plugins[0]: authentication-results stands before dmarc, and so cannot tell what that"
        " will find",
        "user: nobody on this machine is called nobody-of-this-name",
        "api.address: :8026 is read by anybody on the way: it has no certificate",
    ]


def test_check_says_what_a_configuration_amounts_to(here: Path) -> None:
    (here / "good.yaml").write_text(GOOD)
    done = run("check", "--config", "good.yaml")
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        "OK: good.yaml",
        "  hostname   mx.example.org",
        f"  data       {here / 'data'}",
        "  listener   mx: 127.0.0.1:2525 [::1]:2525, in clear",
        "  relay      127.0.0.1/32",
        "  relay to   example.com",
        "  domain     example.org: 1 mailboxes, 1 aliases, maildir",
        "  route      *.example.net: smtp://127.0.0.1:2600, then smtp://127.0.0.1:2601",
        "  route      everything else: by MX",
    ]


SITE = """
hostname: mx.example.org
listeners: [{name: mx, address: "127.0.0.1:2525"}]
domains: [{name: example.org, aliases: {far: [x@far.example]}, alias_map: people}]
maps: {people: {http: "http://127.0.0.1:8000/"}}
forwarding: {srs: example.org, secret_file: srs.secret}
"""


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file or directory"),
        ("bob: bob\ncarol:\n", "line 2: expected a key and its values, not 'carol:'"),
    ],
)
def test_check_looks_at_the_files_of_maps(content: str | None, why: str, here: Path) -> None:
    (here / "site.yaml").write_text(
        SITE.partition("maps:")[0] + "maps: {people: {file: people.map}}\n"
    )
    if content is not None:
        (here / "people.map").write_text(content)
    done = run("check", "--config", "site.yaml")
    assert done.exit_code == 78
    told = f"site.yaml:5:23: maps.people.file: {here / 'people.map'}: {why}\n"
    assert done.stderr == told


def test_check_looks_at_the_secret_by_which_senders_come_back(here: Path) -> None:
    (here / "site.yaml").write_text(SITE)
    (secret := here / "srs.secret").write_text("0123456789abcdef\n")
    secret.chmod(0o644)
    done = run("check", "--config", "site.yaml")
    assert done.exit_code == 78
    assert done.stderr.startswith("site.yaml:6:45: forwarding.secret_file: no secrets: others may")
    secret.chmod(0o600)
    done = run("check", "--config", "site.yaml")
    assert done.exit_code == 0, done.output
    assert "  map        people: http://127.0.0.1:8000/\n" in done.output
    assert "  forwards   in the name of example.org\n" in done.output


SMART = """
hostname: mx.example.org
listeners: [{name: mx, address: "127.0.0.1:2525"}]
routes:
  - match: "*"
    senders: ["@shop.example", "<>"]
    via: ["smtps://a.example", "smtp://b.example:587"]
    login: {user: shop, password_file: password}
"""


def test_check_says_who_we_are_where_and_looks_at_the_password(here: Path) -> None:
    (here / "smart.yaml").write_text(SMART)
    (here / "password").write_text("pencil")
    (here / "password").chmod(0o640)
    done = run("check", "--config", "smart.yaml")
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-2:] == [
        "  route      * from @shop.example <>: smtps://a.example:465, then smtp://b.example:587, "
        "as shop",
        "  route      everything else: by MX",
    ]
    (here / "password").chmod(0o644)
    done = run("check", "--config", "smart.yaml")
    assert done.exit_code == 78
    assert "smart.yaml:8:40: routes[0].login.password_file: no password: others may" in done.stderr


def test_check_says_where_a_mistake_is(here: Path) -> None:
    (here / "bad.yaml").write_text(GOOD.replace("127.0.0.1/32", "127.0.0.1/8"))
    done = run("check", "-c", "bad.yaml")
    assert done.exit_code == 78
    assert done.stderr == (
        "bad.yaml:5:20: relay.networks[0]: "
        "127.0.0.1/8 has bits set behind its prefix: did you mean 127.0.0.0/8?\n"
    )


def test_check_asks_plugins_about_their_settings(here: Path) -> None:
    entry = "plugins: [{name: recipient-limit, settings: {recipients: none}}]"
    (here / "bad.yaml").write_text(GOOD + entry)
    done = run("check", "-c", "bad.yaml")
    assert done.exit_code == 78
    assert done.stderr.startswith("bad.yaml:8:")
    assert "plugins[0].settings.recipients: expected a whole number" in done.stderr
    (here / "good.yaml").write_text(GOOD + entry.replace("none", "200"))
    assert "  plugin     recipient-limit" in run("check", "-c", "good.yaml").output


def test_the_configuration_is_looked_for(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "so the sandbox" in run("check").output
    options.CONFIG.parent.mkdir()
    options.CONFIG.write_text(GOOD)
    assert run("check").output.startswith(f"OK: {options.CONFIG}\n")
    (here / "named.yaml").write_text(GOOD)
    monkeypatch.setenv("ELEMTA_CONFIG", "named.yaml")
    assert run("check").output.startswith("OK: named.yaml\n")
    (here / "told.yaml").write_text(GOOD)
    assert run("check", "-c", "told.yaml").output.startswith("OK: told.yaml\n")
    assert run("check", "-c", "missing.yaml").exit_code == 78


def test_options_that_contradict_each_other_are_refused(here: Path) -> None:
    (here / "good.yaml").write_text(GOOD)
    for args in (
        ["serve", "--sandbox", "--config", "good.yaml"],
        ["serve", "--config", "good.yaml", "--port", "2599"],
        ["send", "--to", "x@example.org", "--file", "good.yaml", "--text", "x"],
        ["send", "--to", "nobody"],
        ["send", "--to", "x@example.org", "--from", "nobody"],
        ["send"],
    ):
        assert run(*args).exit_code == 64, args


def test_a_port_that_is_taken_is_told_in_one_line(here: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*ELEMTA, "serve", "--sandbox", "--port", str(port)],
            env=ENVIRON,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr == (
        f"elemta: listeners[0].address: 127.0.0.1:{port}: Address already in use\n"
    )


def test_a_data_directory_that_cannot_be_made_is_told_in_one_line(here: Path) -> None:
    (here / "elemta-data").write_text("")
    done = subprocess.run(
        [*ELEMTA, "serve", "--sandbox", "--port", "0"], env=ENVIRON, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == f"elemta: {here / 'elemta-data'} cannot be made: File exists\n"


def test_a_server_that_is_not_there_is_told_in_one_line(here: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    done = run("send", "--port", port, "--to", "x@example.org", "--text", "x")
    assert done.exit_code == 69
    assert done.stderr == f"127.0.0.1:{port}: Connection refused\n"


class Sandbox:
    """The daemon as a process, on a free port."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        with (directory / "log").open("wb") as log, (directory / "out").open("wb") as out:
            self.process = subprocess.Popen(
                [*ELEMTA, "serve", "--sandbox", "--port", "0"],
                cwd=directory,
                env=ENVIRON,
                stdout=out,
                stderr=log,
            )
        self.until(lambda: "Ctrl-C stops it" in self.hints)
        found = re.search(r"takes mail on 127\.0\.0\.1:(\d+)", self.hints)
        assert found is not None
        self.port: str = found[1]

    @property
    def hints(self) -> str:
        return (self.directory / "out").read_text()

    def until(self, claim: Callable[[], bool]) -> None:
        """Wait for another process."""
        deadline = time.monotonic() + 20
        while not claim():
            assert self.process.poll() is None, (self.directory / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def letters(self, domain: str, local_part: str) -> list[bytes]:
        mailbox = self.directory / "elemta-data" / "mail" / domain / local_part / "new"
        return [path.read_bytes() for path in mailbox.glob("*")]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def sandbox(here: Path) -> Iterator[Sandbox]:
    sandbox = Sandbox(here)
    try:
        yield sandbox
    finally:
        sandbox.process.kill()
        sandbox.process.wait()


def test_people_log_in_at_the_sandbox_with_a_password_that_is_shown_once(here: Path) -> None:
    passwords: list[str] = []
    for again in (False, True):
        sandbox = Sandbox(here)
        try:
            shown = re.search(
                r"does at 127\.0\.0\.1:(\d+): you@example\.org, password (\S+), ", sandbox.hints
            )
            assert (shown is None) is again, sandbox.hints
            if shown is None:
                assert "the password of the first start" in sandbox.hints
                assert passwords[0] not in sandbox.hints
                continue
            passwords.append(shown[2])
            trusted = here / "elemta-data" / "tls" / "certificate.pem"
            context = ssl.create_default_context(cafile=str(trusted))
            with smtplib.SMTP("localhost", int(shown[1]), timeout=20) as client:
                client.starttls(context=context)
                client.login("you@example.org", passwords[0])
                client.sendmail(
                    "you@example.org", ["x@example.net"], "From: you@example.org\r\n\r\nHello.\r\n"
                )
            sandbox.until(lambda: len(sandbox.letters("example.net", "x")) == 1)  # noqa: B023
        finally:
            assert sandbox.stop() == 0
    users = here / "elemta-data" / "users.yaml"
    assert users.stat().st_mode & 0o077 == 0
    assert passwords[0] not in users.read_text()


def test_the_sandbox_takes_a_message_and_tells_what_became_of_it(sandbox: Sandbox) -> None:
    send = ["send", "--port", sandbox.port, "--from", "me@example.net"]
    done = run(*send, "--to", "you@example.org", "--subject", "It works", "--text", "Hello.")
    assert done.exit_code == 0, done.output
    found = re.fullmatch(r"250 2\.0\.0 .*queued as (\w{26})\n", done.output)
    assert found is not None, done.output
    sandbox.until(lambda: len(sandbox.letters("example.org", "you")) == 1)
    (letter,) = sandbox.letters("example.org", "you")
    assert letter.startswith(b"Return-Path: <me@example.net>")
    assert b"Subject: It works" in letter

    sandbox.until(lambda: run("queue", "list").output == "nothing waits\n")
    told = json.loads(run("queue", "show", found[1], "--json").output)
    assert told["sender"] == "me@example.net"
    assert [each["state"] for each in told["recipients"]] == ["delivered"]
    assert [each["result"] for each in told["attempts"]] == ["delivered"]
    people = run("queue", "show", found[1].lower()).output
    assert "you@example.org: delivered" in people
    assert json.loads(run("queue", "stats", "--json").output)["messages"] == 0
    assert "messages    0\n" in run("queue", "stats", "--sandbox").output
    assert json.loads(run("queue", "list", "--json").output) == []
    assert run("queue", "show", "nonsense").exit_code == 1

    assert sandbox.stop(signal.SIGINT) == 0
    assert "delivered" in run("queue", "show", found[1]).output  # down, and still there


def test_what_the_sandbox_says_to_try_works_as_written(sandbox: Sandbox) -> None:
    commands = re.findall(r"^    (.*)$", sandbox.hints, re.MULTILINE)
    assert [command.split(" ", 1)[0] for command in commands][::3] == ["cd", "cat"]

    def do(*commands: str) -> str:
        script = ["sh", "-ec", "\n".join(commands)]
        return subprocess.run(
            script, env=ENVIRON, check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    assert do(*commands[:2]).startswith("250 2.0.0 ")
    sandbox.until(lambda: len(sandbox.letters("example.org", "you")) == 1)
    assert "messages    0\n" in do(commands[0], *commands[2:])
    assert "Subject: It works" in do(commands[0], *commands[2:])


def test_messages_are_handed_in_from_files_and_standard_input(sandbox: Sandbox) -> None:
    message = b"Subject: from a file\n\n.dots\nand bytes: \xff\n"
    (sandbox.directory / "message.eml").write_bytes(message)
    send = ["send", "--port", sandbox.port, "--from", "", "--to", "a@example.org"]
    send += ["--to", "b@example.net"]
    assert run(*send, "--file", "message.eml").exit_code == 0
    assert run(*send, stdin=message).exit_code == 0
    assert run(*send, "--file", "-", stdin=message).exit_code == 0
    for domain, local_part in (("example.org", "a"), ("example.net", "b")):
        sandbox.until(lambda d=domain, p=local_part: len(sandbox.letters(d, p)) == 3)
        for letter in sandbox.letters(domain, local_part):
            assert b".dots" in letter
            assert b"\xff" in letter
            assert letter.startswith(b"Return-Path: <>")


def test_addresses_beyond_ascii_are_handed_in(sandbox: Sandbox) -> None:
    send = ["send", "--port", sandbox.port, "--to", "jürgen@bücher.example"]
    done = run(*send, "--subject", "Grüße", "--text", "Grüße", "-v")
    assert done.exit_code == 0, done.output
    assert "C: MAIL FROM:<" in done.stderr
    assert "SMTPUTF8" in done.stderr
    assert "S: 354" in done.stderr


def test_a_message_that_is_made_here_has_the_header_it_needs() -> None:
    to = [parse_mailbox("bob@example.org"), parse_mailbox("carol@example.net")]
    octets = compose(parse_mailbox("alice@example.net"), to, "a\r\nBcc: x@y", "Hi.")
    head, _, body = octets.partition(b"\r\n\r\n")
    fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n"))
    assert fields[b"From"] == b"alice@example.net"
    assert fields[b"To"] == b"bob@example.org, carol@example.net"
    assert fields[b"Subject"] == b"a Bcc: x@y"
    assert b"Bcc" not in fields
    assert {b"Date", b"Message-ID"} <= fields.keys()
    assert body == b"Hi.\r\n"


def test_a_queue_that_is_not_there_is_told_in_one_line(here: Path) -> None:
    for command in (["list"], ["show", "01M82Q28V6DAVJCKE0E9HMK3Q1"], ["stats"]):
        done = run("queue", *command)
        assert done.exit_code == 74
        assert len(done.stderr.splitlines()) == 1
