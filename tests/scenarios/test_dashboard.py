"""The dashboard in a real browser, over the real sandbox."""

from __future__ import annotations

import base64
import json
import re
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import msgspec
import pytest
from playwright.sync_api import Page, Route, WebSocketRoute, expect

from elemta.api.server_endpoints import Plugins
from elemta.control.facts import PluginStatus, asked_in_order
from tests.scenarios.browser import Sandbox, Visitor, chromium
from tests.scenarios.conftest import needs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, BrowserContext

pytestmark = [pytest.mark.scenario, needs("chromium")]

#: Out of git; for whoever wants to see how it looks.
PICTURES = Path(__file__).parents[2] / "build" / "screenshots"
PAGES = (
    "overview", "queue", "destinations", "sessions", "logs", "statistics", "compose", "explain",
    "inbox", "plugins", "configuration", "access",
)  # fmt: skip
#: Behind everything, by the colours that the system asks for.
GROUNDS: Final[dict[Literal["light", "dark"], str]] = {
    "light": "rgb(244, 246, 246)",
    "dark": "rgb(18, 24, 26)",
}
#: The sandbox has none; their names are as long as a third party's.
PLUGINS: Final = [
    PluginStatus(
        name="example_plugins.of_a_third_party:Judge", about="Judges <b>mail</b>.", enabled=True,
        hooks=("on_rcpt", "on_inspect"), timeout=60.0, asked=12, objected=5, failed=1,
        kinds=("rcpt", "security"), listeners=("mx",), events={"seen": 7},
        on_failure={"on_rcpt": "continue", "on_inspect": "defer"},
    ),
    PluginStatus(
        name="dkim", about="Verifies.", enabled=True, hooks=("on_inspect",), timeout=60.0,
        kinds=("security",), on_failure={"on_inspect": "quarantine"},
    ),
    PluginStatus(name="spf", about="Looks.", enabled=False, hooks=("on_inspect",), timeout=5.0),
]  # fmt: skip
PLAIN = b"From: Alice <alice@example.net>\r\nSubject: Look here\r\n\r\nhello\r\n"
#: Would run a script, load a picture, connect, go elsewhere and send a form.
HOSTILE = b"""\
From: Eve <eve@example.net>\r
Subject: Look at <b>me</b>\r
MIME-Version: 1.0\r
Content-Type: text/html; charset=utf-8\r
\r
<link rel=preconnect href=EVIL><meta http-equiv=refresh content="0;url=EVIL">\r
<h1 style="color: green">Dear reader</h1><a href=EVIL>a link</a>\r
<img src=EVIL/pixel.gif onerror="alert(1)"><script>alert(2)</script>\r
<form action=EVIL><button>Go</button></form>\r
"""


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    made = Sandbox(tmp_path_factory.mktemp("sandbox"))
    try:
        made.start()
        yield made  # it starts while the browser does
    finally:
        made.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def context(sandbox: Sandbox, browser: Browser) -> Iterator[BrowserContext]:
    """A browser that has logged in by the one-time link."""
    sandbox.wait()
    made = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    visitor = Visitor(made)
    visitor.page.goto(sandbox.link)
    expect(visitor.page).to_have_url(f"{sandbox.url}/#/overview")
    expect(visitor.page.locator("#live")).to_have_text("live")
    assert "once" not in visitor.page.evaluate("history.state + location.href")
    assert visitor.complaints == []
    visitor.page.close()
    yield made
    made.close()


@pytest.fixture
def visitor(context: BrowserContext, sandbox: Sandbox) -> Iterator[Visitor]:
    """Somebody who is logged in; nothing of ours may go wrong in their browser."""
    made = Visitor(context)
    yield made
    made.page.close()
    assert made.complaints == []
    assert made.dialogs == []
    assert [url for url in made.answered if not url.startswith(sandbox.url + "/")] == []


def go(visitor: Visitor, sandbox: Sandbox, page: str) -> Page:
    visitor.page.goto(f"{sandbox.url}/#/{page}")
    expect(visitor.page.locator("#live")).to_have_text("live")
    return visitor.page


def confirm(page: Page, button: str, counted: str | None = None) -> None:
    """Confirm in the dialog that is open, once it has counted."""
    box = page.get_by_role("dialog")
    if counted is not None:
        expect(box.get_by_role("status")).to_contain_text(counted)
    box.get_by_role("button", name=button).click()
    expect(box).to_have_count(0)


