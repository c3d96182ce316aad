"""An aiohttp application on a port of its own: for the health, the status page and the reference backend."""

from types import TracebackType
from typing import Any, Self

from aiohttp import web

from realtime_fsm.machine.errors import ConfigurationError


class Listener:
    """Serves an application from ``start`` to ``stop``; also as a context.

    Args:
        application: Which. It starts and ends with the listener.
        host: Where to listen.
        port: Of it; 0 picks one.
        shutdown_timeout: Seconds that open requests get at the end.
        options: As of ``web.AppRunner``.
    """

    def __init__(
        self, application: web.Application, host: str, port: int, *, shutdown_timeout: float, **options: Any
    ) -> None:
        self._host = host
        self._port = port
        # No access log: a request line may hold a token. aiohttp's own time-out would be a minute.
        self._runner = web.AppRunner(
            application, access_log=None, shutdown_timeout=shutdown_timeout, **options
        )

    @property
    def is_listening(self) -> bool:
        """True between ``start`` and ``stop``."""
        return bool(self._runner.addresses)

    @property
    def port(self) -> int:
        """The port that it listens at."""
        return int(self._runner.addresses[0][1])

    @property
    def url(self) -> str:
        """The address to ask, without a slash at the end."""
        host, port, *_ = self._runner.addresses[0]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            ConfigurationError: If nothing can listen at this address.
        """
        try:
            await self._runner.setup()
            await self._listen()
        except BaseException:
            await self._runner.cleanup()
            raise

    async def stop(self) -> None:
        """Stop listening, and end all connections. Safe to call twice."""
        await self._runner.cleanup()

    async def _listen(self) -> None:
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            raise ConfigurationError(
                f"nothing can listen at host={self._host!r}, port={self._port}: {error.strerror or error}"
            ) from error

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()
