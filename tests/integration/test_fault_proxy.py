"""The fault proxy makes exactly the fault that it was told to make."""

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from attrs import define, field

from realtime_fsm.testing.proxy.faults import Direction
from realtime_fsm.testing.proxy.proxy import FaultProxy, is_request_for

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
SOON = 20.0
NOT_SOON = 0.05
BLOCKED = b"GET /socket.io/?EIO=4 HTTP/1.1\r\n"
FREE = b"GET /realtime/events HTTP/1.1\r\n"


@define(eq=False)
class EchoServer:
    """Echoes what it gets; notes how its connections ended."""

    reply_at_end: bytes = b""
    reads: bool = True
    port: int = 0
    ends: "asyncio.Queue[str]" = field(factory=asyncio.Queue)
    connections: "asyncio.Queue[Connection]" = field(factory=asyncio.Queue)
    handlers: "set[asyncio.Task[None]]" = field(factory=set)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["EchoServer"]:
        """Serve; leaving it ends every connection."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for handler in self.handlers:
                handler.cancel()
            if self.handlers:
                await asyncio.wait(self.handlers, timeout=SOON)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.put_nowait((reader, writer))
        task = asyncio.create_task(self._echo(reader, writer))
        self.handlers.add(task)
        task.add_done_callback(self.handlers.discard)

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not self.reads:
                await asyncio.sleep(SOON)
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            self.ends.put_nowait("end")
            writer.write(self.reply_at_end)
        except OSError as error:
            self.ends.put_nowait(type(error).__name__)
        finally:
            writer.close()


@asynccontextmanager
async def proxied(server: EchoServer | None = None) -> AsyncIterator[tuple[FaultProxy, EchoServer]]:
    """Start an echoing server, and a proxy in front of it."""
    async with (server or EchoServer()).running() as running, FaultProxy("127.0.0.1", running.port) as proxy:
        yield proxy, running


@asynccontextmanager
async def connected(proxy: FaultProxy) -> AsyncIterator[Connection]:
    """Connect to the proxy."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def said(connection: Connection, data: bytes) -> bytes:
    """Send something and return what comes back."""
    reader, writer = connection
    writer.write(data)
    async with asyncio.timeout(SOON):
        return await reader.readexactly(len(data))


async def ended(connection: Connection) -> bytes:
    """Return what is still to come, up to the end of the connection."""
    async with asyncio.timeout(SOON):
        return await connection[0].read()


async def is_reset(connection: Connection) -> bool:
    """Tell whether the connection ends by a reset, and not in an orderly way."""
    try:
        await ended(connection)
    except ConnectionResetError:
        return True
    return False


async def next_end(server: EchoServer) -> str:
    """Return how the server's next connection ended."""
    return await asyncio.wait_for(server.ends.get(), SOON)


async def is_quiet(connection: Connection) -> bool:
    """Tell whether nothing comes for a while, and the connection does not end."""
    try:
        await asyncio.wait_for(connection[0].read(1), NOT_SOON)
    except TimeoutError:
        return True
    return False


async def until_empty(proxy: FaultProxy) -> None:
    """Wait until the proxy has no connection any more."""
    async with asyncio.timeout(SOON):
        while tasks := set(proxy._connections):
            await asyncio.wait(tasks)
            await asyncio.sleep(0)


async def test_fault_proxy_forwards_both_ways_and_counts() -> None:
    """Without a fault, what goes in comes out, and is counted in bytes."""
    async with proxied() as (proxy, _), connected(proxy) as connection:
        assert await said(connection, b"hello") == b"hello"
        counters = proxy.counters
        assert (counters.accepted, counters.refused, counters.reset) == (1, 0, 0)
        assert (counters.bytes_up, counters.bytes_down) == (5, 5)
        assert proxy.url == f"http://127.0.0.1:{proxy.port}"


async def test_fault_proxy_forwards_much_unchanged() -> None:
    """Megabytes pass in order and unchanged."""
    data = random.Random(1).randbytes(3_000_000)  # noqa: S311 - any bytes will do
    async with proxied() as (proxy, _), connected(proxy) as connection:
        assert await said(connection, data) == data


async def test_fault_proxy_lets_the_server_speak_first() -> None:
    """The server is connected to before the client says anything."""
    async with proxied() as (proxy, server), connected(proxy) as (reader, _):
        _, writer = await asyncio.wait_for(server.connections.get(), SOON)
        writer.write(b"welcome")
        async with asyncio.timeout(SOON):
            assert await reader.readexactly(7) == b"welcome"


