"""The real client and the real backend, whole, in virtual time."""

from random import Random

import pytest

from realtime_fsm import ConnectionStatus
from realtime_fsm.testing.fuzz.full_stack import FullStackEnvironment
from realtime_fsm.testing.fuzz.schedule import LASTING, Action, Schedule, Setting, Step, random_schedule
from realtime_fsm.testing.fuzz.simulation import EnvironmentFactory, Simulation, play
from realtime_fsm.testing.fuzz.sweep import sweep
from realtime_fsm.testing.fuzz.world import SimulatedEnvironment

SEEDS = range(150)


@pytest.mark.timeout(600)  # it is bounded by its work, for which a busy machine needs minutes
def test_full_stack_keeps_every_promise() -> None:
    """No schedule breaks a promise on the real python-socketio and aiohttp either."""
    result = sweep(SEEDS, FullStackEnvironment)
    assert result.failure is None, str(result.failure)


@pytest.mark.parametrize(
    ("steps", "shown"),
    [
        ("reset,deny@12", "attempt_failed: AuthenticationError"),
        ("reset,banish@12", "attempt_failed: NamespaceRefusedError"),
        ("publish@12,lose-event,publish@3,publish@12", "catch_up: gap closed"),
        ("lose-ack@12", "connection_lost: HeartbeatTimeoutError"),
    ],
)
def test_full_stack_can_break_what_is_no_network(steps: str, shown: str) -> None:
    """Who is let in, and what is lost on an open connection, can go wrong on the real server as well."""
    story = play(Schedule.parse(f"reference:0/connect@12,{steps}/heal"), FullStackEnvironment)
    assert not story.violations
    assert shown in story.seen


def test_full_stack_knows_every_fault() -> None:
    """No fault of the vocabulary is left out, so that a long sweep can have seen everything."""
    assert FullStackEnvironment(Setting.REFERENCE, Random(0)).supports == set(Action)  # noqa: S311


def test_full_stack_replays_to_the_byte() -> None:
    """The same schedule tells the same story on the whole stack, every time."""
    for schedule in map(random_schedule, range(20)):
        first, second = (play(schedule, FullStackEnvironment) for _ in range(2))
        assert "\n".join(first.lines).encode() == "\n".join(second.lines).encode(), str(schedule)


async def test_full_stack_is_connected_for_an_hour() -> None:
    """An hour of connection, with its heartbeats and refreshed tokens, is one connection."""
    simulation = Simulation(Schedule(), FullStackEnvironment)
    await simulation.environment.open()
    await simulation.do(Step(Action.CONNECT, 3600.0))
    assert simulation.application.client.status is ConnectionStatus.CONNECTED
    assert simulation.application.client.metrics.attempts == 1
    await simulation.close()


def test_full_stack_leaves_each_fault_for_ever() -> None:
    """Every fault that can be had leads where it must on the whole stack too, and breaks no promise."""
    for fault in LASTING:
        story = play(Schedule((), 1, Setting.REFERENCE, fault), FullStackEnvironment)
        assert not story.violations, (fault, story.violations)


def test_full_stack_cuts_off_the_handler_of_a_client_that_has_gone() -> None:
    """A backend that stops leaves no handler behind, though its client has gone."""
    story = play(Schedule.parse("reference:0/slow,slow-acks,emit@12,restart@3/heal"), FullStackEnvironment)
    assert not story.violations


def test_full_stack_loses_no_event_with_the_answer_to_a_poll() -> None:
    """A reset that takes the answer to a poll away is a loss, and what was in the answer is replayed."""
    story = play(
        Schedule.parse("reference:0/publish@12,reset,silence@3,heal@12,reset/heal"), FullStackEnvironment
    )
    assert not story.violations
    losses = [line for line in story.lines if "connected -> reconnecting" in line]
    assert len(losses) == 2


BOTH = [
    Action.EMIT,
    Action.PUBLISH,
    Action.RESET_PEER,
    Action.BLACK_HOLE,
    Action.REFUSE,
    Action.KICK,
    Action.FORCE_FALLBACK,
    Action.RELEASE_FALLBACK,
    Action.RETRY_NOW,
    Action.DISCONNECT,
    Action.CONNECT,
    Action.TOKEN_DOWN,
    Action.HTTP_DOWN,
    Action.HEAL,
]
"""Steps that mean the same in both tiers. (Not a stall: only the real server goes on to ping.)"""


def moves(schedule: Schedule, environment: EnvironmentFactory) -> list[str]:
    """Return the changes of a schedule, without their times and reasons."""
    story = play(schedule, environment)
    assert not story.violations, (str(schedule), story.violations)
    return [line[11:].partition(":")[0] for line in story.lines if " -> " in line]


@pytest.mark.timeout(600)  # it is bounded by its work, for which a busy machine needs minutes
def test_tiers_agree_on_every_change() -> None:
    """The same schedule takes the same rows on the simulated transport and on the whole real stack.

    The pauses let all settle: the tiers differ by milliseconds, and race nothing against them.
    """
    random = Random(5)  # noqa: S311 - it picks schedules
    for seed in range(60):
        steps = [Step(random.choice(BOTH), random.choice((60.0, 100.0))) for _ in range(random.randint(1, 8))]
        schedule = Schedule(steps, seed)
        assert moves(schedule, SimulatedEnvironment) == moves(schedule, FullStackEnvironment), str(schedule)
