"""The arguments of ``realtime-fsm outbox``, without what it runs."""

import argparse
import sys
from pathlib import Path

from realtime_fsm.cli.command import Commands, add_command
from realtime_fsm.cli.exit_code import EXIT_USAGE


def add_outbox(commands: "Commands[argparse.ArgumentParser]") -> None:
    """Add the command and its actions."""
    parser = add_command(
        commands,
        "outbox",
        "look into the file of an outbox, and decide about its dead letters",
        "  realtime-fsm outbox list app.outbox\n"
        "  realtime-fsm outbox retry app.outbox 1f0c9a77e2b4-17\n"
        "  realtime-fsm outbox drop app.outbox --all\n",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    path = argparse.ArgumentParser(add_help=False)
    path.add_argument("path", metavar="PATH", type=Path, help="the file: the client's outbox_path")
    path.add_argument("--json", action="store_true", help="print one JSON object")
    listing = add_command(
        actions,
        "list",
        "show what waits and the dead letters, never a body; also while it is used",
        "  realtime-fsm outbox list app.outbox\n"
        "  realtime-fsm outbox list app.outbox --json | jq .waiting.oldest_age\n",
        [path],
    )
    listing.add_argument(
        "--limit", type=int, default=20, metavar="N", help="waiting messages to be listed (default: 20)"
    )
    listing.set_defaults(run=_list)
    for name, summary in (
        ("retry", "let dead letters wait again, behind all others"),
        ("drop", "delete dead letters for good"),
    ):
        examples = (
            f"  realtime-fsm outbox {name} app.outbox 1f0c9a77e2b4-17\n"
            f"  realtime-fsm outbox {name} app.outbox --all\n"
        )
        action = add_command(actions, name, summary, examples, [path])
        action.add_argument("ids", metavar="ID", nargs="*", help="id of a dead letter, as `list` shows it")
        action.add_argument("--all", action="store_true", help="all dead letters")
        action.set_defaults(run=_change, action=name)


def _list(parsed: argparse.Namespace) -> int:
    from realtime_fsm.cli.outbox import run_list  # noqa: PLC0415

    return run_list(parsed.path, limit=parsed.limit, as_json=parsed.json)


def _change(parsed: argparse.Namespace) -> int:
    from realtime_fsm.cli.outbox import run_change  # noqa: PLC0415

    if bool(parsed.ids) is parsed.all:
        sys.stderr.write(f"realtime-fsm: outbox {parsed.action} needs either IDs or --all.\n")
        return EXIT_USAGE
    return run_change(parsed.action, parsed.path, None if parsed.all else parsed.ids, as_json=parsed.json)
