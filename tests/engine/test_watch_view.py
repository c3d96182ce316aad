"""What ``watch`` shows of a snapshot: the truth, all of it, and within the terminal."""

import asyncio
import io
import json
import re
from typing import Any

import canary
import pytest
from hypothesis import given
from hypothesis import strategies as st
from world import World

from realtime_fsm import AuthenticationError, ConnectionStatus, ServerUnavailableError
from realtime_fsm.cli.paint import GLYPHS, Painter
from realtime_fsm.cli.watch_view import Line, change_line, columns, figures_line, frame, painted, sparkline
from realtime_fsm.machine.table import TRAITS
from realtime_fsm.testing import Refuse
from realtime_fsm.web.snapshot import change_json, view

Json = dict[str, Any]
S = ConnectionStatus
ESCAPE = "\x1b"


def plain(line: Line, width: int | None = None) -> str:
    """Return a line as it is written into a pipe."""
    return painted(line, Painter(stream=io.StringIO()), width)


def shown(told: Json, changes: list[Json] | None = None, *, width: int = 100, height: int = 40) -> str:
    """Return a frame as text."""
    return "\n".join(plain(line) for line in frame(told, changes or [], width=width, height=height))


def told(**given: Any) -> Json:
    """Return a snapshot of a client that waits for its third attempt, but for what is given."""
    return {
        "at": 1000.0,
        "server": "https://example.org",
        "status": "reconnecting",
        "since": 997.5,
        "words": {"says": "The connection is down: nobody answers.", "next": "Soon.", "advice": "Wait."},
        "attempt": {"number": 3, "most": 10},
        "next_attempt_in": 2.5,
        "wait": 5.0,
        "cause": {"kind": "ServerUnreachableError", "message": "Nobody answers.", "remedy": "Wait."},
        "health": {"status": "unavailable", "reasons": ["reconnecting (nobody): The connection is down."]},
        "latency": {"samples": [], "last": None, "p50": None, "p95": None, "p99": None},
        "outbox": {"waiting": 0, "in_flight": 0, "oldest_age": 0.0, "bytes": 0, "is_durable": False},
        "failures": {"attempts": 0, "failed": 0, "rate": None, "causes": {}},
        "outages": [],
        **given,
    }


def change(number: int, **given: Any) -> Json:
    """Return a change, told apart by its reason."""
    return {
        "at": 1000.0 + number,
        "current": "reconnecting",
        "reason": f"reason {number}.",
        "attempt": number,
        "retry_in": None,
        **given,
    }


def row(text: str, name: str) -> str:
    """Return what a frame says of something."""
    (found,) = re.findall(rf"^  {name} +(.*)$", text, re.MULTILINE)
    return str(found)


@pytest.mark.parametrize("status", S)
def test_every_state_is_a_word_and_a_glyph_and_sentences(status: S) -> None:
    """Whoever sees no colours reads the state, since when, and the three sentences."""
    text = shown(told(status=status.value))
    assert text.startswith(f"{GLYPHS[status]} {status.upper()} for 2.5 s  https://example.org  ")
    for sentence in told()["words"].values():
        assert f"\n  {sentence}\n" in text


@pytest.mark.parametrize("status", S)
def test_colours_add_no_word(status: S) -> None:
    """With colours stripped, what is written for a person is what is written for a pipe."""
    painter = Painter(stream=io.StringIO())
    painter.colour = True
    for line in frame(told(status=status.value), [change(1)], width=90, height=40):
        assert re.sub(rf"{ESCAPE}\[\d+m", "", painted(line, painter)).rstrip() == plain(line)
    title = painted(frame(told(status=status.value), [], width=90, height=40)[0], painter)
    assert title.startswith(f"{ESCAPE}[")


def test_a_wait_shows_the_attempt_of_how_many_the_time_left_and_why() -> None:
    """The countdown: a bar that is as full as the wait has left, the seconds, and the cause."""
    assert row(shown(told()), "attempt") == (
        "3 of 10  ██████████░░░░░░░░░░  in 2.5 s  because: Nobody answers"
    )


@pytest.mark.parametrize(("left", "full"), [(0.0, 0), (5.0, 20), (7.5, 20), (1.25, 5)])
def test_the_bar_of_a_countdown_is_as_full_as_the_wait_has_left(left: float, full: int) -> None:
    """Also where the wait is over, or was hurried: it has neither a negative nor an overflowing bar."""
    said = row(shown(told(next_attempt_in=left)), "attempt")
    assert (said.count("█"), said.count("░")) == (full, 20 - full)


