"""A real Prometheus, that scrapes what it is told to."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

import yaml

from tests.scenarios import ports

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path


class Prometheus:
    """Answers PromQL.

    Args:
        port: where it listens.
    """

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def wait(self) -> None:
        """Wait until it is ready: some seconds."""
        ports.eventually(self._ready, what="Prometheus to be ready")

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=5):
                return True
        except OSError:
            return False

    def ask(self, query: str) -> dict[str, float]:
        """What a query finds: values by those of their labels, but for the instance and the job."""
        asked = urllib.parse.urlencode({"query": query})
        with urllib.request.urlopen(f"{self._url}/api/v1/query?{asked}", timeout=10) as answer:
            found = json.load(answer)
        assert found["status"] == "success", found
        return {
            ",".join(
                value
                for label, value in sorted(each["metric"].items())
                if label not in ("__name__", "instance", "job")
            ): float(each["value"][1])
            for each in found["data"]["result"]
        }

    def one(self, query: str) -> float | None:
        """The one value that a query finds; None if there is none yet."""
        found = self.ask(query)
        assert len(found) <= 1, found
        return next(iter(found.values()), None)

    def until(self, query: str, value: float) -> None:
        """Wait until a query finds this."""
        ports.eventually(lambda: self.one(query) == value, what=f"{query} is {value}")


@contextmanager
def prometheus(folder: Path, jobs: Mapping[str, int]) -> Generator[Prometheus]:
    """A Prometheus that looks twice a second, once it is ready.

    Args:
        folder: to be made, for its files.
        jobs: the port of each.
    """
    folder.mkdir()
    config = folder / "prometheus.yml"
    scrapes = [
        {"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
        for name, port in jobs.items()
    ]
    interval = {"scrape_interval": "500ms", "scrape_timeout": "500ms"}
    config.write_text(yaml.safe_dump({"global": interval, "scrape_configs": scrapes}))
    port = ports.free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
        try:
            yield Prometheus(port)
        finally:
            process.kill()
            process.wait()
