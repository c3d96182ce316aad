"""Model checking: the shipped machine and the counting of its attempts, in every environment there can be.

Breadth first over the product of the machine, the outcomes of its activities, the messages on their way, and
what the server has applied. Nothing here decides where a trigger leads: the shipped machine does.
"""

from collections import deque
from collections.abc import Iterator
from functools import cache
from random import Random
from typing import Final

import pytest
from attrs import evolve, frozen

from realtime_fsm import (
    TRAITS,
    TRANSITIONS,
    AuthenticationError,
    ConnectionLostError,
    ConnectionMachine,
    ConnectionStatus,
    RealtimeError,
    ServerUnreachableError,
    Trigger,
)
from realtime_fsm.machine.backoff import Episode, ExponentialBackoff, Pace
from realtime_fsm.machine.guard import Facts
from realtime_fsm.testing.exploration import explore

S = ConnectionStatus
T = Trigger
MESSAGES: Final = 3
MAX_ATTEMPTS: Final = 2
STABLE_AFTER: Final = 10.0
FALLBACK_AFTER: Final = 15.0
REFUSED: Final = AuthenticationError("refused.")
DOWN: Final = ServerUnreachableError("down.")
LOST: Final = ConnectionLostError("lost.")


@frozen
class World:
    """Client, network and server at a moment.

    Messages are numbered from 1; each count is of the first so many.

    Attributes:
        status: Of the machine.
        episode: Dials made, whether begun by hand, and whether never connected yet.
        error: Why the state was entered.
        forced: Whether the fallback was forced.
        emitted: Messages accepted.
        sent: Of them, sent on this connection or acknowledged before.
        received: Of them, no longer on their way: the server has them, or a loss took them.
        acked: Of them, acknowledged.
        applied: The server's mark: messages that took effect.
    """

    status: ConnectionStatus = S.DISCONNECTED
    episode: tuple[int, bool, bool] = (0, False, False)
    error: RealtimeError | None = None
    forced: bool = False
    emitted: int = 0
    sent: int = 0
    received: int = 0
    acked: int = 0
    applied: int = 0


@frozen
class Step:
    """What may happen next.

    Attributes:
        name: For people.
        after: The world afterwards.
        kind: ``good`` (the environment helps), ``bad``, or ``user``.
    """

    name: str
    after: World
    kind: str


@cache
def machine_in(status: ConnectionStatus) -> ConnectionMachine:
    """Return the shipped machine in a state."""
    machine = ConnectionMachine()
    for move in explore(TRANSITIONS, initial=S.DISCONNECTED).paths[status]:
        facts = Facts(fallback_available=True, error=REFUSED if move.dest is S.FAILED else None)
        assert machine.fire(move.trigger, facts)
    assert machine.status is status
    return machine


def fire(
    world: World,
    trigger: Trigger,
    error: RealtimeError | None = None,
    *,
    connected_for: float | None = None,
    keeps_flight: bool = False,
    outage: float = 0.0,
) -> World:
    """Return the world after a trigger, as the manager fires it; an illegal one raises."""
    pace = Pace(
        backoff=ExponentialBackoff(random=Random(0)),  # noqa: S311 - no delay is asked for
        stable_after=STABLE_AFTER,
        first_retry_within=0.0,
        episode=Episode(*world.episode),
    )
    pace.note(trigger, TRAITS[world.status], connected_for=connected_for, now=0.0)
    facts = Facts(
        reconnects=pace.episode.reconnects,
        initial=pace.episode.initial,
        max_reconnect_attempts=MAX_ATTEMPTS,
        fallback_available=True,
        forced=trigger is T.FORCE_FALLBACK,
        error=error,
        outage=outage,
        fallback_after=FALLBACK_AFTER,
    )
    dest = machine_in(world.status).destination(trigger, facts)
    if dest is None:
        return world
    if TRAITS[dest].sends:
        pace.episode.connected()
    left = TRAITS[world.status].sends
    sent = world.acked if left and not keeps_flight else world.sent
    return evolve(
        world,
        status=dest,
        episode=(pace.episode.dials, pace.episode.begun_by_hand, pace.episode.initial),
        error=error,
        forced=trigger is T.FORCE_FALLBACK,
        sent=sent,
        received=sent if left else world.received,  # what was on its way arrives nowhere
    )


