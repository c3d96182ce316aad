"""Known faults of the libraries below that no other test shows: ours has none of them."""

import asyncio
import signal
from random import Random

from attrs import evolve

from realtime_fsm import ConnectionStatus, Dialect, RealtimeConfig, RealtimeService
from realtime_fsm.testing.fuzz.application import simulated_config
from realtime_fsm.testing.fuzz.full_stack import FullStackEnvironment
from realtime_fsm.testing.fuzz.schedule import Setting
from realtime_fsm.testing.fuzz.world import CHANNEL, NUMBER, TICK


async def stack(config: RealtimeConfig) -> tuple[FullStackEnvironment, RealtimeService]:
    """Return a real backend, and a real client of it that is connected."""
    environment = FullStackEnvironment(Setting.REFERENCE, Random(1))  # noqa: S311 - jitter
    await environment.open()
    client = environment.client(
        config,
        token=environment.token,
        outbox=None,
        random=Random(1),  # noqa: S311 - jitter
    )
    await client.subscribe([CHANNEL])
    await client.connect()
    return environment, client


async def test_client_leaves_the_interrupt_to_the_program() -> None:
    """A client that connects does not touch the process's handler of SIGINT."""
    before = signal.getsignal(signal.SIGINT)
    environment, client = await stack(simulated_config(Setting.REFERENCE))
    assert signal.getsignal(signal.SIGINT) is before
    await client.disconnect()
    await environment.close()


async def test_client_sends_and_receives_many_packets_at_once_over_polling() -> None:
    """More than 16 packets in one request or one answer, where the library stops reading, lose nothing."""
    config = evolve(
        simulated_config(Setting.REFERENCE),
        transports=("polling",),
        max_pending_events=100,
        max_in_flight=100,
        outbox_max_messages=200,
    )
    environment, client = await stack(config)
    heard: list[int] = []
    client.on(TICK, lambda number, *_: heard.append(number))
    await asyncio.sleep(1)
    receipts = [await client.emit(NUMBER, number) for number in range(80)]
    for number in range(80):
        environment.publish(number)
    await asyncio.gather(*receipts)
    await asyncio.sleep(5)
    assert environment.applied == [(NUMBER, number) for number in range(80)]
    assert heard == list(range(80))
    await client.disconnect()
    await environment.close()


async def test_two_clients_of_one_process_do_not_touch_each_other() -> None:
    """Two clients with settings of their own live and fail side by side in one process."""
    first, here = await stack(simulated_config(Setting.REFERENCE))
    second, there = await stack(
        evolve(simulated_config(Setting.REFERENCE), transports=("polling",), heartbeat_interval=9.0)
    )
    assert (here.config.dialect, there.config.dialect) == (Dialect.REFERENCE, Dialect.REFERENCE)
    first.socket_network.reset_peer()
    await asyncio.sleep(0.01)
    assert here.status is ConnectionStatus.RECONNECTING
    assert there.status is ConnectionStatus.CONNECTED
    await here.wait_for(ConnectionStatus.CONNECTED, timeout=30)
    assert await here.call(NUMBER, 1) == 1
    assert await there.call(NUMBER, 2) == 2
    assert (first.applied, second.applied) == ([(NUMBER, 1)], [(NUMBER, 2)])
    assert there.metrics.losses == 0
    await here.disconnect()
    assert await there.call(NUMBER, 3) == 3
    await there.disconnect()
    await first.close()
    await second.close()
