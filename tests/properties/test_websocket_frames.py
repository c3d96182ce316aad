"""What the proxy reads as frames is what was sent, however it was cut into segments."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from realtime_fsm.testing.proxy.frames import HttpReader, NotHttpError, WebSocketReader, websocket_frame

contents = st.one_of(st.text(max_size=300), st.binary(max_size=300))
cuts = st.lists(st.integers(1, 40), max_size=60)


def segments(data: bytes, sizes: list[int]) -> list[bytes]:
    """Cut data into segments of the given sizes, and a rest."""
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [*pieces, data]


@given(messages=st.lists(contents, max_size=8), is_masked=st.booleans(), sizes=cuts)
@example(messages=["x" * 125, "x" * 126, b"y" * 65_535, b"y" * 65_536], is_masked=True, sizes=[1] * 50)
def test_messages_are_read_as_they_were_made(
    messages: list[str | bytes], is_masked: bool, sizes: list[int]
) -> None:
    """Each message comes out once, in order, with its content and its very bytes; nothing is held."""
    raw = [websocket_frame(message, is_masked=is_masked) for message in messages]
    reader = WebSocketReader()
    found = [each for piece in segments(b"".join(raw), sizes) for each in reader.feed(piece)]
    assert [each.content for each in found] == messages
    assert [each.raw for each in found] == raw
    assert reader.rest == b""


@given(parts=st.lists(st.binary(max_size=20), min_size=1, max_size=5), at=st.integers(0, 4), sizes=cuts)
def test_a_fragmented_message_is_one(parts: list[bytes], at: int, sizes: list[int]) -> None:
    """Fragments are one message with all their bytes; a control frame between them comes out at once."""
    frames = [bytearray(websocket_frame(part, is_masked=False)) for part in parts]
    for number, frame in enumerate(frames):
        is_last = number == len(frames) - 1
        frame[0] = (0x80 if is_last else 0) | (2 if number == 0 else 0)
    ping = b"\x89\x02hi"
    at = min(at, len(frames) - 1)
    data = b"".join([*frames[:at], ping, *frames[at:]])
    reader = WebSocketReader()
    found = [each for piece in segments(data, sizes) for each in reader.feed(piece)]
    assert [(each.content, each.raw) for each in found] == [
        (None, ping),
        (b"".join(parts), b"".join(frames)),
    ]


@given(content=contents, cut=st.integers(0, 400), is_masked=st.booleans())
def test_what_is_not_whole_is_kept_unchanged(content: str | bytes, cut: int, is_masked: bool) -> None:
    """A message that ends early gives nothing, and the rest is what came of it."""
    raw = websocket_frame(content, is_masked=is_masked)
    reader = WebSocketReader()
    assert reader.feed(raw[: min(cut, len(raw) - 1)]) == []
    assert reader.rest == raw[: min(cut, len(raw) - 1)]


def test_what_is_compressed_is_not_read_but_kept() -> None:
    """A message with a reserved bit has no content, and its bytes."""
    raw = bytearray(websocket_frame("hello", is_masked=False))
    raw[0] |= 0x40
    (message,) = WebSocketReader().feed(bytes(raw))
    assert (message.content, message.raw) == (None, bytes(raw))


GET = b"GET /a?b HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nT: r\r\n\r\n"
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"


@given(messages=st.lists(st.sampled_from([GET, POST, CHUNKED, EMPTY]), max_size=6), sizes=cuts)
def test_http_messages_are_read_as_they_came(messages: list[bytes], sizes: list[int]) -> None:
    """Each message comes out once, in order, with its very bytes and its body; nothing is held."""
    reader = HttpReader(is_bodiless=lambda line: " 204 " in line)
    found = []
    for piece in segments(b"".join(messages), sizes):
        reader.add(piece)
        while (message := reader.take()) is not None:
            found.append(message)
    assert [each.raw for each in found] == messages
    assert [each.body for each in found] == [b"hello" if m in (POST, CHUNKED) else b"" for m in messages]
    assert reader.rest == b""


@pytest.mark.parametrize("raw", [GET, POST, CHUNKED])
@pytest.mark.parametrize("body", [b"", b"x", b"another body"])
def test_http_messages_can_be_changed(raw: bytes, body: bytes) -> None:
    """Another body comes with its own length; a header that is taken out is gone, and all else stays."""
    reader = HttpReader()
    reader.add(raw)
    message = reader.take()
    assert message is not None
    reader.add(message.with_body(body).without("accept-encoding").raw)
    changed = reader.take()
    assert changed is not None
    assert changed.body == body
    assert changed.first_line == message.first_line
    assert changed.header("host") == message.header("host")
    assert changed.header("accept-encoding") == changed.header("transfer-encoding") == ""
    again = HttpReader()
    again.add(message.without("accept-encoding").raw)
    kept = again.take()
    assert kept is not None
    assert kept.body == message.body


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"hello\r\n", "does not begin"),
        (b"x" * 70_000, "no end"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "ends with the connection"),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "no number"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "chunk"),
    ],
)
def test_what_is_not_http_is_said_to_be_so(data: bytes, problem: str) -> None:
    """What has no head, or a body whose end cannot be told, is refused and kept as it came."""
    reader = HttpReader()
    reader.add(data)
    with pytest.raises(NotHttpError, match=re.escape(problem)):
        reader.take()
    assert reader.rest == data
