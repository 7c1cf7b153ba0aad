"""The REST API of the real daemon: by curl, and by schemathesis from its own OpenAPI document."""

from __future__ import annotations

import base64
import email
import email.policy
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.scenarios import ports
from tests.scenarios.conftest import needs
from tests.scenarios.test_api_access import Answer, Curl, token_of, with_api

if TYPE_CHECKING:
    from tests.scenarios.conftest import MakeDaemon
    from tests.scenarios.daemon import Daemon

pytestmark = [pytest.mark.scenario, needs("curl")]

#: Mail for this domain goes to a port at which nobody listens.
DEFERRED = "deferred.example"
LETTER = b"Subject: x\r\n\r\nhello\r\n"
SETTINGS: dict[str, object] = {
    "routes": [{"match": DEFERRED, "via": ["smtp://127.0.0.1:9"]}],
    "queue": {"retry": ["1 h"], "disk_reserve": "1 MiB"},
}


class Rest:
    """The API, asked by somebody who may do everything."""

    def __init__(self, daemon: Daemon, port: int) -> None:
        self.token = token_of(daemon, "all", "admin")
        self.curl = Curl(f"http://127.0.0.1:{port}")

    def __call__(self, path: str, *options: str, body: object = None) -> Answer:
        return self.curl(path, *options, token=self.token, body=body)

    def listed(self, query: str) -> list[str]:
        """The ids of the messages that a search finds."""
        answer = self(f"/v1/queue/messages?{query}")
        assert answer.status == 200, answer.body
        found = answer.json()["messages"]
        assert isinstance(found, list)
        return [each["id"] for each in found]

    def tally(self, path: str, body: dict[str, object]) -> tuple[object, object]:
        """To how many recipients something was done, or would be."""
        answer = self(path, body=body)
        assert answer.status == 200, answer.body
        told = answer.json()
        return told["recipients"], told["dry_run"]


