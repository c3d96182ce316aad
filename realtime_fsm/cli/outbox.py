"""``realtime-fsm outbox list | retry | drop``: a look into the file of an outbox, and its dead letters."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from attrs import asdict

from realtime_fsm.adapters import outbox_file as upkeep
from realtime_fsm.adapters.outbox_file import DeadEntry, Entry, Inventory
from realtime_fsm.cli.arguments import EXIT_FAILED, EXIT_OK, EXIT_USAGE
from realtime_fsm.cli.paint import Painter, printable

_HEAD: Final = ("ID", "EVENT", "DELIVERY", "AGE", "SIZE", "ATTEMPTS")
_RIGHT: Final = frozenset({"AGE", "SIZE", "ATTEMPTS"})
_WIDEST: Final = 40
_ELLIPSIS: Final = "…"
_AGES: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_SIZES: Final = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_ACTIONS: Final = {
    "retry": (upkeep.retry, "retried", "They are sent when the client starts."),
    "drop": (upkeep.drop, "dropped", "They are gone for good."),
}


def run_list(parsed: argparse.Namespace) -> int:
    """Show what waits and the dead letters, never a body. The file may be in use.

    Raises:
        OutboxStorageError: If it is missing, or no outbox that can be read.
    """
    if parsed.limit < 0:
        sys.stderr.write(f"realtime-fsm: --limit {parsed.limit} must not be negative.\n")
        return EXIT_USAGE
    inventory = upkeep.look(parsed.path, limit=parsed.limit)
    now = time.time()
    if parsed.json:
        _write_json(_as_json(parsed.path, inventory, now))
    else:
        _print(Painter(), parsed.path, inventory, now)
    return EXIT_OK


def run_change(parsed: argparse.Namespace) -> int:
    """Retry or drop dead letters: all that are asked for, or none. Nobody may be using the file.

    Raises:
        OutboxStorageError: If it is missing, in use, or cannot be written.
    """
    if bool(parsed.ids) is parsed.all:
        sys.stderr.write(f"realtime-fsm: outbox {parsed.action} needs either IDs or --all.\n")
        return EXIT_USAGE
    change, participle, then = _ACTIONS[parsed.action]
    result = change(parsed.path, None if parsed.all else parsed.ids)
    if parsed.json:
        _write_json({participle: list(result.done), "unknown": list(result.unknown)})
    if result.unknown:
        names = ", ".join(map(printable, result.unknown))
        sys.stderr.write(
            f"realtime-fsm: {parsed.path} has no dead letter {names}; nothing was {participle}. "
            f"See `realtime-fsm outbox list {parsed.path}`.\n"
        )
        return EXIT_FAILED
    if result.damaged:
        names = ", ".join(map(printable, result.damaged))
        sys.stderr.write(f"realtime-fsm: not {participle}, for they have changed on the disk: {names}.\n")
    if not parsed.json:
        count = len(result.done)
        painter = Painter()
        painter.line(f"{_counted(count, 'dead letter')} {participle}.{f' {then}' if count else ''}")
    return EXIT_FAILED if result.damaged else EXIT_OK


def _write_json(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")


def _as_json(path: Path, inventory: Inventory, now: float) -> dict[str, Any]:
    oldest = inventory.oldest_accepted_at
    return {
        "path": str(path),
        "client_id": inventory.client_id,
        "last_sequence": inventory.last_sequence,
        "waiting": {
            "count": inventory.count,
            "size_bytes": inventory.size_bytes,
            "oldest_age": None if oldest is None else max(0.0, now - oldest),
            "first": [asdict(entry) for entry in inventory.waiting],
        },
        "dead_letters": [asdict(entry) for entry in inventory.dead],
    }


def _print(painter: Painter, path: Path, inventory: Inventory, now: float) -> None:
    painter.line(
        f"{painter.paint(str(path), 'bold')}  client {inventory.client_id}, "
        f"last number {inventory.last_sequence}"
    )
    painter.line()
    if inventory.oldest_accepted_at is None:
        painter.line("nothing waits")
    else:
        painter.line(
            f"{painter.paint(f'{inventory.count} waiting', 'yellow')}, {_size(inventory.size_bytes)}, "
            f"the oldest for {_age(now - inventory.oldest_accepted_at)}"
        )
        _print_table(painter, _HEAD, [_cells(entry, now) for entry in inventory.waiting])
        more = inventory.count - len(inventory.waiting)
        if more > 0:
            painter.line(painter.paint(f"  and {more} more", "dim"))
    painter.line()
    if not inventory.dead:
        painter.line(painter.paint("no dead letters", "green"))
        return
    painter.line(painter.paint(_counted(len(inventory.dead), "dead letter"), "red"))
    _print_table(
        painter, (*_HEAD, "REASON"), [(*_cells(e, now), printable(e.reason)) for e in inventory.dead]
    )
    painter.line(painter.paint(f"  realtime-fsm outbox retry|drop {path} ID... | --all", "dim"))


def _cells(entry: Entry, now: float) -> tuple[str, ...]:
    since = entry.died_at if isinstance(entry, DeadEntry) else entry.accepted_at
    return (
        printable(entry.message_id),  # in full: it is what `retry` and `drop` take
        _cut(printable(entry.event)),
        entry.delivery,
        _age(now - since),
        _size(entry.size_bytes),
        str(entry.attempts),
    )


def _print_table(painter: Painter, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if not rows:
        return
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for number, row in enumerate((head, *rows)):
        cells = [
            cell.rjust(width) if title in _RIGHT else cell.ljust(width)
            for title, cell, width in zip(head, row, widths, strict=True)
        ]
        text = "  " + "  ".join(cells).rstrip()
        painter.line(painter.paint(text, "dim") if number == 0 else text)


def _cut(text: str) -> str:
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + _ELLIPSIS


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _age(seconds: float) -> str:
    for unit, name in _AGES:
        if seconds >= unit:
            return f"{seconds // unit:.0f} {name}"
    return "0 s"


def _size(size_bytes: int) -> str:
    for unit, name in _SIZES:
        if size_bytes >= unit:
            return f"{size_bytes / unit:.1f} {name}"
    return f"{size_bytes} B"
