"""The status page over HTTP: its stream, its buttons, what it lets a browser do, and what it never shows."""

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import canary
import pytest
from aiohttp import web
from attrs import define, field
from world import World

from realtime_fsm import (
    AttemptRecord,
    ConfigurationError,
    ConnectionLostError,
    ConnectionStatus,
    Delivery,
    ServerUnavailableError,
    StatusChange,
    Trigger,
)
from realtime_fsm.testing import Refuse
from realtime_fsm.web import StatusPage, serve_status_page, status_application
from realtime_fsm.web.events import frame
from realtime_fsm.web.snapshot import changes_after, failures, outages

pytestmark = pytest.mark.real_loop

Run = Callable[[Coroutine[Any, Any, None]], None]
S, T = ConnectionStatus, Trigger
SECRET = f"{canary.CANARY}-page"


@define
class Told:
    """One event of a stream."""

    name: str
    data: Any
    id: str | None


@define
class Listener:
    """Reads a stream as a browser does."""

    response: aiohttp.ClientResponse
    comments: list[str] = field(factory=list)
    retry: int | None = None
    last_id: str = ""

    async def next(self) -> Told:
        """Return the next event, bounded; one without data is none."""
        name, data, identity = "message", None, None
        async with asyncio.timeout(20):
            async for raw in self.response.content:
                line = raw.decode().rstrip("\n")
                key, _, value = line.partition(": ")
                if line.startswith(":"):
                    self.comments.append(line)
                elif key == "event":
                    name = value
                elif key == "data":
                    data = value
                elif key == "id":
                    identity = self.last_id = value
                elif key == "retry":
                    self.retry = int(value)
                elif not line and data is not None:
                    return Told(name, json.loads(data), identity)
        raise EOFError

    async def until(self, name: str) -> Told:
        """Return the next event of a name."""
        while (told := await self.next()).name != name:
            pass
        return told


