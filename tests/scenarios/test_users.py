"""Users as sites keep them: in a file by our own commands, in OpenLDAP, in PostgreSQL."""

from __future__ import annotations

import base64
import hashlib
import hmac
import smtplib
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from elemta.login import ScramVerifier, UserFile, hash_password
from tests.scenarios import ports
from tests.scenarios.conftest import needs
from tests.scenarios.directories import SERVICE, SERVICE_PASSWORD, SUFFIX, postgresql, slapd

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.scenarios.conftest import MakeDaemon
    from tests.scenarios.daemon import Daemon

pytestmark = pytest.mark.scenario

needs_postgresql = pytest.mark.skipif(
    not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")),
    reason="initdb not installed: apt-get install postgresql",
)


def let_in(make_elemta: MakeDaemon, *plugins: dict[str, object]) -> Daemon:
    """A daemon where people log in, and nobody else may relay."""
    daemon = make_elemta({"plugins": list(plugins), "relay": {}})
    daemon.settings["listeners"] = [daemon.listener(auth="always")]
    return daemon


def log_in(daemon: Daemon, user: str, password: str) -> int:
    """The code that answers AUTH PLAIN."""
    with smtplib.SMTP("127.0.0.1", daemon.port, "client.example", timeout=60.0) as client:
        client.ehlo()
        said = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
        code, _ = client.docmd("AUTH", f"PLAIN {said}")
    return code


def are_refused(daemon: Daemon, *said: tuple[str, str]) -> bool:
    """Whether all of these are. Each takes five seconds, so they come together."""
    with ThreadPoolExecutor() as pool:
        return [*pool.map(lambda each: log_in(daemon, *each), said)] == [535] * len(said)


