from typing import Any

import pytest

from realtime_fsm.server.request import MAX_SEQUENCE, Envelope, RequestError, read_envelope, split_arguments

FULL = {"message_id": "m", "client_id": "c", "sequence": 7}

MALFORMED: list[dict[str, Any]] = [
    {"message_id": 7},
    {"message_id": ""},
    {"message_id": "x" * 201},
    {"message_id": "\ud800"},
    {**FULL, "message_id": None},
    {**FULL, "client_id": None},
    {**FULL, "client_id": ""},
    {**FULL, "client_id": ["c"]},
    {**FULL, "client_id": "x" * 201},
    {**FULL, "client_id": "half a pair: \udfff"},
    {**FULL, "sequence": 0},
    {**FULL, "sequence": -1},
    {**FULL, "sequence": True},
    {**FULL, "sequence": 1.0},
    {**FULL, "sequence": "1"},
    {**FULL, "sequence": None},
    {**FULL, "sequence": MAX_SEQUENCE + 1},
    {**FULL, "sequence": 10**4000},
]


@pytest.mark.parametrize("given", MALFORMED, ids=lambda given: repr(given)[:60])
def test_malformed_envelope_is_refused(given: dict[str, Any]) -> None:
    """Whatever is wrong with an envelope, it is refused as invalid_message, over the socket and over HTTP."""
    for read in (lambda: split_arguments([1, given]), lambda: read_envelope({"event": "note", **given})):
        with pytest.raises(RequestError) as caught:
            read()
        assert (caught.value.problem["category"], caught.value.problem["code"]) == (
            "protocol",
            "invalid_message",
        )


@pytest.mark.parametrize(
    "last",
    [
        None,
        7,
        "m",
        [],
        {},
        {"client_id": "c"},
        {"sequence": 1},
        {"client_id": "c", "sequence": 1},
        {"message_id": "m", "client_id": "c"},
        {"message_id": "m", "sequence": 1},
        {**FULL, "more": 1},
        {"message_id": "m", "text": "hi"},
    ],
)
def test_other_last_argument_is_an_argument(last: Any) -> None:
    """Only an object with exactly the keys of an envelope is one; anything else reaches the handler."""
    assert split_arguments(["first", last]) == (Envelope(), ["first", last])


def test_envelope_is_taken_off_the_arguments() -> None:
    """An envelope is read from the end of the arguments, and from nowhere else."""
    assert split_arguments([]) == (Envelope(), [])
    assert split_arguments([FULL]) == (Envelope(message_id="m", client_id="c", sequence=7), [])
    assert split_arguments([1, {"message_id": "m"}]) == (Envelope(message_id="m"), [1])
    assert split_arguments([FULL, 1]) == (Envelope(), [FULL, 1])
    largest = {"message_id": "x" * 200, "client_id": "\N{PARTY POPPER}" * 200, "sequence": MAX_SEQUENCE}
    assert split_arguments([largest]) == (Envelope(**largest), [])


def test_http_envelope_may_have_no_message_id() -> None:
    """Over HTTP an id is optional; a number without the rest is refused, lest it be taken for a promise."""
    assert read_envelope({"event": "note"}) == Envelope()
    assert read_envelope({"event": "note", "message_id": None}) == Envelope()
    assert read_envelope({"event": "note", **FULL}) == Envelope(message_id="m", client_id="c", sequence=7)
    for keys in ({"client_id"}, {"sequence"}, {"client_id", "sequence"}, {"message_id", "sequence"}):
        with pytest.raises(RequestError):
            read_envelope({key: FULL[key] for key in keys})
