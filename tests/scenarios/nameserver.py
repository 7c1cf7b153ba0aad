"""A name server that does as it is told, right or wrong: slow, lame, cut short, or silent.

It stands where a recursive one would. NSD (`nsd.py`) is for answers that are as they should be.
"""

from __future__ import annotations

import collections
import contextlib
import enum
import socket
import threading
import time
from typing import TYPE_CHECKING, Final, TypeVar

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.scenarios import ports

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self


class Trouble(enum.Enum):
    """What a name server may do instead of answering."""

    SERVFAIL = "servfail"
    REFUSED = "refused"
    #: Nothing comes at all.
    SILENCE = "silence"
    #: It is not responsible, and says who might be: the root servers.
    UPWARD = "upward"
    #: No datagram is large enough for its answer; by TCP it comes.
    TRUNCATED = "truncated"
    #: Octets that are no DNS message.
    GARBAGE = "garbage"


T = TypeVar("T")

#: Long enough for a test to be over.
_TTL: Final = 600


class Nameserver:
    """Answers by UDP and TCP on 127.0.0.1:`port`; a context manager.

    What is told of a name holds for all names below it that nothing is told of. A name that
    nothing is told of at all does not exist.

    Args:
        records: by name, lines such as ``MX 10 mx.test.`` and ``A 192.0.2.1``.

    Attributes:
        asked: how often each name was asked for.
    """

    def __init__(self, records: Mapping[str, list[str]]) -> None:
        self.asked: collections.Counter[str] = collections.Counter()
        self._records = records
        self._troubles: dict[str, Trouble] = {}
        self._delays: dict[str, float] = {}
        self._first: dict[str, float] = {}
        self._over = False
        self.port = ports.free_port()
        self._stream = socket.create_server(("127.0.0.1", self.port))
        self._datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._datagrams.bind(("127.0.0.1", self.port))
        self._threads = [
            threading.Thread(target=each, daemon=True)
            for each in (self._serve_datagrams, self._serve_streams)
        ]

    def trouble(self, name: str, trouble: Trouble | None) -> None:
        """Do this from now on when asked for a name or one below it; None: answer."""
        if trouble is None:
            self._troubles.pop(name, None)
        else:
            self._troubles[name] = trouble

    def delay(self, name: str, seconds: float) -> None:
        """Know no answer until so long after the first question: somebody else has to be asked."""
        self._delays[name] = seconds

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over = True
        # A datagram to itself, and no more: nothing else ends a recvfrom.
        self._datagrams.sendto(b"", ("127.0.0.1", self.port))
        with contextlib.suppress(OSError):
            self._stream.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5.0)
        self._stream.close()
        self._datagrams.close()

    def _serve_datagrams(self) -> None:
        while True:
            octets, client = self._datagrams.recvfrom(4096)
            if self._over:
                return
            threading.Thread(target=self._by_datagram, args=(octets, client), daemon=True).start()

    def _by_datagram(self, octets: bytes, client: tuple[str, int]) -> None:
        answer = self._answer(octets, stream=False)
        if answer is not None:
            with contextlib.suppress(OSError):
                self._datagrams.sendto(answer, client)

    def _serve_streams(self) -> None:
        while True:
            try:
                client, _ = self._stream.accept()
            except OSError:
                return
            threading.Thread(target=self._by_stream, args=(client,), daemon=True).start()

    def _by_stream(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client, client.makefile("rb") as octets:
            while size := octets.read(2):
                question = octets.read(int.from_bytes(size))
                answer = self._answer(question, stream=True)
                if answer is not None:
                    client.sendall(len(answer).to_bytes(2) + answer)

    def _answer(self, octets: bytes, *, stream: bool) -> bytes | None:
        query = dns.message.from_wire(octets)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        self.asked[name] += 1
        first = self._first.setdefault(name, time.monotonic())
        time.sleep(max(0.0, first + (_of(self._delays, name) or 0.0) - time.monotonic()))
        answer = dns.message.make_response(query, recursion_available=True)
        match _of(self._troubles, name):
            case Trouble.SILENCE:
                return None
            case Trouble.GARBAGE:
                return octets[:2] + b"\xff" * 30
            case Trouble.SERVFAIL:
                answer.set_rcode(dns.rcode.SERVFAIL)
            case Trouble.REFUSED:
                answer.set_rcode(dns.rcode.REFUSED)
            case Trouble.UPWARD:
                answer.flags &= ~dns.flags.RA
                root = dns.rrset.from_text(".", _TTL, "IN", "NS", "a.root-servers.test.")
                answer.authority.append(root)
            case Trouble.TRUNCATED if not stream:
                answer.flags |= dns.flags.TC
            case _:
                self._fill(answer, name, question.rdtype)
        return answer.to_wire()

    def _fill(self, answer: dns.message.Message, name: str, kind: dns.rdatatype.RdataType) -> None:
        asked = dns.rdatatype.to_text(kind)
        if name not in self._records:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        found = [
            rest
            for record in self._records.get(name, ())
            for type_, _, rest in [record.partition(" ")]
            if type_ == asked
        ]
        if found:
            answer.answer.append(dns.rrset.from_text(f"{name}.", _TTL, "IN", asked, *found))
        else:
            soa = dns.rrset.from_text("test.", _TTL, "IN", "SOA", "ns.test. p.test. 1 2 3 4 5")
            answer.authority.append(soa)


def _of(told: Mapping[str, T], name: str) -> T | None:
    """What is told of a name or of the nearest one above it."""
    while name not in told and name:
        name = name.partition(".")[2]
    return told.get(name)
