"""The observers of the status: told everything, and unable to break anything."""

import logging

import pytest
from world import World

from realtime_fsm import ConnectionStatus, StatusChange


async def test_observer_that_raises_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """What an observer raises is logged and counted; the others are told, and the connection goes on."""
    async with World() as world:
        seen: list[StatusChange] = []

        def broken(_: StatusChange) -> None:
            raise RuntimeError("an observer fails")

        world.client.connection_status.subscribe(broken)
        world.client.connection_status.subscribe(seen.append)
        with caplog.at_level(logging.ERROR):
            await world.client.connect()
        assert world.client.status is ConnectionStatus.CONNECTED
        assert [change.current for change in seen] == [
            ConnectionStatus.CONNECTING,
            ConnectionStatus.CONNECTED,
        ]
        assert world.client.metrics.handler_errors == 2
        assert "an observer fails" in caplog.text