def test_a_wait_of_unknown_length_is_counted_down_without_a_bar() -> None:
    """Between two probes of the fallback there is a countdown, and no attempt of how many."""
    said = row(shown(told(attempt=None, wait=None, next_attempt_in=4.0, cause=None)), "attempt")
    assert said == "in 4.0 s"


def test_an_attempt_beyond_the_limit_is_not_told_as_one_of_fewer() -> None:
    """The first dial does not count as a reconnection: the last attempt is not "11 of 10"."""
    said = row(shown(told(attempt={"number": 11, "most": None}, next_attempt_in=None)), "attempt")
    assert said == "11  because: Nobody answers"


def test_nothing_is_said_of_attempts_where_none_is_made() -> None:
    """A live connection has no line for attempts."""
    text = shown(told(attempt=None, next_attempt_in=None, cause=None))
    assert "\n  attempt" not in text


@given(st.lists(st.floats(0, 1e6, allow_nan=False), max_size=60))
def test_sparkline_is_as_high_as_the_samples(samples: list[float]) -> None:
    """One bar a sample, the highest full, and a higher sample never a lower bar."""
    bars = sparkline(samples)
    assert len(bars) == len(samples)
    if max(samples, default=0) > 0:
        assert bars[samples.index(max(samples))] == "█"
    ordered = [bar for _, bar in sorted(zip(samples, bars, strict=True))]
    assert ordered == sorted(bars)


def test_latency_shows_the_last_forty_round_trips_and_what_they_amount_to() -> None:
    """The sparkline, the last one, the median and the 95th percentile."""
    latency = {"samples": [1.0] * 30 + [2.0] * 40, "last": 0.012, "p50": 0.011, "p95": 0.5, "p99": 1.0}
    assert row(shown(told(latency=latency)), "latency") == (
        f"{'█' * 40}  12 ms (half within 11 ms, 95 % within 500 ms)"
    )
    assert row(shown(told()), "latency") == "no round trip yet"


def test_the_outbox_shows_its_depth_and_its_oldest_message() -> None:
    """How many wait, how many of them are sent already, and for how long the oldest has."""
    outbox = {"waiting": 1200, "in_flight": 32, "oldest_age": 75.0}
    assert (
        row(shown(told(outbox=outbox)), "outbox")
        == "1,200 waiting, 32 of them in flight; the oldest for 75.0 s"
    )
    assert row(shown(told()), "outbox") == "empty"


def test_failures_show_their_rate_and_their_causes() -> None:
    """How many attempts failed, of how many, and of what."""
    failures = {"attempts": 8, "failed": 2, "rate": 0.25, "causes": {"B": 1, "A": 1}}
    assert row(shown(told(failures=failures)), "failures") == "2 of 8 attempts (25%): A ×1, B ×1"  # noqa: RUF001
    assert row(shown(told()), "failures") == "no attempt has ended yet"


def test_outages_are_added_up_and_the_present_one_counts() -> None:
    """Two that have ended and one that lasts: their number, their sum up to now, and that one lasts."""
    outages = [
        {"began_at": 100.0, "ended_at": 110.0},
        {"began_at": 200.0, "ended_at": 205.0},
        {"began_at": 997.5, "ended_at": None},
    ]
    assert row(shown(told(outages=outages)), "outages") == "3, 17.5 s altogether; one lasts"
    assert row(shown(told(outages=outages[:2])), "outages") == "2, 15.0 s altogether"
    assert row(shown(told()), "outages") == "none"


def test_deafness_is_shown_and_the_state_is_not_told_twice() -> None:
    """What health knows beyond the state is said; the reason that is the state itself is not repeated."""
    deaf = {"status": "unavailable", "reasons": ["The server has not answered a heartbeat for 12 s."]}
    assert row(shown(told(health=deaf)), "health") == (
        "unavailable: The server has not answered a heartbeat for 12 s."
    )
    assert row(shown(told()), "health") == "unavailable"


def test_changes_come_latest_first_with_their_reasons() -> None:
    """The reason of each change, and of a wait its attempt and its length."""
    text = shown(told(), [change(1), change(2, retry_in=4.0)])
    latest, before = text.splitlines()[-2:]
    assert latest.endswith("◑ reconnecting (attempt 2 in 4.0 s) reason 2.")
    assert before.endswith("◑ reconnecting reason 1.")


