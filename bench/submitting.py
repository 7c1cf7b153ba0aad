"""Postfix with Dovecot's SASL and opendkim, and Elemta: mail of people, who log in, is signed.

Each takes it by TLS on two ports, one with STARTTLS (587) and one with TLS from the start (465),
with the same certificate; each account sends as itself alone; all is signed with one RSA key of
2048 bits, and held. Elemta's passwords are argon2id, which it hashes once in five minutes an
account. Dovecot would hash them at each login, so its are salted SHA-512, which cost nothing.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import hashlib
import ipaddress
import os
import shlex
import subprocess
from typing import TYPE_CHECKING, Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from bench import elemta, load, peers
from bench.postfix import SERVICES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DOMAIN: Final = "bench.example"
PASSWORD: Final = "correct horse battery staple"
#: One for each session of the load.
ACCOUNTS: Final = tuple(f"user-{number}@{DOMAIN}" for number in range(load.SESSIONS))


class Submits(Protocol):
    """A server that people hand mail in to.

    Attributes:
        implicit: its port with TLS from the start; the other one is `Running.accept`.
    """

    name: str
    implicit: int

    def prepare(self, spool: Path) -> None:
        """Write what it needs into `spool`, an empty folder.

        Raises:
            MissingError: something is not installed.
        """

    def run(self, spool: Path) -> contextlib.AbstractContextManager[peers.Running]:
        """Start it, and all that it needs, on `spool` until the block ends."""


def _write_keys(folder: Path) -> None:
    """A certificate for the server, of the kind that is usual by now, and a key to sign with."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench.example")])
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName("bench.example"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=90))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    signing = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    for file, each in (("key.pem", key), ("dkim.pem", signing)):
        (folder / file).touch(mode=0o600)
        (folder / file).write_bytes(
            each.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )


_MAIN = """
compatibility_level = 3.6
myhostname = postfix.example
mydestination =
mynetworks = 192.0.2.0/24
inet_interfaces = loopback-only
inet_protocols = ipv4
local_recipient_maps =
alias_maps =
alias_database =
queue_directory = {spool}/queue
data_directory = {spool}/data
maillog_file_prefixes = {spool}
maillog_file = {spool}/mail.log
smtpd_client_connection_count_limit = 0
queue_minfree = 0

smtpd_peername_lookup = no
in_flow_delay = 0
default_process_limit = 100
max_use = 1000

smtpd_tls_cert_file = {spool}/etc/cert.pem
smtpd_tls_key_file = {spool}/etc/key.pem
smtpd_tls_security_level = encrypt
smtpd_tls_auth_only = yes
smtpd_tls_loglevel = 1
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = {spool}/run/auth
smtpd_sender_login_maps = texthash:{spool}/etc/logins
smtpd_sender_restrictions = reject_sender_login_mismatch
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_recipient_restrictions = permit_sasl_authenticated, reject
smtpd_milters = unix:{spool}/run/opendkim
milter_protocol = 6
milter_default_action = tempfail
milter_macro_daemon_name = ORIGINATING
"""
_MASTER = """
127.0.0.1:{starttls} inet n - n - - smtpd
  -o {{ smtpd_client_restrictions = check_client_access static:hold, permit }}
127.0.0.1:{implicit} inet n - n - - smtpd
  -o smtpd_tls_wrappermode=yes
  -o {{ smtpd_client_restrictions = check_client_access static:hold, permit }}
tlsmgr unix - - n 1000? 1 tlsmgr
{services}"""
_DOVECOT = """
protocols =
base_dir = {spool}/run/dovecot
log_path = {spool}/dovecot.log
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login
auth_cache_size = 10M
passdb {{
  driver = passwd-file
  args = {spool}/etc/users
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home=/nonexistent
}}
service auth {{
  unix_listener {spool}/run/auth {{
    mode = 0666
  }}
}}
"""
_OPENDKIM = """
Mode s
Syslog yes
SyslogSuccess yes
Canonicalization relaxed/relaxed
SignatureAlgorithm rsa-sha256
OversignHeaders From
Domain {domain}
Selector bench
KeyFile {spool}/etc/dkim.pem
RequireSafeKeys no
UserID opendkim
UMask 000
Socket local:{spool}/run/opendkim
Background no
"""
#: All of it in one tree of processes, so that its CPU can be counted; ended with its root.
_TOGETHER = """
trap 'kill $(jobs -p)' TERM
{opendkim} -f -x {spool}/etc/opendkim.conf &
{dovecot} -F -c {spool}/etc/dovecot.conf &
while ! [ -S {spool}/run/opendkim -a -S {spool}/run/auth ]; do sleep 0.05; done
{postfix} -c {spool}/etc start-fg &
wait
"""


