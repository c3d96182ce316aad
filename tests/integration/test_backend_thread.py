"""The backend and the proxy on a thread: usable from anywhere, bounded, and gone at the end."""

import asyncio
import contextlib
import socket
import threading
import time
import urllib.error
import urllib.request
from typing import Any

import pytest

from realtime_fsm import ClosedError, ConfigurationError
from realtime_fsm.server import BackendConfig
from realtime_fsm.testing import RealtimeBackend
from realtime_fsm.testing import backend_thread as module
from realtime_fsm.testing.backend_thread import LoopThread


def fetched(url: str) -> bytes:
    """Fetch something in the plainest way there is."""
    with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310 - of our own server
        body: bytes = answer.read()
        return body


def test_backend_serves_while_it_lives_and_not_after() -> None:
    """From its first moment to its last it answers; afterwards nobody listens, and the thread is gone."""
    before = threading.active_count()
    with RealtimeBackend() as backend:
        url = f"{backend.url}/healthz"
        assert b"true" in fetched(url)
        assert backend.publish("news", "tick").offset == 1
    with pytest.raises(urllib.error.URLError):
        fetched(url)
    with pytest.raises(ClosedError):
        _ = backend.url
    assert threading.active_count() == before


def test_backend_ends_in_time_whoever_is_connected() -> None:
    """A client that stays, and says nothing, does not keep the backend from ending."""
    with contextlib.ExitStack() as stack:
        backend = stack.enter_context(RealtimeBackend())
        client = socket.create_connection(("127.0.0.1", backend.server.port))
        with client:
            client.sendall(b"GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 200"
            began = time.monotonic()
            stack.close()
            assert time.monotonic() - began < 20


def test_backend_that_cannot_start_leaves_nothing() -> None:
    """Where nothing can listen, entering fails as the service says, and the thread is gone."""
    before = threading.active_count()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = BackendConfig(port=taken.getsockname()[1], secret="s" * 32)
        with pytest.raises(ConfigurationError, match="nothing can listen"), RealtimeBackend(config):
            pass
    assert threading.active_count() == before


def test_handler_may_call_the_backend() -> None:
    """Called from the backend's own thread, as by a handler, a method works at once instead of waiting."""
    with RealtimeBackend() as backend:
        assert backend.call(backend.publish, "news", "tick").offset == 1


def test_proxy_is_gone_before_the_backend() -> None:
    """A proxy forwards to the backend, counts, takes faults, and listens no more when it has ended."""
    with RealtimeBackend() as backend:
        with backend.proxy() as proxy:
            assert b"true" in fetched(f"{proxy.url}/healthz")
            assert proxy.counters.accepted == 1
            proxy.refuse(True)
            with pytest.raises(urllib.error.URLError):
                fetched(f"{proxy.url}/healthz")
            url = proxy.url
        with pytest.raises(urllib.error.URLError):
            fetched(f"{url}/healthz")
        assert b"true" in fetched(f"{backend.url}/healthz")


def test_thread_gives_results_and_errors() -> None:
    """What runs on the thread gives its result, or raises its error, to who waits."""

    async def fail() -> None:
        raise LookupError("there")

    with LoopThread("test") as thread:
        assert thread.call(divmod, 7, 2) == (3, 1)
        assert thread.call(threading.current_thread).name == "test"
        with pytest.raises(LookupError, match="there"):
            thread.wait(fail())
        with pytest.raises(ZeroDivisionError):
            thread.call(divmod, 1, 0)


def test_thread_cannot_wait_for_itself(recwarn: pytest.WarningsRecorder) -> None:
    """Waiting on the thread for the thread is refused, as it is where the thread does not run."""

    async def nothing() -> None:
        pass

    thread = LoopThread("test")
    with pytest.raises(RuntimeError, match="'test' is not running"):
        thread.wait(nothing())
    with thread, pytest.raises(RuntimeError, match="would wait for itself"):
        thread.call(lambda: thread.wait(nothing()))
    assert not recwarn.list


def test_wait_that_takes_too_long_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait is bounded, and what was waited for is cancelled."""
    ended = threading.Event()

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with LoopThread("test") as thread:
        monkeypatch.setattr(module, "_BOUND", 0.05)
        with pytest.raises(TimeoutError):
            thread.wait(endless())
        monkeypatch.undo()
        assert ended.wait(5)


def test_tasks_on_the_thread_are_cancelled_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What still runs is cancelled; what does not end then is told by its name."""
    released: list[Any] = []

    async def start(name: str, stubborn: bool) -> None:
        async def run() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                released.append(name)
                if stubborn:
                    await asyncio.Event().wait()

        tasks.append(asyncio.create_task(run(), name=name))

    tasks: list[asyncio.Task[None]] = []
    with LoopThread("test") as thread:
        thread.wait(start("obedient", False))
    assert released == ["obedient"]
    thread = LoopThread("test").__enter__()
    thread.wait(start("stubborn", True))
    monkeypatch.setattr(module, "_BOUND", 0.2)
    with pytest.raises(RuntimeError, match="'test' does not end: stubborn"):
        thread.__exit__(None, None, None)
    assert released == ["obedient", "stubborn"]
    tasks[-1]._log_destroy_pending = False  # type: ignore[attr-defined] - it was meant to be left