def picture(page: Page, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png")


def test_a_message_is_seen_as_it_comes_and_goes(sandbox: Sandbox, visitor: Visitor) -> None:
    page = go(visitor, sandbox, "overview")
    expect(page.locator(".verdict")).to_have_text("All is well")
    known = sandbox.send(PLAIN)
    feed = page.locator(".feed li", has_text=known)
    expect(feed.filter(has_text="queued")).to_have_count(1)
    expect(feed.filter(has_text="delivered")).to_have_count(1)
    expect(page.locator(".tile", has_text="received").locator("strong")).not_to_have_text("0")
    picture(page, "overview")
    feed.first.get_by_role("link", name=known).click()
    life = page.locator(".timeline")
    for step in ("Received", "Delivered", "Finished"):
        expect(life.locator("strong", has_text=step)).to_have_count(1)
    page.locator(".transcript summary").first.click()
    expect(page.locator(".transcript .lines").first).to_contain_text("FROM:<alice@example.net>")
    picture(page, "message")
    _read_what_plugins_said(page, known)


def _read_what_plugins_said(page: Page, known: str) -> None:
    """It follows that the message came in, together, though it is a moment older."""

    def judged(route: Route) -> None:
        found = route.fetch().json()
        said = (("found", "spf=<i>pass</i>"), ("tag odd", None), ("quarantine", "looks odd"))
        found["notes"] = [
            {"at": found["received_at"] - 0.001, "who": "plugin:judge", "action": action,
             "reason": reason, "recipients": ["you@example.org"]}
            for action, reason in said
        ]  # fmt: skip
        route.fulfill(json=found)

    page.route(f"**/v1/messages/{known}", judged)
    page.reload()
    steps = page.locator(".timeline li")
    expect(steps.nth(0)).to_contain_text("Received")
    expect(steps.nth(1)).to_contain_text("Judged by 1 plugin")
    expect(steps.nth(1).locator("dd")).to_have_text("spf=<i>pass</i>\ntag odd")
    expect(steps.nth(2)).to_contain_text("Quarantine by plugin:judge: looks odd")


def test_mail_is_held_and_released_and_a_destination_suspended_and_resumed(
    sandbox: Sandbox, visitor: Visitor
) -> None:
    page = go(visitor, sandbox, "destinations")
    page.get_by_role("button", name="Suspend…").click()
    page.get_by_label("Scope").fill("all")
    page.get_by_label("Reason").fill("to look closer")
    confirm(page, "Suspend", "0 messages wait there now")
    suspended = page.get_by_role("row").filter(has_text="to look closer")
    expect(suspended).to_have_count(1)

    page.get_by_role("link", name="Queue", exact=True).click()
    expect(page.get_by_text("No message is like this.")).to_be_visible()
    known = sandbox.send(PLAIN)
    row = page.get_by_role("row").filter(has_text=known)
    expect(row).to_contain_text("ready")
    row.get_by_role("checkbox").check()
    page.get_by_role("button", name="Hold").click()
    confirm(page, "Hold", "1 message")
    expect(row).to_contain_text("held")
    picture(page, "queue")
    page.locator(".toast", has_text="Held").get_by_role("button", name="Undo").click()
    expect(row).to_contain_text("ready")

    row.get_by_role("link", name=known).click()
    page.get_by_role("button", name="Hold", exact=True).click()
    confirm(page, "Hold", "1 message")
    expect(page.locator(".timeline strong", has_text="Hold")).to_have_count(2)
    page.get_by_role("button", name="Release", exact=True).click()
    confirm(page, "Release", "1 message")
    expect(page.locator(".timeline strong", has_text="Release")).to_have_count(2)

    page.get_by_role("link", name="Destinations").click()
    suspended.get_by_role("button", name="Resume").click()
    expect(page.get_by_text("Nothing is suspended.")).to_be_visible()
    page.goto(f"{sandbox.url}/#/messages/{known}")
    expect(page.locator(".timeline strong", has_text="Finished")).to_have_count(1)


def test_what_is_composed_is_followed_into_the_inbox(sandbox: Sandbox, visitor: Visitor) -> None:
    page = go(visitor, sandbox, "compose")
    page.get_by_label("To", exact=True).fill("bob@example.org")
    page.get_by_label("Subject").fill("From the dashboard")
    page.get_by_label("Text").fill("Written in a browser.")
    page.get_by_label("Attachments").set_input_files(
        {"name": "sums.csv", "mimeType": "text/csv", "buffer": b"1,2\n"}
    )
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".panel", has_text="From the dashboard").locator(".feed")).to_contain_text(
        "delivered"
    )
    page.get_by_role("link", name="Inbox").click()
    mail = page.locator(".mails a", has_text="From the dashboard")
    expect(mail).to_contain_text("bob@example.org")
    mail.click()
    expect(page.locator("pre.content")).to_contain_text("Written in a browser.")
    expect(page.get_by_role("row").filter(has_text="sums.csv")).to_contain_text("4 B")
    page.get_by_role("button", name="Source").click()
    expect(page.locator("pre.content")).to_contain_text(base64.b64encode(b"1,2\n").decode())
    page.get_by_role("button", name="Delete").click()
    confirm(page, "Delete")
    expect(mail).to_have_count(0)


