"""The sandbox's inbox, over real Maildirs."""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from elemta.api.app import create_app
from elemta.api.framed import POLICY
from tests.api.fakes import ALL, FakeAudit, site_of
from tests.control.fake import FakeControl

if TYPE_CHECKING:
    from pathlib import Path

    from quart.typing import TestClientProtocol
    from quart.wrappers import Response

#: A letter that would like to do more than be read.
HOSTILE = b"""\
From: =?utf-8?q?J=C3=B6rg?= <joerg@example.net>
To: you@example.org
Subject: =?utf-8?b?R3LDvMOfZQ==?=
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=x

--x
Content-Type: text/plain; charset=utf-8

Hello.
--x
Content-Type: text/html; charset=utf-8

<LINK rel=preconnect href=//evil.example><meta http-equiv=refresh content=0>
<base/href=//evil.example><links>Hello</links><script>alert(1)</script>
--x
Content-Type: text/csv
Content-Disposition: attachment; filename="sums.csv"

1,2
--x--
"""


class Mail:
    """Maildirs that somebody delivers into."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(
        self,
        name: str,
        mailbox: str = "you@example.org",
        content: bytes = b"Subject: hi\n\nhello\n",
        part: str = "new",
    ) -> Path:
        local, _, domain = mailbox.partition("@")
        folder = self.root / domain / local / part
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        return folder / name


@pytest.fixture
def mail(tmp_path: Path) -> Mail:
    return Mail(tmp_path / "mail")


def client_of(mail: Mail | None, audit: FakeAudit | None = None) -> TestClientProtocol:
    site = site_of(FakeControl(), audit=audit)
    return create_app(replace(site, inbox=None if mail is None else mail.root)).test_client()


async def listed(
    client: TestClientProtocol, query: str = ""
) -> tuple[list[dict[str, object]], str]:
    response = await client.get(f"/v1/inbox{query}", headers=ALL)
    assert response.status_code == 200, await response.get_data()
    found = await response.get_json()
    return found["messages"], found["next"]


async def only(client: TestClientProtocol) -> str:
    """The id of the only message."""
    ((message,), _) = await listed(client)
    return str(message["id"])


async def get(client: TestClientProtocol, path: str) -> Response:
    response: Response = await client.get(path, headers=ALL)
    return response


async def test_an_empty_sandbox_has_an_empty_inbox(mail: Mail) -> None:
    assert await listed(client_of(mail)) == ([], None)


async def test_mail_is_listed_the_newest_first_from_all_mailboxes(mail: Mail) -> None:
    mail.put("1000.A_0.mx")
    mail.put("3000.C_0.mx", "sales@example.net", HOSTILE)
    mail.put("2000.B_0.mx:2,S", part="cur")
    found, after = await listed(client_of(mail))
    assert after is None
    assert [(each["date"], each["mailbox"], each["seen"]) for each in found] == [
        (3000.0, "sales@example.net", False),
        (2000.0, "you@example.org", True),
        (1000.0, "you@example.org", False),
    ]
    assert found[0]["from"] == "Jörg <joerg@example.net>"
    assert found[0]["to"] == "you@example.org"
    assert found[0]["subject"] == "Grüße"
    assert found[0]["size"] == len(HOSTILE)


async def test_pages_follow_each_other_without_a_gap_while_mail_comes_in(mail: Mail) -> None:
    for number in range(5):
        mail.put(f"{1000 + number}.M_0.mx")
    client = client_of(mail)
    first, after = await listed(client, "?limit=2")
    mail.put("2000.new_0.mx")
    second, then = await listed(client, f"?limit=2&cursor={after}")
    third, end = await listed(client, f"?limit=2&cursor={then}")
    dates = [each["date"] for each in first + second + third]
    assert dates == [1004.0, 1003.0, 1002.0, 1001.0, 1000.0]
    assert end is None


async def test_one_mailbox_is_found_however_its_address_is_spelt(mail: Mail) -> None:
    mail.put("1000.A_0.mx", "you@example.org")
    mail.put("1001.B_0.mx", "me@example.org")
    mail.put("1002.C_0.mx", "you@xn--bcher-kva.example")
    client = client_of(mail)
    for address, date in [("YOU@Example.org", 1000.0), ("you@B%C3%BCcher.example", 1002.0)]:
        found, _ = await listed(client, f"?address={address}")
        assert [each["date"] for each in found] == [date]
    assert await listed(client, "?address=nobody@example.org") == ([], None)


@pytest.mark.parametrize(
    ("query", "field"),
    [("cursor=x", "cursor"), ("limit=0", "limit"), ("limit=9999", "limit"), ("of=me", "of")],
)
async def test_a_query_that_makes_no_sense_is_refused_by_the_name_of_its_part(
    mail: Mail, query: str, field: str
) -> None:
    response = await get(client_of(mail), f"/v1/inbox?{query}")
    assert response.status_code == 422
    assert (await response.get_json())["faults"][0]["field"] == field


async def test_a_message_is_taken_apart(mail: Mail) -> None:
    mail.put("1000.A_0.mx", content=HOSTILE)
    client = client_of(mail)
    found = await (await get(client, f"/v1/inbox/{await only(client)}")).get_json()
    assert ["Subject", "Grüße"] in found["headers"]
    assert found["text"] == "Hello."
    assert "<script>" in found["html"]
    assert [(each["name"], each["type"]) for each in found["attachments"]] == [
        ("sums.csv", "text/csv")
    ]


async def test_html_comes_as_a_page_that_can_do_nothing(mail: Mail) -> None:
    mail.put("1000.A_0.mx", content=HOSTILE)
    client = client_of(mail)
    response = await get(client, f"/v1/inbox/{await only(client)}/html")
    assert response.content_type == "text/html; charset=utf-8"
    assert response.headers.getlist("Content-Security-Policy") == [POLICY]
    assert "sandbox" in POLICY
    assert "script" not in POLICY
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    text = await response.get_data(as_text=True)
    assert "<x-LINK" in text
    assert "<x-meta" in text
    assert "<x-base" in text
    assert "<links>Hello</links>" in text


async def test_html_of_a_message_that_has_none_is_not_found(mail: Mail) -> None:
    mail.put("1000.A_0.mx")
    client = client_of(mail)
    assert (await get(client, f"/v1/inbox/{await only(client)}/html")).status_code == 404


async def test_the_source_is_the_file_as_it_is(mail: Mail) -> None:
    content = b"Subject: large\n\n" + b"x" * 300_000
    mail.put("1000.A_0.mx", content=content)
    client = client_of(mail)
    response = await get(client, f"/v1/inbox/{await only(client)}/raw")
    assert response.content_type == "message/rfc822"
    assert response.headers["Content-Disposition"].startswith("attachment")
    assert await response.get_data(as_text=False) == content


async def test_a_message_keeps_its_id_when_a_mail_program_reads_it(mail: Mail) -> None:
    file = mail.put("1000.A_0.mx")
    client = client_of(mail)
    known = await only(client)
    (file.parent.parent / "cur").mkdir()
    file.rename(file.parent.parent / "cur" / "1000.A_0.mx:2,RS")
    assert (await get(client, f"/v1/inbox/{known}")).status_code == 200
    ((again,), _) = await listed(client)
    assert again["id"] == known
    assert again["seen"] is True


async def test_what_is_deleted_is_gone(mail: Mail) -> None:
    file = mail.put("1000.A_0.mx")
    client = client_of(mail)
    known = await only(client)
    assert (await client.delete(f"/v1/inbox/{known}", headers=ALL)).status_code == 204
    assert not file.exists()
    assert (await client.delete(f"/v1/inbox/{known}", headers=ALL)).status_code == 404
    for path in ("", "/raw", "/html"):
        assert (await get(client, f"/v1/inbox/{known}{path}")).status_code == 404
    assert await listed(client) == ([], None)


def id_of(place: str) -> str:
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "known",
    [
        "x", "....", id_of("a/b"), id_of("a/b/c/d"), id_of("../../secret"),
        id_of("example.org/../secret"),
        id_of("example.org//1"), id_of("example.org/you/.."), id_of("example.org/you/\0"),
        id_of("example.org/you/1000.A_0.mx") + "=", id_of("example.org/you/1000.nothing"),
        id_of("/etc/passwd"),
    ],
)  # fmt: skip
async def test_an_id_that_was_never_given_leads_nowhere(mail: Mail, known: str) -> None:
    mail.put("1000.A_0.mx")
    (mail.root.parent / "secret").write_text("secret")
    client = client_of(mail)
    assert (await get(client, f"/v1/inbox/{known}/raw")).status_code == 404
    assert (await client.delete(f"/v1/inbox/{known}", headers=ALL)).status_code == 404
    assert (mail.root.parent / "secret").exists()


async def test_links_and_pipes_in_a_maildir_are_nobodys_mail(mail: Mail, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    folder = mail.put("1000.A_0.mx").parent
    (folder / "2000.link").symlink_to(tmp_path / "secret")
    os.mkfifo(folder / "3000.pipe")
    client = client_of(mail)
    found, _ = await listed(client)
    assert [each["date"] for each in found] == [1000.0]
    for name in ("2000.link", "3000.pipe"):
        known = id_of(f"example.org/you/{name}")
        assert (await get(client, f"/v1/inbox/{known}/raw")).status_code == 404


async def test_hidden_files_and_odd_names_are_no_trouble(mail: Mail) -> None:
    mail.put(".hidden")
    mail.put("no-stamp")
    (mail.root / "a-file").write_text("x")
    found, _ = await listed(client_of(mail))
    assert [each["date"] for each in found] == [0.0]


async def test_outside_the_sandbox_there_is_no_inbox() -> None:
    response = await get(client_of(None), "/v1/inbox")
    assert response.status_code == 404
    assert "sandbox" in (await response.get_json())["detail"]


async def test_who_reads_a_message_is_remembered_and_who_looks_at_the_list_is_not(
    mail: Mail,
) -> None:
    audit = FakeAudit()
    mail.put("1000.A_0.mx")
    client = client_of(mail, audit)
    known = await only(client)
    assert audit.noted == []
    await get(client, f"/v1/inbox/{known}")
    assert [each.path for each in audit.noted] == [f"/v1/inbox/{known}"]


@pytest.mark.parametrize(("method", "scope"), [("GET", "content"), ("DELETE", "operate")])
async def test_reading_and_deleting_need_a_scope_each(mail: Mail, method: str, scope: str) -> None:
    mail.put("1000.A_0.mx")
    client = client_of(mail)
    known = await only(client)
    for token in ("read", "content", "operate"):
        headers = {"Authorization": f"Bearer {token}"}
        status = (
            await client.open(f"/v1/inbox/{known}", method=method, headers=headers)
        ).status_code
        assert (status == 403) is (token != scope), token
        mail.put("1000.A_0.mx")


async def test_html_of_a_message_that_waits_comes_under_the_same_policy() -> None:
    control = FakeControl()
    control.pieces = [HOSTILE.replace(b"\n", b"\r\n")]
    client = create_app(site_of(control)).test_client()
    response = await get(client, "/v1/messages/01M82Q28V6DAVJCKE0E9H00001/html")
    assert response.headers.getlist("Content-Security-Policy") == [POLICY]
    assert "<x-LINK" in await response.get_data(as_text=True)