async def test_fault_proxy_passes_on_an_end_of_one_direction() -> None:
    """A client that has said all it has to say still gets the rest of the answer."""
    async with proxied(EchoServer(reply_at_end=b"bye")) as (proxy, server):
        async with connected(proxy) as connection:
            connection[1].write(b"hello")
            connection[1].write_eof()
            assert await ended(connection) == b"hellobye"
            assert await next_end(server) == "end"
        await until_empty(proxy)


async def test_fault_proxy_passes_on_a_reset() -> None:
    """A reset by either side reaches the other as a reset."""
    async with proxied() as (proxy, server):
        async with connected(proxy) as connection:
            await said(connection, b"hello")
            _abort(connection)
            assert await next_end(server) == "ConnectionResetError"
        async with connected(proxy) as connection:
            await said(connection, b"hello")
            server.connections.get_nowait()
            _abort(server.connections.get_nowait())
            assert await is_reset(connection)
        await until_empty(proxy)
        assert proxy.counters.reset == 0  # it was not the proxy's doing


def _abort(connection: Connection) -> None:
    """Reset a connection from this side."""
    linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
    connection[1].get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    connection[1].transport.abort()


async def test_fault_proxy_reset_is_seen_as_a_reset_by_both_sides() -> None:
    """A reset reaches client and server as RST, on all connections, also in a black hole."""
    async with proxied() as (proxy, server), connected(proxy) as one, connected(proxy) as other:
        await said(one, b"hello")
        await said(other, b"hello")
        proxy.black_hole(True)
        other[1].write(b"held")
        await asyncio.sleep(NOT_SOON)
        proxy.reset_peer()
        proxy.reset_peer()
        assert await is_reset(one)
        assert await is_reset(other)
        assert [await next_end(server), await next_end(server)] == ["ConnectionResetError"] * 2
        assert proxy.counters.reset == 2
        await until_empty(proxy)


@pytest.mark.parametrize("holed", [False, True])
async def test_fault_proxy_cut_is_seen_as_an_orderly_end_by_both_sides(holed: bool) -> None:
    """A cut reaches client and server as end of file, even with data under way that nobody has read."""
    async with proxied() as (proxy, server):
        async with connected(proxy) as connection:
            await said(connection, b"hello")
            if holed:
                proxy.black_hole(True)
                connection[1].write(b"x" * 10_000_000)  # more than the proxy takes
                await asyncio.sleep(NOT_SOON)
            proxy.cut()
            assert await ended(connection) == b""
            assert await next_end(server) == "end"
        await until_empty(proxy)


async def test_fault_proxy_black_hole_holds_and_gives_back() -> None:
    """A black hole closes nothing and forwards nothing; healed, what it held flows, in order."""
    async with proxied() as (proxy, _), connected(proxy) as connection:
        await said(connection, b"hello")
        proxy.black_hole(True)
        connection[1].write(b"one")
        assert await is_quiet(connection)
        connection[1].write(b"two")
        proxy.black_hole(False)
        async with asyncio.timeout(SOON):
            assert await connection[0].readexactly(6) == b"onetwo"


async def test_fault_proxy_black_hole_still_accepts() -> None:
    """New connections are accepted in a black hole, stay silent, and work once it is healed."""
    async with proxied() as (proxy, server):
        proxy.black_hole(True)
        async with connected(proxy) as connection:
            connection[1].write(b"hello")
            assert await is_quiet(connection)
            assert server.connections.empty()
            proxy.black_hole(False)
            async with asyncio.timeout(SOON):
                assert await connection[0].readexactly(5) == b"hello"


@pytest.mark.parametrize("how", ["end", "reset"])
async def test_fault_proxy_black_hole_hides_that_a_side_has_gone(how: str) -> None:
    """In a black hole the other side learns neither of an end nor of a reset, until it is healed."""
    async with proxied() as (proxy, server), connected(proxy) as connection:
        await said(connection, b"hello")
        proxy.black_hole(True)
        _, writer = server.connections.get_nowait()
        if how == "end":
            writer.write_eof()
        else:
            _abort((connection[0], writer))
        assert await is_quiet(connection)
        proxy.black_hole(False)
        assert await is_reset(connection) == (how == "reset")


