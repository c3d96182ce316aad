"""What tests on real sockets get."""

from collections.abc import Iterator

import pytest
from engineio.payload import Payload
from hostile_server import Server, application
from transport_scene import Backend


@pytest.fixture(autouse=True)
def unlimited_packets() -> Iterator[None]:
    """Put a process-wide limit of the library back, which the reference backend raises."""
    before = Payload.max_decode_packets
    yield
    Payload.max_decode_packets = before


@pytest.fixture
def backend() -> Backend:
    """Return a server that is not yet running."""
    return Backend()


@pytest.fixture
def server(backend: Backend) -> Iterator[Server]:
    """Run the server."""
    with application(backend.app()) as running:
        yield running
