"""The connection manager: runs the activities of each state, and turns what they find into triggers."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from typing import Any, Final

from realtime_fsm.engine.activities import (
    backoff,
    catch_up,
    decide,
    establish,
    heartbeat,
    probing,
    token_refresh,
)
from realtime_fsm.engine.component import Components, Stay
from realtime_fsm.engine.dispatcher import NO_ROOM, Delivered
from realtime_fsm.engine.fallback import FallbackPollingService, publishing
from realtime_fsm.engine.flight_recorder import Kind
from realtime_fsm.engine.link import Link
from realtime_fsm.engine.payload import encode
from realtime_fsm.engine.recovery import LEVELS
from realtime_fsm.engine.subscriptions import read_position
from realtime_fsm.machine.connection_machine import ConnectionMachine
from realtime_fsm.machine.delivery import InboundOverflow
from realtime_fsm.machine.errors import (
    ConnectionLostError,
    EventsMissedError,
    InternalError,
    InvalidArgumentError,
    RealtimeError,
)
from realtime_fsm.machine.guard import Facts, may_fall_back
from realtime_fsm.machine.record import StatusChange
from realtime_fsm.machine.recovery import given_up
from realtime_fsm.machine.table import TRAITS, Activity, ConnectionStatus, Traits, Trigger

_REASONS: Final[Mapping[Trigger, str]] = {
    Trigger.CONNECT: "connecting was asked for",
    Trigger.ESTABLISHED: "the connection is open and authenticated",
    Trigger.ATTEMPT_FAILED: "the attempt failed",
    Trigger.CONNECTION_LOST: "the connection ended",
    Trigger.RETRY: "it is time for another attempt",
    Trigger.FALL_BACK: "polling takes over",
    Trigger.POLLING_REFUSED: "polling was refused",
    Trigger.FORCE_FALLBACK: "the fallback was forced",
    Trigger.RELEASE_FALLBACK: "the fallback was released",
    Trigger.DISCONNECT: "disconnecting was asked for",
}

_BEHIND: Final = "the handlers were behind, and there was no room for all events"

_logger = logging.getLogger("realtime_fsm.connection")


class ConnectionManager:
    """Owns the machine, the live link, and the tasks of the present state; told by its links what comes in.

    Everything happens on the loop's thread, and a transition is one synchronous step, so no lock is needed.

    Args:
        parts: The client's components.
    """

    def __init__(self, parts: Components) -> None:
        self._parts = parts
        self._loop = asyncio.get_running_loop()
        self._machine = ConnectionMachine(on_enter=self._entered)
        self._epoch = 0 if parts.status.last is None else parts.status.last.epoch  # they never repeat
        self._stay: Stay | None = None
        self._link: Link | None = None
        # The tasks of the present stay, and those of the stays before that have not ended yet. They keep the
        # order in which they began: a set would cancel them in that of their addresses, which no run repeats.
        self._running: dict[asyncio.Task[None], None] = {}
        self._ending: dict[asyncio.Task[None], None] = {}
        self._change: StatusChange | None = None  # being made, while the machine fires
        self._spared: Collection[asyncio.Task[Any]] = ()  # they wait for the end, and end by themselves
        self._goodbye_within = parts.config.close_timeout / 4  # and as much without it
        self._spells_told = parts.dispatcher.spells
        self.polling = FallbackPollingService(parts)
        self._activities: Mapping[Activity, Callable[[Components, Stay], Awaitable[None]]] = {
            Activity.ESTABLISH: establish,
            Activity.HEARTBEAT: heartbeat,
            Activity.TOKEN_REFRESH: token_refresh,
            Activity.CATCH_UP: catch_up,
            Activity.BACKOFF: backoff,
            Activity.DECISION: decide,
            Activity.POLLING: lambda _, stay: self.polling.run(stay),
            Activity.PUBLISHING: publishing,
            Activity.PROBING: probing,
        }

    @property
    def status(self) -> ConnectionStatus:
        """The state of the machine."""
        return self._machine.status

    @property
    def traits(self) -> Traits:
        """The traits of the state: all that it means to others."""
        return TRAITS[self.status]

    @property
    def link(self) -> Link | None:
        """The live link, where there is one."""
        return self._link

    @property
    def is_settled(self) -> bool:
        """True once the first attempt is decided: a state is reached that is not only passed through."""
        return self.traits.settles and not self._may_fall_back()

    @property
    def resting_error(self) -> RealtimeError | None:
        """The error for which it gave up, where it did and nothing will be tried by itself."""
        resting = self.traits.gives_up and not self._may_fall_back()
        return self._stay.change.error if resting and self._stay is not None else None

    @property
    def retry_in(self) -> float | None:
        """Seconds that the present wait was given when it began; ``None`` while nothing waits."""
        return None if self._stay is None else self._stay.change.retry_in

    @property
    def next_attempt_in(self) -> float | None:
        """Seconds that are left until the next attempt; ``None`` while none is waited for."""
        if self._stay is None:
            return None
        due_at, given = self._stay.due_at, self._stay.change.retry_in
        if due_at is None and given is not None:
            due_at = self._stay.entered_at + given  # the wait begins in the loop's next turn
        return None if due_at is None else max(0.0, due_at - self._loop.time())

    @property
    def is_orphaned(self) -> bool:
        """True once its event loop is closed: nothing of it runs any more."""
        return self._loop.is_closed()

    @property
    def task_count(self) -> int:
        """Tasks that the manager has running, the ones that are ending included."""
        return len(self._running) + len(self._ending)

    def fire(self, trigger: Trigger, *, error: RealtimeError | None = None, link: Link | None = None) -> bool:
        """Take the transition that a trigger has in the present state, if any.

        Returns:
            Whether one happened.

        Raises:
            IllegalTransitionError: If the trigger is illegal in the present state.
        """
        if self._machine.destination(trigger, self._facts(trigger, error)) is None:
            return False
        since = self._parts.statistics.connected_at
        connected_for = None if since is None else self._loop.time() - since
        pace = self._parts.pace
        pace.note(trigger, self.traits, connected_for=connected_for, now=self._loop.time())
        facts = self._facts(trigger, error)  # decided by what was noted
        dest = self._machine.destination(trigger, facts)
        if dest is None:  # pragma: no cover - counting never closes the last row of a pair
            return False
        self._count(trigger, dest, error)
        error = self._heeded(trigger, dest, facts)
        self._change = StatusChange(
            previous=self.status,
            current=dest,
            trigger=trigger,
            reason=_REASONS[trigger] if error is None else f"{_REASONS[trigger]}: {error.message}",
            error=error,
            attempt=pace.attempt(dest),
            retry_in=pace.delay(self._loop.time()) if TRAITS[dest].waits else None,
            at=self._parts.wall(),
            epoch=self._epoch + 1,
        )
        self._parts.recorder.note(Kind.DECISION, f"{trigger} in {self.status} leads to {dest} ({facts})")
        self._leave(link)
        return self._machine.fire(trigger, facts)

    def retry_now(self) -> bool:
        """Hurry whatever waits in the present state; return whether there was anything to hurry."""
        if self._stay is None or not self.traits.wakes:
            return False
        self._stay.wake.set()
        return True

    def check_now(self) -> bool:
        """Let a live connection be asked for an answer at once; return whether there is one."""
        if self._stay is None or not self.traits.sends:
            return False
        self._stay.wake.set()
        return True

    def stop(self, *, within: float, spared: Collection[asyncio.Task[Any]] = ()) -> asyncio.Task[None]:
        """Disconnect, and leave the ending to a task.

        Args:
            within: Seconds that the goodbye may take, and as much the release without it; never more than
                that of any other link.
            spared: Tasks that are neither cancelled nor waited for: they wait for the end.

        Returns:
            A task that ends when all others of the manager have; cancelling it cancels them.
        """
        self._spared = spared
        self._goodbye_within = min(self._goodbye_within, within)
        self.fire(Trigger.DISCONNECT)
        return self._loop.create_task(self._end(), name="realtime_fsm end")

    async def _end(self) -> None:
        try:
            # One that ends may have to release a link, which is another task.
            while tasks := self._tasks():
                await asyncio.wait(tasks)
        except asyncio.CancelledError:
            for task in self._tasks():
                task.cancel()
            raise

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [task for task in (*self._running, *self._ending) if task not in self._spared]

    # What the links tell: events for the handlers, room for the sender, a loss for the machine.

    def link_event(self, link: Link, name: str, args: list[Any], ack_id: int | None, size: int) -> None:
        """Pass an event to the handlers, unless it is a repeat, or they have no room for it."""
        parts = self._parts
        if parts.config.inbound_overflow is InboundOverflow.CLOSE and self._closes(link, name, args, size):
            return  # before its offset is taken: a session that is recovered brings it again
        if not parts.session.take(name, args, ack_id):
            return
        is_wanted = give_back = None
        if parts.config.dialect.positions and args and isinstance(args[-1], dict):
            here, channel = read_position(args[-1]), args[-1].get("channel")
            if here is not None and isinstance(channel, str):
                args = args[:-1]
                has_room = partial(parts.dispatcher.admits, name, size)
                if not parts.subscriptions.take_position(channel, here, has_room):
                    return
                if (subscription := parts.subscriptions.get(channel)) is not None:
                    is_wanted = parts.subscriptions.watch(channel)
                    give_back = partial(subscription.give_back, here)
        if parts.recorder.is_tracing():
            parts.recorder.note(Kind.EVENT, f"{name!r} with {len(args)} arguments")
        answer = None if ack_id is None else partial(self._answer, link, name, ack_id)
        event = Delivered(name, args, answer, is_wanted, size, give_back is not None, give_back)
        if not parts.dispatcher.post(event):
            self._tell_of_overflow()

    def link_written(self, link: Link) -> None:
        """Send on, if the link is the live one."""
        if link is self._link:
            self._parts.sender.on_written(link.transport.written)

    def link_malformed(self, error: RealtimeError) -> None:
        """Report a frame that could not be decoded."""
        self._parts.recovery.handle(error)

    def link_lost(self, link: Link, error: RealtimeError) -> None:
        """Report the loss, if the link is the live one; one that only dials tells its dialler."""
        if link is self._link and self._stay is not None:
            self._stay.report(Trigger.CONNECTION_LOST, error=error)

    def _closes(self, link: Link, name: str, args: list[Any], size: int) -> bool:
        """Close the live link if there is no room for an event that it cannot replay; tell whether it did."""
        parts = self._parts
        if link is not self._link or self._stay is None or parts.dispatcher.has_room_for(name, size):
            return False
        told = args[-1] if args and parts.config.dialect.positions else None
        channel = told.get("channel") if isinstance(told, dict) else None
        if isinstance(channel, str) and parts.subscriptions.get(channel) is not None:
            return False
        parts.dispatcher.fall_behind()
        parts.statistics.dropped[NO_ROOM] += 1
        error = ConnectionLostError(
            f"The connection was closed because {_BEHIND}: `inbound_overflow` is close.",
            remedy="Hand long work to tasks of its own, or raise `max_pending_events`.",
        )
        return self._stay.report(Trigger.CONNECTION_LOST, error=error)

    def _tell_of_overflow(self) -> None:
        """Have everything loaded anew because events were dropped; where nobody can, say so once a spell."""
        parts = self._parts
        resync, spells = parts.subscriptions.resync, parts.dispatcher.spells
        resync.begin_for_all(_BEHIND)
        if spells == self._spells_told:
            return
        self._spells_told = spells
        parts.statistics.unrecovered += 1
        if resync.hook is None:
            parts.recovery.handle(EventsMissedError(f"Events were missed: {_BEHIND}."))

    def _begin_to_receive(self) -> None:
        """Prepare for a link that becomes live, before anything that comes over it is passed on."""
        parts = self._parts
        statistics = parts.statistics
        is_first = statistics.connections == 1 and statistics.polls == statistics.failed_polls
        is_whole = parts.session.began()
        parts.subscriptions.began(is_whole=is_whole)
        if not (is_first or is_whole or parts.config.dialect.positions):
            statistics.unrecovered += 1
            parts.subscriptions.resync.begin_for_all(
                "the server does not replay what it sent while the client was away"
            )

    def _answer(self, link: Link, event: str, ack_id: int, answer: Any) -> None:
        """Answer an event of the server with what its handlers returned."""
        args = [] if answer is None else list(answer) if isinstance(answer, tuple) else [answer]
        what = f"The answer to {event!r}"
        try:
            payload = encode(args, what=what, max_bytes=self._parts.config.max_message_bytes)
        except InvalidArgumentError as error:
            self._parts.recovery.handle(error)
            return
        # On the link that asked: on the next one the number belongs to another question.
        link.answer(ack_id, payload)

    # A transition, in its order: facts, counting, leaving, the machine, entering.

    def _facts(self, trigger: Trigger, error: RealtimeError | None) -> Facts:
        config = self._parts.config
        return Facts(
            reconnects=self._parts.pace.episode.reconnects,
            initial=self._parts.pace.episode.initial,
            max_reconnect_attempts=config.max_reconnect_attempts,
            retry_initial=config.retry_initial,
            fallback_available=config.fallback_available,
            forced=trigger is Trigger.FORCE_FALLBACK,
            error=error,
            outage=self._parts.pace.outage(self._loop.time()),
            fallback_after=config.fallback_after,
        )

    def _heeded(self, trigger: Trigger, dest: ConnectionStatus, facts: Facts) -> RealtimeError | None:
        """Note what a server asked for that refused or ended a connection; return the error for people."""
        error = facts.error
        if error is None or trigger not in {Trigger.ATTEMPT_FAILED, Trigger.CONNECTION_LOST}:
            return error
        if self._parts.pace.floor.heed(error, self._loop.time()):
            self._parts.report_long_retry_after(error)
        rests = TRAITS[dest].gives_up and error.retryable and not may_fall_back(facts)
        if not rests:
            return error
        return given_up(error, facts.reconnects if facts.is_out_of_attempts else None)

    def _count(self, trigger: Trigger, dest: ConnectionStatus, error: RealtimeError | None) -> None:
        """Keep the counters of a transition that is about to happen."""
        statistics, now = self._parts.statistics, self._loop.time()
        statistics.changes[self.status, trigger, dest] += 1
        statistics.stays.enter(dest, now)
        if statistics.connected_at is not None:
            statistics.connected_seconds += now - statistics.connected_at
            statistics.connected_at = None
        if trigger is Trigger.CONNECTION_LOST:
            statistics.losses += 1
            statistics.causes[type(error).__name__] += 1
            statistics.last_failure_at = self._parts.wall()
            statistics.last_failure_reason = str(error)
        self._parts.pace.entered(TRAITS[dest], now)
        if TRAITS[dest].sends:
            statistics.connections += 1
            statistics.connected_at = now
            statistics.last_connected_at = self._parts.wall()
            self._parts.pace.episode.connected()

    def _leave(self, link: Link | None) -> None:
        """Cancel what runs, and let the live link go unless the next state brings its own."""
        if self._stay is not None:
            self._stay.has_ended = True
        for task in self._running:
            if task is not asyncio.current_task() and task not in self._spared:
                task.cancel()
        self._ending |= self._running
        self._running = {}
        old, self._link = self._link, link
        change = self._change
        if old is not None and change is not None:
            if change.error is not None:
                self._parts.session.lost(change.error)
            broken = old.lost or change.error is not None
            self._parts.sender.detach(broken=broken)
            self._parts.subscriptions.restart()
            old.detach()
            # Only a client that leaves for good says so: the server keeps the session for the others.
            self._dispose(old, goodbye=not broken and not TRAITS[change.current].online)
        if link is not None:
            self._parts.subscriptions.restart()  # what polling was refused, the socket may be granted
            self._begin_to_receive()
        self._parts.subscriptions.tell()  # whoever waits for polling looks whether there still is any

    def _entered(self, status: ConnectionStatus, _: Trigger, facts: Facts) -> None:
        """Begin the new stay: the entry callback of every state."""
        change = self._change
        if change is None:  # pragma: no cover - only `fire` fires the machine
            raise AssertionError("the machine was fired without its manager")
        self._epoch = change.epoch
        stay = Stay(
            epoch=change.epoch,
            entered_at=self._loop.time(),
            change=change,
            link=self._link,
            make_link=self._make_link,
            fire=self._reported,
            would_move=self._would_move,
            dispose=partial(self._dispose, goodbye=False),
        )
        self._stay = stay
        before = tuple(self._ending)
        for activity in self._machine.activities(facts):
            run = self._run(activity, stay, before)
            task = self._loop.create_task(run, name=f"realtime_fsm {activity}")
            self._running[task] = None
            task.add_done_callback(self._ended)
        _logger.log(
            LEVELS[TRAITS[status].severity],
            "%s -> %s: %s",
            change.previous,
            status,
            change.reason if change.error is None else f"{_REASONS[change.trigger]}: {change.error}",
            extra={"epoch": change.epoch, "attempt": change.attempt, "retry_in": change.retry_in},
        )
        recorder = self._parts.recorder
        recorder.epoch, recorder.attempt = change.epoch, change.attempt
        wait = "" if change.retry_in is None else f", next attempt in {change.retry_in:.1f} s"
        recorder.note(Kind.CHANGE, f"{change.previous} -> {status}: {change.reason}{wait}")
        known = self._parts.status.last
        self._parts.status.set(change)
        if change.error is not None and (known is None or known.error is not change.error):
            leads_to = ConnectionStatus.FALLBACK if self._may_fall_back() else status
            self._parts.recovery.handle(change.error, log=False, status=leads_to)  # it is logged above

    async def _run(self, activity: Activity, stay: Stay, before: tuple[asyncio.Task[None], ...]) -> None:
        """Run one activity after all of the states before have ended; make a crash of it a trigger."""
        me = asyncio.current_task()
        waiting = [task for task in before if task is not me and not task.done()]
        if waiting:
            await asyncio.wait(waiting, timeout=self._parts.config.close_timeout)
        try:
            await self._activities[activity](self._parts, stay)
        except Exception as failure:
            self._parts.statistics.crashes += 1
            _logger.exception("the activity %s crashed", activity)
            self._parts.recorder.write_out(f"the activity {activity} crashed")
            error = InternalError(f"The activity {activity} raised {type(failure).__name__}.")
            error.__cause__ = failure
            trigger = TRAITS[stay.change.current].on_crash
            if trigger is None:
                self._parts.recovery.handle(error)
            else:
                stay.report(trigger, error=error)

    def _reported(self, stay: Stay, trigger: Trigger, error: RealtimeError | None, link: Link | None) -> bool:
        """Fire what an activity reports, unless its stay has ended."""
        if stay is not self._stay:
            self._parts.statistics.stale += 1
            return False
        return self.fire(trigger, error=error, link=link)

    def _would_move(self, stay: Stay, trigger: Trigger) -> bool:
        facts = self._facts(trigger, stay.change.error)
        return stay is self._stay and self._machine.may(trigger, facts)

    def _may_fall_back(self) -> bool:
        return self._stay is not None and self._stay.may(Trigger.FALL_BACK)

    def _make_link(self) -> Link:
        parts = self._parts
        return Link(parts.transport_factory, self, parts.statistics, parts.heartbeat)

    def _dispose(self, link: Link, *, goodbye: bool) -> None:
        """Release a link in the background, bounded; what comes next waits for it."""
        task = self._loop.create_task(
            self._release(link, goodbye=goodbye), name="realtime_fsm release of a link"
        )
        self._ending[task] = None
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        self._ending.pop(task, None)

    async def _release(self, link: Link, *, goodbye: bool) -> None:
        limit = self._goodbye_within
        try:
            async with asyncio.timeout(limit):
                await link.close(goodbye=goodbye)
        except TimeoutError:
            if goodbye:
                await self._release(link, goodbye=False)
            else:
                _logger.error("a connection could not be released within %s s", limit)  # noqa: TRY400 - said
