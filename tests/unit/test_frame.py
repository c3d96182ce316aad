import json
from typing import Any

import pytest
import socketio
from hypothesis import assume, example, given
from hypothesis import strategies as st

from realtime_fsm.adapters import frame
from realtime_fsm.adapters.frame import ExcessiveAttachmentsError, Packet, PacketType
from realtime_fsm.engine.payload import MAX_ATTACHMENTS, encode
from realtime_fsm.machine.errors import MalformedFrameError

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
WITH_BYTES = st.recursive(
    JSON | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(frame.is_event_name)
NAMESPACES = st.sampled_from(["/", "/chat", "/a/b-1"])
ACK_IDS = st.none() | st.integers(0, 10**15 - 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", Packet(PacketType.CONNECT, "/", None, None, 0)),
        ('0{"sid":"x"}', Packet(PacketType.CONNECT, "/", None, {"sid": "x"}, 0)),
        ("0/chat", Packet(PacketType.CONNECT, "/chat", None, None, 0)),
        ('0/chat?a=1,{"sid":"x"}', Packet(PacketType.CONNECT, "/chat", None, {"sid": "x"}, 0)),
        ("1", Packet(PacketType.DISCONNECT, "/", None, None, 0)),
        ("1/chat,", Packet(PacketType.DISCONNECT, "/chat", None, None, 0)),
        ('2["a"]', Packet(PacketType.EVENT, "/", None, ["a"], 0)),
        ('2 ["a"] ', Packet(PacketType.EVENT, "/", None, ["a"], 0)),
        ('27["a",1]', Packet(PacketType.EVENT, "/", 7, ["a", 1], 0)),
        ('2/chat,0["a",{"b":[]}]', Packet(PacketType.EVENT, "/chat", 0, ["a", {"b": []}], 0)),
        ("3007[]", Packet(PacketType.ACK, "/", 7, [], 0)),
        ('4{"message":"no"}', Packet(PacketType.CONNECT_ERROR, "/", None, {"message": "no"}, 0)),
        ('4"no"', Packet(PacketType.CONNECT_ERROR, "/", None, "no", 0)),
        ('51-["a",{}]', Packet(PacketType.BINARY_EVENT, "/", None, ["a", {}], 1)),
        ('50-["a"]', Packet(PacketType.BINARY_EVENT, "/", None, ["a"], 0)),
        ('510-/chat,12["a"]', Packet(PacketType.BINARY_EVENT, "/chat", 12, ["a"], 10)),
        ("62-3[]", Packet(PacketType.BINARY_ACK, "/", 3, [], 2)),
    ],
)
def test_decode_reads_every_kind_of_packet(text: str, expected: Packet) -> None:
    """Each part of the header is read, wherever the packet begins."""
    assert frame.decode(text) == expected
    assert frame.decode(f"4{text}", 1) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "9[]",
        "x",
        "-",
        "²",
        "2",
        "2{}",
        "2[]",
        '2"a"',
        "2[1]",
        "2[null]",
        "2[[]]",
        '2["connect"]',
        '2["disconnecting"]',
        '2["a"',
        '2["a"]]',
        '2["a",NaN]',
        '2["a",-Infinity]',
        '2["a",' + "[" * 100_000,
        '2["a",' + "9" * 5000 + "]",
        "2" + "1" * 16 + '["a"]',
        "2" + "1" * 5000 + '["a"]',
        '2\u0661["a"]',
        '21-["a"]',
        '2-["a"]',
        "3",
        "3[]",
        "31",
        "31{}",
        "31null",
        '5["a"]',
        '5-["a"]',
        "61[]",
        "0[]",
        '0"x"',
        "1{}",
        "1[]",
        '2/chat["a"]',
        '2/chat["a"',
        "31-1[]",
    ],
)
def test_decode_refuses_what_is_not_a_packet(text: str) -> None:
    """Whatever is not a packet is refused as malformed, without its content in the message."""
    with pytest.raises(MalformedFrameError) as raised:
        frame.decode(text)
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize("count", ["11", "99", "9999999999", "1" * 5000])
@pytest.mark.parametrize("kind", "56")
def test_decode_refuses_too_many_attachments(kind: str, count: str) -> None:
    """More attachments than socket.io-parser takes are refused before any is awaited."""
    with pytest.raises(ExcessiveAttachmentsError):
        frame.decode(f'{kind}{count}-1["a"]')


