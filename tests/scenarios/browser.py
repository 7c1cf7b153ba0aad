"""Chromium, and the sandbox that it looks at, each a process on loopback."""

from __future__ import annotations

import os
import re
import shutil
import smtplib
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import expect, sync_playwright

from tests.scenarios import ports
from tests.scenarios.daemon import message_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page

_SOURCE = Path(__file__).parents[2]
_LINK = re.compile(r"(http://[\d.:]+)/login#once=\S+")
#: A browser that does nothing of its own.
_QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
#: Milliseconds that anything may take to be seen.
PATIENCE = 30_000


class Sandbox:
    """``elemta serve --sandbox`` in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = ports.free_port()
        self.api_port = ports.free_port()
        self.log = folder / "elemta.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; does not wait."""
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "elemta", "serve", "--sandbox", "--port", str(self.port),
                    "--api-port", str(self.api_port),
                ],
                env={**os.environ, "PYTHONPATH": str(_SOURCE), "PYTHONUNBUFFERED": "1"},
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def wait(self) -> None:
        """Wait until it takes mail."""
        ports.eventually(lambda: ports.greets(self.port), what="a greeting")
        ports.eventually(lambda: _LINK.search(self.log.read_text()), what="the one-time link")

    @property
    def link(self) -> str:
        """The one-time link that it printed."""
        found = _LINK.search(self.log.read_text())
        assert found is not None
        return found[0]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    def send(self, content: bytes, recipient: str = "you@example.org") -> str:
        """Hand in a message; returns its id."""
        with smtplib.SMTP("127.0.0.1", self.port, "client.example", timeout=60.0) as client:
            client.ehlo()
            client.mail("alice@example.net")
            client.rcpt(recipient)
            return message_id(client.data(content)[1])

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30.0)
            self.process = None


class Visitor:
    """Somebody with a page open; what a browser complains of, and what it asks for, is kept.

    Attributes:
        complaints: of our own pages: errors, and what the policy forbade.
        answered: addresses of everything that was loaded.
        dialogs: texts of ``alert`` and the like.
    """

    def __init__(self, context: BrowserContext) -> None:
        context.set_default_timeout(PATIENCE)
        self.page: Page = context.new_page()
        self.complaints: list[str] = []
        self.answered: list[str] = []
        self.dialogs: list[str] = []
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("response", lambda response: self.answered.append(response.url))
        self.page.on(
            "dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss())
        )

    def _hear(self, message: ConsoleMessage) -> None:
        # A stranger's HTML is refused what it wants, and the browser says so, as it must.
        if message.type in ("error", "warning") and not message.location["url"].endswith("/html"):
            self.complaints.append(f"{message.text} ({message.location['url']})")

    def overflow(self) -> int:
        """Pixels by which the page is wider than the window."""
        wider: int = self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        return wider


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's, driven by Playwright."""
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=list(_QUIET)
        )
        yield browser
        browser.close()