def test_mail_is_watched_and_steered_by_curl(make_elemta: MakeDaemon) -> None:
    daemon, port = with_api(make_elemta, **SETTINGS)
    daemon.start()
    rest = Rest(daemon, port)
    ids = [daemon.send(LETTER, [f"bob{number}@{DEFERRED}"]) for number in range(5)]
    # One is tried; then the destination is left alone.
    ports.eventually(lambda: rest.listed("view=deferred"), what="a failed attempt")
    assert rest.listed("") == ids

    # A page after the other.
    first = rest("/v1/queue/messages?limit=3").json()
    assert rest.listed(f"limit=3&cursor={first['next']}") == ids[3:]
    assert rest.listed("recipient=BOB2@deferred.example") == [ids[2]]
    assert rest.listed("text=bob4&newest=true") == [ids[4]]
    assert rest("/v1/queue").json()["messages"] == 5
    timeline = rest(f"/v1/messages/{ids[0]}").json()
    assert [each["result"] for each in timeline["attempts"]] == ["deferred"]  # type: ignore[attr-defined] # JSON
    assert rest(f"/v1/messages/{ids[0]}/why").json()["next_at"] is not None
    assert rest("/v1/errors?limit=5").json()["errors"]
    assert rest(f"/v1/messages/{ids[0]}/content").json()["text"] == "hello\r\n"
    assert rest(f"/v1/messages/{ids[0]}/raw").body.endswith(LETTER)

    # One by one, and many at once: first only counted.
    assert rest.tally(f"/v1/messages/{ids[0]}/hold", {"reason": "look at it"}) == (1, False)
    assert rest.listed("view=hold") == [ids[0]]
    notes = rest(f"/v1/messages/{ids[0]}").json()["notes"]
    assert [(each["who"], each["action"]) for each in notes] == [("token:all", "hold")]  # type: ignore[attr-defined] # JSON
    assert rest.tally(f"/v1/messages/{ids[0]}/release", {}) == (1, False)
    meant = {"filter": {"domain": DEFERRED}}
    assert rest.tally("/v1/queue/hold", {**meant, "dry_run": True}) == (5, True)
    assert rest.listed("view=hold") == []
    assert rest.tally("/v1/queue/hold", meant) == (5, False)
    assert len(rest.listed("view=hold")) == 5
    assert rest(f"/v1/messages/{ids[1]}", "-X", "DELETE").json()["recipients"] == 1
    assert rest.listed("view=failed") == [ids[1]]
    assert rest("/v1/queue/delete", body={}).status == 422
    assert len(rest.listed("view=hold")) == 4

    # Where it goes.
    suspended = {"scope": f"domain:{DEFERRED}", "reason": "maintenance", "for": 3600}
    assert rest("/v1/destinations/suspend", body=suspended).status == 200
    assert [each["scope"] for each in rest("/v1/suspensions").json()["suspensions"]] == [  # type: ignore[attr-defined] # JSON
        f"domain:{DEFERRED}"
    ]
    assert rest("/v1/destinations/resume", body={"scope": f"domain:{DEFERRED}"}).status == 200
    assert rest("/v1/destinations/resume", body={"scope": f"domain:{DEFERRED}"}).status == 404

    # The configuration: checked, and told where it is wrong.
    daemon.config.write_text(daemon.config.read_text() + "\ndeliveryy: {}\n")
    mistaken = rest("/v1/configuration/check", "-X", "POST")
    assert mistaken.status == 422
    assert "deliveryy" in str(mistaken.json()["faults"])
    daemon.write_config()
    assert rest("/v1/configuration/check", "-X", "POST").json() == {"changes": []}

    # Users of the original are led on.
    assert rest(f"/api/queue/message/{ids[0]}", "-L").body.endswith(
        rest(f"/v1/messages/{ids[0]}").body
    )
    assert rest("/api/queue/all/flush", "-X", "POST").status == 410
    assert len(rest.listed("view=hold")) == 4
    audited = [each["path"] for each in rest("/v1/audit").json()["entries"]]  # type: ignore[attr-defined] # JSON
    assert f"/v1/messages/{ids[0]}/raw" in audited
    assert daemon.terminate() == 0


def test_mail_is_handed_in_by_curl(make_elemta: MakeDaemon) -> None:
    daemon, port = with_api(make_elemta, **SETTINGS)
    daemon.start()
    rest = Rest(daemon, port)
    draft = {
        "from": "Zoë <zoe@example.org>", "to": ["Bob <bob@example.org>"],
        "bcc": ["carol@example.org"], "subject": "Grüße", "text": "hello\n.\nFrom here\n",
        "html": "<p>hello</p>",
        "attachments": [
            {"name": "Übersicht.bin", "content": base64.b64encode(bytes(range(256))).decode()}
        ],
    }  # fmt: skip
    once = ("-H", "Idempotency-Key: order-4711")
    taken = rest("/v1/messages", *once, body=draft)
    assert (taken.status, taken.json()["again"]) == (201, False)
    again = rest("/v1/messages", *once, body=draft)
    assert again.json() == {"id": taken.text("id"), "again": True}
    assert rest("/v1/messages", *once, body={**draft, "subject": "x"}).status == 422

    ports.eventually(
        lambda: len(daemon.maildir("bob@example.org") + daemon.maildir("carol@example.org")) == 2,
        what="two copies",
    )  # fmt: skip
    [content] = daemon.maildir("bob@example.org")
    assert b"carol" not in content
    found = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(found, email.message.EmailMessage)
    assert (found["From"], found["Subject"]) == ("Zoë <zoe@example.org>", "Grüße")
    assert found["Message-ID"]
    assert found["Date"]
    text, html = found.get_body(("plain",)), found.get_body(("html",))
    assert text is not None
    assert html is not None
    assert text.get_content() == "hello\n.\nFrom here\n"
    assert html.get_content().strip() == "<p>hello</p>"
    [attached] = found.iter_attachments()
    assert (attached.get_filename(), attached.get_content()) == ("Übersicht.bin", bytes(range(256)))

    # As it is, its line ends LF; and for later.
    raw = rest(
        "/v1/messages?from=%3C%3E&to=dave@example.org&tag=raw", "-X", "POST",
        "-H", "Content-Type: message/rfc822", "--data-binary", "Subject: raw\nBcc: eve\n\nhello\n",
    )  # fmt: skip
    assert raw.status == 201, raw.body
    ports.eventually(lambda: daemon.maildir("dave@example.org"), what="the raw one")
    [content] = daemon.maildir("dave@example.org")
    assert b"Subject: raw\n" in content
    assert b"Bcc" not in content
    assert content.startswith(b"Return-Path: <>\n")
    later = rest(
        "/v1/messages",
        body={
            "from": "a@example.org",
            "to": ["erin@example.org"],
            "send_at": (datetime.now(UTC) + timedelta(days=30)).isoformat(),
        },
    )
    assert later.status == 201, later.body
    assert rest.listed("view=deferred") == [later.text("id")]
    assert daemon.maildir("erin@example.org") == []
    assert daemon.terminate() == 0


