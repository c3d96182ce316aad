"""The network in memory behaves as TCP does, and fails as it is told to."""

import asyncio
import io
from random import Random

import aiohttp
import pytest
from aiohttp import web

from realtime_fsm.testing.fuzz.memory_network import KERNEL_BUFFER, MemoryNetwork, MemoryTransport
from realtime_fsm.testing.proxy.faults import Direction

HOST = ("server", 80)


class Program(asyncio.Protocol):
    """Notes what happens to it."""

    def __init__(self, *, keeps_open: bool = False) -> None:
        self.transport: MemoryTransport
        self.data = b""
        self.pieces: list[tuple[float, int]] = []
        self.lost: list[BaseException | None] = []
        self.ends = 0
        self.is_held = False
        self._keeps_open = keeps_open

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note it."""
        assert isinstance(transport, MemoryTransport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Note it."""
        self.data += data
        self.pieces.append((asyncio.get_running_loop().time(), len(data)))

    def eof_received(self) -> bool:
        """Note it."""
        self.ends += 1
        return self._keeps_open

    def connection_lost(self, exc: BaseException | None) -> None:
        """Note it."""
        self.lost.append(exc)

    def pause_writing(self) -> None:
        """Note it."""
        assert not self.is_held
        self.is_held = True

    def resume_writing(self) -> None:
        """Note it."""
        assert self.is_held
        self.is_held = False


async def connected(network: MemoryNetwork, *, keeps_open: bool = False) -> tuple[Program, Program]:
    """Return the programs at both ends of a new connection."""
    accepted: list[Program] = []

    def accept() -> Program:
        accepted.append(Program(keeps_open=keeps_open))
        return accepted[-1]

    network.listen(*HOST, accept)
    _, client = await network.dial(Program, *HOST)
    assert isinstance(client, Program)
    return client, accepted[0]


def network() -> MemoryNetwork:
    """Return a network without faults."""
    return MemoryNetwork(Random(1))  # noqa: S311 - jitter


async def test_network_delivers_everything_in_order_whatever_the_jitter() -> None:
    """What is written arrives once, in order, both ways."""
    net = network()
    net.jitter = 0.5
    client, server = await connected(net)
    sent = [bytes([n]) * (n + 1) for n in range(50)]
    for piece in sent:
        client.transport.write(piece)
        server.transport.write(piece[::-1])
        await asyncio.sleep(0.01)
    await asyncio.sleep(5)
    assert server.data == client.data == b"".join(sent)


async def test_network_takes_the_latency_each_way() -> None:
    """Nothing arrives before its time."""
    net = network()
    net.latency = 2.0
    client, server = await connected(net)
    begun = asyncio.get_running_loop().time()
    client.transport.write(b"x")
    await asyncio.sleep(5)
    assert server.pieces[0][0] - begun == pytest.approx(2.0 + net.least_latency)


async def test_network_has_no_more_than_its_bandwidth() -> None:
    """Bytes take their time on the line."""
    net = network()
    net.bandwidth = 1000.0
    client, server = await connected(net)
    begun = asyncio.get_running_loop().time()
    for _ in range(4):
        client.transport.write(b"x" * 500)
    await asyncio.sleep(10)
    assert [round(at - begun, 2) for at, _ in server.pieces] == [0.5, 1.0, 1.5, 2.0]


async def test_network_slices_data() -> None:
    """With a slicer data comes in small segments, each later than the one before, and complete."""
    net = network()
    net.slicer(10, size_variation=5, delay=0.1)
    client, server = await connected(net)
    client.transport.write(bytes(range(100)))
    await asyncio.sleep(10)
    assert server.data == bytes(range(100))
    assert all(5 <= size <= 15 for _, size in server.pieces[:-1])
    assert len(server.pieces) > 6
    assert len({at for at, _ in server.pieces}) == len(server.pieces)


async def test_network_ends_connections_at_the_limit() -> None:
    """With limit_data so many bytes pass, and then both ends are closed in an orderly way."""
    net = network()
    net.limit_data(7, direction=Direction.UP)
    client, server = await connected(net)
    client.transport.write(b"0123456789")
    await asyncio.sleep(1)
    assert server.data == b"0123456"
    assert client.lost == server.lost == [None]
    assert not net.connections


async def test_network_resets_both_ends() -> None:
    """A reset throws away what is under way, and both ends are told once."""
    net = network()
    client, server = await connected(net)
    client.transport.write(b"lost")
    net.reset_peer()
    await asyncio.sleep(1)
    assert server.data == b""
    for program in (client, server):
        assert [type(error) for error in program.lost] == [ConnectionResetError]
    client.transport.write(b"nothing comes of it")
    client.transport.close()
    client.transport.abort()
    await asyncio.sleep(1)
    assert len(client.lost) == 1


async def test_network_closes_after_all_was_sent() -> None:
    """What was written before a close still arrives, then the end, and then both are gone."""
    net = network()
    client, server = await connected(net)
    client.transport.write(b"last words")
    client.transport.close()
    assert client.transport.is_closing()
    await asyncio.sleep(1)
    assert server.data == b"last words"
    assert server.ends == 1
    assert client.lost == server.lost == [None]
    assert not net.connections