async def test_fault_proxy_holds_only_so_much() -> None:
    """In a black hole, or before a server that does not read, the sender is held back after a while."""
    for holed in (True, False):
        async with proxied(EchoServer(reads=False)) as (proxy, _), connected(proxy) as (_, writer):
            proxy.black_hole(holed)
            writer.write(b"x" * 30_000_000)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(writer.drain(), 0.2)
            assert writer.transport.get_write_buffer_size() > 10_000_000
            writer.transport.abort()


async def test_fault_proxy_refuses_and_takes_the_same_port_again() -> None:
    """A refusing proxy is as if nothing listened: old connections live, and the port stays its own."""
    async with proxied() as (proxy, _), connected(proxy) as old:
        assert await said(old, b"hello") == b"hello"
        port = proxy.port
        for _ in range(3):
            proxy.refuse(True)
            proxy.refuse(True)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)
            with socket.socket() as thief, pytest.raises(OSError, match="in use"):
                thief.bind(("127.0.0.1", port))
            proxy.refuse(False)
            proxy.refuse(False)
            assert proxy.port == port
            async with connected(proxy) as fresh:
                assert await said(fresh, b"hello") == b"hello"
        assert await said(old, b"hello") == b"hello"
        proxy.refuse(True)  # and is left so


async def test_fault_proxy_blocks_by_the_path_of_the_first_request() -> None:
    """A blocked path is reset, on old connections and new ones; other paths pass."""
    async with proxied() as (proxy, _), connected(proxy) as old, connected(proxy) as other:
        assert await said(old, BLOCKED) == BLOCKED
        assert await said(other, FREE) == FREE
        proxy.block("/socket.io")
        assert await is_reset(old)
        assert await said(other, FREE) == FREE
        assert await said(other, BLOCKED) == BLOCKED  # only the first request counts
        async with connected(proxy) as fresh:
            fresh[1].write(BLOCKED)
            assert await is_reset(fresh)
        assert proxy.counters.reset == 2
        proxy.block(None)
        async with connected(proxy) as fresh:
            assert await said(fresh, BLOCKED) == BLOCKED


async def test_fault_proxy_block_waits_until_the_path_is_clear() -> None:
    """A request line that comes in pieces is judged as a whole; the server sees nothing of a blocked one."""
    async with proxied() as (proxy, server):
        proxy.block("/socket.io")
        async with connected(proxy) as connection:
            for piece in (b"G", b"ET", b" /soc", b"ket.i"):
                connection[1].write(piece)
                assert await is_quiet(connection)
            connection[1].write(b"o/ HTTP/1.1\r\n")
            assert await is_reset(connection)
            assert server.connections.empty()
        async with connected(proxy) as connection:
            connection[1].write(b"GET /soc")
            assert await is_quiet(connection)
            connection[1].write(b"ks")
            async with asyncio.timeout(SOON):
                assert await connection[0].readexactly(10) == b"GET /socks"
        async with connected(proxy) as connection:
            connection[1].write(b"GET /soc")
            connection[1].write_eof()
            assert await ended(connection) == b"GET /soc"
        async with connected(proxy) as connection:
            _abort(connection)
        await until_empty(proxy)


@pytest.mark.parametrize(
    ("head", "verdict"),
    [
        (b"", None),
        (b"POST", None),
        (b"GET ", None),
        (b"GET /", None),
        (b"GET /a/", None),
        (b"GET /a/b", True),
        (b"GET /a/bc?x HTTP/1.1\r\n", True),
        (b"GET /a HTTP/1.1\r\n", False),
        (b"GET /a/\r\n", False),
        (b"GET /c", False),
        (b"GET\r\n", False),
        (b"\r\nGET /a/b", False),
        (b"hello", False),
        (b"\x16\x03\x01", False),
        (b"A" * 17, False),
    ],
)
def test_fault_proxy_judges_a_beginning_as_soon_as_it_can(head: bytes, verdict: bool | None) -> None:
    """A first line is for the path, is not, or cannot be told yet; what is not HTTP is for no path."""
    assert is_request_for("/a/b", head) is verdict


async def test_fault_proxy_latency_delays_without_slowing() -> None:
    """Everything is late by the latency each way, many pieces as much as one, and in order."""
    async with proxied() as (proxy, _), connected(proxy) as connection:
        await said(connection, b"hello")
        proxy.latency = 0.05
        loop = asyncio.get_running_loop()
        began = loop.time()
        for n in range(200):
            connection[1].write(bytes([n]) * 10)
            await asyncio.sleep(0.001)
        async with asyncio.timeout(SOON):
            data = await connection[0].readexactly(2000)
        assert data == b"".join(bytes([n]) * 10 for n in range(200))
        assert 0.1 <= loop.time() - began < 10.0  # one after the other would take 20 s


