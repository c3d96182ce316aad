"""Hostile and broken peers, against the whole client: the tables say what each does and what comes of it.

Each row is a server that does one wrong thing, and is right before and after it. Whatever it is, it is
counted and reported, with its category and a remedy; it is recovered from where that is possible; and nothing
is lost that was accepted before or while it happened.
"""

import asyncio
import contextlib
from collections.abc import Iterable
from enum import Enum
from typing import Any, Final

import pytest
from attrs import frozen
from hostile_client import BOTH, LIMIT, POLLING, WEBSOCKET, Client, fallback_client
from hostile_peer import EVENTS, MESSAGES, Act, FallbackPeer, Peer, silent, stream_of
from hostile_server import OPEN, Handler, event
from hostility import (
    bomb,
    drips,
    fragments,
    frames,
    hangs_up,
    lets_in_and,
    many_events,
    nested,
    never_ends,
    not_gzip,
    polled,
    raw,
    redirects,
    resets,
    results,
    says,
    writes,
)

from realtime_fsm import ConnectionStatus, ErrorCategory, RealtimeError

S = ConnectionStatus

CONNECTION = ErrorCategory.CONNECTION
AUTHENTICATION = ErrorCategory.AUTHENTICATION
PROTOCOL = ErrorCategory.PROTOCOL


BRIEF: Final = 0.3
"""For servers that never answer, seconds."""


class Recovers(Enum):
    """How the client gets over it."""

    IN_PLACE = "the connection goes on"
    RECONNECTS = "a new connection"
    BY_HAND = "FAILED, until somebody asks for another attempt"


IN_PLACE, RECONNECTS, BY_HAND = Recovers


@frozen
class Row:
    """A hostile server.

    Attributes:
        name: Of the test.
        does: What it does: in answer to the first message, or at the point that the table is about.
        category: Of the error that is reported; ``None`` where nothing is.
        metric: Which number of ``client.metrics`` counts it.
        recovers: How it is got over.
        over: By which transports.
        patience: Seconds that the client waits for an answer: not long where none comes.
        times: How often it is done: a refused token is tried once more, and aiohttp repeats a GET by itself.
    """

    name: str
    does: Act | Handler
    category: ErrorCategory | None
    metric: str
    recovers: Recovers
    over: tuple[str, ...] = BOTH
    times: int = 1
    patience: float = 10.0


def malformed(name: str, *given: str | bytes) -> Row:
    """Return the row of frames that cannot be decoded: they are dropped, and no more."""
    return Row(name, frames(*given), PROTOCOL, "malformed_frames", IN_PLACE)


def broken(name: str, *given: str | bytes, over: tuple[str, ...] = BOTH) -> Row:
    """Return the row of frames after which nothing that follows can be trusted."""
    return Row(name, frames(*given), PROTOCOL, "losses", RECONNECTS, over)


PLACEHOLDER: Final = '["tick",{"_placeholder":true,"num":0}]'

