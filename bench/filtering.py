"""Postfix with the services that Debian has for SPF, DKIM, DMARC and greylisting; and Elemta.

Each is an MX for far.example, holds what it accepts, knows no client, and refuses what a sender's
DMARC policy has refused. All ask the same name server. Both greylist strangers, for a second.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from bench import elemta, load, names, peers
from bench.postfix import SERVICES

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds after which greylisting takes what it has deferred.
DELAY: Final = 1


class Filter(Protocol):
    """A server that looks closely at what comes in."""

    name: str

    def prepare(self, spool: Path) -> None:
        """Write what it needs into `spool`, an empty folder.

        Raises:
            MissingError: something is not installed.
        """

    def run(self, spool: Path) -> contextlib.AbstractContextManager[peers.Running]:
        """Start it, and all that it needs, on `spool` until the block ends."""


_MAIN = """
compatibility_level = 3.6
myhostname = postfix.example
mydestination =
mynetworks = 192.0.2.0/24
relay_domains = far.example
inet_interfaces = loopback-only
inet_protocols = ipv4
local_recipient_maps =
alias_maps =
alias_database =
queue_directory = {spool}/queue
data_directory = {spool}/data
maillog_file_prefixes = {spool}
maillog_file = {spool}/mail.log
smtpd_tls_security_level = none
smtpd_client_connection_count_limit = 0
queue_minfree = 0

smtpd_peername_lookup = no
in_flow_delay = 0
default_process_limit = 100
max_use = 1000

smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_recipient_restrictions = permit_mynetworks, reject_unauth_destination,
    check_policy_service inet:127.0.0.1:{postgrey}, check_policy_service unix:private/policyd-spf
policyd-spf_time_limit = 3600
smtpd_milters = unix:{spool}/run/opendkim, unix:{spool}/run/opendmarc
milter_protocol = 6
milter_default_action = tempfail
"""
_MASTER = """
127.0.0.1:{accept} inet n - n - - smtpd
  -o {{ smtpd_client_restrictions = check_client_access static:hold, permit }}
policyd-spf unix - n n - 0 spawn
  user=policyd-spf argv=/usr/bin/policyd-spf {spool}/etc/policyd-spf.conf
{services}"""
#: Debian's, but that it skips nobody for coming from here.
_POLICYD_SPF = """
debugLevel = 1
TestOnly = 1
HELO_reject = Fail
Mail_From_reject = Fail
PermError_reject = False
TempError_Defer = False
skip_addresses = 192.0.2.0/24
"""
_OPENDKIM = """
Mode v
Syslog yes
SyslogSuccess yes
Canonicalization relaxed/simple
OversignHeaders From
UserID opendkim
UMask 000
Socket local:{spool}/run/opendkim
AuthservID postfix.example
InternalHosts {spool}/etc/nobody
Nameservers {address}
Background no
"""
_OPENDMARC = """
Syslog true
UMask 000
UserID opendmarc
Socket local:{spool}/run/opendmarc
PublicSuffixList /usr/share/publicsuffix/public_suffix_list.dat
AuthservID postfix.example
TrustedAuthservIDs postfix.example
IgnoreHosts {spool}/etc/nobody
RejectFailures true
Background no
"""
#: All of it in one tree of processes, so that its CPU can be counted; ended with its root.
_TOGETHER = """
mount --bind {spool}/etc/resolv.conf /etc/resolv.conf
trap 'kill $(jobs -p)' TERM
{opendkim} -f -x {spool}/etc/opendkim.conf &
{opendmarc} -f -c {spool}/etc/opendmarc.conf &
{postgrey} --quiet --inet=127.0.0.1:{port} --dbdir={spool}/postgrey --delay={delay} &
while ! [ -S {spool}/run/opendkim -a -S {spool}/run/opendmarc ]; do sleep 0.05; done
{postfix} -c {spool}/etc start-fg &
wait
"""


class FilteringPostfix:
    """Postfix with opendkim, opendmarc, policyd-spf and postgrey."""

    name = "Postfix"

    def __init__(self) -> None:
        self._accept = self._postgrey = 0

    def prepare(self, spool: Path) -> None:
        for program in ("postfix", "opendkim", "opendmarc", "postgrey"):
            load.program(program)
        if not Path("/usr/bin/policyd-spf").exists():
            raise load.MissingError("apt-get install postfix-policyd-spf-python")
        if os.geteuid() != 0:
            raise load.MissingError("Postfix runs as root only")
        self._accept, self._postgrey = load.free_port(), load.free_port()
        for folder in ("etc", "queue", "data", "run", "postgrey"):
            (spool / folder).mkdir()
        (spool / "run").chmod(0o777)
        (spool / "mail.log").touch()
        _give(spool / "data", "postfix")
        _give(spool / "mail.log", "postfix")
        _give(spool / "postgrey", "postgrey")
        files = {
            "main.cf": _MAIN.format(spool=spool, postgrey=self._postgrey),
            "master.cf": _MASTER.format(accept=self._accept, spool=spool, services=SERVICES),
            "policyd-spf.conf": _POLICYD_SPF,
            "opendkim.conf": _OPENDKIM.format(spool=spool, address=names.ADDRESS),
            "opendmarc.conf": _OPENDMARC.format(spool=spool),
            "nobody": "192.0.2.1\n",
            "resolv.conf": f"nameserver {names.ADDRESS}\n",
        }
        for name, content in files.items():
            (spool / "etc" / name).write_text(content)

    @contextlib.contextmanager
    def run(self, spool: Path) -> Iterator[peers.Running]:
        programs = {
            name: load.program(name) for name in ("postfix", "opendkim", "opendmarc", "postgrey")
        }
        script = _TOGETHER.format(
            spool=shlex.quote(str(spool)), port=self._postgrey, delay=DELAY, **programs
        )
        command = ["unshare", "--mount", "sh", "-c", script]
        with peers.running(command, self._accept, 0, spool / "start.log") as server:
            yield server


def _give(path: Path, user: str) -> None:
    subprocess.run(["chown", user, str(path)], check=True)


_ELEMTA = """
hostname: elemta.example
data_dir: {spool}/data
nodes: {nodes}
listeners:
  - name: bench
    address: ["127.0.0.1:{accept}"]
    messages: 1000000000
    connections_per_client: 2000
relay:
  domains: [far.example]
dns:
  nameservers: ["{address}:53"]
routes:
  # Where somebody listens and says nothing: what is accepted for it stays in the queue.
  - {{match: "*", via: ["smtp://127.0.0.1:{mute}"]}}
queue:
  disk_reserve: 1 MiB
plugins:
  - name: spf
  - name: dkim
  - name: dmarc
  - name: authentication-results
  - name: greylisting
    settings: {{delay: {delay}s}}
log: {{format: json, level: info}}
"""


class FilteringElemta:
    """Elemta with its built-in plugins for the same."""

    name = "Elemta"

    def __init__(self) -> None:
        self._accept = self._mute = 0

    def prepare(self, spool: Path) -> None:
        self._accept, self._mute = load.free_port(), load.free_port()
        (spool / "elemta.yaml").write_text(
            _ELEMTA.format(
                spool=spool,
                nodes=len(os.sched_getaffinity(0)),
                accept=self._accept,
                mute=self._mute,
                address=names.ADDRESS,
                delay=DELAY,
            )
        )
        elemta.ask("check", "--config", str(spool / "elemta.yaml"))

    def run(self, spool: Path) -> contextlib.AbstractContextManager[peers.Running]:
        return elemta.running(spool / "elemta.yaml", self._accept, self._mute)
