import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime_fsm.engine.payload import Payload, check_event_name, encode
from realtime_fsm.machine.dialect import RESERVED_EVENTS
from realtime_fsm.machine.errors import InvalidArgumentError
from realtime_fsm.testing import json_values

LARGE = 10_000_000


def encoded(args: list[Any], max_bytes: int = LARGE) -> Payload:
    """Encode the arguments of a message."""
    return encode(args, what="The message", max_bytes=max_bytes)


def decoded(payload: Payload) -> Any:
    """Put a payload together again, as the other side does."""

    def restore(value: dict[str, Any]) -> Any:
        return payload.attachments[value["num"]] if value.get("_placeholder") is True else value

    return json.loads(payload.text, object_hook=restore)


@given(st.lists(json_values(), max_size=4))
def test_payload_of_json_comes_back_as_it_was(args: list[Any]) -> None:
    """What is JSON is encoded without attachments, and decodes to the same."""
    payload = encoded(args)
    assert payload.attachments == ()
    assert decoded(payload) == args


@given(st.lists(json_values(binary=True), max_size=1))
def test_payload_with_binary_comes_back_as_it_was(args: list[Any]) -> None:
    """Binary parts are put back where they were taken from, in their order."""
    payload = encoded(args)
    assert decoded(payload) == args
    assert payload.text.count('"_placeholder":true') >= len(payload.attachments)


@given(st.lists(json_values(binary=True), max_size=1))
def test_payload_size_is_that_on_the_wire(args: list[Any]) -> None:
    """The size is that of the text in UTF-8 and of the binary parts, and the limit is exact."""
    payload = encoded(args)
    assert payload.size_bytes == len(payload.text.encode()) + sum(len(p) for p in payload.attachments)
    assert encoded(args, payload.size_bytes) == payload
    with pytest.raises(InvalidArgumentError):
        encoded(args, payload.size_bytes - 1)


@given(st.text(max_size=20))
def test_payload_of_any_text_can_be_sent_or_is_refused(text: str) -> None:
    """Any string is either valid UTF-8 on the wire, or refused."""
    try:
        payload = encoded([text])
    except InvalidArgumentError:
        assert any("\ud800" <= char <= "\udfff" for char in text)
    else:
        assert decoded(payload) == [text]
        payload.text.encode("utf-8", "strict")


@given(st.text() | st.sampled_from(sorted(RESERVED_EVENTS)))
def test_event_name_is_returned_or_refused(name: str) -> None:
    """A name is refused exactly where it is empty or reserved; any other is returned as it is."""
    if not name or name in RESERVED_EVENTS:
        with pytest.raises(InvalidArgumentError):
            check_event_name(name)
    else:
        assert check_event_name(name) is name