def test_html_of_a_stranger_runs_nothing_and_loads_nothing(
    sandbox: Sandbox, visitor: Visitor
) -> None:
    page = go(visitor, sandbox, "inbox")
    with socket.create_server(("127.0.0.1", 0)) as evil:
        url = f"http://127.0.0.1:{evil.getsockname()[1]}"
        sandbox.send(HOSTILE.replace(b"EVIL", url.encode()), "victim@example.org")
        _read_what_is_hostile(page)
        evil.setblocking(False)
        with pytest.raises(BlockingIOError):
            evil.accept()


def _read_what_is_hostile(page: Page) -> None:
    mail = page.locator(".mails a", has_text="victim@example.org")
    # What is text stays text.
    expect(mail.locator(".subject")).to_have_text("Look at <b>me</b>")
    mail.click()
    page.get_by_role("button", name="HTML").click()
    frame = page.frame_locator("iframe")
    expect(frame.locator("h1")).to_have_text("Dear reader")
    expect(frame.locator("h1")).to_have_css("color", "rgb(0, 128, 0)")
    frame.get_by_role("button", name="Go").click()
    frame.get_by_text("a link").click(force=True)
    expect(frame.locator("h1")).to_have_text("Dear reader")
    assert page.locator("iframe").get_attribute("sandbox") == ""
    picture(page, "inbox")


def test_every_page_fits_a_narrow_window_in_light_and_dark(
    sandbox: Sandbox, browser: Browser, context: BrowserContext
) -> None:
    with browser.new_context(
        viewport={"width": 360, "height": 740}, storage_state=context.storage_state()
    ) as narrow:
        visitor = Visitor(narrow)
        told = msgspec.to_builtins(Plugins(PLUGINS, asked_in_order(PLUGINS)))
        visitor.page.route("**/v1/plugins", lambda route: route.fulfill(json=told))
        for scheme, ground in GROUNDS.items():
            visitor.page.emulate_media(color_scheme=scheme)
            for name in PAGES if scheme == "light" else PAGES[:2]:
                page = go(visitor, sandbox, name)
                expect(page.locator("h1")).to_be_visible()
                expect(page.locator("[aria-busy]")).to_have_count(0)
                assert visitor.overflow() <= 0, name
                expect(page.locator("body")).to_have_css("background-color", ground)
                picture(page, f"{name}-360-{scheme}")
                if name == "plugins":
                    _read_about_plugins(page)
        assert visitor.complaints == []


def _read_about_plugins(page: Page) -> None:
    row = page.get_by_role("table", name="Plugins").locator("tbody tr").first
    for text in (
        "Judges <b>mail</b>.", "for clients of mx alone", "seen 7", "recipients, security",
        "mail goes on (on_rcpt)", "mail is put off (on_inspect)",
    ):  # fmt: skip
        expect(row).to_contain_text(text)
    expect(row.locator("td.number")).to_have_text(["12", "5", "1"])
    order = page.get_by_role("table", name="Who is asked when").locator("tbody tr")
    expect(order.locator("td:first-child")).to_have_text(["on_rcpt", "on_inspect"])
    expect(order.nth(1).locator("li .mono")).to_have_text([PLUGINS[0].name, "dkim"])


