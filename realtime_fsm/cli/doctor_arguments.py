"""The arguments of ``realtime-fsm doctor``, without what it runs."""

import argparse
from typing import Final

from realtime_fsm.cli.argument_types import seconds, seconds_or_none

DOCTOR_EXAMPLES: Final = (
    "  realtime-fsm doctor http://localhost:3001\n"
    "  TOKEN=... realtime-fsm doctor https://example.org --dialect reference --token-env TOKEN\n"
    "  realtime-fsm doctor https://example.org --idle 65      # is a silent connection cut by a proxy?\n"
    "  realtime-fsm doctor https://example.org --json | jq '.checks[] | select(.verdict == \"failed\")'\n"
    "\nexit codes:\n"
    "  0 nothing failed; warnings do not count\n"
    "  1 it answers, but something does not work: no Socket.IO, websocket blocked, deaf, cut when idle\n"
    "  2 wrong usage or configuration\n"
    "  3 unreachable: name, TCP, TLS, no HTTP answer, 429 or 5xx\n"
    "  4 refused: the token, the namespace, 401 or 403, a redirect\n"
    "  Where several things failed, the first of 2, 3, 4, 1 counts.\n"
)


def add_doctor_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them to the command's parser."""
    parser.add_argument("url", metavar="URL", help="the server's address, http:// or https://")
    parser.add_argument("--namespace", help="the Socket.IO namespace (default: /)")
    parser.add_argument("--path", metavar="PATH", help="where it speaks Socket.IO (default: socket.io)")
    parser.add_argument("--dialect", choices=["plain", "reference"], help="its conventions (default: plain)")
    parser.add_argument("--token-env", metavar="NAME", help="environment variable that holds the token")
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=5.0,
        metavar="SECONDS",
        help="how long each step may wait (default: 5)",
    )
    parser.add_argument(
        "--idle",
        type=seconds_or_none,
        default=5.0,
        metavar="SECONDS",
        help="how long to keep the open connection silent; 0 leaves it out (default: 5)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end, nothing else")
    parser.set_defaults(run=_run)


def _run(parsed: argparse.Namespace) -> int:
    from realtime_fsm.cli.doctor import run_doctor  # noqa: PLC0415

    given = {"namespace": parsed.namespace, "socketio_path": parsed.path, "dialect": parsed.dialect}
    return run_doctor(
        parsed.url,
        fields={name: value for name, value in given.items() if value is not None},
        token_env=parsed.token_env,
        timeout=parsed.timeout,
        idle=parsed.idle,
        as_json=parsed.json,
    )
