"""The arguments of ``realtime-fsm watch``, without what it runs."""

import argparse
from typing import Final

from realtime_fsm.cli.argument_types import seconds
from realtime_fsm.cli.client_arguments import add_client_arguments, client_request

WATCH_EXAMPLES: Final = (
    "  realtime-fsm watch http://localhost:3001\n"
    "  TOKEN=... realtime-fsm watch https://example.org --token-env TOKEN --channel prices\n"
    "  REALTIME_HEARTBEAT_INTERVAL=5 REALTIME_HEARTBEAT_TIMEOUT=5 realtime-fsm watch http://localhost:3001\n"
    "  realtime-fsm watch https://example.org --every 60 > connection.log     # lines, for a file\n"
    "  realtime-fsm watch https://example.org --for 30 --json | tail -1 | jq .failures.rate\n"
    "\nIn a terminal it is one live view; elsewhere a line for each change, and at times the figures.\n"
    "Round trips are those of the heartbeats: REALTIME_HEARTBEAT_INTERVAL says how many there are.\n"
    "\nexit codes:\n"
    "  0 it was interrupted, or data flowed at the end of --for\n"
    "  1 it failed for a reason of its own\n"
    "  2 wrong usage or configuration\n"
    "  3 unreachable: it gave up, or no data flowed at the end of --for\n"
    "  4 refused: the token, or a channel\n"
)


def add_watch_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them to the command's parser."""
    add_client_arguments(parser)
    parser.add_argument(
        "--for",
        dest="bound",
        type=seconds,
        metavar="SECONDS",
        help="end after this time (default: at Ctrl-C)",
    )
    parser.add_argument(
        "--every",
        type=seconds,
        metavar="SECONDS",
        help="how often the figures are shown (default: 0.25 in a terminal, otherwise 10)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object per line; the last one is how it stands"
    )
    parser.set_defaults(run=_run)


def _run(parsed: argparse.Namespace) -> int:
    from realtime_fsm.cli.watch import run_watch  # noqa: PLC0415

    return run_watch(client_request(parsed), bound=parsed.bound, every=parsed.every, as_json=parsed.json)