def of_the_user(world: World) -> Iterator[Step]:
    """Yield what a user may do."""
    if world.emitted < MESSAGES:
        yield Step("emit", evolve(world, emitted=world.emitted + 1), "user")
    if world.status in {S.DISCONNECTED, S.FAILED}:
        yield Step("connect", fire(world, T.CONNECT), "user")
    if world.status is S.FAILED:
        yield Step("retry now", fire(world, T.RETRY), "user")
    if world.status is not S.DISCONNECTED:
        yield Step("force the fallback", fire(world, T.FORCE_FALLBACK), "user")
        yield Step("disconnect", fire(world, T.DISCONNECT), "user")
    if world.forced:
        yield Step("release the fallback", fire(world, T.RELEASE_FALLBACK), "user")


def of_a_connection(world: World, *, keeps_flight: bool) -> Iterator[Step]:
    """Yield what may happen while it is connected."""
    if world.sent < world.emitted:
        yield Step("send", evolve(world, sent=world.sent + 1), "good")
    if world.received < world.sent:
        number = world.received + 1
        yield Step("receive", evolve(world, received=number, applied=max(world.applied, number)), "good")
    if world.acked < min(world.received, world.applied):
        yield Step("acknowledge", evolve(world, acked=world.acked + 1), "good")
    for connected_for in (0.0, STABLE_AFTER):
        for error in (LOST, REFUSED):
            after = fire(
                world, T.CONNECTION_LOST, error, connected_for=connected_for, keeps_flight=keeps_flight
            )
            yield Step(f"lose the connection after {connected_for:g} s", after, "bad")


def of_the_fallback(world: World) -> Iterator[Step]:
    """Yield what may happen in FALLBACK."""
    if world.acked < world.emitted:
        number = world.acked + 1
        applied = max(world.applied, number)
        yield Step("publish, answer lost", evolve(world, applied=applied), "bad")
        done = evolve(world, acked=number, sent=number, received=number, applied=applied)
        yield Step("publish", done, "good")
    yield Step("polling is refused", fire(world, T.POLLING_REFUSED, REFUSED), "bad")
    if not world.forced:
        yield Step("probe finds the socket", fire(world, T.ESTABLISHED), "good")


def steps(world: World, *, keeps_flight: bool = False) -> Iterator[Step]:
    """Yield all that may happen next."""
    yield from of_the_user(world)
    if world.status is S.CONNECTING:
        yield Step("dial", fire(world, T.ESTABLISHED), "good")
        for outage in (0.0, FALLBACK_AFTER):
            after = fire(world, T.ATTEMPT_FAILED, DOWN, outage=outage)
            yield Step(f"dial refused after {outage:g} s", after, "bad")
        yield Step("dial denied", fire(world, T.ATTEMPT_FAILED, REFUSED), "bad")
    elif world.status is S.CONNECTED:
        yield from of_a_connection(world, keeps_flight=keeps_flight)
    elif world.status is S.RECONNECTING:
        yield Step("the pause ends", fire(world, T.RETRY), "good")
    elif world.status is S.FAILED:
        facts = Facts(fallback_available=True, error=world.error)
        if machine_in(S.FAILED).may(T.FALL_BACK, facts):
            yield Step("fall back", fire(world, T.FALL_BACK, world.error), "good")
    elif world.status is S.FALLBACK:
        yield from of_the_fallback(world)


