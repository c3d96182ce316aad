"""The status page in a real browser: what a person sees, does with the keyboard, and hears."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import canary
import pytest
from browser import browsing, needed

from realtime_fsm import ConnectionStatus, Dialect, RealtimeConfig, RealtimeService
from realtime_fsm.cli.paint import GLYPHS
from realtime_fsm.server import BackendConfig, WebSocketService
from realtime_fsm.testing import FaultProxy
from realtime_fsm.web import StatusPage, serve_status_page
from realtime_fsm.web.snapshot import words

if TYPE_CHECKING:
    from playwright.async_api import Page

S = ConnectionStatus
COUNTDOWN = "parseFloat(document.getElementById('countdown').textContent.slice(3))"
UNNAMED = """
[...document.querySelectorAll('button, svg[role=img], [role=region]')]
  .filter(e => !(e.textContent.trim() || e.getAttribute('aria-label') || e.getAttribute('aria-labelledby')))
  .length
"""
LISTENING = """
window.spoken = 0;
new MutationObserver(() => window.spoken++)
  .observe(document.getElementById('spoken'), {subtree: true, childList: true, characterData: true})
"""
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(autouse=True)
def browser_is_there() -> None:
    """Skip without a browser, but never in CI."""
    needed()


class Stage:
    """A client on a real backend behind a proxy that makes faults, and its page."""

    def __init__(self, client: RealtimeService, proxy: FaultProxy, page: StatusPage) -> None:
        self.client = client
        self.proxy = proxy
        self.page = page

    async def until(self, *statuses: ConnectionStatus) -> None:
        """Wait for a status, bounded."""
        await self.client.wait_for(*statuses, timeout=20)


@asynccontextmanager
async def stage(*, page: dict[str, Any] | None = None, **config: Any) -> AsyncIterator[Stage]:
    """Have everything, connected. Pauses are long, so that a test decides when they end."""
    given = {
        "dialect": Dialect.REFERENCE,
        "max_reconnect_attempts": 3,
        "stable_after": 0.0,
        "first_retry_within": 60.0,
        "backoff_base": 30.0,
        "reconnect_interval": 60.0,
        "heartbeat_interval": 1.0,
        "heartbeat_timeout": 1.0,
        "connection_timeout": 60.0,
        "fallback_polling_interval": 0.2,
        "close_timeout": 2.0,
        **config,
    }
    async with (
        WebSocketService(BackendConfig(port=0, secret=canary.SIGNING, close_timeout=1.0)) as backend,
        FaultProxy("127.0.0.1", backend.port) as proxy,
        RealtimeService(
            RealtimeConfig(server_url=proxy.url, **given),
            token=lambda: canary.jwt("page"),
            random=Random(0),  # noqa: S311 - which draws a long first pause
        ) as client,
        serve_status_page(client, **{"interval": 0.05, **(page or {})}) as served,
    ):
        yield Stage(client, proxy, served)


async def shows(page: "Page", status: ConnectionStatus) -> None:
    """Wait until the page shows a status."""
    name = status.value.upper()
    await page.wait_for_function(
        "name => document.getElementById('state-name').textContent.startsWith(name)", arg=name
    )


async def answers(page: "Page", said: str) -> None:
    """Wait until the page answers to a button."""
    await page.wait_for_function("said => document.getElementById('answer').textContent === said", arg=said)


async def text(page: "Page", selector: str) -> str:
    """Return what an element says."""
    return (await page.text_content(selector) or "").strip()


async def possible(page: "Page") -> set[str]:
    """Return the actions whose buttons can be pressed."""
    return set(
        await page.evaluate(
            "[...document.querySelectorAll('[data-action][aria-disabled=false]')]"
            ".filter(b => !b.hidden).map(b => b.dataset.action)"
        )
    )


async def press(page: "Page", action: str) -> None:
    """Press a button with the keyboard."""
    await page.focus(f"[data-action={action}]")
    await page.keyboard.press("Enter")


async def seconds_left(page: "Page") -> float:
    """Return the countdown."""
    found = re.fullmatch(r"in (?:(\d+)\smin )?([\d.]+)\ss", await text(page, "#countdown"))
    assert found is not None, await text(page, "#countdown")
    return 60 * int(found[1] or 0) + float(found[2])


async def checked(page: "Page", here: Stage, status: ConnectionStatus, may: set[str]) -> None:
    """Check everything that the page says of a state."""
    await shows(page, status)
    assert await text(page, "#glyph") == GLYPHS[status]
    said = words(here.client)
    assert [await text(page, f"#{name}") for name in ("says", "next", "advice")] == [
        said["says"],
        said["next"],
        said["advice"],
    ]
    last = here.client.connection_status.last
    assert last is not None
    assert await page.evaluate("[...document.querySelectorAll('#diagram .current')].map(e => e.id)") == [
        f"state-{status.value}"
    ]
    taken = await page.evaluate("[...document.querySelectorAll('#diagram .edge.taken')].map(e => e.id)")
    assert taken == [f"edge-{last.previous.value}-{last.trigger.value}-{last.current.value}"]
    assert await possible(page) == may
    assert await text(page, "#timeline tr:first-child td.why") == last.reason


async def test_page_shows_each_state_rightly() -> None:
    """In each of the six states, the words, the sign, the diagram, the buttons and the timeline agree."""
    async with stage() as here, browsing(here.page.url) as page:
        await checked(page, here, S.CONNECTED, {"fallback", "pause"})
        here.proxy.black_hole(True)
        here.proxy.reset_peer()
        await here.until(S.RECONNECTING)
        await checked(page, here, S.RECONNECTING, {"retry", "fallback", "pause"})
        assert await text(page, "#attempt") == "1 of 3"
        assert await seconds_left(page) > 1
        here.client.retry_now()
        await here.until(S.CONNECTING)
        await checked(page, here, S.CONNECTING, {"fallback", "pause"})
        here.client.pause()
        await checked(page, here, S.DISCONNECTED, {"resume"})
        here.proxy.black_hole(False)
        await here.client.connect()
        await checked(page, here, S.CONNECTED, {"fallback", "pause"})
        here.client.force_fallback()
        await checked(page, here, S.FALLBACK, {"release", "pause"})
        assert await text(page, "#state-name") == "FALLBACK (forced)"


async def test_page_shows_that_it_gave_up() -> None:
    """In FAILED the page says so loudly, with the cause, and what a person can do: retry."""
    async with (
        stage(enable_fallback=False, max_reconnect_attempts=0) as here,
        browsing(here.page.url) as page,
    ):
        here.proxy.refuse(True)
        here.proxy.reset_peer()
        await here.until(S.FAILED)
        await checked(page, here, S.FAILED, {"retry", "fallback", "pause"})
        assert await page.get_attribute("#now", "data-severity") == "error"
        assert "ConnectionLostError" in await text(page, "#cause")
        await here.client.emit("note", 1)
        await page.wait_for_selector("#kept-fact", state="visible")
        assert await text(page, "#kept") == "1 message"
        here.proxy.refuse(False)
        await press(page, "retry")
        await shows(page, S.CONNECTED)
        assert await page.is_hidden("#cause-fact")
        assert await page.is_hidden("#kept-fact")


async def test_page_shows_an_outage_through_to_the_fallback_and_back() -> None:
    """A person who watches sees the loss, the attempts, the fallback, and the socket come back."""
    quick = {"first_retry_within": 0.6, "backoff_base": 0.5, "backoff_jitter": False}
    async with stage(**quick, reconnect_interval=1.0) as here, browsing(here.page.url) as page:
        await page.wait_for_function("() => document.querySelector('#spark polyline') !== null")
        assert await text(page, "#outages-text") == "None in this time."
        here.proxy.block("/socket.io")
        await shows(page, S.RECONNECTING)
        await page.wait_for_selector("#countdown", state="visible")
        await shows(page, S.FALLBACK)
        assert "1 outage" in await text(page, "#outages-text")
        assert "One lasts." in await text(page, "#outages-text")
        assert await page.locator("#bands .outage").count() == 1
        here.proxy.block(None)
        await shows(page, S.CONNECTED)
        await page.wait_for_function(
            "() => !document.getElementById('outages-text').textContent.includes('One lasts')"
        )
        shown = await page.evaluate(
            "[...document.querySelectorAll('#timeline tr')].map(r => Number(r.dataset.epoch)).reverse()"
        )
        assert shown == [change.epoch for change in here.client.connection_status.history]
        states = await page.evaluate(
            "[...document.querySelectorAll('#timeline td.state')].map(c => c.textContent.split(' ')[1])"
        )
        assert states[0] == "connected"
        assert states[1] == "fallback"
        assert states.count("reconnecting") == 3
        assert "failed" in states
        assert " % (" in await text(page, "#failure-rate")


async def test_every_button_does_what_it_says() -> None:
    """With the keyboard alone: force, release, pause, resume and retry work, and say what they did."""
    async with stage() as here, browsing(here.page.url) as page:
        await press(page, "retry")
        await answers(page, "Nothing waits to be retried now.")
        await press(page, "fallback")
        await shows(page, S.FALLBACK)
        await press(page, "release")
        await page.wait_for_function("() => document.getElementById('state-name').textContent === 'FALLBACK'")
        await page.wait_for_selector("#countdown", state="visible")
        await press(page, "retry")
        await shows(page, S.CONNECTED)
        await answers(page, "Trying now.")
        await press(page, "pause")
        await shows(page, S.DISCONNECTED)
        await page.wait_for_function("() => document.activeElement.dataset.action === 'resume'")
        await page.keyboard.press("Enter")
        await shows(page, S.CONNECTED)
        await page.wait_for_function("() => document.activeElement.dataset.action === 'pause'")
        assert await page.get_attribute("#answer", "data-kind") == "good"


async def test_page_asks_for_the_token_where_there_is_one() -> None:
    """Without the token a button says what is missing, and does nothing; with it, it works."""
    token = canary.token("page")
    async with stage(page={"token": token}) as here, browsing(here.page.url, disturbed=True) as page:
        assert await page.is_hidden("#token-form")
        await press(page, "pause")
        await page.wait_for_selector("#token-form", state="visible")
        assert here.client.is_connected
        assert await page.evaluate("document.activeElement.id") == "token"
        await page.keyboard.type(token)
        await page.keyboard.press("Enter")
        await page.wait_for_selector("#token-form", state="hidden")
        assert not canary.found_in(await page.content())
        await press(page, "pause")
        await shows(page, S.DISCONNECTED)


async def test_reload_during_backoff_shows_what_is_left() -> None:
    """A page that is loaded in the middle of a wait counts down from what is left, as the client does."""
    async with stage() as here, browsing(here.page.url) as page:
        here.proxy.refuse(True)
        here.proxy.reset_peer()
        await shows(page, S.RECONNECTING)
        before = await seconds_left(page)
        await page.wait_for_function(f"before => {COUNTDOWN} <= before - 1.5", arg=before)
        await page.reload()
        await shows(page, S.RECONNECTING)
        left, shown, after = (
            here.client.next_attempt_in,
            await seconds_left(page),
            here.client.next_attempt_in,
        )
        assert left is not None
        assert after is not None
        assert after - 1.1 < shown < left + 1.1
        assert left < before - 1


@pytest.mark.parametrize("refused", [False, True])
async def test_cut_stream_is_told_and_loses_no_change(refused: bool) -> None:
    """The page says that it has lost touch, comes back by itself, and shows each change once."""
    async with stage() as here:
        port = int(here.page.url.rstrip("/").rpartition(":")[2])
        async with (
            FaultProxy("127.0.0.1", port) as between,
            browsing(f"{between.url}/", disturbed=True) as page,
        ):
            await page.wait_for_selector("#link[data-link=live]")
            if refused:
                between.refuse(True)
            between.reset_peer()
            await page.wait_for_selector("#link[data-link=lost]")
            assert "lost touch" in await text(page, "#link-text")
            here.client.force_fallback()
            here.client.release_fallback()
            here.client.pause()
            between.refuse(False)
            await page.wait_for_selector("#link[data-link=live]")
            await shows(page, S.DISCONNECTED)
            shown = await page.evaluate(
                "[...document.querySelectorAll('#timeline tr')].map(r => Number(r.dataset.epoch))"
            )
            assert shown == [c.epoch for c in reversed(here.client.connection_status.history)]
            assert here.page.traffic.replayed == 3


async def test_stream_that_is_refused_for_good_is_opened_again() -> None:
    """An answer after which browsers never come back by themselves does not end the page."""
    async with stage(page={"max_readers": 1}) as here, browsing(here.page.url) as first:
        await first.wait_for_selector("#link[data-link=live]")
        window = first.context
        second = await window.new_page()
        await second.goto(here.page.url)
        await second.wait_for_selector("#link[data-link=lost]")
        await first.evaluate("source.close()")
        await second.wait_for_selector("#link[data-link=live]")
        await second.close()


async def test_timeline_is_copied_as_json() -> None:
    """What is copied is the changes with their reasons, as a program can read them."""
    async with stage() as here:
        allowed = {"permissions": ["clipboard-read", "clipboard-write"]}
        async with browsing(here.page.url, **allowed) as page:
            here.page.announce("a note")
            await page.wait_for_selector("#timeline tr.remark")
            await page.focus("#copy")
            await page.keyboard.press("Enter")
            await page.wait_for_function("() => document.getElementById('copied').textContent !== ''")
            copied = json.loads(await page.evaluate("navigator.clipboard.readText()"))
            history = here.client.connection_status.history
            assert [(c["epoch"], c["reason"]) for c in copied["changes"]] == [
                (c.epoch, c.reason) for c in history
            ]
            assert [note["text"] for note in copied["notes"]] == ["a note"]


async def test_page_tells_what_is_not_as_it_should_be() -> None:
    """Connected but deaf is not shown as if all were well."""
    async with stage() as here, browsing(here.page.url) as page:
        assert await page.is_hidden("#unwell")
        sick = {"deaf": True, "degraded": True, "reasons": ["Nobody answers."]}
        await page.evaluate("health => take({...told, health})", sick)
        assert await text(page, "#unwell") == "Not as it should be: Nobody answers."


async def test_page_shows_words_as_words() -> None:
    """Whatever stands in a note, none of it becomes a part of the page."""
    async with stage() as here, browsing(here.page.url) as page:
        evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
        here.page.announce(evil)
        await page.wait_for_selector("#note:not([hidden])")
        assert await text(page, "#note") == evil
        await page.wait_for_selector("#timeline tr.remark")
        assert await text(page, "#timeline tr.remark td.why") == evil
        assert await page.locator("main img").count() == 0


CONTRAST = """
() => {
  const parse = (c) => { const m = c.match(/[\\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
  const light = ([r, g, b]) => {
    const f = (v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
    return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b);
  };
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c[3] === 1) return c;
    }
    return [255, 255, 255, 1];
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let n = walk.nextNode(); n; n = walk.nextNode()) {
    const e = n.parentElement;
    if (!n.data.trim() || e.closest("svg, noscript, script") || !e.checkVisibility()) continue;
    const a = light(parse(getComputedStyle(e).color)), b = light(ground(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push(`${n.data.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return found;
}
"""


@pytest.mark.parametrize(
    ("name", "context"),
    [
        ("light", {"color_scheme": "light"}),
        ("dark", {"color_scheme": "dark"}),
        ("phone", {**PHONE, "color_scheme": "light"}),
        ("phone-dark", {**PHONE, "color_scheme": "dark"}),
    ],
)
async def test_page_can_be_read_by_everybody(tmp_path: Path, name: str, context: dict[str, Any]) -> None:
    """Light, dark and on a phone: contrast AA, nothing cut off, everything named and reached by keyboard."""
    async with stage() as here, browsing(here.page.url, **context) as page:
        here.page.announce("A fault: the connection is refused.")
        here.proxy.refuse(True)
        here.proxy.reset_peer()
        await shows(page, S.RECONNECTING)
        await page.screenshot(path=tmp_path / f"{name}.png", full_page=True)
        assert (tmp_path / f"{name}.png").stat().st_size > 20_000
        assert await page.evaluate(CONTRAST) == []
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert await page.get_attribute("#spoken", "aria-live") == "polite"
        assert await page.evaluate("document.documentElement.lang") == "en"
        reached, stops = [], "[data-action]:not([hidden]), #diagram, #copy, .scroll"
        wanted = await page.evaluate(f"document.querySelectorAll('{stops}').length")
        await page.evaluate("document.activeElement.blur()")
        for _ in range(wanted):
            await page.keyboard.press("Tab")
            reached.append(await page.evaluate(f"document.activeElement.matches('{stops}')"))
        assert reached == [True] * wanted
        assert await page.evaluate(UNNAMED) == 0
        way = "tb" if name.startswith("phone") else "lr"
        assert await page.evaluate("drawnDiagram") == f"diagram-{way}.svg"


async def test_speech_does_not_count_down() -> None:
    """What is read aloud changes with the state, not with every tick of the countdown."""
    async with stage() as here, browsing(here.page.url) as page:
        here.proxy.refuse(True)
        here.proxy.reset_peer()
        await shows(page, S.RECONNECTING)
        await page.evaluate(LISTENING)
        before = await seconds_left(page)
        await page.wait_for_function(f"before => {COUNTDOWN} <= before - 2", arg=before)
        assert await page.evaluate("window.spoken") == 0


WATCHING = """
window.seen = new Set();
const look = () => window.seen.add(document.getElementById('state-name').textContent);
new MutationObserver(look)
  .observe(document.getElementById('state-name'), {childList: true, characterData: true});
look();
"""


@pytest.mark.timeout(150)
@pytest.mark.real_loop(timeout=140)
async def test_demo_shows_each_fault_happen_and_end() -> None:
    """Who watches ``demo --web`` sees all states, each fault announced, and each fault's end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "realtime_fsm.cli", "demo", "--web", "--pace", "0.3", "--json"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(40):
            said = (await process.stderr.readline()).decode()
        found = re.search(r"http://127\.0\.0\.1:\d+/", said)
        assert found is not None, said
        async with browsing(found[0], disturbed=True) as page:
            await page.evaluate(WATCHING)
            await page.wait_for_function(
                "() => document.getElementById('note').textContent.startsWith('The demo is over')",
                timeout=120_000,
            )
            seen = set(await page.evaluate("[...window.seen]"))
            rows = await page.evaluate(
                "[...document.querySelectorAll('#timeline .remark .why')].map(c => c.textContent)"
            )
        out, _ = await canary.output_of(process)
    except BaseException:
        process.kill()
        await process.communicate()
        raise
    assert process.returncode == 0
    assert json.loads(out)["ok"] is True
    assert seen >= {"RECONNECTING", "CONNECTED", "FALLBACK", "DISCONNECTED"}
    told = "\n".join(reversed(rows))
    for fault in ("reset", "black hole", "server killed", "token expired", "socket blocked"):
        begun = told.index(f"{fault[0].upper()}{fault[1:]}: ")
        assert f"Over: {fault}." in told[begun:]