def test_everything_is_within_reach_of_the_keyboard(sandbox: Sandbox, visitor: Visitor) -> None:
    page = go(visitor, sandbox, "destinations")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    page.keyboard.press("Tab")
    opener = page.get_by_role("button", name="Suspend…")
    expect(opener).to_be_focused()
    assert opener.evaluate("element => getComputedStyle(element).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.get_by_label("Scope")).to_be_focused()
    for _ in range(12):  # round the dialog, and never out of it but into the browser's own bar
        page.keyboard.press("Tab")
        inside = page.evaluate(
            "document.activeElement === document.body || !!document.activeElement.closest('dialog')"
        )
        assert inside
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(opener).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Scope")).to_be_focused()
    page.evaluate("location.hash = '#/queue'")  # as the browser's Back does
    expect(page.locator("h1")).to_have_text("Queue")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_who_may_not_see_a_page_is_told_which_scope_it_needs(
    sandbox: Sandbox, visitor: Visitor
) -> None:
    me = {"who": "token:reader", "scopes": ["read"], "csrf": "none"}
    visitor.page.route("**/v1/me", lambda route: route.fulfill(json=me))
    page = go(visitor, sandbox, "access")
    expect(page.locator("#main")).to_contain_text("This page needs the scope admin")
    expect(page.locator("#nav")).not_to_contain_text("Access")
    expect(page.locator("#nav")).to_contain_text("Destinations")


def test_a_lost_connection_is_seen_and_goes_on_where_it_was(
    sandbox: Sandbox, visitor: Visitor
) -> None:
    opened: list[WebSocketRoute] = []

    def between(route: WebSocketRoute) -> None:
        opened.append(route)
        if len(opened) != 2:  # the second attempt meets nobody
            route.connect_to_server()
        else:
            route.close()

    visitor.page.route_web_socket(re.compile("/v1/events"), between)
    page = go(visitor, sandbox, "overview")
    first = sandbox.send(PLAIN)
    expect(page.locator(".feed li", has_text=first).filter(has_text="finished")).to_have_count(1)
    opened[0].close()
    expect(page.locator("#live")).to_have_text("connection lost")
    second = sandbox.send(PLAIN)
    expect(page.locator("#live")).to_have_text("live")
    # Nothing twice, and nothing left out.
    for known in (first, second):
        for word in ("queued", "delivered", "finished"):
            told = page.locator(".feed li", has_text=known).filter(has_text=word)
            expect(told).to_have_count(1)
    assert "since" not in opened[0].url
    assert re.search(r"since=[1-9]\d+", opened[-1].url)


def test_five_thousand_events_a_second_do_not_freeze_it(sandbox: Sandbox, visitor: Visitor) -> None:
    opened: list[WebSocketRoute] = []

    def between(route: WebSocketRoute) -> None:
        opened.append(route)
        route.send('[{"type":"Hello","number":1}]')

    visitor.page.route_web_socket(re.compile("/v1/events"), between)
    page = go(visitor, sandbox, "overview")
    page.evaluate(
        """() => {
          window.longest = 0;
          let last = performance.now();
          const look = (now) => {
            window.longest = Math.max(window.longest, now - last);
            last = now;
            requestAnimationFrame(look);
          };
          requestAnimationFrame(look);
        }"""
    )
    event = {
        "type": "Delivered", "id": "01M82Q28V6DAVJCKE0E9H00001", "recipient": "bob@example.net",
        "lane": "mx:example.net", "host": "mx.example.net", "reply": "250 2.0.0 ok",
    }  # fmt: skip
    for frame in range(15):
        now = time.time()
        events = [{**event, "number": frame * 500 + each, "at": now} for each in range(500)]
        opened[0].send(json.dumps(events))
        page.wait_for_timeout(100)
    # A tenth of that was measured on two busy cores; they may be busier.
    assert page.evaluate("window.longest") < 1000
    expect(page.locator(".tile", has_text="delivered").locator("strong")).to_have_text(
        re.compile(r"[1-9],\d{3}")
    )
    assert page.locator(".feed li").count() == 40


def test_quantities_are_written_as_people_write_them(sandbox: Sandbox, visitor: Visitor) -> None:
    page = go(visitor, sandbox, "explain")
    told = page.evaluate(
        """async () => {
          const format = await import("/static/format.js");
          const { ceiling } = await import("/static/chart.js");
          const { parse, address } = await import("/static/router.js");
          let refused = "";
          try { format.seconds("soon"); } catch (error) { refused = error.message; }
          return [
            [0, 999, 1024, 1536, 5e6].map(format.octets),
            [0, 0.25, 59, 60, 3725, 90000, 1e6].map(format.span),
            ["", "90", "15 min", "2h", "1.5 d"].map(format.seconds),
            refused,
            [0, 1, 3, 20, 21].map(ceiling),
            parse(address("messages", ["a/b%"], new URLSearchParams({ text: "<&>" }))).rest,
          ];
        }"""
    )
    assert told == [
        ["0 B", "999 B", "1.0 KiB", "1.5 KiB", "4.8 MiB"],
        ["0 s", "250 ms", "59 s", "1 min", "1 h 2 min", "1 d 1 h", "11 d"],
        [None, 90, 900, 7200, 129600],
        "“soon” is no duration: write e.g. 15 min, 2 h or 1 d",
        [1, 1, 5, 20, 50],
        ["a/b%"],
    ]


def test_who_is_not_known_sees_the_login(sandbox: Sandbox, browser: Browser) -> None:
    with browser.new_context(viewport={"width": 1280, "height": 900}) as stranger:
        page = Visitor(stranger).page
        page.goto(f"{sandbox.url}/#/queue?view=hold")
        expect(page).to_have_url(re.compile("/login"))
        expect(page.get_by_label("Token")).to_be_focused()
        page.get_by_label("Token").fill("nonsense")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_be_visible()
        expect(page).to_have_url(f"{sandbox.url}/login")


def test_the_documentation_of_the_api_is_made_of_its_description(
    sandbox: Sandbox, visitor: Visitor
) -> None:
    page = visitor.page
    page.goto(f"{sandbox.url}/docs")
    listed = page.locator(".endpoint", has_text="/v1/queue/messages").first
    expect(listed).to_contain_text("younger_than")
    assert visitor.overflow() <= 0
    picture(page, "docs")