@define
class Scene:
    """A client on a simulated server, and its page on a real socket."""

    world: World
    page: StatusPage
    http: aiohttp.ClientSession

    @asynccontextmanager
    async def listen(self, path: str = "events", **headers: str) -> AsyncIterator[Listener]:
        """Open a stream."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.get(self.page.url + path, headers=names) as response:
            assert response.status == 200
            yield Listener(response)

    async def act(self, name: str, **headers: str) -> tuple[int, dict[str, Any]]:
        """Press a button."""
        names = {key.replace("_", "-"): value for key, value in headers.items()}
        async with self.http.post(f"{self.page.url}actions/{name}", headers=names) as response:
            return response.status, await response.json()

    async def lose(self) -> None:
        """Lose the connection for long, and wait until the backoff runs."""
        self.world.server.is_silent = True
        self.world.server.reset()
        await self.world.until(S.RECONNECTING)


@asynccontextmanager
async def scene(*, page: dict[str, Any] | None = None, **config: Any) -> AsyncIterator[Scene]:
    """Have a page of a connected client, on a real loop."""
    given = {
        "first_retry_within": 60.0,
        "stable_after": 0.0,
        "enable_fallback": False,
        "fallback_endpoints": ["/api/a"],
        **config,
    }
    options = {"interval": 0.02, **(page or {})}
    async with (
        World(**given) as world,
        serve_status_page(world.client, **options) as served,
        aiohttp.ClientSession() as http,
    ):
        await world.client.connect()
        yield Scene(world, served, http)


# The stream.


def test_frame_is_one_event_whatever_it_holds() -> None:
    """No text can break out of its event: line breaks are escaped, and the id stands in its own line."""
    told = frame("change", {"reason": "a\nevent: forged\n\ndata: x\r\u2028é"}, "ab-3").decode()
    assert told.startswith("id: ab-3\nevent: change\ndata: {")
    assert told.endswith("}\n\n")
    assert told.count("\n") == 4
    assert "\r" not in told
    assert json.loads(told.split("data: ", 1)[1])["reason"] == "a\nevent: forged\n\ndata: x\r\u2028é"


async def test_stream_begins_with_a_snapshot_and_the_running_deadline() -> None:
    """Who opens the page in the middle of a backoff is told the seconds that are left, not the whole wait."""
    async with scene() as here:
        await here.lose()
        announced = here.world.changes[-1].retry_in
        assert announced is not None
        async with asyncio.timeout(20):
            while (here.world.client.next_attempt_in or 0) > announced - 0.2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        async with here.listen() as listener:
            told = await listener.next()
        assert told.name == "snapshot"
        assert listener.retry == 1000
        shown = told.data["view"]
        assert shown["status"] == "reconnecting"
        assert announced - 2.0 < shown["next_attempt_in"] <= announced - 0.2
        assert shown["wait"] == announced
        assert shown["attempt"] == {"number": 1, "most": here.world.config.max_reconnect_attempts}
        assert shown["cause"]["kind"] == type(here.world.changes[-1].error).__name__
        assert [change["current"] for change in told.data["changes"]] == here.world.path
        assert told.id is not None
        assert told.id.endswith(f"-{here.world.changes[-1].epoch}")


async def test_stream_tells_every_change_once_and_in_order() -> None:
    """After the snapshot each change comes with its own id, followed by a view of the new state."""
    async with scene() as here, here.listen() as listener:
        first = await listener.next()
        known = [change["epoch"] for change in first.data["changes"]]
        await here.lose()
        assert here.world.client.pause()
        told = [await listener.until("change") for _ in range(2)]
        assert [one.data["current"] for one in told] == ["reconnecting", "disconnected"]
        assert [one.data["epoch"] for one in told] == [known[-1] + 1, known[-1] + 2]
        assert [one.id for one in told] == [f"{first.id.partition('-')[0]}-{n + known[-1]}" for n in (1, 2)]
        assert (await listener.until("view")).data["status"] == "disconnected"


@pytest.mark.parametrize("way", ["header", "query"])
async def test_stream_replays_what_was_missed_and_nothing_else(way: str) -> None:
    """Who comes back with the last id gets each change since, once, and then the present view."""
    async with scene() as here:
        async with here.listen() as listener:
            await listener.next()
            last = listener.last_id
        await here.lose()
        here.world.client.pause()
        again = here.listen(Last_Event_ID=last) if way == "header" else here.listen(f"events?after={last}")
        async with again as listener:
            told = [await listener.next() for _ in range(3)]
        assert [one.name for one in told] == ["change", "change", "view"]
        assert [one.data["current"] for one in told[:2]] == ["reconnecting", "disconnected"]
        assert told[2].data["status"] == "disconnected"
        assert here.page.traffic.replayed == 2


@pytest.mark.parametrize(
    "last", ["", "nonsense", "00000000-1", "{name}-99999", "{name}--1", "{name}-" + "9" * 5000, "{name}-²"]
)
async def test_stream_begins_anew_where_an_id_leads_nowhere(last: str) -> None:
    """An id of another process, from the future, or no id at all, leads to a snapshot, never to an error."""
    async with scene() as here:
        async with here.listen() as listener:
            name = (await listener.next()).id.partition("-")[0]
        async with here.http.get(
            f"{here.page.url}events", params={"after": last.replace("{name}", name)}
        ) as response:
            if response.status == 200:
                assert (await Listener(response).next()).name == "snapshot"
            else:
                assert response.status in {400, 414}  # longer than any line that the server takes


def test_stream_replays_only_as_far_as_the_history_reaches() -> None:
    """Where changes between the id and the history are gone, there is no replay: a gap is never silent."""
    history = [
        StatusChange(previous=S.CONNECTED, current=S.FAILED, trigger=T.RETRY, reason="", epoch=n)
        for n in (5, 6, 7)
    ]
    assert changes_after(history, 3) is None
    assert changes_after(history, 4) == history
    assert changes_after(history, 6) == history[2:]
    assert changes_after(history, 7) == []
    assert changes_after(history, 8) is None
    assert changes_after([], 0) == []
    assert changes_after([], 1) is None


async def test_stream_shows_signs_of_life_while_nothing_happens() -> None:
    """A silent stream carries comments, and an event that the page's script can see."""
    async with scene(page={"heartbeat": 0.05}) as here, here.listen() as listener:
        await listener.next()
        for n in range(1, 3):
            await listener.until("beat")
            assert listener.comments == [": heartbeat"] * n


