"""A smarthost that wants a login: a real Postfix of our own, whose users a real Dovecot knows."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Final

import trustme

from tests.scenarios import ports
from tests.scenarios.dovecot import program
from tests.scenarios.postfix import Postfix, postfix

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

USER: Final = "shop@example.org"
PASSWORD: Final = "pencil, paper = 2"

_DOVECOT: Final = """
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/dovecot.log
instance_name = elemta-smarthost
protocols =
ssl = no
auth_mechanisms = {mechanisms}
auth_verbose = yes
disable_plaintext_auth = no
passdb {{
  driver = passwd-file
  args = {folder}/users
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={folder}
}}
service auth {{
  inet_listener {{
    address = 127.0.0.1
    port = {port}
  }}
}}
"""
_SETTINGS: Final = """
smtpd_sasl_type = dovecot
smtpd_sasl_path = inet:127.0.0.1:{auth}
smtpd_sasl_authenticated_header = yes
smtpd_tls_cert_file = {certificate}
smtpd_tls_key_file = {key}
smtpd_tls_received_header = yes
smtpd_tls_auth_only = yes
"""
_LISTENS: Final = """\
127.0.0.1:{port} inet n - n - - smtpd
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject
  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
  -o {tls}
"""


class Smarthost:
    """One that runs.

    Attributes:
        starttls: the port with STARTTLS.
        implicit: the port with TLS from the first octet.
        authorities: a file with who has issued its certificate, which has the name ``localhost``.
        postfix: for its mail and log.
        best: the mechanism that we want of those that it offers.
    """

    def __init__(self, starttls: int, implicit: int, authorities: Path, postfix: Postfix) -> None:
        self.starttls = starttls
        self.implicit = implicit
        self.authorities = authorities
        self.postfix = postfix
        self.best = ""


@contextlib.contextmanager
def smarthost(folder: Path, *mechanisms: str) -> Iterator[Smarthost]:
    """Run one that knows `USER`. Root only.

    Args:
        folder: made for it.
        mechanisms: that it offers, as Dovecot calls them.
    """
    folder.mkdir()
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    certificate, key, root = folder / "cert.pem", folder / "key.pem", folder / "ca.pem"
    certificate.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    root.write_bytes(authority.cert_pem.bytes())
    auth, starttls, implicit = ports.free_port(), ports.free_port(), ports.free_port()
    with _dovecot(folder / "dovecot", auth, mechanisms):
        settings = _SETTINGS.format(auth=auth, certificate=certificate, key=key)
        services = "tlsmgr unix - - n 1000? 1 tlsmgr\n"
        services += _LISTENS.format(port=starttls, tls="smtpd_tls_security_level=may")
        services += _LISTENS.format(port=implicit, tls="smtpd_tls_wrappermode=yes")
        nobody = ports.free_port()
        place = folder / "postfix"
        with postfix(place, nobody, settings=settings, services=services) as instance:
            ports.eventually(lambda: ports.greets(starttls), what="the smarthost's greeting")
            yield Smarthost(starttls, implicit, root, instance)


@contextlib.contextmanager
def _dovecot(folder: Path, port: int, mechanisms: tuple[str, ...]) -> Iterator[None]:
    """Run a Dovecot that does nothing but to know a user."""
    folder.mkdir()
    file = folder / "dovecot.conf"
    file.write_text(_DOVECOT.format(folder=folder, port=port, mechanisms=" ".join(mechanisms)))
    (folder / "users").write_text(f"{USER}:{{PLAIN}}{PASSWORD}\n")
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [program("dovecot"), "-F", "-c", str(file)],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        ports.eventually(lambda: ports.listens(port), what="Dovecot")
        yield
    finally:
        process.terminate()
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
