"""Makes python-socketio's clients, and checks once that they offer what is used without being documented."""

import functools
import logging
from importlib.metadata import version
from typing import Final

import aiohttp
import socketio
from engineio import base_client

from realtime_fsm.machine.errors import InternalError

# python-socketio logs tokens and every message at INFO. An object outside the tree of loggers cannot be
# switched on by accident, as one of `getLogger` could.
SILENT: Final = logging.Logger("silent", level=logging.CRITICAL + 1)  # noqa: LOG001 - see above

_CLIENT_NAMES: Final = ("connect", "eio")
_ENGINE_NAMES: Final = ("disconnect", "http_factory", "queue", "read_loop_task", "state", "write_loop_task")


def make_client(**options: object) -> socketio.AsyncClient:
    """Return a client that does nothing of its own: no reconnect, no signal handler, no logs."""
    return socketio.AsyncClient(
        reconnection=False, handle_sigint=False, logger=SILENT, engineio_logger=SILENT, **options
    )


@functools.cache
def check_libraries() -> None:
    """Do the check.

    Raises:
        InternalError: If something is missing, with the version that lacks it.
    """
    client = make_client()
    missing = [name for name in _CLIENT_NAMES if not hasattr(client, name)]
    missing += [f"eio.{name}" for name in _ENGINE_NAMES if not hasattr(client.eio, name)]
    if not isinstance(getattr(base_client, "connected_clients", None), list):
        missing.append("engineio.base_client.connected_clients")
    if "_retry_connection" not in getattr(aiohttp.ClientSession, "ATTRS", ()):
        missing.append("aiohttp.ClientSession._retry_connection")
    if missing:
        raise InternalError(
            f"aiohttp {version('aiohttp')}, python-engineio {version('python-engineio')} and python-socketio "
            f"{version('python-socketio')} no longer offer {', '.join(missing)}.",
            retryable=False,
            remedy="Install the versions that realtime_fsm asks for.",
        )
