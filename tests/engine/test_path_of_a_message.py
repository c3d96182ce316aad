"""How far a message walks through the code: a reader opens as many modules, and it costs as many calls."""

import asyncio
import logging
import sys
from types import FrameType
from typing import Any, Final, Self

import pytest
from world import World

from realtime_fsm import Delivery
from realtime_fsm.engine.link import Link

MODULES_OF_EMIT: Final = 9
MODULES_OF_ACK: Final = 8
CALLS: Final = 20


class Walk:
    """The project's own functions that are called until the transport is reached, in their order."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def __enter__(self) -> Self:
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        # A constructor that attrs has written is called like any other; its file names the class.
        code = frame.f_code
        module = code.co_filename if code.co_filename.startswith("<") else frame.f_globals["__name__"]
        if event == "call" and "realtime_fsm." in module and "realtime_fsm.testing." not in module:
            self.calls.append((module, code.co_qualname))

    @property
    def modules(self) -> set[str]:
        """The modules that a reader opens."""
        return {module for module, _ in self.calls if not module.startswith("<")}


@pytest.fixture(autouse=True)
def is_not_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch off what the search for secrets makes of every test: a record of each step, as in debug mode."""
    monkeypatch.setattr(logging.getLogger("realtime_fsm.trace"), "isEnabledFor", lambda _: False)


@pytest.mark.parametrize("delivery", [Delivery.AT_MOST_ONCE, Delivery.AT_LEAST_ONCE])
async def test_emit_on_a_live_link_is_a_short_walk(delivery: Delivery) -> None:
    """From ``emit`` to the transport a message passes few modules, and few calls."""
    async with World() as world:
        await world.client.connect()
        await world.client.emit("n", 1, delivery=delivery)
        await asyncio.sleep(1)
        emit = world.client.emit("n", 2, delivery=delivery)
        with pytest.raises(StopIteration), Walk() as walk:
            emit.send(None)  # it leaves in the first step, or it did not leave at once
        assert len(walk.calls) <= CALLS, walk.calls
        assert len(walk.modules) <= MODULES_OF_EMIT, walk.modules
        await asyncio.sleep(1)
        assert world.server.received_of("n") == [1, 2]


async def test_acknowledgement_is_a_short_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the transport to the settled receipt an acknowledgement passes few modules, and few calls."""
    walk = Walk()
    on_ack = Link.on_ack

    def watched(link: Link, ack_id: int, args: list[Any]) -> None:
        with walk:
            on_ack(link, ack_id, args)

    async with World() as world:
        await world.client.connect()
        await asyncio.sleep(1)
        receipt = await world.client.emit("n", 1, delivery=Delivery.AT_LEAST_ONCE)
        monkeypatch.setattr(Link, "on_ack", watched)
        await receipt
        assert ("realtime_fsm.engine.message", "Receipt.settle") in walk.calls
        assert len(walk.calls) <= CALLS, walk.calls
        assert len(walk.modules) <= MODULES_OF_ACK, walk.modules
