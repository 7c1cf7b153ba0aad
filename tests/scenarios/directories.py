"""A real slapd and a real PostgreSQL of our own; all that they need in a scenario's folder."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trustme

from tests.scenarios import ports

if TYPE_CHECKING:
    from collections.abc import Iterator

SUFFIX: Final = "dc=example,dc=org"
#: Who may search, and with what.
SERVICE, SERVICE_PASSWORD = f"cn=elemta,{SUFFIX}", "service-secret"

_SLAPD = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {folder}/slapd.pid
TLSCertificateFile {folder}/certificate.pem
TLSCertificateKeyFile {folder}/key.pem
# Nothing is said in clear: neither a search nor a bind.
security ssf=64
disallow bind_anon
database mdb
maxsize 16777216
suffix "{suffix}"
directory {folder}/db
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="{service}" read by * none
"""
_ENTRIES = """
dn: {suffix}
objectClass: dcObject
objectClass: organization
dc: example
o: Example

dn: {service}
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: elemta
userPassword: {password}

dn: ou=people,{suffix}
objectClass: organizationalUnit
ou: people
"""
_PERSON = """
dn: uid={uid},ou=people,{suffix}
objectClass: inetOrgPerson
uid: {uid}
cn: {uid}
sn: {uid}
{mail}
userPassword: {password}
"""


class Slapd:
    """A directory that says nothing in clear.

    Attributes:
        authority: the file with the certificate of whom it is vouched for by.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        (folder / "db").mkdir()
        self.port = ports.free_port()
        self.authority = folder / "authority.pem"
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.authority)
        certificate = authority.issue_cert("localhost")
        certificate.private_key_pem.write_to_path(folder / "key.pem")
        certificate.cert_chain_pems[0].write_to_path(folder / "certificate.pem")
        told = {"folder": folder, "suffix": SUFFIX, "service": SERVICE}
        (folder / "slapd.conf").write_text(_SLAPD.format(**told))
        self.load(_ENTRIES.format(password=SERVICE_PASSWORD, **told))
        self._process: subprocess.Popen[bytes] | None = None

    def add_person(self, uid: str, password: str, *mail: str) -> None:
        """Add somebody, while it does not run."""
        lines = "\n".join(f"mail: {each}" for each in mail)
        self.load(_PERSON.format(uid=uid, suffix=SUFFIX, mail=lines, password=password))

    def load(self, entries: str) -> None:
        subprocess.run(
            ["/usr/sbin/slapadd", "-f", self._folder / "slapd.conf"],
            input=entries.encode(), capture_output=True, check=True, timeout=60.0,
        )  # fmt: skip

    def start(self) -> None:
        with (self._folder / "slapd.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["/usr/sbin/slapd", "-d", "none", "-h", f"ldap://127.0.0.1:{self.port}",
                 "-f", self._folder / "slapd.conf"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        ports.eventually(lambda: _listens(self.port), what="slapd")

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait(10.0)


class PostgreSql:
    """A database of one user, who needs a password.

    Attributes:
        passfile: the file that has it.
    """

    NAME: Final = "elemta"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "data"
        self.port = ports.free_port()
        self.passfile = folder.parent / "pgpass"
        folder.mkdir()
        self._user: str | None = None
        if os.geteuid() == 0:  # it refuses to run as root
            self._user = "postgres"
            owner = pwd.getpwnam(self._user)
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        (password := folder / "password").write_text("database-secret\n")
        password.chmod(0o644)
        self.passfile.write_text(f"127.0.0.1:{self.port}:*:{self.NAME}:database-secret\n")
        self.passfile.chmod(0o600)
        self._run(
            *("initdb", "-D", str(self._data), "-U", self.NAME, "--auth=scram-sha-256"),
            *(f"--pwfile={password}", "--no-sync", "-E", "UTF8", "--locale=C"),
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is, as libpq has it."""
        return f"postgresql://{self.NAME}@127.0.0.1:{self.port}/postgres?passfile={self.passfile}"

    def start(self) -> None:
        command = [
            *(_postgresql("postgres"), "-D", str(self._data), "-p", str(self.port)),
            *("-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self._folder}"),
            *("-c", "fsync=off"),
        ]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                user=self._user,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        ports.eventually(self._answers, what="PostgreSQL")

    def do(self, statement: str, *values: object) -> None:
        """Change something in it."""
        import psycopg

        with psycopg.connect(self.url) as connection:
            connection.execute(statement.encode(), values)

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGINT)  # at once, whoever is there
            process.wait(20.0)

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url).close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [_postgresql(program), *arguments],
            user=self._user, cwd=self._folder, capture_output=True, check=True, timeout=60.0,
        )  # fmt: skip


def _postgresql(program: str) -> str:
    """Debian has them beside each other, a folder a version."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))
    return str(found[-1])


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def slapd(folder: Path) -> Iterator[Slapd]:
    """A directory that runs once `Slapd.start` is called."""
    found = Slapd(folder)
    try:
        yield found
    finally:
        found.stop()


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[PostgreSql]:
    """A database that runs."""
    found = PostgreSql(folder)
    try:
        found.start()
        yield found
    finally:
        found.stop()