async def test_stream_tells_figures_only_when_they_differ() -> None:
    """A view comes when a message was accepted; while nothing but time passes, none does."""
    async with scene(page={"heartbeat": 0.1}) as here, here.listen() as listener:
        await listener.next()
        await listener.until("beat")
        assert (await listener.next()).name == "beat"
        await here.world.client.emit("n", 1)
        counts = (await listener.until("view")).data["counts"]
        assert (counts["accepted"], counts["undelivered"]) == (1, {})
        here.world.client.pause()
        await here.world.client.emit("n", 2, delivery=Delivery.VOLATILE)
        while not (counts := (await listener.until("view")).data["counts"])["undelivered"]:
            pass
        assert counts["undelivered"] == {"dropped": 1}


async def test_slow_reader_is_dropped_and_counted_and_disturbs_nobody() -> None:
    """A reader that stops reading loses its stream when its backlog is full; the others miss nothing."""
    async with scene(page={"backlog": 8}) as here:
        port = int(here.page.url.rstrip("/").rpartition(":")[2])
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        writer.transport.pause_reading()
        async with here.listen() as listener:
            await listener.next()
            heavy, sent = "x" * 400, 0
            async with asyncio.timeout(20):
                while not here.page.traffic.dropped:
                    sent += 1
                    here.page.announce(f"{sent} {heavy}")
                    while (await listener.until("view")).data["notes"][-1]["text"] != f"{sent} {heavy}":
                        pass
            assert here.page.traffic.dropped == 1
            assert len(here.page.traffic.open) == 1
        writer.close()
        with contextlib.suppress(ConnectionError):  # it was reset, which it may not have noticed yet
            await writer.wait_closed()


async def test_too_many_readers_are_refused() -> None:
    """More streams than allowed get 503 and when to come back; one that ends makes room."""
    async with scene(page={"max_readers": 1}) as here:
        async with here.listen() as listener:
            await listener.next()
            async with here.http.get(f"{here.page.url}events") as refused:
                assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
        async with asyncio.timeout(20):
            while here.page.traffic.open:  # noqa: ASYNC110 - the server notices on its own
                await asyncio.sleep(0.01)
        async with here.listen() as listener:
            await listener.next()
        assert here.page.traffic.refused == 1


@pytest.mark.parametrize("reads", [True, False])
async def test_open_stream_does_not_hold_the_shutdown(reads: bool) -> None:
    """The page ends at once with a stream open: in order for who reads, by a cut for who does not."""
    loop = asyncio.get_running_loop()
    async with World() as world, aiohttp.ClientSession() as http:
        await world.client.connect()
        async with serve_status_page(world.client, backlog=10_000) as page:
            response = await http.get(f"{page.url}events")
            listener = Listener(response)
            await listener.next()
            if not reads:
                assert response.connection is not None
                response.connection.transport.pause_reading()
                sent = 0
                async with asyncio.timeout(20):
                    while not any(reader.frames.qsize() > 50 for reader in page.traffic.open):
                        sent += 1
                        page.announce(f"{sent} " + "x" * 400)
                        await asyncio.sleep(0)
            began = loop.time()
        assert loop.time() - began < 20.0
        if reads:
            with pytest.raises(EOFError):
                await listener.until("nothing")
        response.close()
        assert not page.traffic.open


# The buttons.


async def test_buttons_do_what_they_say() -> None:
    """Each action changes the state that it names, is counted, and is refused with 409 where it is idle."""
    async with scene() as here:
        client = here.world.client
        assert (await here.act("retry"))[0] == 409
        await here.lose()
        assert (await here.act("retry"))[0] == 200
        await here.world.until(S.CONNECTING)
        assert await here.act("fallback") == (
            200,
            {"action": "fallback", "changed": True, "state": "fallback"},
        )
        assert (await here.act("fallback"))[0] == 409
        assert (await here.act("release"))[0] == 200
        assert client.connection_status.last is not None
        assert client.connection_status.last.trigger is T.RELEASE_FALLBACK
        assert (await here.act("release"))[0] == 409
        assert (await here.act("pause"))[0] == 200
        assert client.status is S.DISCONNECTED
        assert (await here.act("pause"))[0] == 409
        here.world.server.is_silent = False
        assert (await here.act("resume"))[0] == 200
        await here.world.until(S.CONNECTED)
        assert (await here.act("resume"))[0] == 409
        async with here.http.get(f"{here.page.url}snapshot.json") as response:
            counts = (await response.json())["view"]["actions"]
        assert counts["done"] == {"retry": 1, "fallback": 1, "release": 1, "pause": 1, "resume": 1}
        assert counts["idle"] == {"retry": 1, "fallback": 1, "release": 1, "pause": 1, "resume": 1}