class SubmittingPostfix:
    """Postfix with opendkim, and with Dovecot for the passwords."""

    name = "Postfix"

    def __init__(self) -> None:
        self._starttls = self.implicit = 0

    def prepare(self, spool: Path) -> None:
        for program in ("postfix", "opendkim", "dovecot"):
            load.program(program)
        if os.geteuid() != 0:
            raise load.MissingError("Postfix runs as root only")
        self._starttls, self.implicit = load.free_port(), load.free_port()
        for folder in ("etc", "queue", "data", "run"):
            (spool / folder).mkdir()
        (spool / "run").chmod(0o777)
        (spool / "mail.log").touch()
        _write_keys(spool / "etc")
        for path, user in (
            ("data", "postfix"),
            ("mail.log", "postfix"),
            ("etc/dkim.pem", "opendkim"),
        ):
            subprocess.run(["chown", user, str(spool / path)], check=True)
        hashed = _salted(PASSWORD)
        files = {
            "main.cf": _MAIN.format(spool=spool),
            "master.cf": _MASTER.format(
                starttls=self._starttls, implicit=self.implicit, services=SERVICES
            ),
            "logins": "".join(f"{each} {each}\n" for each in ACCOUNTS),
            "users": "".join(f"{each}:{hashed}\n" for each in ACCOUNTS),
            "dovecot.conf": _DOVECOT.format(spool=spool),
            "opendkim.conf": _OPENDKIM.format(spool=spool, domain=DOMAIN),
        }
        for name, content in files.items():
            (spool / "etc" / name).write_text(content)

    @contextlib.contextmanager
    def run(self, spool: Path) -> Iterator[peers.Running]:
        programs = {name: load.program(name) for name in ("postfix", "opendkim", "dovecot")}
        script = _TOGETHER.format(spool=shlex.quote(str(spool)), **programs)
        command = ["sh", "-c", script]
        with peers.running(command, self._starttls, 0, spool / "start.log") as server:
            yield server


def _salted(password: str) -> str:
    """A password as Dovecot's SSHA512 has it."""
    salt = os.urandom(8)
    digest = hashlib.sha512(password.encode() + salt).digest()
    return "{SSHA512}" + base64.b64encode(digest + salt).decode()


_ELEMTA = """
hostname: elemta.example
data_dir: {spool}/data
nodes: {nodes}
listeners:
  - name: submission
    kind: submission
    address: ["127.0.0.1:{starttls}"]
    tls: required
    messages: 1000000000
    connections_per_client: 2000
  - name: submissions
    kind: submission
    address: ["127.0.0.1:{implicit}"]
    tls: implicit
    messages: 1000000000
    connections_per_client: 2000
tls:
  certificates:
    - {{certificate: {spool}/cert.pem, key: {spool}/key.pem}}
routes:
  # Where somebody listens and says nothing: what is accepted for it stays in the queue.
  - {{match: "*", via: ["smtp://127.0.0.1:{mute}"]}}
queue:
  disk_reserve: 1 MiB
plugins:
  - name: users-file
    settings: {{file: {spool}/users.yaml}}
  - name: dkim-sign
    settings:
      keys: [{{domain: {domain}, selector: bench, key: {spool}/dkim.pem}}]
log: {{format: json, level: info}}
"""


class SubmittingElemta:
    """Elemta with its built-in plugins for the same."""

    name = "Elemta"

    def __init__(self, nodes: int) -> None:
        self._nodes = nodes
        self._starttls = self._mute = self.implicit = 0

    def prepare(self, spool: Path) -> None:
        self._starttls, self.implicit = load.free_port(), load.free_port()
        self._mute = load.free_port()
        _write_keys(spool)
        (spool / "elemta.yaml").write_text(
            _ELEMTA.format(
                spool=spool,
                nodes=self._nodes,
                starttls=self._starttls,
                implicit=self.implicit,
                mute=self._mute,
                domain=DOMAIN,
            )
        )
        users = ("--file", str(spool / "users.yaml"))
        for each in ACCOUNTS:
            elemta.ask("user", "add", each, *users, "--password-stdin", told=f"{PASSWORD}\n")
        elemta.ask("check", "--config", str(spool / "elemta.yaml"))

    def run(self, spool: Path) -> contextlib.AbstractContextManager[peers.Running]:
        return elemta.running(spool / "elemta.yaml", self._starttls, self._mute)
