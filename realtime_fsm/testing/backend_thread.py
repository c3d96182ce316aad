"""A real backend, and before it a proxy that makes faults, for tests of any kind: on a thread."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Self, TypeVar

from realtime_fsm.engine.subscription import Position
from realtime_fsm.server import BackendConfig, Handler, WebSocketService, issue_token
from realtime_fsm.testing.fault_proxy import FaultProxy
from realtime_fsm.testing.loop_thread import LoopThread

T = TypeVar("T")

_CLOSE_TIMEOUT: Final = 2.0
_LIFETIME: Final = 3600.0


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
        """Where it listens."""
        return self.server.url

    def token(self, subject: str = "me", lifetime: float = _LIFETIME, **claims: Any) -> str:
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
