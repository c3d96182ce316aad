"""The arguments of the commands that connect to a server, without what they run."""

import argparse
from typing import Final

from realtime_fsm.cli.command import Commands, add_command

_WATCH_EXAMPLES: Final = """\
  realtime-fsm watch http://localhost:3001
  realtime-fsm watch https://example.org --dialect reference --channel prices --token-env TOKEN
  realtime-fsm watch https://example.org --for 60 --json > minute.jsonl
"""


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says which server it is, and who the client is."""
    parser.add_argument("url", metavar="URL", help="the server's address, http:// or https://")
    parser.add_argument(
        "--channel", action="append", default=[], metavar="NAME", help="subscribe to a channel; repeatable"
    )
    parser.add_argument("--namespace", default="/", help="the Socket.IO namespace (default: /)")
    parser.add_argument(
        "--dialect", default="plain", choices=["plain", "reference"], help="the server's conventions"
    )
    parser.add_argument("--token-env", metavar="NAME", help="environment variable that holds the token")


def add_watch(commands: "Commands[argparse.ArgumentParser]") -> None:
    """Add ``watch``."""
    parser = add_command(
        commands,
        "watch",
        "watch how the connection to a server fares, until Ctrl-C",
        _WATCH_EXAMPLES,
    )
    add_server_arguments(parser)
    parser.add_argument(
        "--for", dest="seconds", type=seconds, metavar="SECONDS", help="end by itself after so long"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    parser.set_defaults(run=_watch)


def seconds(text: str) -> float:
    """Read a time that is to pass, for ``argparse``.

    Raises:
        ArgumentTypeError: If it is none.
    """
    try:
        given = float(text)
    except ValueError:
        given = -1.0
    if not 0 < given < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of seconds, more than 0")
    return given


def _watch(parsed: argparse.Namespace) -> int:
    from realtime_fsm.cli.watch import run_watch  # noqa: PLC0415 - it loads the network

    return run_watch(
        parsed.url,
        channels=parsed.channel,
        namespace=parsed.namespace,
        dialect=parsed.dialect,
        token_env=parsed.token_env,
        seconds=parsed.seconds,
        as_json=parsed.json,
    )
