"""People's programs: they encrypt, log in and send, as `smtp-source` cannot.

Threads, in two processes: what takes the time is OpenSSL, which lets other threads run meanwhile.
What this costs is the same for every server, and no part of what is measured of it; but it takes
its share of a machine with few cores.
"""

from __future__ import annotations

import base64
import multiprocessing
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from bench import load
from bench.submitting import ACCOUNTS, PASSWORD

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

PROCESSES: Final = 2
_RECIPIENT: Final = "somebody@far.example"
#: Octets of a body, about.
_SIZE: Final = 4096


class Burst(Struct, frozen=True, kw_only=True):
    """What is sent.

    Attributes:
        port: of 127.0.0.1.
        count: messages.
        implicit: TLS from the start, not by STARTTLS.
        keep: each session sends all its messages on one connection.
    """

    port: int
    count: int
    implicit: bool = True
    keep: bool = False

    def send(self) -> float:
        """Send it, `load.SESSIONS` at a time; returns seconds.

        Raises:
            RuntimeError: something was refused.
        """
        context = multiprocessing.get_context("spawn")
        barrier = context.Barrier(PROCESSES)
        accounts = [ACCOUNTS[number::PROCESSES] for number in range(PROCESSES)]
        with context.Pool(PROCESSES, initializer=_meet, initargs=(barrier,)) as pool:
            jobs = zip(accounts, load.shares(self.count, PROCESSES), strict=True)
            spans = pool.starmap(self._send_some, list(jobs), chunksize=1)
        return max(end for _, end in spans) - min(begin for begin, _ in spans)

    def _send_some(self, accounts: tuple[str, ...], count: int) -> tuple[float, float]:
        tls = ssl.create_default_context()
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        shares = load.shares(count, len(accounts))
        with ThreadPoolExecutor(len(accounts)) as pool:
            _BARRIER[0].wait()
            begin = time.perf_counter()
            for _ in pool.map(lambda a, n: self._person(a, n, tls), accounts, shares):
                pass
            return begin, time.perf_counter()

    def _person(self, account: str, count: int, tls: ssl.SSLContext) -> None:
        """One session after the other, or one with all."""
        message = _message(account)
        for messages in [count] if self.keep else [1] * count:
            with self._connect(tls) as client:
                client.sendall(b"EHLO client.example\r\n")
                load.expect(client, b"250")
                secret = base64.b64encode(f"\0{account}\0{PASSWORD}".encode())
                client.sendall(b"AUTH PLAIN " + secret + b"\r\n")
                load.expect(client, b"235")
                for _ in range(messages):
                    for line, code in (
                        (f"MAIL FROM:<{account}>\r\n".encode(), b"250"),
                        (f"RCPT TO:<{_RECIPIENT}>\r\n".encode(), b"250"),
                        (b"DATA\r\n", b"354"),
                        (message, b"250"),
                    ):
                        client.sendall(line)
                        load.expect(client, code)
                client.sendall(b"QUIT\r\n")
                load.expect(client, b"221")

    def _connect(self, tls: ssl.SSLContext) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.port), 60.0)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self.implicit:
            load.expect(plain, b"220")
            plain.sendall(b"EHLO client.example\r\n")
            load.expect(plain, b"250")
            plain.sendall(b"STARTTLS\r\n")
            load.expect(plain, b"220")
        client = tls.wrap_socket(plain)
        if self.implicit:
            load.expect(client, b"220")
        return client


#: Where the processes meet before they begin.
_BARRIER: Final[list[Barrier]] = []


def _meet(barrier: Barrier) -> None:
    _BARRIER[:] = [barrier]


def _message(account: str) -> bytes:
    """What is said after DATA; no line begins with a dot."""
    header = (
        f"From: <{account}>\r\n"
        f"To: <{_RECIPIENT}>\r\n"
        "Subject: How things are\r\n"
        "Date: Sat, 28 Nov 2026 12:00:00 +0000\r\n"
        f"Message-ID: <things.{account}>\r\n"
        "MIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=us-ascii\r\n"
        "\r\n"
    )
    line = "nothing much, at some length: the quick brown fox jumps again\r\n"
    return (header + line * (_SIZE // len(line)) + ".\r\n").encode()
