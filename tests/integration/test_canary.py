"""One client through everything that has to do with tokens, and then a search for them, everywhere."""

import asyncio
import logging
import traceback
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import canary
import pytest
from aiohttp import web
from attrs import define, field
from hostile_client import Client, fallback_client
from hostile_peer import EVENTS, FallbackPeer, Peer
from hostile_server import Handler, eventually
from hostility import frames, hangs_up, polled, says

from realtime_fsm import ConfigurationError, ConnectionStatus, Dialect, RealtimeConfig, RealtimeError
from realtime_fsm.server import BackendConfig, WebSocketService

Run = Callable[[Coroutine[Any, Any, None]], None]
S = ConnectionStatus


@define(eq=False)
class Search:
    """Everything that could be seen by somebody, collected while clients run.

    Attributes:
        texts: What was shown.
        told: How many errors were looked at.
        kinds: The names of the classes whose objects were looked at.
    """

    texts: list[str] = field(factory=list)
    told: int = 0
    kinds: set[str] = field(factory=set)

    def see(self, *things: object) -> None:
        """Look at something in every form in which it is shown."""
        self.texts += [form for thing in things for form in (repr(thing), str(thing))]

    def see_error(self, error: BaseException) -> None:
        """Look at an error, at those that it came from, and at their attributes."""
        self.told += 1
        one: BaseException | None = error
        while one is not None:
            self.see(one, vars(one))
            one = one.__cause__ or one.__context__
        self.texts.append("".join(traceback.format_exception(error)))

    def follow(self, client: Client) -> None:
        """Look at all that a client tells."""

        def see_change(change: Any) -> None:
            self.see(change)
            if change.error is not None:
                self.see_error(change.error)

        client.connection_status.subscribe(see_change)
        client.recovery.on_connection_issue(lambda issue: (self.see(issue), self.see_error(issue.error)))

    def see_client(self, client: Client) -> None:
        """Look at a client, its numbers, and every component that hangs on it."""
        self.see(client.metrics, client.health(), client.config, client.status, client.gave_up)
        self.see(client.connection_status.last, *client.connection_status.history)
        parts = list(parts_of(client))
        self.kinds.update(type(part).__name__ for part in parts)
        self.see(*parts, *asyncio.all_tasks())


