"""A real backend, and before it a proxy that makes faults, for tests of any kind: on a thread."""

import asyncio
import secrets
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, ParamSpec, Self, TypeVar

from realtime_fsm.engine.subscriptions import Position
from realtime_fsm.server import BackendConfig, Handler, WebSocketService, issue_token
from realtime_fsm.testing.proxy.proxy import FaultProxy

T = TypeVar("T")
P = ParamSpec("P")

_BOUND: Final = 10.0
"""Seconds that anything on the thread may take."""

_CLOSE_TIMEOUT: Final = 2.0
_TOKEN_LIFETIME: Final = 3600.0


class LoopThread:
    """Runs an event loop on a thread, for servers that tests use from plain functions and from any loop.

    ::

        with LoopThread("my server") as thread:
            server = thread.wait(start())

    Args:
        name: Of the thread.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Cancel what still runs, and end the thread, within some seconds.

        Raises:
            RuntimeError: If a task or the thread does not end.
        """
        try:
            stubborn = self.wait(_cancel_tasks())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_BOUND)
        if stubborn or self._thread.is_alive():
            raise RuntimeError(
                f"the thread {self._thread.name!r} does not end: {stubborn or 'it is blocked'}"
            )

    def call(self, function: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        """Call a plain function on the thread, and return its result; from the thread itself at once.

        Raises:
            TimeoutError: If it takes too long.
        """
        if threading.current_thread() is self._thread:
            return function(*args, **options)

        async def called() -> T:
            return function(*args, **options)

        return self.wait(called())

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the thread's loop, and wait for its result.

        Raises:
            TimeoutError: If it takes too long; it is cancelled then.
            RuntimeError: If the thread does not run, or would wait for itself.
        """
        name = self._thread.name
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError(f"the thread {name!r} would wait for itself")
        if not self._thread.is_alive():
            work.close()
            raise RuntimeError(f"the thread {name!r} is not running")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(_BOUND)
        finally:
            future.cancel()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()


async def _cancel_tasks() -> str:
    """Cancel everything else on the loop; return what does not end."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        _, tasks = await asyncio.wait(tasks, timeout=_BOUND / 2)
    loop = asyncio.get_running_loop()
    await loop.shutdown_asyncgens()
    await loop.shutdown_default_executor()
    return ", ".join(task.get_name() for task in tasks)


def default_config() -> BackendConfig:
    """Return a configuration for tests: a free port, a secret of its own, and a quick end."""
    return BackendConfig(port=0, secret=secrets.token_hex(32), close_timeout=_CLOSE_TIMEOUT)


class RealtimeBackend:
    """A ``WebSocketService`` on a thread. Its methods can be called from anywhere; they wait for the thread.

    ::

        with RealtimeBackend() as backend:
            backend.on("add", lambda client, a, b: a + b)
            ...  # connect to backend.url with backend.token()

    Args:
        config: By default that of ``default_config``.

    Attributes:
        config: What it is configured with.
        server: The service. It is used on its own thread only: see ``call``.
    """

    def __init__(self, config: BackendConfig | None = None) -> None:
        self.config = default_config() if config is None else config
        self.server: WebSocketService
        self._thread = LoopThread("realtime_fsm backend")

    def __enter__(self) -> Self:
        self._thread.__enter__()
        try:
            self._thread.wait(self._start())
        except BaseException:
            self._thread.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop it, within ``close_timeout``, and end the thread."""
        try:
            self._thread.wait(self.server.stop())
        finally:
            self._thread.__exit__()

    @property
    def url(self) -> str:
        """The address at which it listens."""
        return self.server.url

    def token(self, subject: str = "me", lifetime: float = _TOKEN_LIFETIME, **claims: Any) -> str:
        """Return a token that lets a subject in.

        Args:
            subject: Whose it is.
            lifetime: Seconds until it expires.
            claims: What else it says.
        """
        return issue_token(
            self.config.secret,
            subject,
            lifetime,
            issuer=self.config.issuer,
            audience=self.config.audience,
            algorithm=self.config.algorithms[0],
            claims=claims,
        )

    def on(self, event: str, handler: Handler) -> None:
        """Register the handler of an event; it runs on the backend's thread. See ``WebSocketService.on``."""
        self._thread.call(self.server.on, event, handler)

    def publish(self, channel: str, event: str, data: Any = None) -> Position:
        """Publish an event; see ``WebSocketService.publish``."""
        return self._thread.call(self.server.publish, channel, event, data)

    def call(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Call anything on the backend's thread, such as ``backend.server.subscriber_count``."""
        return self._thread.call(function, *args, **options)

    @contextmanager
    def proxy(self) -> Iterator["ThreadedProxy"]:
        """Have a ``FaultProxy`` before it, which reads frames."""
        proxy = FaultProxy(self.config.host, self.server.port, frames=True)
        self._thread.wait(proxy.__aenter__())
        try:
            yield ThreadedProxy(proxy, self._thread)
        finally:
            self._thread.wait(proxy.__aexit__(None, None, None))

    async def _start(self) -> None:
        self.server = WebSocketService(self.config)
        await self.server.start()


class ThreadedProxy:
    """A ``FaultProxy`` on another thread: whatever is got, set or called here is, there.

    What it waits for, such as ``happened`` of a rule, is of its own loop, and cannot be awaited here.
    """

    def __init__(self, proxy: FaultProxy, thread: LoopThread) -> None:
        object.__setattr__(self, "_proxy", proxy)
        object.__setattr__(self, "_thread", thread)

    def __getattr__(self, name: str) -> Any:
        value = self._thread.call(getattr, self._proxy, name)
        if not callable(value):
            return value

        def called(*args: Any, **options: Any) -> Any:
            return self._thread.call(value, *args, **options)

        return called

    def __setattr__(self, name: str, value: object) -> None:
        if not hasattr(self._proxy, name):
            raise AttributeError(f"a FaultProxy has no {name!r}")
        self._thread.call(setattr, self._proxy, name, value)
