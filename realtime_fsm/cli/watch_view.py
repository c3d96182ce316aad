"""The lines that ``realtime-fsm watch`` shows, made from a snapshot: no look at a clock or a client.

The snapshot is the one of the status page (``realtime_fsm.web.snapshot``): both tell the same.
"""

import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from attrs import frozen

from realtime_fsm.cli.paint import GLYPHS, Painter, printable, style_of
from realtime_fsm.diagram.graph import TIMES
from realtime_fsm.machine.table import ConnectionStatus
from realtime_fsm.report.words import duration

_BARS: Final = "▁▂▃▄▅▆▇█"
_MOST_SAMPLES: Final = 40
_COUNTDOWN: Final = 20
_LABEL: Final = 10
_INDENT: Final = "  "
_CUT: Final = "…"
_MOST_WORDS: Final = 3

_SIGNS: Final = _BARS + "░" + _CUT + TIMES + "".join(GLYPHS.values())
_LETTERS: Final = str.maketrans(_SIGNS, "_.-=+*%#" + ".~x" + "o.*~x+")
"""Letters for the signs, where the output's encoding lacks them; the words are beside them anyway."""

View = Mapping[str, Any]


@frozen
class Styled:
    """A piece of a line, in styles of ``Painter.paint``."""

    text: str
    styles: tuple[str, ...] = ()


Line = tuple[Styled, ...]


def frame(view: View, changes: Sequence[View], *, width: int, height: int) -> list[Line]:
    """Return all that a terminal shows.

    Args:
        view: Where a client stands, as ``snapshot.view`` tells it.
        changes: What has happened, the oldest first, as ``snapshot.change_json`` tells it.
        width: Of the terminal, in columns.
        height: Of the terminal, in lines; the oldest changes are left out where it has too few.
    """
    lines: list[Line] = [_title(view), (), *_words(view, width), (), *_figures(view)]
    room = height - len(lines) - 2
    if changes and room > 0:
        lines += [(), (Styled("what happened, the latest first", ("dim",)),)]
        lines += [change_line(change) for change in list(changes)[::-1][:room]]
    return lines[:height]


def change_line(change: View, words: str | None = None) -> Line:
    """Return a change as a line.

    Args:
        change: As ``snapshot.change_json`` tells it.
        words: What to say of it; by default when the next attempt follows, and its reason.
    """
    if words is None:
        wait, attempt = change["retry_in"], change["attempt"]
        then = "" if wait is None else f"(attempt {attempt} in {duration(wait)}) "
        words = f"{then}{change['reason']}"
    return (
        Styled(_clock(change["at"]), ("dim",)),
        Styled(" "),
        _status(change["current"]),
        Styled(f" {words}"),
    )


def figures_line(view: View) -> Line:
    """Return the figures as one line, for a log."""
    said = [
        f"latency: {_latency(view['latency'])}",
        f"outbox: {_outbox(view['outbox'])}",
        f"failures: {_failures(view)}",
    ]
    said += [f"health: {_health(view)}"] if view["health"]["status"] != "ok" else []
    text = "; ".join(said)
    return (Styled(_clock(view["at"]), ("dim",)), Styled(" "), _status(view["status"]), Styled(f" {text}"))


def sparkline(samples: Sequence[float]) -> str:
    """Return samples as bars, from nothing to the highest of them."""
    most = max(samples, default=0.0)
    if most <= 0:
        return _BARS[0] * len(samples)
    return "".join(_BARS[round(max(0.0, sample) / most * (len(_BARS) - 1))] for sample in samples)


def painted(line: Line, painter: Painter, width: int | None = None) -> str:
    """Return a line as it is written: nothing in it commands the terminal, and it fits.

    Args:
        line: What is to be written.
        painter: Which colours, if it does.
        width: Columns that there are; ``None`` for as many as it takes.
    """
    pieces, left = [], width
    letters = {} if _has_signs(painter) else _LETTERS
    for span in line:
        text = printable(span.text)
        if left is not None:
            text = _cut(text, left)
            left -= columns(text)
        text = text.translate(letters)
        if text:
            pieces.append(painter.paint(text, *span.styles))
        if left == 0:
            break
    return "".join(pieces).rstrip()


