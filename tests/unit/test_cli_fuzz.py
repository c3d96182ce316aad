"""``realtime-fsm fuzz``: what it prints, and how it exits."""

import json

import pytest

from realtime_fsm.cli import main
from realtime_fsm.engine.sender import Sender
from realtime_fsm.testing.fuzz.schedule import Schedule
from realtime_fsm.testing.fuzz.simulation import INTERLEAVED, play
from realtime_fsm.testing.fuzz.sweep import Sweep, sweep

BROKEN = "reference:0/publish,lose-ack@3,emit/heal"


def test_fuzz_says_that_all_promises_held(capsys: pytest.CaptureFixture[str]) -> None:
    """A short sweep ends well, and says what it was too short to see."""
    assert main(["fuzz", "--seeds", "5"]) == 0
    out = capsys.readouterr().out
    assert "5 schedules" in out
    assert f"their stories: {sweep(range(5)).digest}" in out
    assert "All promises held." in out
    assert "not seen: " in out


def test_fuzz_replays_one_schedule(capsys: pytest.CaptureFixture[str]) -> None:
    """A replay tells what happens, with the time of each thing."""
    assert main(["fuzz", "--replay", "plain:3/emit,reset@0.5/heal"]) == 0
    out = capsys.readouterr().out
    assert "connecting -> connected" in out
    assert "All held." in out


def test_fuzz_shrinks_a_failure_and_says_how_to_replay_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken promise is named, with the shortest schedule that breaks it; the exit code is 1."""
    monkeypatch.setattr(Sender, "_end_flight", lambda sender, message: None)
    assert main(["fuzz", "--seeds", "50"]) == 1
    out = capsys.readouterr().out
    assert "BROKEN: " in out
    replay = next(line for line in out.splitlines() if line.startswith("replay"))
    schedule = replay.split()[-1]
    assert main(["fuzz", "--replay", schedule]) == 1
    assert "BROKEN: " in capsys.readouterr().out


def test_fuzz_prints_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With --json there is one object, of a sweep or a replay, sound or broken."""
    assert main(["fuzz", "--seeds", "3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], told["played"], told["digest"]) == (True, 3, sweep(range(3)).digest)
    assert main(["fuzz", "--replay", BROKEN, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["schedule"] == BROKEN
    monkeypatch.setattr(Sender, "_end_flight", lambda sender, message: None)
    assert main(["fuzz", "--seeds", "50", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["failure"]["violations"]
    assert told["failure"]["schedule"] == told["failure"]["found"]
    assert told["failure"]["shortest"]["violations"]
    assert told["failure"]["is_repeatable"]
    assert main(["fuzz", "--replay", told["failure"]["shrunk"], "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["shrunk"]


def test_fuzz_interleaves(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With --interleave near timers cut in, in a sweep and in a replay; the way to replay it says so."""
    assert main(["fuzz", "--seeds", "3", "--interleave", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["interleaved"]
    assert told["digest"] == sweep(range(3), preempt=INTERLEAVED).digest
    assert main(["fuzz", "--replay", BROKEN, "--interleave", "--json"]) == 0
    assert (
        json.loads(capsys.readouterr().out)["digest"]
        == play(Schedule.parse(BROKEN), preempt=INTERLEAVED).digest
    )
    monkeypatch.setattr(Sender, "_end_flight", lambda sender, message: None)
    assert main(["fuzz", "--seeds", "50", "--interleave"]) == 1
    assert "realtime-fsm fuzz --interleave --replay " in capsys.readouterr().out


def test_fuzz_fails_when_it_proves_too_little(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep that was long enough and has not seen everything fails, and says what it has not seen."""
    monkeypatch.setattr("realtime_fsm.cli.fuzz.sweep", lambda *_: Sweep(played=100_000))
    assert main(["fuzz"]) == 1
    assert "message acknowledged" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--seeds", "0"], ["--first", "-1"], ["--replay", "nonsense"]])
def test_fuzz_refuses_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What makes no sense is refused with exit code 2, and says what would."""
    assert main(["fuzz", *arguments]) == 2
    assert capsys.readouterr().err.startswith("realtime-fsm: ")