def log_in_by_scram(daemon: Daemon, user: str, password: str) -> int:
    """The code that ends AUTH SCRAM-SHA-256 (RFC 7677), as a client of ours has it."""
    first = f"n={user},r=clients-own-nonce"
    answered: list[str] = []

    def respond(challenge: bytes | None = None) -> str:
        if challenge is None:
            return f"n,,{first}"
        told = challenge.decode()
        if told.startswith("v="):
            answered.append(told)
            return ""
        parts = dict(each.split("=", 1) for each in told.split(","))
        salted = hashlib.pbkdf2_hmac(
            "sha256", password.encode(), base64.b64decode(parts["s"]), int(parts["i"])
        )
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        final = f"c=biws,r={parts['r']}"
        signed = f"{first},{told},{final}".encode()
        signature = hmac.digest(hashlib.sha256(client_key).digest(), signed, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        return f"{final},p={base64.b64encode(proof).decode()}"

    with smtplib.SMTP("127.0.0.1", daemon.port, "client.example", timeout=60.0) as client:
        client.ehlo()
        assert "SCRAM-SHA-256" in client.esmtp_features["auth"].split()
        try:
            code, _ = client.auth("SCRAM-SHA-256", respond, initial_response_ok=True)
        except smtplib.SMTPAuthenticationError as error:
            return error.smtp_code
    assert answered
    return code


def commands(daemon: Daemon) -> Callable[..., str]:
    """``elemta user …``, with what is typed."""

    def run(*arguments: str, typed: str = "") -> str:
        done = subprocess.run(
            daemon.command("user", *arguments),
            env=daemon.environment_of_commands(), input=typed,
            capture_output=True, text=True, check=True, timeout=60.0,
        )  # fmt: skip
        return done.stdout

    return run


def test_users_of_a_file_come_and_go_while_the_server_runs(
    make_elemta: MakeDaemon, place: Path
) -> None:
    entry = {"name": "users-file", "settings": {"file": str(place / "users.yaml")}}
    daemon = let_in(make_elemta, entry)
    daemon.write_config()
    user = commands(daemon)
    user("add", "bob@example.org", "--password-stdin", typed="correct horse\n")
    phone = user("app", "add", "bob@example.org", "phone").strip()
    daemon.start()
    assert log_in(daemon, "bob@example.org", "correct horse") == 235
    assert log_in(daemon, "BOB@example.org", phone) == 235
    assert log_in_by_scram(daemon, "bob@example.org", "correct horse") == 235

    kept = UserFile(place / "users.yaml").read()["bob@example.org"]
    user("app", "remove", "bob@example.org", "phone")
    user("add", "ann@example.org", "--password-stdin", typed="ann's own\n")
    ports.eventually(lambda: log_in(daemon, "ann@example.org", "ann's own") == 235)
    with smtplib.SMTP("127.0.0.1", daemon.port, "client.example", timeout=30.0) as client:
        client.login("ann@example.org", "ann's own")
        client.sendmail("ann@example.org", ["bob@far.example"], "Subject: x\r\n\r\n")
        user("disable", "ann@example.org")
        # One more, and he would be locked out: see `elemta.login.Guesses`.
        said = (phone, kept.password, kept.scram)
        with ThreadPoolExecutor() as pool:
            proof = pool.submit(log_in_by_scram, daemon, "bob@example.org", "correct house")
            barred = pool.submit(
                ports.eventually, lambda: log_in(daemon, "ann@example.org", "ann's own") == 535
            )
            assert are_refused(daemon, *(("bob@example.org", str(each)) for each in said))
            assert proof.result() == 535
            assert barred.result()
        code, _ = client.mail("ann@example.org")
        assert code == 421, "what is open ends, too"

    daemon.terminate()  # when they were here is written down at the end, at the latest
    listed = user("list")
    assert "bob@example.org  used " in listed
    assert "ann@example.org  disabled, used " in listed
    log = daemon.log.read_text()
    assert not any(each in log for each in ("correct horse", phone, "ann's own", "argon2id"))


@needs("slapd")
def test_users_of_openldap_bind_by_tls(make_elemta: MakeDaemon, place: Path) -> None:
    (place / "ldap-password").write_text(f"{SERVICE_PASSWORD}\n")
    (place / "ldap-password").chmod(0o600)
    with slapd(place / "slapd") as directory:
        directory.add_person("bob", "correct horse", "bob@example.org", "sales@example.org")
        directory.add_person("one", "x", "same@example.org")
        directory.add_person("two", "x", "same@example.org")
        directory.start()
        settings = {
            "url": f"ldap://localhost:{directory.port}",
            "base": f"ou=people,{SUFFIX}",
            "filter": "(&(objectClass=inetOrgPerson)(|(uid={user})(mail={user})))",
            "bind_dn": SERVICE,
            "bind_password_file": str(place / "ldap-password"),
            "authorities": str(directory.authority),
            "remember": "0 s",
        }
        daemon = let_in(make_elemta, {"name": "users-ldap", "settings": settings})
        daemon.start()
        assert log_in(daemon, "bob", "correct horse") == 235
        assert log_in(daemon, "sales@example.org", "correct horse") == 235
        assert are_refused(
            daemon, ("bob", "correct house"), ("eve", "correct horse"), ("*", "correct horse")
        )
        assert log_in(daemon, "same@example.org", "x") == 454  # two of this name
        directory.stop()
        assert log_in(daemon, "bob", "correct horse") == 454
        directory.start()
        assert log_in(daemon, "bob", "correct horse") == 235
    assert "correct horse" not in daemon.log.read_text()


@needs("slapd")
def test_a_directory_that_nobody_vouches_for_is_told_no_password(
    make_elemta: MakeDaemon, place: Path
) -> None:
    with slapd(place / "slapd") as directory:
        directory.add_person("bob", "correct horse", "bob@example.org")
        directory.start()
        for url in (f"ldap://localhost:{directory.port}", f"ldap://127.0.0.1:{directory.port}"):
            settings = {"url": url, "base": SUFFIX, "filter": "(uid={user})"}
            if "localhost" not in url:
                settings["authorities"] = str(directory.authority)
            daemon = let_in(make_elemta, {"name": "users-ldap", "settings": settings})
            daemon.start()
            assert log_in(daemon, "bob", "correct horse") == 454
            told = daemon.events("users.not_asked")
            assert "certificate" in str(told[-1]["error"]).lower()
            daemon.terminate()


@needs_postgresql
def test_users_of_postgresql_are_asked_by_a_query(make_elemta: MakeDaemon, place: Path) -> None:
    with postgresql(place / "postgresql") as database:
        database.do("CREATE TABLE users (name text, hash text, scram text, addresses text[])")
        database.do(
            "INSERT INTO users VALUES (%s, %s, %s, %s)",
            "bob@example.org",
            hash_password("correct horse"),
            str(ScramVerifier.of("correct horse")),
            ["@example.net"],
        )
        query = (
            "SELECT name AS login, hash AS password, scram, addresses FROM users"
            " WHERE name = :user AND name LIKE '%@%' AND 1::int = 1"
        )
        settings = {"database": database.url, "query": query, "scram": True, "remember": "0 s"}
        daemon = let_in(make_elemta, {"name": "users-sql", "settings": settings})
        daemon.start()
        assert log_in(daemon, "bob@example.org", "correct horse") == 235
        assert log_in_by_scram(daemon, "bob@example.org", "correct horse") == 235
        assert are_refused(
            daemon, ("bob@example.org", "correct house"), ("' OR ''='", "correct horse")
        )
        database.stop()
        assert log_in(daemon, "bob@example.org", "correct horse") == 454
        database.start()
        assert log_in(daemon, "bob@example.org", "correct horse") == 235
    log = daemon.log.read_text()
    assert "correct horse" not in log
    assert "database-secret" not in log