async def test_fault_proxy_jitter_comes_from_its_source_and_keeps_the_order() -> None:
    """Jitter is drawn from the given source between nothing and its maximum, and reorders nothing."""
    drawn = random.Random(3)  # noqa: S311 - a test
    async with (
        EchoServer().running() as server,
        FaultProxy("127.0.0.1", server.port, random=random.Random(3)) as proxy,  # noqa: S311 - a test
    ):
        proxy.latency, proxy.jitter = 1.0, 0.5
        assert [proxy.delay() for _ in range(9)] == [1.0 + drawn.uniform(0.0, 0.5) for _ in range(9)]
        proxy.latency, proxy.jitter = 0.0, 0.02
        async with connected(proxy) as connection:
            for n in range(50):
                connection[1].write(bytes([n]))
                await asyncio.sleep(0)
            async with asyncio.timeout(SOON):
                assert await connection[0].readexactly(50) == bytes(range(50))


async def test_fault_proxy_bandwidth_limits_the_rate() -> None:
    """Data takes at least its size divided by the bandwidth; lifted, the rest flows at once."""
    async with proxied() as (proxy, _), connected(proxy) as connection:
        proxy.bandwidth = 100_000.0
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await said(connection, b"x" * 20_000) == b"x" * 20_000
        assert loop.time() - began >= 0.2
        connection[1].write(b"x" * 3_000_000)  # a minute's worth
        await asyncio.sleep(NOT_SOON)
        proxy.bandwidth = None
        async with asyncio.timeout(SOON):
            await connection[0].readexactly(3_000_000)


async def test_fault_proxy_follows_its_server_to_another_port() -> None:
    """New connections go to the new target; without a server they are reset and counted as refused."""
    async with proxied() as (proxy, server):
        async with connected(proxy) as old:
            await said(old, b"hello")
            with socket.socket() as nobody:
                nobody.bind(("127.0.0.1", 0))
                proxy.set_target("127.0.0.1", nobody.getsockname()[1])
                async with connected(proxy) as fresh:
                    assert await is_reset(fresh)
            assert proxy.counters.refused == 1
            async with EchoServer().running() as other:
                proxy.set_target("127.0.0.1", other.port)
                async with connected(proxy) as fresh:
                    assert await said(fresh, b"hello") == b"hello"
                    assert other.connections.qsize() == 1
            assert await said(old, b"hello") == b"hello"
        assert server.connections.qsize() == 1


@pytest.mark.parametrize("holed", [False, True])
async def test_fault_proxy_end_leaves_no_connection(holed: bool) -> None:
    """Leaving the proxy ends every connection, also one that a black hole holds or that is just coming in."""
    async with EchoServer().running() as server:
        async with FaultProxy("127.0.0.1", server.port) as proxy:
            old = await asyncio.open_connection("127.0.0.1", proxy.port)
            await said(old, b"hello")
            proxy.black_hole(holed)
            old[1].write(b"held")
            await asyncio.sleep(NOT_SOON)
            coming = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert proxy.connection_count == 0
        assert await is_reset(coming)
        old[1].close()
        coming[1].close()
        await next_end(server)


async def test_fault_proxy_end_and_refusal_catch_connections_at_the_door() -> None:
    """A connection that comes in while the proxy stops listening is reset, however far it has come."""
    async with EchoServer().running() as server:
        for turns in range(8):
            async with FaultProxy("127.0.0.1", server.port) as proxy:
                with socket.create_connection(("127.0.0.1", proxy.port)) as raw:
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    await proxy.__aexit__()
                    for _ in range(8):
                        await asyncio.sleep(0)
                    assert proxy.connection_count == 0
                    raw.settimeout(SOON)
                    with pytest.raises(ConnectionResetError):
                        raw.recv(1)


async def test_fault_proxy_end_is_bounded() -> None:
    """Leaving the proxy while a server hangs with a full buffer takes no time to speak of."""
    loop = asyncio.get_running_loop()
    async with EchoServer(reads=False).running() as server:
        async with FaultProxy("127.0.0.1", server.port) as proxy, connected(proxy) as (_, writer):
            writer.write(b"x" * 10_000_000)
            await asyncio.sleep(NOT_SOON)
            writer.transport.abort()
            began = loop.time()
        assert loop.time() - began < SOON