# fmt: off
IN_A_SESSION: Final = [
    malformed("event of nothing", "42"),
    malformed("event that is an object", "42{}"),
    malformed("event that is an empty array", "42[]"),
    malformed("event whose name is a number", "42[1]"),
    malformed("event whose name is null", "42[null]"),
    malformed("event of a reserved name", '42["connect"]'),
    malformed("bad JSON", '42["tick",'),
    malformed("JSON with NaN", '42["tick",NaN]'),
    malformed("something after the JSON", '42["tick"]x'),
    malformed("nesting of 100,000, open", '42["tick",' + "[" * 100_000),
    malformed("nesting of 90,000, closed", f'42["tick",{nested(90_000)}]'),
    malformed("integer of 6000 digits", '42["tick",' + "9" * 6000 + "]"),
    malformed("ack id of 200 digits on an event", "42" + "9" * 200 + '["tick"]'),
    malformed("ack id of 20 digits on an ack", "43" + "9" * 20 + "[]"),
    malformed("ack without an id", "43[]"),
    malformed("ack of nothing", "431"),
    malformed("ack that is an object", '431{"a":1}'),
    malformed("event of another namespace", '42/other,["tick"]'),
    malformed("second CONNECT", '40{"sid":"n2"}'),
    malformed("CONNECT that is an array", "40[]"),
    malformed("DISCONNECT with a payload", '41{"a":1}'),
    malformed("unknown Socket.IO type", "47"),
    malformed("no digit for a type", "4x"),
    malformed("message of nothing", "4"),
    malformed("unknown Engine.IO type", "7"),
    malformed("text of no protocol", "<html>"),
    malformed("upgrade that nobody asked for", "5"),
    malformed("second OPEN", OPEN),
    malformed("ping of 1000 bytes", "2" * 1000),
    malformed("binary event without a count", f"45{PLACEHOLDER}"),
    malformed("count on an event without binary parts", '421-["tick"]'),
    malformed("attachment that nobody announced", b"loose"),
    malformed("placeholder without an attachment", '451-["tick",{"_placeholder":true,"num":3}]', b"x"),
    malformed("placeholder of a negative number", '451-["tick",{"_placeholder":true,"num":-1}]', b"x"),
    malformed("placeholder without a number", '451-["tick",{"_placeholder":true}]', b"x"),
    Row("attachment that is not base64", frames("b!!!"), PROTOCOL, "malformed_frames", IN_PLACE, POLLING),

    broken("binary header without its attachment", f"451-{PLACEHOLDER}"),
    broken("text instead of the second attachment", f"452-{PLACEHOLDER}", b"1", event("tick", 1)),
    broken("11 attachments announced", f"4511-{PLACEHOLDER}"),
    broken("9,999,999,999 attachments announced", f"459999999999-{PLACEHOLDER}"),
    broken("a count of 100 digits", f"45{'9' * 100}-{PLACEHOLDER}"),
    broken("frame larger than the limit", event("tick", "x" * LIMIT)),
    broken("attachment larger than the limit", f"451-{PLACEHOLDER}", b"x" * (LIMIT + 1)),
    Row("payload larger than the limit", polled(never_ends), PROTOCOL, "losses", RECONNECTS, POLLING),
    Row("payload that grows by decompression", polled(bomb), PROTOCOL, "losses", RECONNECTS, POLLING),
    Row("message of fragments without an end", writes(fragments(10, 60_000)),
        PROTOCOL, "losses", RECONNECTS, WEBSOCKET),
    Row("frame of an unknown opcode", writes(b"\x83\x00"), PROTOCOL, "losses", RECONNECTS, WEBSOCKET),
    Row("compressed frame, not negotiated", writes(b"\xc1\x01x"), PROTOCOL, "losses", RECONNECTS, WEBSOCKET),
    Row("text frame that is not UTF-8", writes(b"\x81\x02\xff\xff"),
        PROTOCOL, "losses", RECONNECTS, WEBSOCKET),
    Row("payload that is not UTF-8", polled(says(b"\xff\xff")), PROTOCOL, "losses", RECONNECTS, POLLING),

    Row("1000 packets at once", many_events(1000), None, "events_received", IN_PLACE),
    Row("ack of a message never sent", frames("43777[]"), None, "dropped", IN_PLACE),

    Row("CONNECT_ERROR", frames('44{"message":"no"}'), AUTHENTICATION, "losses", RECONNECTS),
    Row("CONNECT_ERROR of the wrong shape", frames("44[[]]"), AUTHENTICATION, "losses", RECONNECTS),
    Row("CONNECT_ERROR, no such namespace", frames('44{"message":"Invalid namespace"}'),
        PROTOCOL, "losses", RECONNECTS),
    Row("DISCONNECT", frames("41"), CONNECTION, "losses", RECONNECTS),
    Row("CLOSE of Engine.IO", frames("1"), CONNECTION, "losses", RECONNECTS),
    Row("reset", resets, CONNECTION, "losses", RECONNECTS, WEBSOCKET),
    Row("close frame 1011", hangs_up(1011, "out of order"), CONNECTION, "losses", RECONNECTS, WEBSOCKET),
    Row("close frame 1009, our message too large", hangs_up(1009),
        CONNECTION, "losses", RECONNECTS, WEBSOCKET),
    Row("poll redirected", polled(redirects()), PROTOCOL, "losses", RECONNECTS, POLLING),
    Row("poll refused with 401", polled(says("no", status=401)),
        AUTHENTICATION, "losses", RECONNECTS, POLLING),
    Row("poll answered with 503", polled(says("no", status=503)), CONNECTION, "losses", RECONNECTS, POLLING),
    Row("poll answered with a page", polled(says("<html>", kind="text/html")),
        PROTOCOL, "malformed_frames", IN_PLACE, POLLING),
    Row("poll cut short", polled(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n42[")),
        CONNECTION, "losses", RECONNECTS, POLLING),
    Row("poll answered with something else", polled(raw(b"SSH-2.0\r\n")),
        CONNECTION, "losses", RECONNECTS, POLLING),
]

INSTEAD_OF_LETTING_IN: Final = [
    Row("DISCONNECT in one batch with CONNECT", lets_in_and("41"),
        CONNECTION, "failed_connections", RECONNECTS),
    Row("CLOSE in one batch with CONNECT", lets_in_and("1"),
        CONNECTION, "failed_connections", RECONNECTS),
    Row("CONNECT_ERROR in one batch with CONNECT", lets_in_and('44{"message":"no"}'),
        AUTHENTICATION, "failed_connections", BY_HAND, times=2),
    Row("events for ever, without CONNECT", frames(*[event("tick", 1)] * 1100),
        PROTOCOL, "failed_connections", RECONNECTS),
    Row("CONNECT that cannot be decoded", frames("40{"),
        CONNECTION, "failed_connections", RECONNECTS, patience=BRIEF),
    Row("CONNECT of another namespace", frames('40/other,{"sid":"n"}'),
        CONNECTION, "failed_connections", RECONNECTS, patience=BRIEF),
    Row("CONNECT_ERROR", frames('44{"message":"no"}'),
        AUTHENTICATION, "failed_connections", BY_HAND, times=2),
    Row("CONNECT_ERROR that is nested deeply", frames("44" + nested(50_000)),
        CONNECTION, "failed_connections", RECONNECTS, patience=BRIEF),
    Row("silence", frames(), CONNECTION, "failed_connections", RECONNECTS, patience=BRIEF),
]

INSTEAD_OF_A_SESSION: Final = [
    Row("redirect", redirects(), PROTOCOL, "failed_connections", BY_HAND),
    Row("permanent redirect", redirects(308), PROTOCOL, "failed_connections", BY_HAND),
    Row("page", says("<html>", kind="text/html"), PROTOCOL, "failed_connections", RECONNECTS),
    Row("404", says("no", status=404), PROTOCOL, "failed_connections", RECONNECTS),
    Row("503", says("no", status=503), CONNECTION, "failed_connections", RECONNECTS),
    Row("401", says("no", status=401), AUTHENTICATION, "failed_connections", BY_HAND, times=2),
    Row("body without an end", never_ends, PROTOCOL, "failed_connections", RECONNECTS),
    Row("byte at a time", drips, PROTOCOL, "failed_connections", RECONNECTS, WEBSOCKET, patience=BRIEF),
    Row("byte at a time", drips, CONNECTION, "failed_connections", RECONNECTS, POLLING, patience=BRIEF),
    Row("silence", silent, CONNECTION, "failed_connections", RECONNECTS, patience=BRIEF),
    Row("nothing", raw(b""), PROTOCOL, "failed_connections", RECONNECTS, times=2),
    Row("something that is not HTTP", raw(b"SSH-2.0\r\n"), PROTOCOL, "failed_connections", RECONNECTS),
    Row("OPEN that cannot be decoded", says("0{"), PROTOCOL, "failed_connections", RECONNECTS),
    Row("OPEN of 50,000 levels", says("0" + nested(50_000)), PROTOCOL, "failed_connections", RECONNECTS),
]

INSTEAD_OF_TAKING_A_MESSAGE: Final = [
    Row("413", says("no", status=413), CONNECTION, "losses", RECONNECTS, POLLING),
    Row("400", says("no", status=400), CONNECTION, "losses", RECONNECTS, POLLING),
    Row("401", says("no", status=401), AUTHENTICATION, "losses", RECONNECTS, POLLING),
    Row("500", says("no", status=500), CONNECTION, "losses", RECONNECTS, POLLING),
    Row("redirect", redirects(307), PROTOCOL, "losses", RECONNECTS, POLLING),
    Row("hangs up", raw(b""), CONNECTION, "losses", RECONNECTS, POLLING),
    Row("something that is not HTTP", raw(b"SSH-2.0\r\n"), CONNECTION, "losses", RECONNECTS, POLLING),
    Row("body without an end", never_ends, PROTOCOL, "losses", RECONNECTS, POLLING),
    Row("byte at a time", drips, CONNECTION, "losses", RECONNECTS, POLLING, patience=BRIEF),
    Row("silence", silent, CONNECTION, "losses", RECONNECTS, POLLING, patience=BRIEF),
]

POLL_IN_FALLBACK: Final = [
    Row("body without an end", never_ends, PROTOCOL, "failed_polls", IN_PLACE),
    Row("gzip bomb", bomb, PROTOCOL, "failed_polls", IN_PLACE),
    Row("gzip that is none", not_gzip, CONNECTION, "failed_polls", IN_PLACE),
    Row("byte at a time", drips, CONNECTION, "failed_polls", IN_PLACE, patience=BRIEF),
    Row("silence", silent, CONNECTION, "failed_polls", IN_PLACE, patience=BRIEF),
    Row("cut short", raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"),
        CONNECTION, "failed_polls", IN_PLACE),
    Row("chunks cut short", raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{"),
        CONNECTION, "failed_polls", IN_PLACE),
    Row("hangs up", raw(b""), CONNECTION, "failed_polls", IN_PLACE, times=2),
    Row("not HTTP", raw(b"SSH-2.0\r\n"), CONNECTION, "failed_polls", IN_PLACE),
    Row("header of 100 kB", raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"),
        CONNECTION, "failed_polls", IN_PLACE),
    Row("page", says("<html>", kind="text/html"), PROTOCOL, "failed_polls", IN_PLACE),
    Row("not JSON", says("{"), PROTOCOL, "failed_polls", IN_PLACE),
    Row("not UTF-8", says(b'"\xff"'), PROTOCOL, "failed_polls", IN_PLACE),
    Row("NaN", says("NaN"), PROTOCOL, "failed_polls", IN_PLACE),
    Row("integer of 6000 digits", says("9" * 6000), PROTOCOL, "failed_polls", IN_PLACE),
    Row("nesting of 50,000", says(nested(50_000)), PROTOCOL, "failed_polls", IN_PLACE),
    Row("no content", says("", status=204), PROTOCOL, "failed_polls", IN_PLACE),
    Row("JSON, but a list", says([]), PROTOCOL, "failed_polls", IN_PLACE),
    Row("JSON, but no channels", says({}), PROTOCOL, "failed_polls", IN_PLACE),
    Row("channels that are a list", says({"channels": []}), PROTOCOL, "failed_polls", IN_PLACE),
    Row("events that are a number", says(stream_of(1, events=5)), PROTOCOL, "failed_polls", IN_PLACE),
    Row("event that is null", says(stream_of(1, events=[None])), PROTOCOL, "failed_polls", IN_PLACE),
    Row("event whose name is a number", says(stream_of(1, events=[{"event": 5}])),
        PROTOCOL, "failed_polls", IN_PLACE),
    Row("right, but called a page", says(stream_of(3), kind="text/html"), None, "events_received", IN_PLACE),
    Row("redirect", redirects(), PROTOCOL, "failed_polls", IN_PLACE),
    Row("404", says("no", status=404), PROTOCOL, "failed_polls", IN_PLACE),
    Row("500", says("no", status=500), CONNECTION, "failed_polls", IN_PLACE),
]

PUBLISH_IN_FALLBACK: Final = [
    Row("body without an end", never_ends, PROTOCOL, "failed_publishes", IN_PLACE),
    Row("gzip bomb", bomb, PROTOCOL, "failed_publishes", IN_PLACE),
    Row("byte at a time", drips, CONNECTION, "failed_publishes", IN_PLACE, patience=BRIEF),
    Row("cut short", raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"),
        CONNECTION, "failed_publishes", IN_PLACE),
    Row("hangs up", raw(b""), CONNECTION, "failed_publishes", IN_PLACE),
    Row("not JSON", says("<html>"), PROTOCOL, "failed_publishes", IN_PLACE),
    Row("nesting of 50,000", says(nested(50_000)), PROTOCOL, "failed_publishes", IN_PLACE),
    Row("no content", says("", status=204), PROTOCOL, "failed_publishes", IN_PLACE),
    Row("JSON, but no results", says({}), PROTOCOL, "failed_publishes", IN_PLACE),
    Row("results that are a number", says({"results": 5}), PROTOCOL, "failed_publishes", IN_PLACE),
    Row("results of other messages", results({"message_id": "other", "ok": True}),
        PROTOCOL, "failed_publishes", IN_PLACE),
    Row("results that are null", results(None, None), PROTOCOL, "failed_publishes", IN_PLACE),
    Row("redirect", redirects(307), PROTOCOL, "failed_publishes", IN_PLACE),
    Row("413", says("no", status=413), PROTOCOL, "failed_publishes", IN_PLACE),
    Row("500", says("no", status=500), CONNECTION, "failed_publishes", IN_PLACE),
]
# fmt: on


def cases(rows: Iterable[Row], *, by_transport: bool = True) -> Any:
    """Return the decorator that runs a test for each row, over each of its transports."""
    if not by_transport:
        return pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in rows])
    return pytest.mark.parametrize(
        ("row", "over"),
        [pytest.param(row, over, id=f"{row.name}, {over}") for row in rows for over in row.over],
    )


def check(client: Client, row: Row) -> None:
    """Check that what a row says was counted and reported; or that nothing was, where it says so."""
    counted = getattr(client.metrics, row.metric)
    assert counted, f"{row.metric} counts nothing"
    assert client.metrics.activity_crashes == 0
    assert client.metrics.handler_errors == 0
    told = [issue for issue in client.issues if issue.error.category is row.category]
    if row.category is None:
        assert client.issues == []
        return
    assert told, client.issues
    assert all(issue.error.remedy and issue.error.remedy in issue.message for issue in told)
    assert client.recovery.errors[row.category] >= 1


async def survive(peer: Peer, row: Row, over: str) -> None:
    """Drive a client through a row, and check what comes of it."""
    with peer.serving() as server:
        client = Client(server.url, transports=(over,), connection_timeout=row.patience)
        before = await client.emit("before", 1)
        try:
            with contextlib.suppress(RealtimeError):
                await client.connect()
            during = await client.emit("during", 2)
            if row.recovers is BY_HAND:
                await client.wait_for(S.FAILED, timeout=20)
                assert (before.is_settled, during.is_settled) == (False, False)
                assert client.retry_now()
            async with asyncio.timeout(20):
                await asyncio.gather(before, during)
            await client.wait_for(timeout=20)
            await asyncio.sleep(0)  # issues are told in the loop's next turn
            check(client, row)
            assert {name for _, name in peer.received} >= {"before", "during"}
            assert (peer.sessions == 1) is (row.recovers is IN_PLACE or peer.at_dial is not None)
        finally:
            assert await client.disconnect() == ()


@cases(IN_A_SESSION)
async def test_hostile_server_in_a_session(row: Row, over: str) -> None:
    """Whatever comes in a session is counted and reported, and costs no message."""
    await survive(Peer(act=row.does, times=row.times), row, over)


@cases(INSTEAD_OF_LETTING_IN)
async def test_hostile_server_instead_of_letting_the_client_in(row: Row, over: str) -> None:
    """Whatever comes instead of the acceptance is counted and reported, and costs no message."""
    await survive(Peer(at_join=row.does, times=row.times), row, over)


@cases(INSTEAD_OF_A_SESSION)
async def test_hostile_server_instead_of_a_session(row: Row, over: str) -> None:
    """Whatever answers the dial is counted and reported, and costs no message."""
    await survive(Peer(at_dial=row.does, times=row.times), row, over)


@cases(INSTEAD_OF_TAKING_A_MESSAGE)
async def test_hostile_server_instead_of_taking_a_message(row: Row, over: str) -> None:
    """Whatever answers a request with messages is counted and reported, and they are sent again."""
    await survive(Peer(at_message=row.does, times=row.times), row, over)


async def survive_fallback(peer: FallbackPeer, row: Row) -> None:
    """Let a client fall back to a hostile HTTP side, and check what comes of it."""
    with peer.serving() as server:
        client = fallback_client(server.url, request_timeout=row.patience)
        ticks: list[int] = []
        client.on("tick", ticks.append)
        await client.subscribe(["ticks"])
        before = await client.emit("before", 1)
        try:
            await client.connect()
            await client.wait_for(S.FALLBACK, timeout=20)
            client.issues.clear()  # the one of the socket, which is down
            during = await client.emit("during", 2)
            async with asyncio.timeout(20):
                assert await asyncio.gather(before, during) == [1, 1]
                while len(ticks) < peer.last:  # noqa: ASYNC110 - of the handlers
                    await asyncio.sleep(0.005)
            assert client.status is S.FALLBACK
            check(client, row)
            assert ticks == list(range(1, peer.last + 1))
            assert set(peer.received) == {before.message_id, during.message_id}
        finally:
            assert await client.disconnect() == ()


@cases(POLL_IN_FALLBACK, by_transport=False)
async def test_hostile_answer_to_a_poll_in_fallback(row: Row) -> None:
    """Whatever answers a poll is counted and reported, and the next answer brings all that it did not."""
    await survive_fallback(FallbackPeer(EVENTS, row.does, times=row.times), row)


@cases(PUBLISH_IN_FALLBACK, by_transport=False)
async def test_hostile_answer_to_messages_in_fallback(row: Row) -> None:
    """Whatever answers published messages is counted and reported, and the messages are published again."""
    await survive_fallback(FallbackPeer(MESSAGES, row.does, times=row.times), row)
