import asyncio

import pytest
from aiohttp import web
from hostile_server import (
    CONNECT,
    OPEN,
    PollingScript,
    Recorder,
    Server,
    event,
    http,
    joined,
    run,
)
from transport_scene import both, started

from realtime_fsm.adapters.tap import FrameTap
from realtime_fsm.machine.errors import (
    MalformedFrameError,
)

# What cannot be decoded.

MALFORMED = [
    "42",
    "42{}",
    "42[]",
    "42[1]",
    "42[null]",
    '42["connect"]',
    '42["disconnect",1]',
    '42["tick",',
    '42["tick",NaN]',
    '42["tick"]x',
    '42["tick",' + "[" * 100_000,
    '42["tick",' + "9" * 6000 + "]",
    "42" + "9" * 200 + '["tick"]',
    '42/other,["tick"]',
    "43",
    "43[]",
    "431",
    '431{"a":1}',
    '45["tick"]',
    '421-["tick"]',
    "461-[]",
    "40",
    "47",
    "4x",
    "4",
    "",
    "7",
    "x",
    "5",
    OPEN,
    "2" * 1000,
]


@both
def test_malformed_frame_is_told_and_dropped(name: str) -> None:
    """Each frame that cannot be decoded is told, and the connection goes on."""

    async def send(socket: web.WebSocketResponse) -> None:
        for number, text in enumerate(MALFORMED):
            await socket.send_str(text)
            await socket.send_str(event("tick", number))

    async def main(server: Server) -> None:
        async with started(server, name) as (_, recorder):
            await recorder.until(lambda: len(recorder.events) == len(MALFORMED))
            assert [call for call in recorder.calls if call != "written"] == ["malformed", "event"] * len(
                MALFORMED
            )
            assert all(isinstance(error, MalformedFrameError) for error in recorder.malformed)
            assert [args for _, args, _ in recorder.events] == [[n] for n in range(len(MALFORMED))]

    bodies = [f"{text}\x1e{event('tick', number)}" for number, text in enumerate(MALFORMED)]
    with joined(send) if name == "websocket" else http(PollingScript(*bodies)) as server:
        run(main(server))


@pytest.mark.parametrize(
    "frames",
    [
        [b"loose"],
        ['451-["tick",{"_placeholder":true,"num":3}]', b"x"],
        ['451-["tick",{"_placeholder":true,"num":-1}]', b"x"],
        ['451-["tick",{"_placeholder":true}]', b"x"],
    ],
)
def test_malformed_attachment_is_told_and_dropped(frames: list[str | bytes]) -> None:
    """Attachments without a place, and places without an attachment, are dropped."""

    async def send(socket: web.WebSocketResponse) -> None:
        for one in [*frames, event("tick", 1)]:
            await (socket.send_str(one) if isinstance(one, str) else socket.send_bytes(one))

    async def main(server: Server) -> None:
        async with started(server) as (_, recorder):
            await recorder.until(lambda: recorder.events)
            assert recorder.calls == ["written", "malformed", "event"]

    with joined(send) as server:
        run(main(server))


def test_attachment_of_a_payload_must_be_base64() -> None:
    """An attachment that is not base64 is dropped, and what follows it is delivered."""

    async def main(server: Server) -> None:
        async with started(server, "polling") as (_, recorder):
            await recorder.until(lambda: recorder.events)
            assert recorder.calls == ["written", "malformed", "event"]

    with http(PollingScript(f"b!!!\x1e{event('tick')}")) as server:
        run(main(server))


def test_empty_payload_is_nothing_to_speak_of() -> None:
    """An answer without a body, as of a Python server that closes a session, is not malformed."""

    async def main(server: Server) -> None:
        async with started(server, "polling") as (_, recorder):
            await recorder.until(lambda: recorder.events)
            assert recorder.calls == ["written", "event"]

    with http(PollingScript("", event("tick"))) as server:
        run(main(server))


# The tap on its own: what a real server can hardly be brought to do at the right moment.


async def held_tap(recorder: Recorder) -> FrameTap:
    """Return a tap whose client has been let in, and whose caller has not yet learnt it."""
    tap = FrameTap(recorder, "/", asyncio.get_running_loop(), lambda: 0)
    assert not tap.take_text(OPEN)
    assert not tap.take_text(CONNECT)
    return tap


async def test_tap_holds_no_more_than_it_must() -> None:
    """Before the caller knows, only so much is read; then all is delivered, and reading goes on."""
    recorder = Recorder()
    tap = await held_tap(recorder)
    count = 0
    while not tap.must_wait:
        assert tap.take_text(event("tick", count))
        count += 1
    assert 100 < count < 1000
    waiting = asyncio.create_task(tap.wait())
    await asyncio.sleep(0)
    assert recorder.calls == []
    tap.go_live()
    await asyncio.wait_for(waiting, 1)
    assert [args[0] for _, args, _ in recorder.events] == list(range(count))


async def test_tap_tells_a_loss_after_what_came_before_it() -> None:
    """A loss before the caller knows of the connection is told after the messages that preceded it."""
    recorder = Recorder()
    tap = await held_tap(recorder)
    tap.take_text('451-["tick",{"_placeholder":true,"num":0}]')
    tap.take_binary(b"x")
    assert tap.take_text("41")
    assert tap.take_text(event("too late"))
    assert not tap.is_usable
    tap.go_live()
    assert recorder.events == [("tick", [b"x"], None)]
    assert recorder.calls == ["event", "lost"]


async def test_tap_leaves_a_valid_payload_for_python_socketio() -> None:
    """What is left of a payload when the messages are taken out is a payload again."""
    recorder = Recorder()
    tap = await held_tap(recorder)
    tap.go_live()
    assert tap.take_payload(event("tick")) == "6"
    assert tap.take_payload("\x1e".join([event("tick"), "2", "beA==", "6"])) == "2\x1e6"
    assert recorder.calls == ["event", "event", "malformed"]