@pytest.mark.parametrize("height", range(1, 30))
@pytest.mark.parametrize("width", [1, 2, 10, 40, 79, 200])
def test_a_frame_fits_its_terminal(width: int, height: int) -> None:
    """However small the terminal: no line is wider, there are no more lines, and the state comes first."""
    wide = {"kind": "E", "message": "接続できません " * 20, "remedy": ""}
    lines = frame(
        told(cause=wide),
        [change(n, reason="長い理由 e\u0301 " * 20) for n in range(50)],
        width=width,
        height=height,
    )
    texts = [plain(line, width) for line in lines]
    assert len(texts) <= height
    assert all(columns(text) <= width for text in texts)
    assert texts[0][0] in {GLYPHS[S.RECONNECTING], "…"}


def test_what_does_not_fit_is_seen_to_be_missing() -> None:
    """A line that is cut ends in a sign for it; one that just fits does not."""
    line = change_line(change(1))
    whole = plain(line)
    assert plain(line, columns(whole)) == whole
    assert plain(line, columns(whole) - 1) == whole[:-2] + "…"


def test_the_oldest_changes_give_way() -> None:
    """In a low terminal the last change is kept, and the figures before any change."""
    text = shown(told(), [change(n) for n in range(50)], height=18)
    assert "reason 49." in text
    assert "reason 0." not in text
    assert "outages" in shown(told(), [change(n) for n in range(50)], height=12)


def test_nothing_that_a_server_says_commands_the_terminal() -> None:
    """Escape sequences and line ends in a cause or a reason are shown as what they are."""
    evil = {"kind": "E", "message": "\x1b[2J\x1b]0;evil\x07\nnext", "remedy": ""}
    text = shown(
        told(cause=evil, words={"says": "\x1b[2J", "next": "a\x07", "advice": ""}),
        [change(1, reason="\x1b[H\r\n")],
    )
    assert ESCAPE not in text
    assert "\x07" not in text
    assert "\r" not in text
    assert "\\x1b[2J" in text


def test_an_output_without_the_signs_gets_letters() -> None:
    """Where the encoding lacks glyphs and bars nothing is a number in place of a sign, and it still fits."""
    painter = Painter(stream=io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    latency = {"samples": [1.0, 0.5, 0.0], "last": 1.0, "p50": 0.5, "p95": 1.0, "p99": 1.0}
    failures = {"attempts": 2, "failed": 1, "rate": 0.5, "causes": {"A": 1}}
    for status in S:
        now = told(status=status.value, latency=latency, failures=failures)
        for line in frame(now, [change(1, reason="long " * 50)], width=60, height=40):
            text = painted(line, painter, 60)
            assert text.isascii()
            assert len(text) <= 60
    assert painted(frame(told(), [], width=60, height=40)[0], painter).startswith("~ RECONNECTING")


def test_the_line_for_a_log_has_all_figures() -> None:
    """The state, round trips, outbox and failures in one line; health where it is not perfect."""
    line = plain(figures_line(told()))
    assert "◑ reconnecting" in line
    for part in (
        "latency: no round trip yet",
        "outbox: empty",
        "failures: no attempt",
        "health: unavailable",
    ):
        assert part in line
    assert "health" not in plain(figures_line(told(health={"status": "ok", "reasons": []})))


async def test_every_state_of_a_real_client_can_be_shown() -> None:
    """What the snapshot of a client holds in each state is enough; nothing of it shows the token."""
    seen: set[S] = set()

    def look(world: World) -> None:
        client = world.client
        now = view(client, now=1000.0)
        changes = [change_json(one) for one in client.connection_status.history]
        text = shown(now, changes) + plain(figures_line(now))
        assert client.status.upper() in text
        assert now["words"]["says"].split(":")[0] in text
        assert canary.found_in(text, json.dumps(now)) == []
        assert TRAITS[client.status].carries_data is not ("health: unavailable" in text)
        seen.add(client.status)

    async with World(
        max_reconnect_attempts=1, fallback_endpoints=("prices=/prices",), backoff_base=1.0
    ) as world:
        look(world)
        world.client.connection_status.subscribe(lambda _: look(world))
        await world.client.connect()
        await asyncio.sleep(60)
        world.server.script = [Refuse(ServerUnavailableError("It is full.")) for _ in range(3)]
        world.server.reset()
        await world.client.wait_for(S.FALLBACK)
        await world.client.wait_for(S.CONNECTED)
    async with World(token=None) as world:
        world.server.script = [Refuse(AuthenticationError("No such person."))]
        with pytest.raises(AuthenticationError):
            await world.client.connect()
        look(world)
    assert seen == set(S)
