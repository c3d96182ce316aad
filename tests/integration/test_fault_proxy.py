"""The fault proxy makes exactly the fault that it was told to make."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from realtime_fsm.testing.fault_proxy import FaultProxy

Run = Callable[[Awaitable[None]], None]
SOON = 5.0
NOT_SOON = 0.05


@asynccontextmanager
async def echo_through_proxy() -> AsyncIterator[FaultProxy]:
    """Start a server that echoes what it gets, and a proxy in front of it."""
    handlers: set[asyncio.Task[None]] = set()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1024):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # the proxy reset it
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(echo(reader, writer))
        handlers.add(task)
        task.add_done_callback(handlers.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server, FaultProxy("127.0.0.1", server.sockets[0].getsockname()[1]) as proxy:
        yield proxy
    if handlers:
        await asyncio.wait(handlers, timeout=SOON)


@asynccontextmanager
async def connected(
    proxy: FaultProxy,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect to the proxy."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def said(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> bytes:
    """Send something and return what comes back."""
    writer.write(data)
    async with asyncio.timeout(SOON):
        return await reader.readexactly(len(data))


def test_fault_proxy_forwards_both_ways_and_counts(run_async: Run) -> None:
    """Without a fault, what goes in comes out, and is counted in bytes."""

    async def main() -> None:
        async with echo_through_proxy() as proxy, connected(proxy) as (reader, writer):
            assert await said(reader, writer, b"hello") == b"hello"
            assert (proxy.counters.accepted, proxy.counters.bytes_up, proxy.counters.bytes_down) == (1, 5, 5)

    run_async(main())


def test_fault_proxy_reset_is_seen_as_a_reset(run_async: Run) -> None:
    """A reset reaches the client as RST, not as an orderly end."""

    async def main() -> None:
        async with echo_through_proxy() as proxy, connected(proxy) as (reader, writer):
            await said(reader, writer, b"hello")
            proxy.reset_peer()
            async with asyncio.timeout(SOON):
                with pytest.raises(ConnectionResetError):
                    await reader.read(1)

    run_async(main())


def test_fault_proxy_cut_is_seen_as_an_orderly_end(run_async: Run) -> None:
    """A cut reaches the client as end of file."""

    async def main() -> None:
        async with echo_through_proxy() as proxy, connected(proxy) as (reader, writer):
            await said(reader, writer, b"hello")
            proxy.cut()
            async with asyncio.timeout(SOON):
                assert await reader.read(1) == b""

    run_async(main())


def test_fault_proxy_black_hole_holds_and_gives_back(run_async: Run) -> None:
    """A black hole closes nothing and forwards nothing; healed, what it held flows, in order."""

    async def main() -> None:
        async with echo_through_proxy() as proxy, connected(proxy) as (reader, writer):
            await said(reader, writer, b"hello")
            proxy.black_hole(True)
            writer.write(b"one")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), NOT_SOON)
            writer.write(b"two")
            proxy.black_hole(False)
            async with asyncio.timeout(SOON):
                assert await reader.readexactly(6) == b"onetwo"

    run_async(main())


def test_fault_proxy_refuses_and_takes_the_same_port_again(run_async: Run) -> None:
    """A refusing proxy is as if nothing listened; afterwards it listens at the same port."""

    async def main() -> None:
        async with echo_through_proxy() as proxy:
            port = proxy.port
            await proxy.refuse(True)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)
            await proxy.refuse(False)
            assert proxy.port == port
            async with connected(proxy) as (reader, writer):
                assert await said(reader, writer, b"hello") == b"hello"

    run_async(main())


def test_fault_proxy_blocks_by_the_path_of_the_first_request(run_async: Run) -> None:
    """A blocked path is reset, on old connections and new ones; other paths pass."""

    async def main() -> None:
        blocked, free = b"GET /socket.io/?x HTTP/1.1\r\n", b"GET /other HTTP/1.1\r\n"
        async with echo_through_proxy() as proxy, connected(proxy) as old, connected(proxy) as other:
            assert await said(*old, blocked) == blocked
            assert await said(*other, free) == free
            proxy.block("/socket.io")
            async with asyncio.timeout(SOON):
                with pytest.raises(ConnectionResetError):
                    await old[0].read(1)
            assert await said(*other, free) == free
            async with connected(proxy) as (reader, writer):
                writer.write(blocked)
                async with asyncio.timeout(SOON):
                    with pytest.raises(ConnectionResetError):
                        await reader.read(1)
            proxy.block(None)
            async with connected(proxy) as (reader, writer):
                assert await said(reader, writer, blocked) == blocked

    run_async(main())


def test_fault_proxy_end_leaves_no_connection(run_async: Run) -> None:
    """Leaving the proxy ends every connection, also one that a black hole holds."""

    async def main() -> None:
        async with echo_through_proxy() as proxy:
            async with connected(proxy) as (reader, writer):
                await said(reader, writer, b"hello")
                proxy.black_hole(True)
                writer.write(b"held")
                await proxy.__aexit__()
                async with asyncio.timeout(SOON):
                    with pytest.raises(ConnectionResetError):
                        await reader.read(1)
            assert proxy.connection_count == 0

    run_async(main())