class Model:
    """All worlds that can be reached, and how."""

    def __init__(self, *, keeps_flight: bool = False) -> None:
        first = World()
        self.came_by: dict[World, tuple[World, str] | None] = {first: None}
        self.edges: dict[World, list[Step]] = {}
        frontier = deque([first])
        while frontier:
            world = frontier.popleft()
            self.edges[world] = list(steps(world, keeps_flight=keeps_flight))
            for step in self.edges[world]:
                if step.after not in self.came_by:
                    self.came_by[step.after] = (world, step.name)
                    frontier.append(step.after)

    def stuck(self) -> list[World]:
        """Return the worlds from which a good environment, and a user who asks, lead to no happy end."""
        before: dict[World, list[World]] = {}
        for world, outgoing in self.edges.items():
            for step in outgoing:
                asks = step.name in {"connect", "retry now", "release the fallback"}
                if step.kind == "good" or asks:
                    before.setdefault(step.after, []).append(world)
        happy = [w for w in self.edges if w.status is S.CONNECTED and w.acked == w.emitted]
        reached, frontier = set(happy), deque(happy)
        while frontier:
            for world in before.get(frontier.popleft(), ()):
                if world not in reached:
                    reached.add(world)
                    frontier.append(world)
        return [world for world in self.edges if world not in reached]

    def way_to(self, world: World) -> list[str]:
        """Return a shortest way to a world."""
        names = []
        came = self.came_by[world]
        while came is not None:
            names.append(came[1])
            came = self.came_by[came[0]]
        return names[::-1]


@pytest.fixture(scope="module")
def model() -> Model:
    """Return the model of the shipped machine."""
    return Model()


def test_model_makes_no_illegal_move_and_takes_every_row(model: Model) -> None:
    """No trigger that an activity or a user fires is illegal where it is fired, and no row is never taken."""
    taken = {
        (world.status, step.after.status)
        for world, outgoing in model.edges.items()
        for step in outgoing
        if world.status is not step.after.status
    }
    rows = {(row.source, row.dest) for row in TRANSITIONS if row.source is not row.dest}
    assert taken == rows
    assert len(model.edges) > 1000  # or the model is vacuous


def test_model_always_has_something_running_that_will_end_the_state(model: Model) -> None:
    """But for DISCONNECTED and a resting FAILED, no state waits for a user to be left or to do its work."""
    for world, outgoing in model.edges.items():
        rests = world.status in {S.DISCONNECTED, S.FAILED}
        assert rests or any(step.kind != "user" for step in outgoing), model.way_to(world)


def test_model_conserves_messages_and_applies_them_once(model: Model) -> None:
    """What is acknowledged was applied, what was applied was emitted, and the mark never goes back."""
    for world, outgoing in model.edges.items():
        assert world.acked <= world.received <= world.sent <= world.emitted, model.way_to(world)
        assert world.acked <= world.applied <= world.emitted, model.way_to(world)
        for step in outgoing:
            assert step.after.applied - world.applied in {0, 1}, model.way_to(world)
            assert step.after.acked >= world.acked


def test_model_comes_to_a_happy_end_from_everywhere(model: Model) -> None:
    """From every world a good environment leads to CONNECTED with nothing left to be acknowledged."""
    stuck = model.stuck()
    assert not stuck, model.way_to(stuck[0])


def test_model_finds_a_planted_bug_by_a_shortest_way() -> None:
    """A sender that takes what was in flight at a loss for sent is found, with the fewest steps there are."""
    broken = Model(keeps_flight=True)
    stuck = broken.stuck()
    assert stuck
    shortest = min((broken.way_to(world) for world in stuck), key=len)
    assert len(shortest) == 5
    assert shortest[-1].startswith(("lose", "force", "disconnect"))


def test_model_has_steps_of_every_kind(model: Model) -> None:
    """The environment helps, hurts, and the user acts: none of them was forgotten."""
    kinds = {step.kind for outgoing in model.edges.values() for step in outgoing}
    assert kinds == {"good", "bad", "user"}