async def segments(connection: Connection, size: int) -> list[bytes]:
    """Return so many bytes as they came in."""
    pieces: list[bytes] = []
    async with asyncio.timeout(SOON):
        while sum(map(len, pieces)) < size:
            pieces.append(await connection[0].read(size))
    return pieces


async def accepted(server: EchoServer) -> Connection:
    """Return the server's side of its next connection."""
    return await asyncio.wait_for(server.connections.get(), SOON)


async def test_fault_proxy_slicer_cuts_into_segments_and_changes_nothing() -> None:
    """Data comes in segments of the asked size, in order, also on old connections; ended, it is whole."""
    async with proxied() as (proxy, _), connected(proxy) as connection:
        assert await said(connection, b"hello") == b"hello"
        proxy.slicer(4, size_variation=2, delay=0.003, direction=Direction.DOWN)
        connection[1].write(bytes(range(60)))
        pieces = await segments(connection, 60)
        assert b"".join(pieces) == bytes(range(60))
        assert len(pieces) >= 5  # of 10 at least: a busy receiver gets two at once
        proxy.slicer(None)
        assert len(await _echoed_in(connection, b"x" * 60)) == 1


async def _echoed_in(connection: Connection, data: bytes) -> list[bytes]:
    connection[1].write(data)
    return await segments(connection, len(data))


async def test_fault_proxy_slicer_delays_after_each_segment() -> None:
    """A slicer's delay adds up over the segments of its direction alone, and its sizes vary as it is told."""
    async with proxied() as (proxy, _), connected(proxy) as connection:
        proxy.slicer(3, delay=0.01, direction=Direction.UP)
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await said(connection, b"x" * 30) == b"x" * 30
        assert loop.time() - began >= 0.09
        proxy.slicer(3, size_variation=2)
        slicer = proxy.faults[Direction.DOWN].slicer
        assert slicer is not None
        assert {slicer.size(proxy.random) for _ in range(200)} == {1, 2, 3, 4, 5}
        for size, variation, delay in ((0, 0, 0.0), (3, 3, 0.0), (3, 0, -1.0)):
            with pytest.raises(ValueError, match="slicer"):
                proxy.slicer(size, size_variation=variation, delay=delay)


@pytest.mark.parametrize("direction", Direction)
async def test_fault_proxy_limit_data_ends_after_exactly_so_many_bytes(direction: Direction) -> None:
    """Exactly the allowed bytes arrive, counted anew on each connection; then both sides see an end."""
    async with proxied(EchoServer(reads=False)) as (proxy, server), connected(proxy) as old:
        first = await accepted(server)
        old[1].write(b"before")
        async with asyncio.timeout(SOON):
            await first[0].readexactly(6)
        proxy.limit_data(7, direction=direction)
        async with connected(proxy) as fresh:
            for client, there in ((old, first), (fresh, await accepted(server))):
                sender, receiver = (client, there) if direction is Direction.UP else (there, client)
                receiver[1].write(b"is not counted")
                sender[1].write(b"0123456789")
                assert await ended(receiver) == b"0123456"
                assert not await is_reset(sender)
        proxy.limit_data(None)
        async with connected(proxy) as free:
            free[1].write(b"0123456789")
            async with asyncio.timeout(SOON):
                assert await (await accepted(server))[0].readexactly(10) == b"0123456789"
        assert proxy.counters.reset == 0


async def test_fault_proxy_limit_data_can_let_nothing_pass_or_be_lifted() -> None:
    """With 0 the next byte ends the connection and does not pass; a lifted limit has no memory."""
    async with proxied() as (proxy, _), connected(proxy) as one, connected(proxy) as other:
        proxy.limit_data(6)
        assert await said(one, b"01234") == b"01234"
        proxy.limit_data(None)
        assert await said(one, b"01234") == b"01234"
        proxy.limit_data(6)
        assert await said(one, b"01234") == b"01234"
        proxy.limit_data(0)
        assert await is_quiet(other)
        other[1].write(b"x")
        assert await ended(other) == b""
        with pytest.raises(ValueError, match="negative"):
            proxy.limit_data(-1)