def parts_of(root: object) -> Iterator[object]:
    """Return every object of the library that can be reached from one."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, dict):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, (list, tuple, set, frozenset)) or type(one).__name__ == "deque":
            waiting += list(one)  # type: ignore[call-overload]
        elif any(kind.__module__.startswith("realtime_fsm") for kind in type(one).__mro__):
            yield one
            slots = [name for kind in type(one).__mro__ for name in getattr(kind, "__slots__", ())]
            names = [*getattr(one, "__dict__", ()), *slots]
            waiting += [getattr(one, name) for name in names if hasattr(one, name)]


@contextmanager
def logged_to(file: Path) -> Iterator[None]:
    """Write every log record of every logger to a file, at DEBUG."""
    handler = logging.FileHandler(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.setLevel(before)
        root.removeHandler(handler)
        handler.close()


async def drive(
    search: Search, url: str, token: Any, *, until: Callable[[Client], bool], **config: Any
) -> None:
    """Let a client do its worst with a server, until something is seen of it."""
    client = Client(url, token=token, debug_mode=True, **config)
    search.follow(client)
    try:
        await client.subscribe(["ticks"])
        try:
            await client.connect()
        except RealtimeError as error:
            search.see_error(error)
        receipt = await client.emit("note", {"text": "hi"})
        search.see(receipt)
        await eventually(lambda: until(client))
        search.see_client(client)
    finally:
        left = await client.disconnect(drain=False)
        search.see(*left)
    with suppress(RealtimeError):
        await receipt
    search.see_client(client)


def failed(client: Client) -> bool:
    """Tell whether it has given up."""
    return client.status is S.FAILED


def reported(client: Client) -> bool:
    """Tell whether it has reported something, and is connected again."""
    return bool(client.issues) and client.is_connected


async def through_the_backend(search: Search) -> None:
    """Connect, refresh, fall back and come back with good tokens; be refused with bad ones."""
    reference: dict[str, Any] = {"dialect": Dialect.REFERENCE}
    async with WebSocketService(BackendConfig(port=0, secret=canary.SIGNING)) as backend:
        search.see(backend, BackendConfig(secret=canary.SIGNING), *parts_of(backend))
        for over in ("websocket", "polling"):
            await drive(
                search, backend.url, lambda: canary.jwt(lifetime=3.0), transports=(over,), **reference,
                until=lambda client: client.metrics.token_refreshes >= 2,
            )  # fmt: skip
        for bad in (canary.token(), canary.jwt(lifetime=-1.0), canary.jwt(signing="x" * 32)):
            await drive(search, backend.url, bad, until=failed, **reference)

        client = Client(backend.url, token=canary.jwt, fallback_polling_interval=0.02, **reference)
        search.follow(client)
        async with client:
            await client.subscribe(["ticks"])
            client.force_fallback()
            await eventually(lambda: client.metrics.polls >= 2)
            receipt = await client.emit("note", 1)
            with pytest.raises(RealtimeError) as refused:  # the backend has no such event
                await receipt
            search.see_error(refused.value)
            search.see_client(client)
            client.release_fallback()
            await client.wait_for(S.CONNECTED, timeout=20)
        search.see(*parts_of(backend))


async def through_servers_that_repeat_the_token(search: Search) -> None:
    """Be refused, dropped and redirected by servers that put the token into whatever they say."""
    for token in (canary.token("opaque"), canary.jwt()):
        echo = f'{{"message":"bad token {token}","data":{{"token":"{token}"}}}}'
        long = f'{{"message":"{"x" * 150} {token}"}}'
        leaks: list[Peer] = [
            Peer(at_join=frames(f"44{echo}"), times=2),
            Peer(at_join=frames(f"44{long}"), times=2),
            Peer(at_join=frames(f'44"{token}"'), times=2),
            Peer(at_dial=redirecting(token), times=2),
            Peer(at_dial=says(f"no: {token}", status=401), times=2),
            Peer(at_dial=says(f"no: {token}", status=500)),
            Peer(act=frames(f"44{echo}")),
            Peer(act=frames(f'42["tick",{{"token":"{token}"')),
            Peer(act=frames(f"4{token}")),
        ]
        websocket_only = [Peer(act=hangs_up(1008, f"bad token {token}"[:120]))]
        polling_only = [
            Peer(act=polled(says(f"no: {token}", status=401))),
            Peer(at_message=says(f"no: {token}", status=400)),
        ]
        over_both = [(peer, over) for peer in leaks for over in ("websocket", "polling")]
        cases = [*over_both, *((peer, "websocket") for peer in websocket_only)]
        for peer, over in [*cases, *((peer, "polling") for peer in polling_only)]:
            peer.dials = peer.sessions = 0
            peer.received.clear()
            with peer.serving() as server:
                await drive(
                    search, server.url, token, transports=(over,),
                    until=lambda client: failed(client) or reported(client),
                )  # fmt: skip


async def until_polled_twice(peer: FallbackPeer, client: Client) -> None:
    """Wait until it has polled twice, or given up."""
    await eventually(lambda: peer.requests.count(EVENTS) >= 2 or failed(client))


async def through_an_http_side_that_repeats_the_token(search: Search) -> None:
    """Poll and publish where every answer holds the token."""
    token = canary.token("polling")
    answers = [
        says(f'{{"error": "{token}"}}', status=500),
        says(f'{{"error": "{token}"}}', status=403),
        says(f'{{"error": "{token}"'),
        says({"channels": {"ticks": {"ok": False, "error": {"message": token}}}}),
        says({"channels": {"ticks": {"ok": True, "events": token}}}),
        redirecting(token),
    ]
    for answer in answers:
        peer = FallbackPeer(EVENTS, answer, times=2)
        with peer.serving() as server:
            client = fallback_client(server.url, token=token)
            search.follow(client)
            await client.subscribe(["ticks"])
            await client.connect()
            await until_polled_twice(peer, client)
            search.see_client(client)
            await client.disconnect(drain=False)


def redirecting(token: str) -> Handler:
    """Redirect with the token wherever an address may hold it."""

    async def handle(_: web.Request) -> web.StreamResponse:
        return web.Response(
            status=302,
            headers={"Location": f"http://{token}:{token}@127.0.0.1:9/{token}?token={token}#{token}"},
        )

    return handle


async def through_sources_that_fail(search: Search) -> None:
    """Fail to get a token, in every way in which the failure may hold one."""

    def raises(error: BaseException) -> Any:
        def fetch() -> str:
            raise error

        return fetch

    token = canary.token("source")
    sources: list[Any] = [
        raises(OSError(token)),
        raises(TimeoutError(token)),
        raises(KeyError(token)),
        raises(ValueError({"Authorization": f"Bearer {token}"})),
        f"Bearer {token}",
        lambda: f"{token}\n",
        lambda: {"token": token},
        token.encode,
    ]
    with Peer().serving() as server:
        for source in sources:
            await drive(
                search, server.url, source, max_reconnect_attempts=1, enable_fallback=False, until=failed
            )


def through_configurations(search: Search) -> None:
    """Put the secret where a configuration must not have it."""
    secret = canary.CANARY
    wrong: list[dict[str, Any]] = [
        {"server_url": f"https://me:{secret}@example.org"},
        {"server_url": f"https://{secret}@example.org"},
        {"server_url": f"https://example.org/?token={secret}"},
        {"server_url": f"ws://me:{secret}@example.org/?key={secret}"},
        {"server_url": f"https://me:{secret}@example.org:port"},
        {"fallback_endpoints": [f"https://me:{secret}@example.org/a"]},
        {"fallback_endpoints": [f"news=https://me:{secret}@example.org/a"]},
    ]
    for fields in wrong:
        with pytest.raises(ConfigurationError) as raised:
            RealtimeConfig(**fields)
        search.see_error(raised.value)
        if "server_url" in fields:
            with pytest.raises(ConfigurationError) as raised:
                RealtimeConfig.from_env({"REALTIME_SERVER_URL": fields["server_url"]})
            search.see_error(raised.value)


def test_canary_is_found_nowhere(
    run_async: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No token is in a log, error, change, issue, metric, health, ``repr`` or file, whatever happened."""
    search = Search()
    monkeypatch.chdir(tmp_path)
    with ExitStack() as stack:
        stack.enter_context(logged_to(tmp_path / "everything.log"))
        run_async(through_the_backend(search))
        run_async(through_servers_that_repeat_the_token(search))
        run_async(through_an_http_side_that_repeats_the_token(search))
        run_async(through_sources_that_fail(search))
        through_configurations(search)
    assert search.told > 100
    assert search.kinds >= {"TokenProvider", "Token", "Link", "ClientConnection", "Outflow", "Statistics"}
    assert (tmp_path / "everything.log").stat().st_size > 10_000
    assert canary.found_in(*search.texts) == []
    assert canary.found_in_files(tmp_path) == []


def test_canary_would_be_found(tmp_path: Path) -> None:
    """The search finds a token in a message, an argument, an extra, an exception, a file, and in base64."""
    token = canary.jwt()
    watch = canary.LogWatch()
    for said, extra in (("%s", {}), ("nothing", {"extra": {"auth": {"token": token}}})):
        arguments = (token,) if said == "%s" else ()
        watch.search(logging.getLogger("a").makeRecord("a", 10, "f", 1, said, arguments, None, **extra))
        assert watch.take()
    error = OSError(token)
    watch.search(logging.getLogger("a").makeRecord("a", 10, "f", 1, "it failed", (), (OSError, error, None)))
    assert watch.take()
    assert canary.found_in_error(error)
    assert canary.found_in(canary.token())
    assert all(canary.found_in(text) for text in canary._in_base64("Basic me:" + canary.token()))
    assert canary.found_in(token.split(".")[1])
    (tmp_path / "a").write_text(f"token={token}")
    assert canary.found_in_files(tmp_path)
