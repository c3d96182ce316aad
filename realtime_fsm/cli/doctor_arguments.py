"""The arguments of ``realtime-fsm doctor``, without what it runs."""

import argparse
from typing import Final

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

_LONGEST: Final = 24 * 3600.0


def _seconds(text: str) -> float:
    """Read a number of seconds that is more than 0.

    Raises:
        ArgumentTypeError: If it is none.
    """
    seconds = _seconds_or_none(text)
    if seconds == 0:
        raise argparse.ArgumentTypeError("must be more than 0 seconds")
    return seconds


def _seconds_or_none(text: str) -> float:
    """Read a number of seconds, 0 included.

    Raises:
        ArgumentTypeError: If it is none.
    """
    try:
        seconds = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 0 <= seconds <= _LONGEST:
        raise argparse.ArgumentTypeError(f"must be 0 to {_LONGEST:.0f} seconds")
    return seconds


def add_doctor_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them to the command's parser."""
    parser.add_argument("url", metavar="URL", help="the server's address, http:// or https://")
    parser.add_argument("--namespace", help="the Socket.IO namespace (default: /)")
    parser.add_argument("--path", metavar="PATH", help="where it speaks Socket.IO (default: socket.io)")
    parser.add_argument("--dialect", choices=["plain", "reference"], help="its conventions (default: plain)")
    parser.add_argument("--token-env", metavar="NAME", help="environment variable that holds the token")
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=5.0,
        metavar="SECONDS",
        help="how long each step may wait (default: 5)",
    )
    parser.add_argument(
        "--idle",
        type=_seconds_or_none,
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
