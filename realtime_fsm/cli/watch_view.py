"""The lines of ``realtime-fsm watch``: from where a client stands to what a person reads. No I/O."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from attrs import frozen

from realtime_fsm.cli.paint import GLYPHS, Painter, printable
from realtime_fsm.machine.table import ConnectionStatus

_BARS: Final = "▁▂▃▄▅▆▇█"
_ASCII_BARS: Final = "_.-=+*%#"
_LEAST_WIDTH: Final = 20
_CHANGES: Final = 8
_LABEL: Final = 10
_FIRST_SHOWN_WHOLE: Final = 9.95

_View = Mapping[str, Any]


@frozen
class Signs:
    """What may be printed.

    Attributes:
        width: Columns of the terminal.
        unicode: Whether its encoding has the signs for states and bars.
    """

    width: int = 80
    unicode: bool = True


def screen(view: _View, changes: Sequence[_View], painter: Painter, signs: Signs) -> list[str]:
    """Return the whole live view, no line wider than the terminal.

    Args:
        view: Where the client stands: ``realtime_fsm.web.snapshot.view``.
        changes: What has happened, the oldest first: ``change_json`` of each.
        painter: Colours, where they are wanted.
        signs: What may be printed.
    """
    words = view["words"]
    lines = [
        painter.status(ConnectionStatus(view["status"]))
        if signs.unicode
        else painter.paint(view["status"].upper(), "bold"),
        *(printable(words[name]) for name in ("says", "next", "advice") if words[name]),
        "",
        *(f"{label:<{_LABEL}}{text}" for label, text in _facts(view, signs)),
        "",
        *(_change(change, signs) for change in list(changes)[-_CHANGES:][::-1]),
    ]
    width = max(_LEAST_WIDTH, signs.width)
    return [lines[0], *(_cut(line, width, unicode=signs.unicode) for line in lines[1:])]


def change_line(change: _View, painter: Painter) -> str:
    """Return a change as one line for a pipe."""
    retry_in = change["retry_in"]
    then = "" if retry_in is None else f"; attempt {change['attempt']} in {duration(retry_in)}"
    status = painter.status(ConnectionStatus(change["current"]))
    return f"{painter.paint(_clock(change['at']), 'dim')} {status} {printable(change['reason'])}{then}"


def figures_line(view: _View, painter: Painter) -> str:
    """Return the figures as one line for a pipe."""
    facts = "; ".join(f"{label}: {text}" for label, text in _facts(view, None))
    status = painter.status(ConnectionStatus(view["status"]))
    return f"{painter.paint(_clock(view['at']), 'dim')} {status} {facts}"


def duration(seconds: float) -> str:
    """Return a duration as people read it: ``0.4 s``, ``12 s``, ``3 min 5 s``, ``2 h 10 min``."""
    if seconds < _FIRST_SHOWN_WHOLE:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {left} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def sparkline(samples: Sequence[float], room: int, *, unicode: bool = True) -> str:
    """Return the last samples as bars, the highest of them full."""
    shown = list(samples)[-max(room, 0) :] if room > 0 else []
    if not shown:
        return ""
    bars, top = (_BARS if unicode else _ASCII_BARS), max(shown) or 1.0
    return "".join(bars[min(len(bars) - 1, int(len(bars) * sample / top))] for sample in shown)


def _facts(view: _View, signs: Signs | None) -> list[tuple[str, str]]:
    """Return the figures; without ``signs`` in a line, and so without a picture."""
    facts = []
    if view["attempt"]:
        facts.append(("attempt", f"{view['attempt']['number']} of {view['attempt']['most']}"))
    if view["next_attempt_in"] is not None:
        facts.append(("next try", f"in {duration(view['next_attempt_in'])}"))
    if view["cause"]:
        facts.append(("cause", printable(f"{view['cause']['kind']}: {view['cause']['message']}")))
    latency, outbox, failures = view["latency"], view["outbox"], view["failures"]
    if latency["last"] is not None:
        text = ", ".join(
            f"{name} {1000 * latency[key]:.1f} ms"
            for name, key in (("last", "last"), ("median", "p50"), ("p95", "p95"))
        )
        if signs is not None:
            room = min(40, signs.width - _LABEL - len(text) - 2)
            text = f"{text}  {sparkline(latency['samples'], room, unicode=signs.unicode)}".rstrip()
        facts.append(("latency", text))
    oldest = f", the oldest for {duration(outbox['oldest_age'])}" if outbox["waiting"] else ""
    facts.append(("outbox", f"{outbox['waiting']} waiting{oldest}"))
    if failures["attempts"]:
        facts.append(("failures", f"{failures['failed']} of {failures['attempts']} attempts"))
    counts = view["counts"]
    made, lost = counts["connections"], counts["losses"]
    so_far = (
        f"{made} {'connection' if made == 1 else 'connections'}, {lost} {'loss' if lost == 1 else 'losses'}"
    )
    facts.append(("so far", so_far))
    return facts


def _change(change: _View, signs: Signs) -> str:
    glyph = f"{GLYPHS[ConnectionStatus(change['current'])]} " if signs.unicode else ""
    return f"{_clock(change['at'])} {glyph}{change['current']:<12} {printable(change['reason'])}"


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, tz=UTC).astimezone().strftime("%H:%M:%S")


def _cut(line: str, width: int, *, unicode: bool) -> str:
    if len(line) <= width:
        return line
    mark = "…" if unicode else "..."
    return line[: width - len(mark)] + mark
