"""Postfix as Debian ships it, tuned for relaying as its own documentation and admins advise."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

from bench import load, peers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_MAIN = """
compatibility_level = 3.6
myhostname = postfix.example
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = loopback-only
inet_protocols = ipv4
local_recipient_maps =
alias_maps =
alias_database =
queue_directory = {spool}/queue
data_directory = {spool}/data
maillog_file_prefixes = {spool}
maillog_file = {spool}/mail.log
relayhost = [127.0.0.1]:{sink}
transport_maps = texthash:{spool}/etc/transport
smtp_tls_security_level = none
smtpd_tls_security_level = none
smtpd_recipient_restrictions = permit_mynetworks, reject
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_client_connection_count_limit = 0
message_size_limit = 52428800
queue_minfree = 0

smtpd_peername_lookup = no
in_flow_delay = 0
default_process_limit = 100
default_destination_concurrency_limit = 20
initial_destination_concurrency = 20
smtp_connection_cache_on_demand = yes
smtp_dns_support_level = disabled
max_use = 1000
minimal_backoff_time = 4000s
maximal_backoff_time = 40000s
queue_run_delay = 4000s
"""

#: The services behind the ports, as every Postfix has them: lines of master.cf.
SERVICES = """\
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""
_MASTER = """
127.0.0.1:{accept} inet n - n - {sessions} smtpd
  -o {{ smtpd_client_restrictions = check_client_access static:hold, permit }}
127.0.0.1:{relay} inet n - n - - smtpd
{services}"""


class Postfix:
    """A Postfix of our own: its configuration, queue and log lie in the spool folder."""

    name = "Postfix"
    relays = True

    def __init__(self) -> None:
        self._ports = (0, 0)

    def prepare(self, spool: Path, sink_port: int) -> None:
        load.program("postfix")
        if os.geteuid() != 0:
            raise load.MissingError("Postfix runs as root only")
        accept, relay = self._ports = (load.free_port(), load.free_port())
        (spool / "etc").mkdir()
        (spool / "queue").mkdir()
        (spool / "data").mkdir()
        subprocess.run(["chown", "postfix", str(spool / "data")], check=True)
        (spool / "etc" / "main.cf").write_text(_MAIN.format(spool=spool, sink=sink_port))
        (spool / "etc" / "transport").write_text(
            "".join(
                f"{domain} smtp:[127.0.0.1]:{sink_port}, [127.0.0.1]:{port}\n"
                for port, domain in enumerate(peers.MANY, peers.SPARE_PORT)
            )
        )
        # Each idle connection needs a process of its own: room for the test with a thousand.
        (spool / "etc" / "master.cf").write_text(
            _MASTER.format(accept=accept, relay=relay, sessions=1100, services=SERVICES)
        )
        # postsuper writes there with its own rights.
        (spool / "mail.log").touch()
        subprocess.run(["chown", "postfix", str(spool / "mail.log")], check=True)

    @contextlib.contextmanager
    def run(self, spool: Path, *, under: Sequence[str] = ()) -> Iterator[peers.Running]:
        accept, relay = self._ports
        command = [*under, load.program("postfix"), "-c", str(spool / "etc"), "start-fg"]
        with peers.running(command, accept, relay, spool / "start.log") as server:
            yield server

    def requeue(self, spool: Path) -> None:
        subprocess.run(
            [load.program("postsuper"), "-c", str(spool / "etc"), "-H", "ALL"],
            check=True, capture_output=True,
        )  # fmt: skip