def _has_signs(painter: Painter) -> bool:
    """Tell whether the output's encoding has all signs."""
    try:
        _SIGNS.encode(painter.stream.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def columns(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return sum(_columns_of(character) for character in text)


def _columns_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _cut(text: str, width: int) -> str:
    """Return as much of a text as fits, with a sign where something is missing."""
    if columns(text) <= width:
        return text
    kept, room = [], width - 1
    for character in text:
        room -= _columns_of(character)
        if room < 0:
            break
        kept.append(character)
    return "".join(kept) + _CUT * (width > 0)


def _title(view: View) -> Line:
    status = ConnectionStatus(view["status"])
    lasted = "" if view["since"] is None else f" for {duration(max(0.0, view['at'] - view['since']))}"
    return (
        Styled(f"{GLYPHS[status]} {status.upper()}", (style_of(status), "bold")),
        Styled(f"{lasted}  {view['server']}  "),
        Styled(_clock(view["at"]), ("dim",)),
    )


def _words(view: View, width: int) -> list[Line]:
    """Return the state in sentences, wrapped."""
    told = view["words"]
    lines: list[Line] = []
    for name, styles in (("says", ("bold",)), ("next", ()), ("advice", ("dim",))):
        room = max(20, width - len(_INDENT))
        wrapped = textwrap.wrap(told[name], room, max_lines=_MOST_WORDS, placeholder=_CUT)
        lines += [(Styled(_INDENT), Styled(text, styles)) for text in wrapped]
    return lines


def _figures(view: View) -> list[Line]:
    """Return the figures, one a line; what there is none of is left out."""
    told = [
        ("attempt", _attempt(view)),
        ("health", _health(view)),
        ("latency", _sparkling(view["latency"])),
        ("outbox", _outbox(view["outbox"])),
        ("failures", _failures(view)),
        ("outages", _outages(view)),
    ]
    return [(Styled(f"{_INDENT}{name:<{_LABEL}}", ("dim",)), Styled(text)) for name, text in told if text]


def _attempt(view: View) -> str:
    """Return which attempt of how many, how long until then, and why."""
    attempt, left, cause = view["attempt"], view["next_attempt_in"], view["cause"]
    said = []
    if attempt is not None and attempt["number"]:
        said.append(
            f"{attempt['number']} of {attempt['most']}" if attempt["most"] else str(attempt["number"])
        )
    if left is not None:
        said.append(f"{_countdown(left, view['wait'])}in {left:.1f} s")
    if said and cause is not None:
        said.append(f"because: {cause['message'].rstrip('.')}")
    return "  ".join(said)


def _countdown(left: float, wait: float | None) -> str:
    """Return how much of a wait is left as a bar, where it is known how long it is."""
    if not wait:
        return ""
    full = round(min(1.0, left / wait) * _COUNTDOWN)
    return f"{'█' * full}{'░' * (_COUNTDOWN - full)}  "


def _health(view: View) -> str:
    """Return the health in a word, and what the state itself does not say already."""
    health, status = view["health"], view["status"]
    reasons = [reason for reason in health["reasons"] if not reason.startswith((f"{status} (", f"{status}:"))]
    return ": ".join(filter(None, (health["status"], " ".join(reasons))))


def _sparkling(latency: View) -> str:
    return "  ".join(filter(None, (sparkline(latency["samples"][-_MOST_SAMPLES:]), _latency(latency))))


def _latency(latency: View) -> str:
    if latency["last"] is None:
        return "no round trip yet"
    last, p50, p95 = (duration(latency[name]) for name in ("last", "p50", "p95"))
    return f"{last} (half within {p50}, 95 % within {p95})"


def _outbox(outbox: View) -> str:
    if not outbox["waiting"]:
        return "empty"
    flying = f", {outbox['in_flight']} of them in flight" if outbox["in_flight"] else ""
    return f"{outbox['waiting']:,} waiting{flying}; the oldest for {duration(outbox['oldest_age'])}"


def _failures(view: View) -> str:
    failures = view["failures"]
    if not failures["attempts"]:
        return "no attempt has ended yet"
    causes = ", ".join(f"{name} {TIMES}{count}" for name, count in sorted(failures["causes"].items()))
    rate = f"{failures['failed']} of {failures['attempts']} attempts ({failures['rate']:.0%})"
    return f"{rate}: {causes}" if causes else rate


def _outages(view: View) -> str:
    """Return how often there was no connection, and how long altogether."""
    outages = view["outages"]
    if not outages:
        return "none"
    ended = [outage["ended_at"] is not None for outage in outages]
    lasted = (
        (outage["ended_at"] if over else view["at"]) - outage["began_at"]
        for outage, over in zip(outages, ended, strict=True)
    )
    now = "" if all(ended) else "; one lasts"
    return f"{len(outages)}, {duration(sum(max(0.0, each) for each in lasted))} altogether{now}"


def _status(status: str) -> Styled:
    known = ConnectionStatus(status)
    return Styled(f"{GLYPHS[known]} {known:<12}", (style_of(known),))


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, tz=UTC).astimezone().strftime("%H:%M:%S")
