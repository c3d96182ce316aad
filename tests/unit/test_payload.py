import json

import pytest

from realtime_fsm.engine.payload import MAX_ATTACHMENTS, Payload, check_event_name, encode
from realtime_fsm.machine.dialect import RESERVED_EVENTS
from realtime_fsm.machine.errors import InvalidArgumentError

LARGE = 1_000_000


def encoded(*args: object, max_bytes: int = LARGE) -> Payload:
    """Encode the arguments of a message."""
    return encode(args, what="The message", max_bytes=max_bytes)


def refusal(*args: object, max_bytes: int = LARGE) -> str:
    """Return why arguments are refused."""
    with pytest.raises(InvalidArgumentError) as refused:
        encoded(*args, max_bytes=max_bytes)
    assert refused.value.remedy
    return refused.value.message


def test_payload_is_compact_json_in_utf_8() -> None:
    """Arguments become one JSON array without blanks, text as it is."""
    payload = encoded("note", {"text": "Grüße", "n": [1, 2.5, None, True]})
    assert payload.text == '["note",{"text":"Grüße","n":[1,2.5,null,true]}]'
    assert payload.attachments == ()
    assert payload.size_bytes == len(payload.text.encode()) == len(payload.text) + 2


def test_payload_size_of_ascii_text_is_its_length() -> None:
    """Plain ASCII counts one byte a character."""
    assert encoded("note").size_bytes == len('["note"]')


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_payload_refuses_numbers_that_json_does_not_have(value: float) -> None:
    """NaN and infinity are not JSON, however deep they hide."""
    assert refusal("note", {"a": [value]}).startswith("The message cannot be sent: ")


@pytest.mark.parametrize("value", [{1, 2}, object(), 1j, Exception("x"), {(1, 2): 3}, range(3)])
def test_payload_refuses_what_is_not_json(value: object) -> None:
    """What JSON cannot hold is refused, never turned into text by itself."""
    assert refusal("note", [value]).startswith("The message cannot be sent: ")


def test_payload_refusal_names_the_type() -> None:
    """The refusal names the type that does not fit."""
    assert "set is not JSON" in refusal("note", {1})


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
def test_payload_refuses_lone_surrogates(text: str) -> None:
    """Half a character would break the connection, as a value and as a key."""
    refusal("note", text)
    refusal("note", {text: 1})


def test_payload_keeps_characters_beyond_the_basic_plane() -> None:
    """A whole character of two surrogates is fine."""
    assert encoded("😀").size_bytes == len('["😀"]'.encode())


def test_payload_refuses_nesting_too_deep() -> None:
    """Nesting that exhausts the encoder is refused, and does not crash."""
    deep: list[object] = []
    for _ in range(200_000):
        deep = [deep]
    assert refusal("note", deep).startswith("The message cannot be sent: ")


def test_payload_refuses_a_circle() -> None:
    """What holds itself cannot be sent."""
    circle: list[object] = []
    circle.append(circle)
    refusal("note", circle)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_payload_sets_binary_aside(kind: type) -> None:
    """Binary values leave a placeholder behind and travel apart, in order."""
    payload = encoded("file", {"a": kind(b"one"), "b": [kind(b"two")]})
    assert json.loads(payload.text) == [
        "file",
        {"a": {"_placeholder": True, "num": 0}, "b": [{"_placeholder": True, "num": 1}]},
    ]
    assert payload.attachments == (b"one", b"two")
    assert all(type(part) is bytes for part in payload.attachments)
    assert payload.size_bytes == len(payload.text) + 6


def test_payload_copies_what_may_change() -> None:
    """What the caller changes later does not change what was accepted."""
    data = bytearray(b"before")
    payload = encoded(data)
    data[:] = b"after!"
    assert payload.attachments == (b"before",)


def test_payload_bounds_the_number_of_binary_parts() -> None:
    """As many binary parts as Socket.IO allows, and not one more."""
    assert len(encoded(*[b"x"] * MAX_ATTACHMENTS).attachments) == MAX_ATTACHMENTS
    message = refusal(*[b"x"] * (MAX_ATTACHMENTS + 1))
    assert (
        message == f"The message has {MAX_ATTACHMENTS + 1} binary parts, and {MAX_ATTACHMENTS} are allowed."
    )


@pytest.mark.parametrize("value", ["x" * 50, "ü" * 25, b"x" * 20])
def test_payload_bounds_the_size_to_the_byte(value: object) -> None:
    """A message of exactly the allowed size is accepted; one byte less allowed, and it is refused."""
    size = encoded("note", value).size_bytes
    assert encoded("note", value, max_bytes=size).size_bytes == size
    message = refusal("note", value, max_bytes=size - 1)
    assert message == f"The message is {size} bytes long, and max_message_bytes={size - 1}."


@pytest.mark.parametrize("name", sorted(RESERVED_EVENTS))
def test_event_name_reserved_by_socket_io_is_refused(name: str) -> None:
    """A name that Socket.IO keeps for itself is refused: a server would close the connection."""
    with pytest.raises(InvalidArgumentError, match=r"is reserved by Socket\.IO"):
        check_event_name(name)


def test_event_names_reserved_are_those_of_socket_io() -> None:
    """The reserved names are exactly those of socket.io-parser."""
    expected = "connect connect_error disconnect disconnecting newListener removeListener"
    assert set(expected.split()) == RESERVED_EVENTS


@pytest.mark.parametrize("name", ["", None, 5, b"note", ["note"]])
def test_event_name_must_be_text(name: object) -> None:
    """A name is a string that is not empty."""
    with pytest.raises(InvalidArgumentError, match="is not the name of an event"):
        check_event_name(name)


@pytest.mark.parametrize("name", ["note", "Connect", "message", "*", "größe", " "])
def test_event_name_of_any_other_text_is_returned(name: str) -> None:
    """Any other text is a name."""
    assert check_event_name(name) == name
