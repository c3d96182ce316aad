import copy
import inspect
import pickle
import re
from collections.abc import Callable
from typing import cast

import pytest

from realtime_fsm.machine import errors
from realtime_fsm.machine.errors import (
    ApplicationError,
    CallTimeoutError,
    ConfigurationError,
    DeliveryError,
    ErrorCategory,
    IllegalTransitionError,
    InvalidArgumentError,
    MissingExtraError,
    RealtimeError,
    ServerUnavailableError,
    TransportError,
    without_frames,
)

CLASSES = [
    member
    for _, member in inspect.getmembers(errors, inspect.isclass)
    if issubclass(member, RealtimeError) and member.__module__ == errors.__name__
]
ARGUMENTS: dict[type[RealtimeError], RealtimeError] = {
    ConfigurationError: ConfigurationError("field='x' is wrong"),
    MissingExtraError: MissingExtraError(extra="server", what="The backend"),
    DeliveryError: DeliveryError("It was dropped.", outcome="dropped"),
    IllegalTransitionError: IllegalTransitionError(state="a", trigger="b", legal=("c",)),
}
TREE_LINE = re.compile(
    r"^ {4}(?P<indent>[ |]*)(\+-- )?(?P<name>[A-Z]\w+)( \((?P<mixin>\w+)\))?(?P<rest>.*)$", re.MULTILINE
)


def example_of(kind: type[RealtimeError]) -> RealtimeError:
    """Return an error of a class, whatever its arguments."""
    return ARGUMENTS.get(kind) or kind("It broke.")


def printed_tree() -> dict[str, tuple[str | None, str | None, str]]:
    """Return what the docstring says: for each name its parent, its second base, and the words after it."""
    tree: dict[str, tuple[str | None, str | None, str]] = {}
    path: list[tuple[int, str]] = []
    for line in TREE_LINE.finditer(errors.__doc__ or ""):
        depth = line.start("name") - line.start()
        path = [(at, name) for at, name in path if at < depth]
        tree[line["name"]] = (path[-1][1] if path else None, line["mixin"], line["rest"].strip())
        path.append((depth, line["name"]))
    return tree


def test_errors_printed_tree_is_the_real_one() -> None:
    """The tree at the head of the module names every class, under its real base, with its second one."""
    real: dict[str, tuple[str | None, str | None]] = {}
    for kind in CLASSES:
        parent, *others = kind.__bases__
        root = kind is RealtimeError
        real[kind.__name__] = (None if root else parent.__name__, others[0].__name__ if others else None)
    assert {name: entry[:2] for name, entry in printed_tree().items()} == real


def test_errors_printed_categories_are_the_real_ones() -> None:
    """Where the tree names a category, it is the one of the class; every direct child of the root has one."""
    words = {name: rest.split(maxsplit=1)[0] for name, (_, _, rest) in printed_tree().items() if rest}
    for kind in RealtimeError.__subclasses__():
        assert words[kind.__name__] == kind.category.value


def test_errors_children_keep_the_category_of_their_branch() -> None:
    """No class leaves the category of the branch on which it stands."""
    for branch in RealtimeError.__subclasses__():
        for kind in CLASSES:
            if issubclass(kind, branch):
                assert kind.category is branch.category, kind


def test_errors_cover_the_four_categories() -> None:
    """The four categories of the specification are there, and each has its errors."""
    assert {category.value for category in ErrorCategory} == {
        "connection",
        "authentication",
        "protocol",
        "application",
    }
    assert {kind.category for kind in CLASSES} == set(ErrorCategory)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_error_has_a_category_and_a_remedy_or_takes_one(kind: type[RealtimeError]) -> None:
    """Every error has a category, and says what to do or lets the raiser say it."""
    error = example_of(kind)
    assert isinstance(error.category, ErrorCategory)
    assert isinstance(error.retryable, bool)
    takes_one = "remedy" in inspect.signature(kind).parameters
    assert error.remedy or takes_one or kind is ConfigurationError
    assert not error.remedy or error.remedy.endswith(".")
    assert kind.__doc__


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_error_text_is_the_message_and_the_remedy(kind: type[RealtimeError]) -> None:
    """The text of an error is its message followed by its remedy, with no loose ends."""
    error = example_of(kind)
    assert str(error) == f"{error.message} {error.remedy}".strip()
    assert "  " not in str(error)


def test_error_arguments_win_over_the_defaults_of_the_class() -> None:
    """Remedy and retryability can be given; what is not given comes from the class."""
    plain = TransportError("It broke.")
    assert (plain.remedy, plain.retryable, plain.retry_after) == ("It is tried again by itself.", True, None)
    given = TransportError("It broke.", remedy="Mend it.", retryable=False, retry_after=7.0)
    assert (str(given), given.retryable, given.retry_after) == ("It broke. Mend it.", False, 7.0)
    assert str(TransportError("It broke.", remedy="")) == "It broke."


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (ConfigurationError, ValueError),
        (InvalidArgumentError, ValueError),
        (MissingExtraError, ImportError),
        (CallTimeoutError, TimeoutError),
    ],
)
def test_error_is_also_the_builtin_that_people_expect(
    kind: type[RealtimeError], builtin: type[Exception]
) -> None:
    """Code that catches the built-in error catches ours."""
    with pytest.raises(builtin):
        raise example_of(kind)
    assert issubclass(kind, ApplicationError)