def test_resume_that_fails_is_told_and_disturbs_nothing(
    run_async: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """A resume whose connect is given up is a log line and a state on the page, not an unhandled error."""

    async def main() -> None:
        async with scene(retry_initial=False) as here:
            await here.act("pause")
            here.world.server.script = [Refuse(ServerUnavailableError("It is full."))]
            assert (await here.act("resume"))[0] == 200
            await here.world.until(S.FAILED)
            async with here.http.get(f"{here.page.url}snapshot.json") as response:
                shown = (await response.json())["view"]
            assert shown["status"] == "failed"
            assert shown["cause"]["message"] == "It is full."
            assert (await here.act("resume"))[0] == 409
            assert (await here.act("retry"))[0] == 200
            await here.world.until(S.CONNECTED)

    with caplog.at_level(logging.WARNING, logger="realtime_fsm.web"):
        run_async(main())
    assert "resuming did not succeed: It is full." in caplog.text


def test_actions_are_logged_with_who_asked(run_async: Run, caplog: pytest.LogCaptureFixture) -> None:
    """What was done and what was refused is in the log, with the address, and without any token."""

    async def main() -> None:
        async with scene(page={"token": SECRET}) as here:
            await here.act("pause", Authorization=f"Bearer {SECRET}-wrong")
            await here.act("pause", Authorization=f"Bearer {SECRET}")

    with caplog.at_level(logging.INFO, logger="realtime_fsm.web"):
        run_async(main())
    said = [record.getMessage() for record in caplog.records if record.name == "realtime_fsm.web"]
    assert said[0].startswith("pause was asked for by 127.0.0.1, and refused")
    assert said[1] == "pause was asked for by 127.0.0.1"


@pytest.mark.parametrize(
    ("shown", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong-token"}, 401),
        ({"Authorization": f"Bearer {SECRET}x"}, 401),
        ({"Authorization": SECRET}, 401),
        ({"Authorization": f"Basic {SECRET}"}, 401),
        ({"Authorization": "Bearer ünïcode"}, 401),
        ({"Authorization": f"Bearer {SECRET}"}, 200),
        ({"Authorization": f"bearer {SECRET}"}, 200),
        ({"Authorization": f"Bearer {SECRET}", "Origin": "https://evil.example"}, 403),
        ({"Authorization": f"Bearer {SECRET}", "Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
async def test_action_needs_the_token_where_there_is_one(shown: dict[str, str], status: int) -> None:
    """Only the whole token, in the right scheme, and not sent by another page, lets anybody act."""
    async with (
        scene(page={"token": SECRET}) as here,
        here.http.post(f"{here.page.url}actions/pause", headers=shown) as response,
    ):
        assert response.status == status
        assert here.world.client.is_connected is (status != 200)
        assert ("WWW-Authenticate" in response.headers) is (status == 401)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "[::1"}, 403),
        ({"X-Forwarded-For": "203.0.113.9"}, 403),
        ({"Forwarded": "for=203.0.113.9"}, 403),
        ({"Host": "localhost:80"}, 200),
        ({"Host": "[::1]:80"}, 200),
    ],
)
async def test_action_without_a_token_needs_this_machine(headers: dict[str, str], status: int) -> None:
    """Neither another page, nor a name that resolves to here, nor a proxy's client passes for local."""
    async with (
        scene(page={"hosts": None}) as here,
        here.http.post(f"{here.page.url}actions/pause", headers=headers) as response,
    ):
        assert response.status == status
        assert here.world.client.is_connected is (status != 200)


async def test_action_from_another_machine_without_a_token_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A peer that is not this machine may not act where no token has been set."""
    monkeypatch.setattr(web.BaseRequest, "remote", property(lambda _: "203.0.113.9"))
    async with scene() as here:
        status, body = await here.act("pause")
        assert (status, body) == (403, {"error": "Only this machine may act: no token has been set."})
        assert here.world.client.is_connected


async def test_actions_are_nothing_but_posts_of_known_names() -> None:
    """A GET acts never; an unknown name is 404."""
    async with scene() as here:
        async with here.http.get(f"{here.page.url}actions/pause") as response:
            assert response.status == 405
        assert (await here.act("explode"))[0] == 404
        assert here.world.client.is_connected


# The page.


@pytest.mark.parametrize(
    "path",
    [
        "",
        "page.js",
        "page.css",
        "diagram.css",
        "diagram-lr.svg",
        "diagram-tb.svg",
        "icon.svg",
        "snapshot.json",
        "events",
        "nothing",
    ],
)
async def test_every_answer_forbids_what_the_page_does_not_need(path: str) -> None:
    """Each answer, errors included, carries the strict policy, and nothing is kept unasked."""
    async with scene() as here, here.http.get(here.page.url + path) as response:
        policy = response.headers["Content-Security-Policy"]
        rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
        assert rules["default-src"] == "'none'"
        for kind in ("script", "style", "connect", "img"):
            assert rules[f"{kind}-src"] == "'self'"
        for kind in ("base-uri", "form-action", "frame-ancestors"):
            assert rules[kind] == "'none'"
        assert "unsafe" not in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert response.headers["Cache-Control"] in {"no-store", "no-cache"}


async def test_page_holds_no_inline_code_and_no_foreign_address() -> None:
    """Everything that the page loads is its own, relative, and a file: so the policy needs no exception."""
    async with scene() as here:
        texts = {}
        for path in ("", "page.css", "page.js", "diagram.css", "diagram-lr.svg", "diagram-tb.svg"):
            async with here.http.get(here.page.url + path) as response:
                texts[path] = await response.text()
        html = texts[""]
        assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", html)
        assert re.findall(r"<script[^>]*>([^<]*)</script>", html) == [""]
        for address in re.findall(r'(?:src|href)="([^"]*)"', html):
            assert not address.startswith(("/", "http"))
            async with here.http.get(here.page.url + address) as response:
                assert response.status == 200
        for path in ("diagram-lr.svg", "diagram-tb.svg"):
            assert not re.search(r"<style|\sstyle=|<script|\son\w+=", texts[path])
            for status in S:
                assert f'id="state-{status.value}"' in texts[path]
        for text in texts.values():
            assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)


async def test_files_are_asked_for_again_and_sent_only_when_new() -> None:
    """A browser that has the file gets 304 for it."""
    async with scene() as here:
        async with here.http.get(f"{here.page.url}page.js") as response:
            tag = response.headers["ETag"]
        async with here.http.get(f"{here.page.url}page.js", headers={"If-None-Match": tag}) as response:
            assert (response.status, await response.read()) == (304, b"")


async def test_page_on_its_own_port_has_only_names_of_this_machine() -> None:
    """Another name that leads to 127.0.0.1 gets nothing to read: no page that rebinds its name sees this."""
    async with scene() as here:
        for path in ("", "events", "snapshot.json"):
            headers = {"Host": "evil.example"}
            async with here.http.get(here.page.url + path, headers=headers) as response:
                assert response.status == 421
                assert "reconnecting" not in await response.text()


async def test_page_can_be_mounted_under_any_prefix() -> None:
    """In another application, below a prefix, page, stream and buttons work, and the slash is found."""
    async with World() as world, aiohttp.ClientSession() as http:
        await world.client.connect()
        outer = web.Application()
        outer.add_subapp("/ops/realtime", status_application(world.client))
        runner = web.AppRunner(outer)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/ops/realtime"
        try:
            async with http.get(url) as response:
                assert response.status == 200
                assert str(response.url) == f"{url}/"
            async with http.get(f"{url}/events") as response:
                assert (await Listener(response).next()).name == "snapshot"
            async with http.post(f"{url}/actions/pause") as response:
                assert response.status == 200
        finally:
            await runner.cleanup()


async def test_page_cannot_listen_where_somebody_does() -> None:
    """A port that is taken is a configuration error that names it, and leaves nothing behind."""
    async with scene() as here:
        port = int(here.page.url.rstrip("/").rpartition(":")[2])
        with pytest.raises(ConfigurationError, match=str(port)):
            async with serve_status_page(here.world.client, port=port):
                pass


@pytest.mark.parametrize("options", [{"token": "short"}, {"token": ""}, {"interval": 0}, {"backlog": 0}])
def test_page_refuses_settings_that_make_no_sense(options: dict[str, Any]) -> None:
    """A token that anybody could guess, and numbers that mean nothing, are refused at once."""
    with pytest.raises(ConfigurationError):
        status_application(World().client, **options)


async def test_page_shows_no_secret_and_no_body() -> None:
    """Neither the token of the client, nor that of the page, nor what messages hold, is in any answer."""
    async with scene(page={"token": SECRET}, server_url="http://example.org/k-e-y-7") as here:
        client = here.world.client
        client.on(canary.token("event"), lambda _: None)
        await client.emit("note", {"text": canary.token("body")}, delivery=Delivery.AT_LEAST_ONCE)
        here.world.server.emit("news", canary.token("news"))
        await here.act("pause", Authorization=f"Bearer {SECRET}")
        texts = []
        async with here.listen() as listener:
            texts.append(json.dumps((await listener.next()).data))
            client.retry_now()
            await client.connect()
            texts.append(json.dumps((await listener.until("change")).data))
            texts.append(json.dumps((await listener.until("view")).data))
        async with here.http.get(f"{here.page.url}snapshot.json") as response:
            texts.append(await response.text())
        assert not canary.found_in(*texts)
        assert not [text for text in texts if "k-e-y-7" in text]
        assert "http://example.org" in texts[0]


def test_token_of_the_page_is_in_no_repr() -> None:
    """Whoever prints the application or its parts does not print the token."""
    application = status_application(World().client, token=SECRET)
    assert not canary.found_in(repr(application), *(repr(value) for value in application.values()))


# The figures.


def change(current: S, at: float, *, previous: S, trigger: T, failed: bool = False) -> StatusChange:
    """Return a change."""
    error = ConnectionLostError("gone") if failed else None
    return StatusChange(previous=previous, current=current, trigger=trigger, reason="why", error=error, at=at)


def test_outages_begin_with_a_failure_and_end_with_a_connection_or_a_goodbye() -> None:
    """What somebody wanted is no outage; a first connection that fails is one; the last may last."""
    history = [
        change(S.CONNECTING, 1, previous=S.DISCONNECTED, trigger=T.CONNECT),
        change(S.RECONNECTING, 2, previous=S.CONNECTING, trigger=T.ATTEMPT_FAILED, failed=True),
        change(S.CONNECTING, 3, previous=S.RECONNECTING, trigger=T.RETRY),
        change(S.CONNECTED, 4, previous=S.CONNECTING, trigger=T.ESTABLISHED),
        change(S.FALLBACK, 5, previous=S.CONNECTED, trigger=T.FORCE_FALLBACK),
        change(S.CONNECTED, 6, previous=S.FALLBACK, trigger=T.ESTABLISHED),
        change(S.RECONNECTING, 7, previous=S.CONNECTED, trigger=T.CONNECTION_LOST, failed=True),
        change(S.DISCONNECTED, 9, previous=S.RECONNECTING, trigger=T.DISCONNECT),
        change(S.CONNECTING, 10, previous=S.DISCONNECTED, trigger=T.CONNECT),
        change(S.FAILED, 11, previous=S.CONNECTING, trigger=T.ATTEMPT_FAILED, failed=True),
        change(S.FALLBACK, 12, previous=S.FAILED, trigger=T.FALL_BACK, failed=True),
    ]
    found = [(told["began_at"], told["ended_at"], told["polled_from"]) for told in outages(history)]
    assert found == [(2, 4, None), (7, 9, None), (11, None, 12)]


def test_failure_rate_is_of_the_attempts_that_are_remembered() -> None:
    """Attempts, failures and their causes are counted; before the first attempt there is no rate."""
    lost = ConnectionLostError("gone")
    told = failures([AttemptRecord(number=n, duration=1, error=lost if n % 2 else None) for n in range(4)])
    assert told == {"attempts": 4, "failed": 2, "rate": 0.5, "causes": {"ConnectionLostError": 2}}
    assert failures([])["rate"] is None