@pytest.mark.parametrize("direction", [None, *Direction])
async def test_fault_proxy_timeout_holds_all_and_then_ends(direction: Direction | None) -> None:
    """With a timeout nothing of its direction passes, and each connection ends after the time."""
    async with proxied() as (proxy, server), connected(proxy) as old:
        assert await said(old, b"hello") == b"hello"
        loop = asyncio.get_running_loop()
        proxy.timeout(0.15, direction=direction)
        async with connected(proxy) as fresh:
            began = loop.time()
            for connection in (old, fresh):
                connection[1].write(b"lost")
            for connection in (old, fresh):
                assert await ended(connection) == b""
                assert await next_end(server) == "end"
            assert 0.1 <= loop.time() - began < SOON
        assert proxy.counters.bytes_up == (13 if direction is Direction.DOWN else 5)
        assert proxy.counters.reset == 0


async def test_fault_proxy_timeout_that_is_ended_before_has_no_effect() -> None:
    """Ended in time, what was held flows, and the connection outlives the time that it had."""
    async with proxied() as (proxy, _), connected(proxy) as connection:
        proxy.timeout(0.1)
        connection[1].write(b"held")
        proxy.timeout(None)
        async with asyncio.timeout(SOON):
            assert await connection[0].readexactly(4) == b"held"
        proxy.timeout(0.1, direction=Direction.DOWN)
        proxy.timeout(30.0)  # begins anew
        assert await is_quiet(connection)
        assert await is_quiet(connection)
        assert await is_quiet(connection)
        proxy.timeout(None)
        assert await said(connection, b"hello") == b"hello"


@pytest.mark.parametrize("how", ["end", "reset"])
async def test_fault_proxy_slow_close_delays_the_end_alone(how: str) -> None:
    """The end of one side reaches the other late, data before it does not."""
    async with proxied() as (proxy, server), connected(proxy) as connection:
        assert await said(connection, b"hello") == b"hello"
        proxy.slow_close(3 * SOON, direction=Direction.DOWN)
        _, writer = await accepted(server)
        writer.write(b"last")
        async with asyncio.timeout(SOON):
            assert await connection[0].readexactly(4) == b"last"
        proxy.slow_close(0.2, direction=Direction.DOWN)
        loop = asyncio.get_running_loop()
        began = loop.time()
        if how == "end":
            writer.write_eof()
        else:
            _abort((connection[0], writer))
        assert await is_reset(connection) == (how == "reset")
        assert loop.time() - began >= 0.2


async def test_fault_proxy_slow_close_of_one_direction_leaves_the_other() -> None:
    """A slow close in one direction does not delay the end of the other; ended, nothing is late."""
    async with proxied() as (proxy, server):
        loop = asyncio.get_running_loop()
        for direction, late in ((Direction.DOWN, 3 * SOON), (Direction.UP, 0.2), (None, 0.0)):
            proxy.slow_close(0.0)
            if direction is not None:
                proxy.slow_close(late, direction=direction)
            async with connected(proxy) as connection:
                assert await said(connection, b"hello") == b"hello"
                began = loop.time()
                connection[1].write_eof()
                assert await next_end(server) == "end"
                assert (loop.time() - began >= late) == (direction is not Direction.DOWN)


@pytest.mark.parametrize("direction", Direction)
async def test_fault_proxy_stall_holds_one_direction(direction: Direction) -> None:
    """A stalled direction holds what is sent until it is healed; the other one flows, new ones connect."""
    async with proxied(EchoServer(reads=False)) as (proxy, server):
        proxy.stall(True, direction=direction)
        async with connected(proxy) as client:
            there = await accepted(server)
            up, down = (client, there), (there, client)
            stalled, flowing = (up, down) if direction is Direction.UP else (down, up)
            stalled[0][1].write(b"held")
            flowing[0][1].write(b"flows")
            async with asyncio.timeout(SOON):
                assert await flowing[1][0].readexactly(5) == b"flows"
            assert await is_quiet(stalled[1])
            proxy.stall(False)
            async with asyncio.timeout(SOON):
                assert await stalled[1][0].readexactly(4) == b"held"


async def test_fault_proxy_stall_holds_the_writer_back() -> None:
    """The writer of a stalled direction is held back after a while, and goes on when it is healed."""
    async with proxied() as (proxy, _), connected(proxy) as connection:
        proxy.stall(True, direction=Direction.UP)
        connection[1].write(b"x" * 20_000_000)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connection[1].drain(), 0.1)
        proxy.stall(False, direction=Direction.UP)
        async with asyncio.timeout(SOON):
            assert len(await connection[0].readexactly(20_000_000)) == 20_000_000