async def test_network_closes_half() -> None:
    """After write_eof the other direction still works, where the other program wants that."""
    net = network()
    client, server = await connected(net, keeps_open=True)
    assert client.transport.can_write_eof()
    client.transport.write_eof()
    await asyncio.sleep(1)
    assert server.ends == 1
    assert not server.lost
    server.transport.write(b"answer")
    await asyncio.sleep(1)
    assert client.data == b"answer"
    server.transport.close()
    await asyncio.sleep(1)
    assert client.lost == server.lost == [None]


async def test_network_aborts_at_once() -> None:
    """After an abort nothing more arrives, and the other end is reset."""
    net = network()
    client, server = await connected(net)
    client.transport.write(b"lost")
    client.transport.abort()
    await asyncio.sleep(1)
    assert server.data == b""
    assert client.lost == [None]
    assert [type(error) for error in server.lost] == [ConnectionResetError]


async def test_network_holds_the_writer_back_when_nobody_reads() -> None:
    """A program that does not read fills the kernel's buffer, then the transport's: the writer pauses."""
    net = network()
    client, server = await connected(net)
    server.transport.pause_reading()
    assert not server.transport.is_reading()
    client.transport.write(b"x" * KERNEL_BUFFER)
    assert client.transport.get_write_buffer_size() == 0
    client.transport.write(b"x" * (client.transport.get_write_buffer_limits()[1] + 1))
    assert client.is_held
    await asyncio.sleep(100)
    assert client.is_held
    assert server.data == b""
    server.transport.resume_reading()
    await asyncio.sleep(1)
    assert not client.is_held
    assert len(server.data) == KERNEL_BUFFER + 64 * 1024 + 1


async def test_network_stalls_one_direction() -> None:
    """A stalled direction holds its data, the other one flows; healed, what was held arrives."""
    net = network()
    client, server = await connected(net)
    net.stall(enabled=True, direction=Direction.UP)
    client.transport.write(b"held")
    server.transport.write(b"free")
    await asyncio.sleep(100)
    assert (server.data, client.data) == (b"", b"free")
    net.stall(enabled=False)
    await asyncio.sleep(1)
    assert server.data == b"held"


async def test_network_swallows_everything_in_a_black_hole() -> None:
    """In a black hole nothing passes and nothing ends, not even a dial; healed, all of it happens."""
    net = network()
    client, server = await connected(net)
    net.black_hole(enabled=True)
    client.transport.write(b"held")
    client.transport.close()
    dial = asyncio.ensure_future(net.dial(Program, *HOST))
    await asyncio.sleep(1000)
    assert client.lost == [None]  # its own kernel has taken the end
    assert not server.lost
    assert server.data == b""
    assert not dial.done()
    net.heal()
    await asyncio.sleep(1)
    assert server.data == b"held"
    assert server.lost == [None]
    assert dial.done()
    net.reset_peer()


async def test_network_ends_held_connections_after_the_timeout() -> None:
    """With a timeout nothing passes, and every connection ends in an orderly way when it is over."""
    net = network()
    client, server = await connected(net)
    net.timeout(5.0)
    client.transport.write(b"held")
    await asyncio.sleep(4.9)
    assert not client.lost
    await asyncio.sleep(0.2)
    assert client.lost == server.lost == [None]
    assert server.data == b""
    net.timeout(None)
    client, server = await connected(net)
    await asyncio.sleep(10)
    assert not client.lost
    net.reset_peer()


async def test_network_closes_slowly() -> None:
    """With slow_close the end reaches the other side late."""
    net = network()
    net.slow_close(3.0)
    client, server = await connected(net)
    client.transport.close()
    await asyncio.sleep(2.9)
    assert not server.ends
    await asyncio.sleep(0.2)
    assert server.ends == 1


async def test_network_refuses_dials() -> None:
    """A dial is refused where nobody listens, while all are, and where that one is."""
    net = network()
    with pytest.raises(ConnectionRefusedError, match="nowhere"):
        await net.dial(Program, "nowhere", 1)
    await connected(net)
    net.refuse(enabled=True)
    with pytest.raises(ConnectionRefusedError):
        await net.dial(Program, *HOST)
    net.refuse_dial(2)
    await net.dial(Program, *HOST)
    with pytest.raises(ConnectionRefusedError):
        await net.dial(Program, *HOST)
    await net.dial(Program, *HOST)
    net.reset_peer()


async def test_network_cuts_in_an_orderly_way() -> None:
    """A cut reaches both ends as FIN."""
    net = network()
    client, server = await connected(net)
    net.cut()
    await asyncio.sleep(1)
    assert client.ends == server.ends == 1
    assert client.lost == server.lost == [None]


async def test_network_carries_real_http() -> None:
    """The real aiohttp, client and server, talk over it, large bodies and kept-alive connections included."""

    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    application = web.Application(client_max_size=10_000_000)
    application.router.add_post("/echo", echo)
    net = network()
    await net.serve(application, *HOST)
    async with aiohttp.ClientSession(connector=net.connector()) as session:
        for size in (0, 1, 3_000_000):
            async with session.post("http://server/echo", data=io.BytesIO(b"x" * size)) as answer:
                assert len(await answer.read()) == size
        assert net.dials == 1
        net.refuse(enabled=True)
        net.reset_peer()
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.post("http://server/echo")
    await net.close()
    assert not net.connections
