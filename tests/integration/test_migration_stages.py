"""SPEC G2, G3: the four stages and back, on a real backend, with messages under way in both directions."""

import asyncio
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from migration_scene import SOON, Stream, backend, client_config, settings

from realtime_fsm.migration import (
    DecisionKind,
    EngineClient,
    PlainClient,
    RollbackLimits,
    RollbackRule,
    Rollout,
)
from realtime_fsm.rollout.setting import Source
from realtime_fsm.rollout.stage import default_clients
from realtime_fsm.testing import FaultProxy


def say(path: Path, **setting: Any) -> None:
    """Write the file of a rollout, in one step."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(setting), encoding="utf-8")
    part.replace(path)


async def settled(rollout: Rollout) -> str:
    """Wait until what is to run does, bounded."""
    async with asyncio.timeout(SOON):
        return await rollout.settled()


@pytest.mark.real_loop(timeout=60.0)
async def test_four_stages_and_back_lose_and_double_nothing(tmp_path: Path) -> None:
    """Legacy, shadow, a percentage, new, and back: each message and event once and in order (SPEC G2, G3)."""
    path = tmp_path / "rollout.json"
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


@pytest.mark.real_loop(timeout=60.0)
async def test_rollback_in_the_midst_of_a_fault_loses_and_doubles_nothing() -> None:
    """What the new one had under way the old one sends, under the same identity (SPEC G3)."""
    async with backend() as (server, token), FaultProxy("127.0.0.1", server.port) as proxy:
        config = client_config(server.url)
        clients = default_clients(config, token) | {
            "new": lambda: EngineClient(client_config(proxy.url, enable_fallback=False), token=token)
        }
        rollout = Rollout(
            config,
            settings(implementation="new", drain_timeout=0.3),
            client_id="me",
            clients=clients,
            environ={},
        )
        stream = Stream(server, rollout)
        async with rollout:
            await rollout.subscribe(["ticks"])
            stream.start()
            for fault in (proxy.reset_peer, lambda: proxy.black_hole(True)):
                await stream.flowing()
                fault()
                rollout.override("legacy")
                assert await settled(rollout) == "legacy"
                await stream.flowing()
                proxy.black_hole(False)
                rollout.override(None)
                assert await settled(rollout) == "new"
            await stream.flowing()
            await stream.end()
        stream.check()


@pytest.mark.real_loop(timeout=60.0)
async def test_old_client_loses_nothing_over_its_own_reconnects() -> None:
    """The old one resubscribes from where it stood and sends again what was not acknowledged (SPEC G1)."""
    async with backend() as (server, token), FaultProxy("127.0.0.1", server.port) as proxy:
        config = client_config(proxy.url)
        clients = default_clients(config, token) | {
            "legacy": lambda: PlainClient(config, token=token, reconnect_delay=0.02)
        }
        rollout = Rollout(config, settings(), client_id="me", clients=clients, environ={})
        stream = Stream(server, rollout)
        async with rollout:
            await rollout.subscribe(["ticks"])
            stream.start()
            for fault in (proxy.reset_peer, proxy.cut):
                await stream.flowing()
                fault()
                await stream.flowing(60)
            rollout.override("new")
            proxy.reset_peer()
            assert await settled(rollout) == "new"
            await stream.flowing()
            await stream.end()
        stream.check()


@pytest.mark.real_loop(timeout=60.0)
async def test_old_client_takes_over_when_the_new_one_gives_up() -> None:
    """With fallback='legacy' the old one takes over from a new one that fails, until a release (SPEC G2)."""
    async with backend() as (server, token), FaultProxy("127.0.0.1", server.port) as proxy:
        config = client_config(server.url)
        failing = client_config(proxy.url, enable_fallback=False, max_reconnect_attempts=1)
        clients = default_clients(config, token) | {"new": lambda: EngineClient(failing, token=token)}
        rollout = Rollout(
            config,
            settings(implementation="new", fallback="legacy"),
            client_id="me",
            clients=clients,
            environ={},
        )
        stream = Stream(server, rollout)
        async with rollout:
            await rollout.subscribe(["ticks"])
            stream.start()
            await stream.flowing()
            proxy.refuse(True)
            proxy.reset_peer()
            await stream.flowing(60)
            assert (await settled(rollout), rollout.chosen.source) == ("legacy", Source.ROLLBACK)
            assert rollout.decisions.counts[DecisionKind.FALLBACK] == 1
            proxy.refuse(False)
            assert await settled(rollout) == "legacy", "it came back by itself"
            rollout.release()
            assert await settled(rollout) == "new"
            await stream.flowing()
            await stream.end()
        stream.check()


async def test_old_client_runs_when_the_new_one_never_connects() -> None:
    """A new one that cannot connect at the start leaves the application with the old one (SPEC G2)."""
    async with backend() as (server, token), FaultProxy("127.0.0.1", server.port) as proxy:
        proxy.refuse(True)
        config = client_config(server.url)
        clients = default_clients(config, token) | {
            "new": lambda: EngineClient(client_config(proxy.url), token=token)
        }
        given = settings(implementation="new", fallback="legacy", fallback_after=0.2)
        rollout = Rollout(config, given, client_id="me", clients=clients, environ={})
        async with rollout:
            assert (rollout.running, rollout.is_connected) == ("legacy", True)
        assert [one.kind for one in rollout.decisions] == [DecisionKind.FALLBACK, DecisionKind.START]


@pytest.mark.real_loop(timeout=60.0)
async def test_shadow_is_compared_and_sends_nothing() -> None:
    """Beside the old one the new one sees the same events; what it misses is counted, and nobody hears it."""
    async with backend() as (server, token), FaultProxy("127.0.0.1", server.port) as proxy:
        config = client_config(server.url)
        clients = default_clients(config, token) | {
            "shadow": lambda: EngineClient(
                client_config(proxy.url, enable_fallback=False, max_reconnect_attempts=0), token=token
            )
        }
        given = settings(implementation="shadow", compare_within=2.0)
        rollout = Rollout(config, given, client_id="me", clients=clients, environ={})
        stream = Stream(server, rollout)
        async with rollout:
            await rollout.subscribe(["ticks"])
            stream.start()
            await stream.until(lambda: rollout.differences.matched >= 50)
            assert rollout.differences.only_legacy == rollout.differences.only_new == 0
            proxy.refuse(True)
            proxy.reset_peer()
            await stream.until(lambda: rollout.differences.only_legacy > 0)
            await stream.end()
        stream.check()
        assert rollout.differences.only_new == 0


@pytest.mark.real_loop(timeout=60.0)
async def test_new_client_that_fails_more_often_is_rolled_back_by_itself() -> None:
    """The failure rates of both decide; it stays rolled back until a person releases it (SPEC G3)."""
    async with backend() as (server, token), FaultProxy("127.0.0.1", server.port) as proxy:
        config = client_config(server.url)
        clients = default_clients(config, token) | {
            "new": lambda: EngineClient(client_config(proxy.url), token=token)
        }
        rollout = Rollout(
            config,
            settings(implementation="new"),
            client_id="me",
            clients=clients,
            environ={},
            rule=RollbackRule(RollbackLimits(min_samples=4, threshold=0.2, baseline=0.1)),
        )
        stream = Stream(server, rollout)
        async with rollout:
            await rollout.subscribe(["ticks"])
            stream.start()
            rollout.override("new")
            for _ in range(4):
                await stream.flowing(30)
                proxy.reset_peer()
            await stream.flowing(30)
            assert (await settled(rollout), rollout.held) == ("new", None), "a person has the last word"
            rollout.override(None)
            assert await settled(rollout) == "legacy"
            assert rollout.decisions.counts[DecisionKind.ROLLBACK] == 1
            await stream.flowing(30)
            assert await settled(rollout) == "legacy", "nobody has released it"
            assert rollout.release()
            assert await settled(rollout) == "new"
            await stream.flowing()
            await stream.end()
        stream.check()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.real_loop(timeout=60.0)
async def test_switches_and_faults_at_random_lose_and_double_nothing(seed: int) -> None:
    """Whenever one switches and whenever the link breaks, each message and event comes once and in order."""
    random = Random(seed)  # noqa: S311 - no secret
    async with backend() as (server, token), FaultProxy("127.0.0.1", server.port) as proxy:
        config = client_config(proxy.url, max_reconnect_attempts=50)
        clients = default_clients(config, token) | {
            "legacy": lambda: PlainClient(config, token=token, reconnect_delay=0.02)
        }
        given = settings(auto_rollback=False, drain_timeout=SOON)
        rollout = Rollout(config, given, client_id="me", clients=clients, environ={})
        stream = Stream(server, rollout)
        steps = (
            lambda: rollout.override(random.choice(["legacy", "shadow", "new"])),
            proxy.reset_peer,
            proxy.cut,
            lambda: None,
        )
        async with rollout:
            await rollout.subscribe(["ticks"])
            stream.start()
            for _ in range(10):
                random.choices(steps, weights=(35, 25, 15, 25))[0]()
                for _ in range(random.randrange(60)):
                    await asyncio.sleep(0)
                if random.random() < 0.5:
                    await settled(rollout)
            await stream.end()
        stream.check()
