"""Clients that go on sending while the daemon is killed and started again."""

from __future__ import annotations

import collections
import random
import smtplib
import threading
import time
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.scenarios.daemon import Daemon

Compose: TypeAlias = "Callable[[str, random.Random], tuple[str, str, bytes]]"


class Senders:
    """Threads that send numbered messages until told to stop, and remember what was promised.

    Args:
        compose: makes each message: its number and a source of chance to sender, recipient and
            content, which tells the number by X-Scenario-Id.

    A message that was not answered is not sent again: the next one has a new number. So whatever
    arrives twice was delivered twice.
    """

    def __init__(self, daemon: Daemon, seed: int, compose: Compose, threads: int = 20) -> None:
        self._daemon = daemon
        self._compose = compose
        self._over = threading.Event()
        self._lock = threading.Lock()
        self.promised: set[str] = set()
        self.refused: collections.Counter[int] = collections.Counter()
        self._threads = [
            threading.Thread(target=self._run, args=(number, random.Random(f"{seed}/{number}")))
            for number in range(threads)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30.0)

    def _run(self, number: int, chance: random.Random) -> None:
        count = 0
        while not self._over.is_set():
            try:
                with smtplib.SMTP("127.0.0.1", self._daemon.port, "c.example", 20.0) as client:
                    for _ in range(chance.randint(1, 20)):
                        count += 1
                        self._send(client, f"{number}-{count}", chance)
                        if self._over.is_set():
                            return
            except (OSError, smtplib.SMTPException):
                time.sleep(0.05)  # it is down just now

    def _send(self, client: smtplib.SMTP, name: str, chance: random.Random) -> None:
        sender, recipient, content = self._compose(name, chance)
        try:
            client.sendmail(sender, [recipient], content)
        except smtplib.SMTPResponseException as error:
            self.refused[error.smtp_code] += 1
            if error.smtp_code == 421:
                raise
            return
        with self._lock:
            self.promised.add(name)
