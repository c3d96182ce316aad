"""The client that a command makes, and the exit codes that its errors stand for."""

import argparse
import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

from realtime_fsm.cli.arguments import EXIT_REFUSED, EXIT_UNREACHABLE
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.errors import (
    ErrorCategory,
    InvalidArgumentError,
    RealtimeError,
    SubscriptionRefusedError,
)
from realtime_fsm.service import RealtimeService


def make_client(parsed: argparse.Namespace) -> RealtimeService:
    """Return the client that is asked for; the rest of its configuration is as the environment has it.

    Raises:
        InvalidArgumentError: If the variable that should hold the token does not.
        ConfigurationError: If the configuration is wrong.
    """
    token = token_in(parsed.token_env)
    config = RealtimeConfig.from_env(
        server_url=parsed.url, namespace=parsed.namespace, dialect=parsed.dialect
    )
    return RealtimeService(config, token=token)


def token_in(variable: str | None) -> str | None:
    """Return the token that an environment variable holds; ``None`` where no variable is named.

    Raises:
        InvalidArgumentError: If the variable is not set, or empty.
    """
    if variable is None:
        return None
    token = os.environ.get(variable)
    if not token:
        raise InvalidArgumentError(f"--token-env {variable}: this variable is not set, or empty.")
    return token


def end_at_sigterm() -> asyncio.Task[Any] | None:
    """Let ``SIGTERM`` cancel the running task, as Ctrl-C does; return the task."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return task


async def keep_connected(realtime: RealtimeService, channels: Sequence[str]) -> None:
    """Connect, subscribe to channels, and keep the connection; end when nothing is tried any more.

    Raises:
        RealtimeError: Why that is so.
    """
    changes = realtime.changes()
    await realtime.connect()
    if channels:
        await realtime.subscribe(channels)
    async for _ in changes:
        if realtime.gave_up is not None:
            raise realtime.gave_up


def exit_code_of(error: RealtimeError) -> int:
    """Return the exit code for why a client gave up."""
    refused = error.category is ErrorCategory.AUTHENTICATION
    return EXIT_REFUSED if refused or isinstance(error, SubscriptionRefusedError) else EXIT_UNREACHABLE


def while_read(show: Callable[..., None], task: asyncio.Task[Any] | None) -> Callable[..., None]:
    """Return a printer that ends the command when nobody reads it any more, as in ``listen ... | head``.

    Args:
        show: The printer.
        task: The command's, which is cancelled.
    """

    def shown(*args: Any) -> None:
        try:
            show(*args)
        except BrokenPipeError:
            if task is not None:
                task.cancel()

    return shown