@pytest.mark.parametrize(
    ("problems", "text"),
    [
        (("a=1 is wrong",), "The configuration is wrong: a=1 is wrong"),
        (("a=1", "b=2"), "The configuration has 2 problems: a=1; b=2"),
    ],
)
def test_configuration_error_lists_all_problems(problems: tuple[str, ...], text: str) -> None:
    """All problems are in the text and in `problems`."""
    error = ConfigurationError(*problems)
    assert (error.problems, str(error)) == (problems, text)


def test_illegal_transition_error_names_what_is_legal() -> None:
    """The error names state, trigger and what is legal; where nothing is, it says so."""
    error = IllegalTransitionError(state="failed", trigger="established", legal=("connect", "retry"))
    assert (error.state, error.trigger, error.legal) == ("failed", "established", ("connect", "retry"))
    assert str(error) == (
        "The trigger 'established' is illegal in the state 'failed'. Legal here: connect, retry."
    )
    assert str(IllegalTransitionError(state="a", trigger="b", legal=())).endswith("Legal here: nothing.")


def test_missing_extra_error_says_what_to_install() -> None:
    """The remedy is the command that brings the extra."""
    error = MissingExtraError(extra="server", what="The backend")
    assert "The backend needs the extra [server]." in str(error)
    assert "pip install 'realtime-fsm[server]'" in error.remedy


def test_delivery_error_holds_the_outcome() -> None:
    """What became of the message can be read as one word."""
    assert DeliveryError("It was dropped.", outcome="dropped").outcome == "dropped"


def through_pickle(error: RealtimeError) -> RealtimeError:
    """Return an error as another process gets it."""
    return cast(RealtimeError, pickle.loads(pickle.dumps(error)))  # noqa: S301 - what it reads was written here


@pytest.mark.parametrize(
    "error",
    [
        ConfigurationError("one", "two"),
        IllegalTransitionError(state="failed", trigger="retry", legal=("connect",)),
        MissingExtraError(extra="server", what="The backend"),
        ServerUnavailableError("It is busy.", status=503, retry_after=2.5),
        DeliveryError("It is lost.", outcome="lost"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, through_pickle])
def test_error_survives_being_copied_and_pickled(
    error: RealtimeError, duplicate: Callable[[RealtimeError], RealtimeError]
) -> None:
    """A copy is of the same kind, and says the same, whatever the constructor takes."""
    again = duplicate(error)
    assert again is not error
    assert type(again) is type(error)
    assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))


def chained() -> tuple[RealtimeError, list[BaseException]]:
    """Return an error that came from another one, raised while a third was handled; and all three."""
    chain: list[BaseException] = [TransportError("It broke."), OSError(), ZeroDivisionError()]
    for one in chain:
        with pytest.raises(type(one)):
            raise one
    chain[0].__cause__, chain[1].__context__ = chain[1], chain[2]
    return cast(RealtimeError, chain[0]), chain


def test_error_without_frames_keeps_nothing_alive() -> None:
    """The frames of an error and of all that it came from are cut off; what it came from is kept."""
    error, chain = chained()
    assert all(one.__traceback__ for one in chain)
    without_frames(error)
    assert [one.__traceback__ for one in chain] == [None, None, None]
    assert error.__cause__ is chain[1]


def test_error_without_frames_ends_on_a_chain_that_bites_its_tail() -> None:
    """A chain of causes that leads back to its beginning is gone through once; no error is fine too."""
    first, second = TransportError("One."), TransportError("Two.")
    first.__cause__, second.__cause__ = second, first
    without_frames(first)
    without_frames(None)
    assert first.__cause__ is second


def test_errors_worth_retrying_are_these_and_no_others() -> None:
    """Trying again is said to help with the network, with a server in trouble, and with what is full."""
    hopeless = {kind.__name__ for kind in CLASSES if not example_of(kind).retryable}
    assert hopeless == {
        "RealtimeError",
        "ApplicationError",
        "AuthenticationError",
        "ClosedError",
        "ConfigurationError",
        "DeliveryError",
        "EventsMissedError",
        "IllegalTransitionError",
        "InvalidArgumentError",
        "LaggedError",
        "MissingExtraError",
        "NamespaceRefusedError",
        "RedirectRefusedError",
        "SubscriptionRefusedError",
        "UnsupportedDeliveryError",
        "WrongLoopError",
    }


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (RealtimeError, ("It broke.", "Mend it.")),
        (ServerUnavailableError, ("It is busy.", 503)),
        (MissingExtraError, ("server", "The backend")),
        (DeliveryError, ("It is lost.", "lost")),
        (IllegalTransitionError, ("failed", "retry", ())),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_error_details_are_given_by_name(kind: type[RealtimeError], given: tuple[object, ...]) -> None:
    """What an error says beyond its message is given by name, so that it cannot be mixed up."""
    with pytest.raises(TypeError, match="positional argument"):
        kind(*given)  # type: ignore[arg-type]
