"""What ``realtime-fsm watch`` shows: every state in words, at every width, with and without colour."""

import io
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from world import World

from realtime_fsm import ConnectionStatus
from realtime_fsm.cli.paint import Painter
from realtime_fsm.cli.watch_view import Signs, change_line, duration, figures_line, screen, sparkline
from realtime_fsm.machine.errors import ServerUnreachableError
from realtime_fsm.web.snapshot import change_json, view

Run = Callable[[Coroutine[Any, Any, None]], None]


async def seen(world: World) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return where a client stands, and what has happened to it."""
    told = view(world.client, now=1_700_000_000.0)
    return told, [change_json(change) for change in world.client.connection_status.history]


def painter() -> Painter:
    """Return one that writes into memory, and so has no colour."""
    return Painter(stream=io.StringIO())


@pytest.mark.parametrize("width", [20, 40, 80, 120])
def test_every_state_is_shown_in_words_within_the_width(width: int, run_virtual: Run) -> None:
    """The name of the state is on the screen in each state, no line is too wide, and no colour is needed."""
    shown: dict[str, list[str]] = {}

    async def main() -> None:
        world = World(max_reconnect_attempts=1, enable_fallback=False)

        async def look() -> None:
            told, changes = await seen(world)
            shown[told["status"]] = screen(told, changes, painter(), Signs(width))

        async with world:
            await look()
            await world.client.connect()
            await look()
            await world.client.emit("note", 1)
            world.server.refusal = ServerUnreachableError("Nobody answers. " * 20)
            world.server.reset()
            await world.until(ConnectionStatus.RECONNECTING)
            await look()
            await world.until(ConnectionStatus.FAILED)
            await look()

    run_virtual(main())
    assert set(shown) == {"disconnected", "connected", "reconnecting", "failed"}
    for status, lines in shown.items():
        assert status in lines[0]
        assert all(len(line) <= width for line in lines[1:])
        assert not any("\033" in line for line in lines)


def test_wait_shows_attempt_countdown_and_cause(run_virtual: Run) -> None:
    """While it waits, people see which attempt comes when, why, and what they can do."""

    async def main() -> None:
        async with World(max_reconnect_attempts=5) as world:
            await world.client.connect()
            world.server.refusal = ServerUnreachableError("Nobody answers.")
            world.server.reset()
            await world.until(ConnectionStatus.RECONNECTING)
            text = "\n".join(screen(*await seen(world), painter(), Signs(100)))
            for part in (
                "attempt   2 of 5",
                "next try  in ",
                "cause     ",
                "Wait, or retry now.",
                "1 connection, 1 loss",
            ):
                assert part in text

    run_virtual(main())


def test_lines_for_a_pipe_hold_state_reason_and_figures(run_virtual: Run) -> None:
    """In a pipe each change is one line, and so are the figures."""

    async def main() -> None:
        async with World() as world:
            await world.client.connect()
            told, changes = await seen(world)
            lines = [change_line(change, painter()) for change in changes]
            assert [("connecting" in line, "connected" in line) for line in lines] == [
                (True, False),
                (False, True),
            ]
            line = figures_line(told, painter())
            assert "\n" not in line
            assert "outbox: 0 waiting" in line

    run_virtual(main())


def test_what_a_server_says_cannot_command_the_terminal(run_virtual: Run) -> None:
    """Control characters in an error of the server's are shown as numbers."""

    async def main() -> None:
        async with World(max_reconnect_attempts=5) as world:
            await world.client.connect()
            world.server.refusal = ServerUnreachableError("\033[2J\a gone.")
            world.server.reset()
            await world.until(ConnectionStatus.CONNECTING)
            await world.until(ConnectionStatus.RECONNECTING)
            told, changes = await seen(world)
            text = "".join(screen(told, changes, painter(), Signs(200)))
            text += "".join(change_line(change, painter()) for change in changes) + figures_line(
                told, painter()
            )
            assert "\033" not in text
            assert "\a" not in text

    run_virtual(main())


def test_terminal_without_the_signs_gets_ascii(run_virtual: Run) -> None:
    """Where the encoding lacks glyphs and bars, letters stand for them."""

    async def main() -> None:
        async with World() as world:
            await world.client.connect()
            lines = screen(*await seen(world), painter(), Signs(60, unicode=False))
            assert lines[0] == "CONNECTED"
            assert "\n".join(lines).isascii()

    run_virtual(main())


def test_sparkline_is_as_high_as_its_highest_sample() -> None:
    """The highest sample is a full bar, nothing is an empty one, and only the last fit."""
    assert sparkline([0.0, 0.5, 1.0], 10) == "▁▅█"
    assert sparkline([0.0, 0.5, 1.0], 2) == "▅█"
    assert sparkline([0.0, 0.0], 10) == "▁▁"
    assert sparkline([0.0, 1.0], 10, unicode=False) == "_#"
    assert sparkline([], 10) == sparkline([1.0], 0) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0.0 s"), (9.94, "9.9 s"), (59.6, "1 min 0 s"), (185, "3 min 5 s"), (7800, "2 h 10 min")],
)
def test_duration_is_as_people_say_it(seconds: float, text: str) -> None:
    """A duration is told in at most two units."""
    assert duration(seconds) == text
