"""What a client did last: kept, logged in debug mode, written out by hand and by a crash; never a secret."""

import json
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import canary
import pytest
from world import World

from realtime_fsm import ConnectionLostError, ConnectionStatus, InternalError
from realtime_fsm.engine import flight_recorder
from realtime_fsm.engine.flight_recorder import GLYPHS, RECORDS, FlightRecorder, Kind

Run = Callable[[Coroutine[Any, Any, None]], None]
S = ConnectionStatus


def test_recorder_keeps_the_last_records_and_hides_secrets() -> None:
    """The ring is bounded, keeps the newest, and masks what must not be shown."""
    recorder = FlightRecorder(lambda: 1.5, ["hush-hush-secret"])
    for number in range(RECORDS + 5):
        recorder.note(Kind.POLL, f"poll {number} with hush-hush-secret")
    assert len(recorder.records) == RECORDS
    assert recorder.records[-1].text.startswith(f"poll {RECORDS + 4} ")
    assert "hush-hush-secret" not in json.dumps(recorder.as_json())


def test_recorder_has_one_glyph_per_kind() -> None:
    """Every kind has a glyph of its own."""
    assert set(GLYPHS) == set(Kind)
    assert len(set(GLYPHS.values())) == len(Kind)


async def test_recorder_tells_the_story_of_a_loss() -> None:
    """Changes, decisions and attempts are kept also without the debug mode, with epoch and attempt."""
    async with World() as world:
        await world.client.connect()
        world.server.reset(ConnectionLostError("gone."))
        await world.until(S.CONNECTED)
        records = world.client.dump()["records"]
        kinds = {record["kind"] for record in records}
        assert {"change", "decision", "attempt"} <= kinds
        assert not kinds & {"event", "message", "ack"}
        changes = [record for record in records if record["kind"] == "change"]
        assert "the connection ended: gone., next attempt in" in changes[2]["text"]
        assert [record["epoch"] for record in changes] == [1, 2, 3, 4, 5]
        decisions = [record["text"] for record in records if record["kind"] == "decision"]
        assert any("connection_lost in connected leads to reconnecting (" in text for text in decisions)
        assert any("ConnectionLostError, retryable" in text for text in decisions)


def test_debug_mode_is_switched_at_run_time(
    run_virtual: Run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In debug mode messages, events and acknowledgements are recorded and logged, without their bodies."""
    library = logging.getLogger("realtime_fsm")  # the search for secrets switches every record on
    monkeypatch.setattr(flight_recorder._logger, "isEnabledFor", lambda level: library.level <= level)

    async def main() -> None:
        async with World() as world:
            await world.client.connect()
            world.client.debug_mode(True)
            try:
                await (await world.client.emit("note", {"body": "do-not-show-this"}))
                world.server.emit("news", "do-not-show-this")
                await world.client.call("ask", 1)
            finally:
                world.client.debug_mode(False)
            await world.client.emit("note", 2)
            records = world.client.dump()["records"]
            kinds = [record["kind"] for record in records]
            assert kinds.count("message") == 2
            assert "event" in kinds
            assert "ack" in kinds
            traced = [record for record in caplog.records if record.name == "realtime_fsm.trace"]
            assert any(record.getMessage().startswith("→ ") for record in traced)
            assert all(hasattr(record, "epoch") and hasattr(record, "kind") for record in traced)
            assert "do-not-show-this" not in caplog.text + json.dumps(records)

    with caplog.at_level(logging.DEBUG, logger="other"):
        run_virtual(main())


async def test_dump_is_written_to_a_file(tmp_path: Path) -> None:
    """A dump has status, health, metrics and records, is JSON, and shows no token."""
    async with World(token=canary.token) as world:
        await world.client.connect()
        told = world.client.dump(tmp_path / "dump.json")
        assert json.loads((tmp_path / "dump.json").read_text(encoding="utf-8")) == json.loads(
            json.dumps(told)
        )
        assert told["status"] == told["metrics"]["status"] == "connected"
        assert told["health"]["ready"] is True
        assert any("a token was fetched" in record["text"] for record in told["records"])


async def test_crash_writes_out_what_came_before(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug of the engine is logged with the records that led to it."""

    async def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("realtime_fsm.engine.manager.catch_up", broken)
    async with World(max_reconnect_attempts=0) as world:
        with pytest.raises(InternalError):
            await world.client.connect()
    (error,) = [r.getMessage() for r in caplog.records if r.name == "realtime_fsm.trace"][:1]
    assert error.startswith("the activity catch_up crashed; what came before:")
    assert "connecting -> connected" in error
