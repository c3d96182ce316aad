"""SPEC G2, G3: the four stages and back, on a real backend, with messages under way in both directions."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from migration_scene import SOON, Stream, backend, client_config, settings

from realtime_fsm.migration import DecisionKind, Rollout


def say(path: Path, **setting: Any) -> None:
    """Write the file of a rollout, in one step."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(setting), encoding="utf-8")
    part.replace(path)


async def settled(rollout: Rollout) -> str:
    """Wait until what is to run does, bounded."""
    async with asyncio.timeout(SOON):
        return await rollout.settled()


def test_four_stages_and_back_lose_and_double_nothing(run_long: Callable[..., Any], tmp_path: Path) -> None:
    """Legacy, shadow, a percentage, new, and back: each message and event once and in order (SPEC G2, G3)."""
    path = tmp_path / "rollout.json"

    async def main() -> None:
        async with backend() as (server, token):
            rollout = Rollout(
                client_config(server.url), settings(path=str(path)), client_id="me", token=token, environ={}
            )
            stream = Stream(server, rollout)
            async with rollout:
                await rollout.subscribe(["ticks"])
                stream.start()
                ran = [rollout.running]
                for stage in (
                    {"implementation": "shadow"},
                    {"percent": 0},
                    {"percent": 100},
                    {"implementation": "new"},
                ):
                    await stream.flowing()
                    say(path, **stage)
                    ran.append(await settled(rollout))
                await stream.flowing()
                rollout.override("legacy")
                ran.append(await settled(rollout))
                await stream.flowing()
                await stream.end()
            stream.check()
            assert ran == ["legacy", "shadow", "legacy", "new", "new", "legacy"]
            assert len(stream.received) > 25

    run_long(main(), timeout=60.0)
