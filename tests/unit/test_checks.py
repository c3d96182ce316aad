from typing import Any

import pytest
from attrs import frozen

from realtime_fsm.machine import checks
from realtime_fsm.machine.checks import Problems
from realtime_fsm.machine.errors import ConfigurationError


@frozen(kw_only=True)
class Kitchen:
    """A configuration of every kind of field."""

    guests: int = checks.whole(4, most=12)
    heat: float = checks.number(0.5, zero=True, most=1.0)
    bake: float = checks.seconds(60.0)
    rest: float | None = checks.seconds(None)
    open: bool = checks.flag(default=True)
    cook: str = checks.string("must be a name", "Ann")
    style: str = checks.choice("plain", ("plain", "rich"))


WRONG: dict[str, Any] = {
    "guests": 13,
    "heat": 1.5,
    "bake": 0,
    "rest": float("inf"),
    "open": 1,
    "cook": " ",
    "style": "lean",
}


def test_all_problems_are_found_in_the_order_of_the_fields() -> None:
    """Each wrong field is named with its value and the rule; the error holds all of them."""
    problems = Problems(Kitchen(**WRONG))
    assert problems.found == [
        "guests=13 must be a whole number, from 1 to 12",
        "heat=1.5 must be a finite number, 0 or more, 1 at most",
        "bake=0 must be a finite number of seconds, more than 0",
        "rest=inf must be a finite number of seconds, more than 0",
        "open=1 must be true or false",
        "cook=' ' must be a name",
        "style='lean' must be one of plain, rich",
    ]
    with pytest.raises(ConfigurationError) as refused:
        problems.refuse()
    assert refused.value.problems == tuple(problems.found)


def test_words_begin_and_end_as_the_record_wants_it() -> None:
    """A record can be named, its values hidden, and its defaults recalled."""
    kitchen = Kitchen(guests=0)
    assert Problems(kitchen, of="kitchen 2: ", shown=lambda *_: "...", recalls=True).found == [
        "kitchen 2: guests='...' must be a whole number, from 1 to 12: the default is 4"
    ]


def test_two_fields_are_compared_only_where_both_are_sound() -> None:
    """A field that is wrong by itself is told once, and not again by what it does not fit."""
    for kitchen, found in ((Kitchen(guests=5, heat=0.1), 1), (Kitchen(guests=50), 1), (Kitchen(heat=9), 1)):
        problems = Problems(kitchen)
        problems.order("guests", "heat", "why not")
        assert len(problems.found) == found
    assert Problems(Kitchen()).found == []
    Problems(Kitchen()).refuse()
