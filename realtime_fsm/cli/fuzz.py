"""``realtime-fsm fuzz``: plays schedules of faults on the whole engine, until one breaks a promise."""

import argparse
import json
import sys
import time
from typing import Any, Final

from attrs import define, field

from realtime_fsm.cli.arguments import EXIT_FAILED, EXIT_OK, EXIT_USAGE
from realtime_fsm.cli.paint import Painter
from realtime_fsm.testing.fuzz.schedule import Schedule
from realtime_fsm.testing.fuzz.simulation import INTERLEAVED, EnvironmentFactory, Story, play
from realtime_fsm.testing.fuzz.sweep import NOT_REPEATABLE, Failure, Sweep, failure_of, sweep
from realtime_fsm.testing.fuzz.world import SimulatedEnvironment

_TERMINAL_PACE: Final = 0.2
_PIPE_PACE: Final = 5.0
"""Seconds between two words of progress."""

_HOUR: Final = 3600.0


def run_fuzz(parsed: argparse.Namespace) -> int:
    """Sweep over seeds, or replay one schedule; return 0 only if all held, and something was proved.

    Raises:
        InvalidArgumentError: If what is to be replayed is no schedule.
    """
    seeds, first = parsed.seeds, parsed.first
    if seeds < 1 or first < 0:
        wrong = f"--seeds {seeds} must be 1 or more" if seeds < 1 else f"--first {first} must be 0 or more"
        sys.stderr.write(f"realtime-fsm: {wrong}.\n")
        return EXIT_USAGE
    environment = _environment(full_stack=parsed.full_stack)
    preempt = INTERLEAVED if parsed.interleave else 0.0
    flags = " --full-stack" * parsed.full_stack + " --interleave" * parsed.interleave
    if parsed.replay is not None:
        story = play(Schedule.parse(parsed.replay), environment, preempt)
        return _print_replay(story, environment, flags=flags, as_json=parsed.json)
    progress = _Progress(seeds)
    try:
        result = sweep(range(first, first + seeds), environment, progress, preempt)
    except KeyboardInterrupt:
        progress.end()
        raise
    progress.end()
    if parsed.json:
        _write_json(_sweep_as_json(result, progress.seconds, preempt))
    else:
        _print_sweep(Painter(), result, progress.seconds, flags)
    return EXIT_OK if result.ok else EXIT_FAILED


def _environment(*, full_stack: bool) -> EnvironmentFactory:
    if not full_stack:
        return SimulatedEnvironment
    from realtime_fsm.testing.fuzz.full_stack import FullStackEnvironment  # noqa: PLC0415 - it loads the network

    return FullStackEnvironment


def _print_replay(story: Story, environment: EnvironmentFactory, *, flags: str, as_json: bool) -> int:
    failure = failure_of(story, environment) if story.violations else None
    if as_json:
        told = {"ok": failure is None, **_story_as_json(story)}
        _write_json(told | ({} if failure is None else _shrunk_as_json(failure)))
    else:
        painter = Painter()
        if failure is None:
            _print_story(painter, story)
            painter.line(painter.paint("All held.", "green"))
        else:
            _print_failure(painter, failure, flags)
    return EXIT_OK if failure is None else EXIT_FAILED


@define
class _Progress:
    """Says on stderr how far it is: on a terminal always anew on one line, otherwise now and then."""

    total: int
    begun: float = field(factory=time.monotonic)
    shown_at: float = field(factory=time.monotonic)
    is_terminal: bool = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.is_terminal = sys.stderr.isatty()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.begun

    def __call__(self, result: Sweep) -> None:
        now = time.monotonic()
        if now - self.shown_at < (_TERMINAL_PACE if self.is_terminal else _PIPE_PACE):
            return
        self.shown_at = now
        text = f"{result.played:,} of {self.total:,} schedules, {result.played / self.seconds:.0f} a second"
        sys.stderr.write(f"\r{text}\033[K" if self.is_terminal else f"{text}\n")
        sys.stderr.flush()

    def end(self) -> None:
        """Leave a clean line."""
        if self.is_terminal:
            sys.stderr.write("\r\033[K")


def _print_sweep(painter: Painter, result: Sweep, seconds: float, flags: str) -> None:
    painter.line(
        f"{result.played:,} schedules in {seconds:.1f} s ({result.played / seconds:.0f} a second), "
        f"{result.virtual_seconds / _HOUR:.1f} hours of connection"
    )
    painter.line(f"their stories: {result.digest}")
    if result.failure is not None:
        _print_failure(painter, result.failure, flags)
    elif result.is_vacuous:
        painter.line(painter.paint("It proves too little. What never happened:", "red"))
        for name in result.missing:
            painter.line(f"  {name}")
    else:
        painter.line(painter.paint("All promises held.", "green"))
        if result.missing:
            painter.line(f"Too few to see everything; not seen: {', '.join(result.missing)}")


def _print_story(painter: Painter, story: Story) -> None:
    for line in story.lines:
        painter.line(f"  {line}")
    for violation in story.violations:
        painter.line(painter.paint(f"BROKEN: {violation}", "red"))


def _print_failure(painter: Painter, failure: Failure, flags: str) -> None:
    _print_story(painter, failure.story)
    painter.line(f"found as  {failure.found}")
    if failure.is_repeatable:
        painter.line(f"shrunk to {failure.shrunk}")
        _print_story(painter, failure.shortest)
    else:
        painter.line(painter.paint(NOT_REPEATABLE, "red"))
        _print_story(painter, failure.replay)
    painter.line(f"replay    realtime-fsm fuzz{flags} --replay {failure.shrunk}")


def _sweep_as_json(result: Sweep, seconds: float, preempt: float) -> dict[str, Any]:
    told: dict[str, Any] = {
        "ok": result.ok,
        "played": result.played,
        "seconds": round(seconds, 3),
        "virtual_seconds": round(result.virtual_seconds, 3),
        "interleaved": preempt > 0.0,
        "missing": list(result.missing),
        "digest": result.digest,
    }
    if result.failure is not None:
        failure = result.failure
        told["failure"] = {
            "found": str(failure.found),
            **_story_as_json(failure.story),
            **_shrunk_as_json(failure),
        }
    return told


def _shrunk_as_json(failure: Failure) -> dict[str, Any]:
    return {
        "is_repeatable": failure.is_repeatable,
        "shrunk": str(failure.shrunk),
        "shortest": _story_as_json(failure.shortest),
    }


def _story_as_json(story: Story) -> dict[str, Any]:
    return {
        "schedule": str(story.schedule),
        "interleaved": story.preempt > 0.0,
        "violations": story.violations,
        "story": story.lines,
        "digest": story.digest,
    }


def _write_json(told: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(told, indent=2) + "\n")