#: Operations whose every parameter and key is tried at its limits: one of each kind.
WHOLE = "^/v1/(queue/messages|queue/redirect|destinations/suspend)$"


def test_schemathesis_finds_nothing_that_the_document_does_not_say(
    make_elemta: MakeDaemon,
) -> None:
    daemon, port = with_api(make_elemta, **SETTINGS)
    daemon.start()
    rest = Rest(daemon, port)
    for number in range(3):
        daemon.send(LETTER, [f"bob@{DEFERRED}", "bob@example.org"])
        held = daemon.send(LETTER, [f"bob{number}@{DEFERRED}"])
    assert rest.tally(f"/v1/messages/{held}/hold", {}) == (1, False)
    ports.eventually(
        lambda: rest.listed("view=deferred") and rest.listed("view=delivered"),
        what="mail in every state",
    )  # fmt: skip
    run_the_manual(rest, held)
    all_of_it = ("--phases", "examples,fuzzing,stateful", "--max-examples", "3")
    schemathesis(rest, daemon.folder, *all_of_it)
    schemathesis(rest, daemon.folder, "--phases", "coverage", "--include-path-regex", WHOLE)
    assert daemon.events("api.failed") == []
    assert daemon.terminate() == 0


def run_the_manual(rest: Rest, id_: str) -> None:
    """Run every example of docs/api.md: curl fails for what is no success."""
    told = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    blocks = re.findall(r"^```console\n(.*?)^```", told, re.MULTILINE | re.DOTALL)
    commands = [each for block in blocks for each in re.split(r"^\$ ", block, flags=re.MULTILINE)]
    script = "\n".join(each.replace("http://127.0.0.1:8025", rest.curl.url) for each in commands)
    # A shell's function of that name, so that the manual need not say it each time.
    script = 'curl() { command curl --fail-with-body -sS -o /dev/null "$@"; }\nset -e\n' + script
    done = subprocess.run(
        ["bash", "-x", "-c", script],
        env={**os.environ, "TOKEN": rest.token, "ID": id_},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert script.count("\ncurl ") >= 15


def schemathesis(rest: Rest, folder: Path, *options: str) -> None:
    """Run it in a folder where it may leave things.

    Every check, but for that of wrong tokens, which are answered 429 after a while.
    They have a scenario of their own, in test_api_access.
    """
    here = Path(__file__).parent
    done = subprocess.run(
        [
            Path(sys.executable).with_name("st"), "--config-file", here / "schemathesis.toml",
            "run", f"{rest.curl.url}/v1/openapi.json",
            "--header", f"Authorization: Bearer {rest.token}",
            "--exclude-checks", "ignored_auth", "--continue-on-failure", "--no-color", *options,
        ],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(here.parents[1]),
            "SCHEMATHESIS_HOOKS": "tests.scenarios.schemathesis_hooks",
        },
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-20_000:]