@given(st.text(max_size=40) | st.text('0123456789-/,[]{}"ae:?', max_size=40))
@example("2" * 4400)
@example('5-1["a"]')
def test_decode_of_any_text_returns_or_refuses(text: str) -> None:
    """No text makes decoding raise anything but its two errors."""
    try:
        packet = frame.decode(text)
    except (MalformedFrameError, ExcessiveAttachmentsError):
        return
    assert packet.attachment_count <= 10


@given(name=NAMES, args=st.lists(JSON, max_size=3), namespace=NAMESPACES, ack_id=ACK_IDS)
def test_text_frames_are_what_python_socketio_reads_and_writes(
    name: str, args: list[Any], namespace: str, ack_id: int | None
) -> None:
    """Events are encoded so that python-socketio reads them, and its own are decoded the same."""
    payload = encode([name, *args], what="an event", max_bytes=10**6)
    number = "" if ack_id is None else str(ack_id)
    text = f"{frame.head(PacketType.EVENT, namespace)}{number}{payload.text}"
    theirs = socketio.packet.Packet(encoded_packet=text[1:])
    assert (theirs.packet_type, theirs.namespace or "/", theirs.id, theirs.data) == (
        PacketType.EVENT,
        namespace,
        ack_id,
        [name, *args],
    )
    written = socketio.packet.Packet(PacketType.EVENT, [name, *args], namespace, ack_id).encode()
    for one in (text, f"4{written}"):
        assert frame.decode(one, 1) == Packet(PacketType.EVENT, namespace, ack_id, [name, *args], 0)


@given(args=st.lists(WITH_BYTES, max_size=3), namespace=NAMESPACES, ack_id=ACK_IDS)
def test_binary_frames_are_what_python_socketio_reads_and_writes(
    args: list[Any], namespace: str, ack_id: int | None
) -> None:
    """Binary events survive the way there by our encoding, and the way back by python-socketio's."""
    data = ["name", *args, b"always one"]
    assume(len(socketio.packet.Packet.deconstruct_binary(data)[1]) <= MAX_ATTACHMENTS)
    payload = encode(data, what="an event", max_bytes=10**6)
    text = frame.encode_binary(PacketType.BINARY_EVENT, namespace, ack_id, payload)
    theirs = socketio.packet.Packet(encoded_packet=text[1:])
    for attachment in payload.attachments:
        theirs.add_attachment(attachment)
    assert (theirs.namespace or "/", theirs.id, theirs.data) == (namespace, ack_id, data)

    written, *attachments = socketio.packet.Packet(PacketType.EVENT, data, namespace, ack_id).encode()
    packet = frame.decode(written)
    assert (packet.type, packet.namespace, packet.ack_id) == (PacketType.BINARY_EVENT, namespace, ack_id)
    assert packet.attachment_count == len(attachments)
    assert frame.reconstruct(packet.data, attachments) == data


@pytest.mark.parametrize("number", ["1", "-1", "0.0", "true", '"0"', "null"])
def test_reconstruct_refuses_a_placeholder_without_attachment(number: str) -> None:
    """A placeholder must name one of the attachments by its index."""
    data = [{"_placeholder": True, "num": json.loads(number)}]
    with pytest.raises(MalformedFrameError):
        frame.reconstruct(data, [b"x"])


def test_reconstruct_leaves_alone_what_only_looks_like_a_placeholder() -> None:
    """Only ``true`` makes a placeholder, as for socket.io-parser."""
    data = [{"_placeholder": 1, "num": 0}, {"num": 0}]
    assert frame.reconstruct(data, [b"x"]) == data


def test_reconstruct_refuses_what_is_nested_too_deeply() -> None:
    """Nesting beyond the interpreter's limit is malformed, not a crash."""
    data: list[Any] = []
    for _ in range(100_000):
        data = [data]
    with pytest.raises(MalformedFrameError):
        frame.reconstruct(data, [])
