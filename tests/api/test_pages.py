"""The dashboard's pages and files."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from elemta.api.app import create_app
from elemta.api.pages import ASK_AGAIN, FOR_EVER, HEADERS, PAGES, Files
from tests.api.fakes import site_of
from tests.control.fake import FakeControl

if TYPE_CHECKING:
    from quart.typing import TestClientProtocol

STATIC = Path(str(files("elemta.api"))) / "static"
SCRIPTS = sorted(STATIC.rglob("*.js"))


def client(*, inbox: Path | None = None) -> TestClientProtocol:
    return create_app(replace(site_of(FakeControl()), inbox=inbox)).test_client()


@pytest.mark.parametrize("path", PAGES)
async def test_pages_need_no_token_and_may_load_nothing_of_others(path: str) -> None:
    response = await client().get(path)
    assert response.status_code == 200
    assert response.content_type == "text/html; charset=utf-8"
    for name, value in HEADERS.items():
        assert response.headers[name] == value
    assert "unsafe" not in response.headers["Content-Security-Policy"]
    text = await response.get_data(as_text=True)
    assert re.findall(r"<script(?![^>]* src=\"/static/)|<style| style=| on\w+=", text) == []
    assert re.findall(r"(?:src|href)=\"(?:[a-z]+:|//)", text) == []


async def test_a_page_names_files_that_are_there_and_may_be_kept_for_ever() -> None:
    visitor = client()
    for path in PAGES:
        text = await (await visitor.get(path)).get_data(as_text=True)
        named = re.findall(r"\"(/static/[^\"]+)\"", text)
        assert named
        for name in named:
            response = await visitor.get(name)
            assert response.status_code == 200, name
            assert response.headers["Cache-Control"] == FOR_EVER


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_modules_import_modules_that_are_there_and_make_no_markup(script: Path) -> None:
    text = script.read_text()
    for name in re.findall(r"(?:from|import) \"(.+?)\"", text):
        assert name.startswith("."), name
        assert (script.parent / name).resolve() in SCRIPTS, name
    code = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)
    assert (
        re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", code) == []
    )
    assert re.findall(r"https?://", code.replace("http://www.w3.org/2000/svg", "")) == []
    assert len(text.splitlines()) <= 400


async def test_what_a_browser_has_already_is_not_sent_again() -> None:
    visitor = client()
    first = await visitor.get("/")
    assert first.headers["Cache-Control"] == ASK_AGAIN
    again = await visitor.get("/", headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304
    assert await again.get_data() == b""
    other = await visitor.get("/", headers={"If-None-Match": '"something else"'})
    assert other.status_code == 200


async def test_a_file_without_its_version_is_asked_for_again_each_time() -> None:
    response = await client().get("/static/main.js")
    assert response.status_code == 200
    assert response.content_type == "text/javascript; charset=utf-8"
    assert response.headers["Cache-Control"] == ASK_AGAIN


@pytest.mark.parametrize(
    "name",
    [
        "nothing.js", "../pages.py", "%2e%2e/pages.py", "..%2fpages.py", "/etc/passwd", "views",
        "views/../main.js", "index.html", "0123456789abcdef/main.js", "main.js%00", "",
    ],
)  # fmt: skip
async def test_only_files_of_the_dashboard_are_served(name: str) -> None:
    response = await client().get(f"/static/{name}")
    assert response.status_code == 404
    assert b"import" not in await response.get_data()


async def test_what_is_not_there_is_refused_under_the_same_policy() -> None:
    response = await client().get("/static/nothing.js")
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")


async def test_the_dashboard_knows_whether_there_is_an_inbox(tmp_path: Path) -> None:
    with_one = await (await client(inbox=tmp_path).get("/")).get_data(as_text=True)
    without = await (await client().get("/")).get_data(as_text=True)
    assert 'data-inbox="yes"' in with_one
    assert 'data-inbox="no"' in without


def test_other_content_is_another_version() -> None:
    assert Files(inbox=True).version == Files(inbox=False).version
    assert re.fullmatch(r"[0-9a-f]{16}", Files(inbox=True).version)


def test_a_page_is_not_found_among_the_files() -> None:
    found = Files(inbox=False)
    assert found.asset("index.html") is None
    assert found.page("index.html").media_type.startswith("text/html")
