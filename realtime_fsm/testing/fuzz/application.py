"""The application on a client: it emits numbers, mirrors a channel, and notices what goes wrong."""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from random import Random
from typing import Any, Final

from attrs import define, field

from realtime_fsm.engine.dispatcher import NO_ROOM
from realtime_fsm.engine.message import Message, Receipt
from realtime_fsm.engine.port import Token
from realtime_fsm.engine.subscriptions import NO_ROOM_YET, Missed, Position
from realtime_fsm.machine.config import Endpoint, RealtimeConfig
from realtime_fsm.machine.delivery import Delivery, Outcome
from realtime_fsm.machine.dialect import Dialect
from realtime_fsm.machine.errors import (
    AuthenticationError,
    CallTimeoutError,
    ClosedError,
    ConnectionLostError,
    ConnectTimeoutError,
    DeliveryError,
    HeartbeatTimeoutError,
    NamespaceRefusedError,
    RealtimeError,
    ServerDisconnectError,
    ServerUnavailableError,
    ServerUnreachableError,
    TokenSourceError,
)
from realtime_fsm.machine.record import AttemptRecord, StatusChange
from realtime_fsm.machine.table import (
    TRAITS,
    TRANSITIONS,
    Activity,
    ConnectionStatus,
    Row,
    Trigger,
    legal_triggers,
)
from realtime_fsm.monitoring.metrics import ConnectionMetrics
from realtime_fsm.service import RealtimeService
from realtime_fsm.testing.fuzz.schedule import Action, Setting
from realtime_fsm.testing.fuzz.world import (
    ASK,
    BEGIN_ANEW,
    CHANNEL,
    HELLO,
    NEWS,
    NEWS_PATH,
    NUMBER,
    SIDE,
    TICK,
    Environment,
)
from realtime_fsm.testing.simulated.outbox import SimulatedDisk, SimulatedOutbox
from realtime_fsm.testing.virtual_loop import wall_clock

# What a sweep must have seen, or it proves nothing: every row, every fault, every outcome of an activity.

FULL_SWEEP: Final = 2000
"""Seeds that are enough to have seen everything; a sweep of so many that has not is vacuous."""

_DIAL_ERRORS: Final[tuple[type[RealtimeError], ...]] = (
    AuthenticationError,
    ConnectTimeoutError,
    NamespaceRefusedError,
    ServerUnavailableError,
    ServerUnreachableError,
    TokenSourceError,
)
_LOSSES: Final[tuple[type[RealtimeError], ...]] = (
    ConnectionLostError,
    HeartbeatTimeoutError,
    ServerDisconnectError,
)
_COUNTED: Final = {
    f"{Activity.HEARTBEAT}: answered": "last_latency",
    f"{Activity.CATCH_UP}: gap closed": "gaps",
    f"{Activity.CATCH_UP}: missed": "unrecovered",
    f"{Activity.CATCH_UP}: loaded anew": "resyncs",
    f"{Activity.POLLING}: failed": "failed_polls",
    f"{Activity.PUBLISHING}: published": "messages_published",
    f"{Activity.PUBLISHING}: failed": "failed_publishes",
}
_WAKEABLE: Final = tuple(status for status in ConnectionStatus if TRAITS[status].wakes)
_NOT_HERE: Final = frozenset({Outcome.PENDING, Outcome.REFUSED})
"""No end of a message, and one that only the application's own handlers make."""


def everything() -> frozenset[str]:
    """Return all that there is to be seen."""
    return frozenset(
        [
            *(of_row(row) for row in TRANSITIONS),
            *(of_fault(action) for action in Action),
            *(of_error(Trigger.ATTEMPT_FAILED, error) for error in _DIAL_ERRORS),
            *(of_error(Trigger.CONNECTION_LOST, error) for error in _LOSSES),
            *_COUNTED,
            *(of_wake(status) for status in _WAKEABLE),
            *(of_outcome(outcome.value) for outcome in Outcome if outcome not in _NOT_HERE),
            *(of_refresh(failed=failed) for failed in (False, True)),
            _POLLED,
            _PROBE_FAILED,
            *(of_overflow(reason) for reason in _OVERFLOWS),
        ]
    )


def of_row(row: Row | StatusChange) -> str:
    """Return the name of a row of the table."""
    source, dest = (row.source, row.dest) if isinstance(row, Row) else (row.previous, row.current)
    return f"row {source} {row.trigger} {dest}"


def of_fault(action: Action) -> str:
    """Return the name of a step of a schedule."""
    return f"step {action}"


def of_error(trigger: Trigger, error: type[RealtimeError]) -> str:
    """Return the name of a failure and its trigger."""
    return f"{trigger}: {error.__name__}"


def of_wake(status: ConnectionStatus) -> str:
    """Return the name of a wait that was cut short."""
    return f"woken in {status}"


def of_outcome(outcome: str) -> str:
    """Return the name of the end of a message."""
    return f"message {outcome}"


def of_refresh(*, failed: bool) -> str:
    """Return the name of the end of a token's refresh on a live connection."""
    return f"{Activity.TOKEN_REFRESH}: {'failed' if failed else 'refreshed'}"


def of_overflow(reason: str) -> str:
    """Return the name of what became of events that the handlers had no room for."""
    return f"handlers: {reason}"


_OVERFLOWS: Final = (NO_ROOM, NO_ROOM_YET)
_POLLED: Final = f"{Activity.POLLING}: polled"
_PROBE_FAILED: Final = f"{Activity.PROBING}: failed"


def seen_of(changes: list[StatusChange], metrics: ConnectionMetrics) -> Iterator[str]:
    """Yield what one client went through."""
    for change in changes:
        yield of_row(change)
        if change.error is not None:
            yield of_error(change.trigger, type(change.error))
    for name, counter in _COUNTED.items():
        if getattr(metrics, counter):
            yield name
    for outcome in metrics.messages_by_outcome:
        yield of_outcome(outcome)
    for reason in _OVERFLOWS:
        if reason in metrics.dropped:
            yield of_overflow(reason)
    if metrics.polls > metrics.failed_polls:
        yield _POLLED
    if metrics.failed_connections > 2 * sum(c.trigger is Trigger.ATTEMPT_FAILED for c in changes):
        yield _PROBE_FAILED  # an attempt fails twice at most: its token is renewed once


CALL_TIMEOUT: Final = 20.0
_GREETING_TIMEOUT: Final = 1.0
_MOST_TURNS: Final = 6
"""Turns of the loop, at most, after which a ``flicker`` ends."""
_TIMES_TO_LIVE: Final = (2.0, 5.0, 9.0)
_FLOOD: Final = 12
"""Ticks at once: more than there is room for, and what is left is in the server's log."""
_TOKEN_LIFE: Final = 30.0
_TOKEN_DELAY: Final = 0.02
_STORM: Final = 8
"""More tokens than these, within the life of one and on live connections, are a storm."""


def simulated_config(setting: Setting) -> RealtimeConfig:
    """Return a configuration whose times are short, so that a few seconds bring everything about."""
    reference = setting is Setting.REFERENCE
    return RealtimeConfig(
        dialect=Dialect.REFERENCE if reference else Dialect.PLAIN,
        default_delivery=Delivery.EXACTLY_ONCE if reference else Delivery.AT_LEAST_ONCE,
        fallback_endpoints=() if reference else (Endpoint(url=NEWS_PATH, event=NEWS),),
        max_reconnect_attempts=None if setting is Setting.NODE else 2,  # one that time alone ends
        fallback_after=6.0,
        backoff_base=0.3,
        backoff_maximum=1.0,
        stable_after=2.0,
        heartbeat_interval=5.0,
        heartbeat_timeout=2.0,
        connection_timeout=3.0,
        fallback_polling_interval=1.0,
        reconnect_interval=2.0,
        request_timeout=3.0,
        ack_timeout=30.0,
        max_in_flight=4,
        max_delivery_attempts=2,
        outbox_max_messages=20,
        max_pending_events=8,
    )


@define(eq=False)
class ScriptedTokenSource:
    """A source of tokens that live for half a minute.

    Attributes:
        issue: Makes a new token, good from now on.
        on_end: Told how each fetch ended: whether it failed.
        valid: The tokens that are good; the server's set, too.
        is_down: Whether it fails.
        most: The most fetches that ran at the same time.
    """

    issue: Callable[[], str]
    on_end: Callable[[bool], None]
    valid: set[str] = field(factory=set)
    is_down: bool = False
    most: int = 0
    _running: int = 0

    async def __call__(self) -> Token:
        """Return a new token."""
        self._running += 1
        self.most = max(self.most, self._running)
        try:
            await asyncio.sleep(_TOKEN_DELAY)
        finally:
            self._running -= 1
        self.on_end(self.is_down)
        if self.is_down:
            raise TokenSourceError("The source of tokens is down.")
        return Token(value=self.issue(), expires_at=wall_clock()() + _TOKEN_LIFE)


@define(eq=False)
class Emitted:
    """A message of the application's.

    Attributes:
        number: Which.
        event: Its name.
        delivery: As it was asked for.
        process: Which one emitted it.
        receipt: ``None`` until it was accepted.
        is_refused: It was not accepted, and the application was told so.
        is_undone: The disk was put back to before it: it is gone, or nobody knows that it was sent.
        is_forgotten: Its process crashed before it was accepted, so nobody counts on it.
    """

    number: int
    event: str
    delivery: Delivery
    process: int
    receipt: Receipt | None = None
    is_refused: bool = False
    is_forgotten: bool = False
    is_undone: bool = False


@define(eq=False)
class Witness:
    """What a client's observers were told, to be compared with what it says of itself.

    Attributes:
        client: The client.
        changes: Every change of its status.
        attempts: The end of every dial.
        settled: Every message that came to its end, which end, and when that was, on the wall clock.
    """

    client: RealtimeService
    changes: list[StatusChange] = field(factory=list)
    attempts: list[AttemptRecord] = field(factory=list)
    settled: list[tuple[Message, Outcome, float]] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        status = self.client.connection_status
        status.subscribe(self.changes.append)
        status.subscribe_attempts(self.attempts.append)
        self.client.on_settled(self._ended)

    def _ended(self, message: Message, at: float) -> None:
        # Its end of now: one that was called SENT may be doubted later, when the client ends.
        self.settled.append((message, message.receipt.outcome, at))


class Application:
    """One process of it after another, on the same disk.

    Args:
        environment: The server.
        seed: Of the client's jitter.
        tell: Told everything that happens, as text.
        config: Of the clients; by default ``simulated_config``.

    Attributes:
        client: The client of the present process.
        seen: What its clients went through.
        violations: What the application must never see, and has seen.
        emitted: All messages.
        changes: Every change of the present process's status.
        changed_at: When the last one was, on the loop's clock.
        dark_since: When data ceased to come although something is tried; ``None`` while it comes, or
            nothing is tried.
        stories: The changes of every process.
        is_closed: Whether it is disconnected, and nothing may come any more.
        is_disk_full: Whether its disk takes nothing.
        is_side_wanted: Whether the second channel is subscribed, as the application knows it.
        side: The last number of the second channel that it knows, while it is promised all that follow.
        witnesses: One for every process.
        ticks: How often each tick was heard.
        published: Ticks that the server sent.
        last: The last tick that is known; ``None`` before the first.
        is_owed: Whether ticks were missed that nobody has told of yet: there must be a resync.
        asks_back: Whether its handlers ask the server, and wait for the answer.
        sound_since: When the last fault had passed, its effects too, on the loop's clock; ``None`` while one
            may be at work.
    """

    def __init__(
        self,
        environment: Environment,
        seed: int,
        tell: Callable[[str], None],
        *,
        config: RealtimeConfig | None = None,
    ) -> None:
        self._setting = environment.setting
        self._environment = environment
        self._seed = seed
        self._turns = Random(f"turns:{seed}")  # noqa: S311 - a schedule is no secret
        self._greetings = 0
        self._tell = tell
        self._starts = 0
        self._known = 0  # ticks up to here came with a snapshot, and may come again
        self._tasks: dict[asyncio.Task[None], None] = {}  # in order: a run must be repeatable
        self._restarting: set[asyncio.Task[Any]] = (
            set()
        )  # handlers that wait for the end, and go on by themselves
        self._connects = self._disconnects = self._disconnecting = 0
        self.disk = SimulatedDisk()
        self.identity = ScriptedTokenSource(environment.token, on_end=self._fetched)
        self.config = simulated_config(self._setting) if config is None else config
        self.seen: set[str] = set()
        self.violations: list[str] = []
        self.emitted: list[Emitted] = []
        self.changes: list[StatusChange] = []
        self.stories: list[list[StatusChange]] = []
        self.witnesses: list[Witness] = []
        self.ticks: Counter[int] = Counter()
        self.published = 0
        self.is_side_wanted = False
        self.side: int | None = None
        self.is_closed = True
        self.is_disk_full = False
        self.changed_at = 0.0
        self.dark_since: float | None = None
        self._fetched_at: deque[float] = deque(maxlen=_STORM + 1)
        self.asks_back = False
        self.sound_since: float | None = 0.0
        environment.admit(self.identity.valid)
        self.start()

    def start(self) -> None:
        """Start the process: a new client on the old disk, that knows no tick."""
        self._starts += 1
        self._end_side()
        self.dark_since = None
        self._environment.hurry()
        self._known = self._excused = 0
        self.is_owed = False
        self.last: int | None = None
        self._backup = self.disk.copy()
        self.outbox = SimulatedOutbox(self.disk) if self._setting is Setting.REFERENCE else None
        self.set_disk_full(full=self.is_disk_full)
        self.client: RealtimeService = self._environment.client(
            self.config,
            token=self.identity,
            outbox=self.outbox,
            random=Random(f"{self._seed}:{self._starts}"),  # noqa: S311 - jitter
        )
        self.changes = []
        self.stories.append(self.changes)
        self.client.connection_status.subscribe(self._changed)
        self.witnesses.append(Witness(self.client))
        self.client.on(TICK, self._hear)
        self.client.on(NEWS, self._read)
        self.client.on(SIDE, self._hear_side)
        self.client.on(BEGIN_ANEW, self._begin_anew)
        self.client.on_resync(self._load)
        self.client.on_connect(self._greet)

    # What it does.

    def emit(self, delivery: Delivery | None = None, *, ttl: float | None = None) -> None:
        """Emit the next number, in the background."""
        message = self._next(NUMBER, self.config.default_delivery if delivery is None else delivery)

        async def send() -> None:
            receipt = await self.client.emit(NUMBER, message.number, delivery=message.delivery, ttl=ttl)
            message.receipt = receipt
            answer = await receipt
            self._tell(f"number {message.number} is {receipt.outcome.value}")
            if receipt.outcome is Outcome.ACKNOWLEDGED and answer != message.number:
                self.violations.append(f"message {message.number} got the answer {answer!r}")

        self._do(message, send)

    def emit_expiring(self) -> None:
        """Emit the next number, to be forgotten in a few seconds; others live longer, or for less."""
        self.emit(ttl=_TIMES_TO_LIVE[len(self.emitted) % len(_TIMES_TO_LIVE)])

    def call(self) -> None:
        """Ask for a number, in the background; the answer must be that number."""
        message = self._next(ASK, Delivery.AT_LEAST_ONCE)

        async def ask() -> None:
            try:
                answer = await self.client.call(ASK, message.number, timeout=CALL_TIMEOUT)
            except CallTimeoutError:
                self._tell(f"call {message.number} timed out")
                return
            self._tell(f"call {message.number} answered")
            if answer != message.number:
                self.violations.append(f"call {message.number} got the answer {answer!r}")
            if (ASK, message.number) not in self._environment.applied:
                self.violations.append(f"call {message.number} was answered, and never arrived")

        self._do(message, ask)

    def subscribe(self) -> None:
        """Want the second channel, in the background: from its confirmation on nothing of it is missed."""
        if not self.is_closed:
            self._start_task(self._subscribe(self.client))

    async def _subscribe(self, client: RealtimeService) -> None:
        self.is_side_wanted = True
        try:
            await client.subscribe([SIDE])
        except RealtimeError as error:
            self._tell(f"subscribe: {type(error).__name__}")
            return
        traits = TRAITS[client.status]
        is_certain = traits.sends or traits.publishes
        if self.is_side_wanted and is_certain and client is self.client and self.side is None:
            self.side = self.published
            self.publish()  # what comes first after it has returned is missed most easily

    def unsubscribe(self) -> None:
        """Want the second channel no more, in the background."""
        self._start_task(self._unsubscribe(self.client, 0))

    def flicker(self) -> None:
        """Want the second channel, and some turns of the loop later want it no more."""
        self.subscribe()
        self._start_task(self._unsubscribe(self.client, self._turns.randrange(_MOST_TURNS)))

    async def _unsubscribe(self, client: RealtimeService, turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        if client is self.client:
            self._end_side()
        await client.unsubscribe([SIDE])

    def _end_side(self) -> None:
        self.is_side_wanted, self.side = False, None

    def _hear_side(self, number: int, *_: object) -> None:
        self._tell(f"side {number}")
        if not self.is_side_wanted:
            self.violations.append(f"side {number} came though nobody wants the channel")
            return
        if self.side is not None and number > self.side + 1:
            self.violations.append(f"side {number} came after side {self.side}")
        self.side = max(self.side or 0, number)

    async def _greet(self) -> None:
        """Say the first word; a server that is slow to answer has heard it all the same.

        Every other one asks for no answer, or it alone would lose the acknowledgements that get lost.
        """
        self._greetings += 1
        if self._greetings % 2 == 0:
            await self.client.emit(HELLO, self._greetings, delivery=Delivery.AT_MOST_ONCE)
            return
        try:
            await self.client.call(HELLO, self._greetings, timeout=_GREETING_TIMEOUT)
        except (CallTimeoutError, DeliveryError) as error:
            self._tell(f"hello: {type(error).__name__}")

    def publish(self) -> None:
        """Let the server send the next tick."""
        self.published += 1
        self._environment.publish(self.published)

    def flood(self) -> None:
        """Let the server send more ticks than the handlers have room for, all at once."""
        for _ in range(_FLOOD):
            self.publish()

    def ask_back(self) -> None:
        """Have the handlers ask the server from now on."""
        self.asks_back = True

    async def connect(self) -> None:
        """Connect in the background."""
        self._environment.hurry()
        self._connects += 1
        if self.is_closed:
            self.is_closed = False
            if self._setting is Setting.REFERENCE:
                await self.client.subscribe([CHANNEL])
        self._start_task(self._connect())

    async def disconnect(self, *, drain: bool = True) -> None:
        """Disconnect; it must not take longer than it may."""
        loop = asyncio.get_running_loop()
        begun, connects = loop.time(), self._connects
        self._disconnects += 1
        self._disconnecting += 1
        try:
            await self.client.disconnect(drain=drain)
        except asyncio.CancelledError:
            if TRAITS[self.client.status].wanted:
                self.violations.append(f"a cancelled disconnect() leaves the client {self.client.status}")
            raise
        finally:
            self._disconnecting -= 1
            self.is_closed = self.is_closed or connects == self._connects
        if loop.time() > begun + self.config.close_timeout + 0.1:
            self.violations.append(f"disconnect() took {loop.time() - begun:.3f} s")

    def begin_disconnect(self) -> None:
        """Disconnect in the background."""
        self._start_task(self.disconnect())

    def cancel(self) -> None:
        """Cancel all that is under way."""
        for task in self._tasks:
            task.cancel()

    async def crash(self) -> None:
        """End the process without a goodbye, and start it again."""
        await self._start_again(self.disk)

    async def restore(self) -> None:
        """End the process without a goodbye, and start on a copy of its disk from before that process."""
        await self._start_again(self._backup)

    async def _start_again(self, disk: SimulatedDisk) -> None:
        self.disk.crash()
        waiting = list(self._tasks)
        for task in waiting:
            task.cancel()
        if waiting:
            await asyncio.wait(waiting)
        for message in self.emitted:
            message.is_forgotten = message.is_forgotten or self._is_forgotten(message)
        if disk is not self.disk:
            self._undo(disk)
        self.end()
        was_closed = self.is_closed
        await self.disconnect(drain=False)  # what is left of the old process: nobody counts on it
        self.disk = disk
        self.start()
        if not was_closed:
            await self.connect()

    def retry_now(self) -> None:
        """Let whatever waits be tried at once."""
        status = self.client.status
        self._environment.hurry()
        if self.client.retry_now():
            self.seen.add(of_wake(status))

    def end(self) -> None:
        """Note what the present client went through, before another replaces it."""
        self.seen.update(seen_of(self.changes, self.client.metrics))

    def force_fallback(self) -> None:
        """Force the fallback; there must be a connection, or an attempt at one."""
        if Trigger.FORCE_FALLBACK in legal_triggers(self.client.status):
            self.client.force_fallback()

    def set_disk_full(self, *, full: bool) -> None:
        """Let the disk be full, or free."""
        self.is_disk_full = full
        if self.outbox is not None:
            self.outbox.is_full = full

    @property
    def expired(self) -> set[int]:
        """The numbers whose time to live was over, in whichever process."""
        return {
            message.args[0]
            for witness in self.witnesses
            for message, _, _ in witness.settled
            if message.event == NUMBER and message.receipt.outcome is Outcome.EXPIRED
        }

    @property
    def tasks(self) -> frozenset[asyncio.Task[None]]:
        """The tasks of the application itself."""
        return frozenset(self._tasks) | self._restarting

    @property
    def is_busy(self) -> bool:
        """True if anything of it still runs."""
        return bool(self._tasks)

    async def settled(self) -> None:
        """Wait until nothing of it runs any more. The caller bounds it."""
        while self._tasks:
            await asyncio.wait(list(self._tasks))

    # What it is told.

    def _hear(self, number: int, *_: object) -> Awaitable[None] | None:
        self._note_tick(number)
        return self._ask_from_a_handler() if self.asks_back else None

    async def _ask_from_a_handler(self) -> None:
        number = self._next(ASK, Delivery.AT_LEAST_ONCE).number
        began = asyncio.get_running_loop().time()
        try:
            answer = await self.client.call(ASK, number, timeout=CALL_TIMEOUT)
        except RealtimeError as error:
            self._tell(f"call {number} of a handler: {type(error).__name__}")
            is_sound = self.sound_since is not None and self.sound_since <= began
            if is_sound and isinstance(error, CallTimeoutError):
                self.violations.append(f"call {number} of a handler got no answer, with nothing in its way")
            return
        if answer != number:
            self.violations.append(f"call {number} of a handler got the answer {answer!r}")

    def _note_tick(self, number: int) -> None:
        self._tell(f"tick {number}")
        self.ticks[number] += 1
        if self.is_closed:
            self.violations.append(f"tick {number} came after disconnect()")
        if number <= self._known:
            return  # the snapshot had it already
        if self.last is not None and self._may_have_missed(number - self.last - 1):
            self.is_owed = True
        elif self.last is not None and number != self.last + 1:
            self.violations.append(f"tick {number} came after tick {self.last}")
        self.last = number

    def _may_have_missed(self, count: int) -> bool:
        """Tell whether so many ticks were dropped because the handlers were behind, and nobody has them."""
        if count <= 0 or self._environment.position() is not None:
            return False
        self._excused += count
        return self._excused <= self.client.metrics.dropped.get(NO_ROOM, 0)

    def _read(self, number: int) -> None:
        self._tell(f"news {number}")
        self._known = max(self._known, number)
        self.last = max(self.last or 0, number)

    async def _load(self, missed: Missed) -> Position | None:
        self.is_owed = False
        await asyncio.sleep(_TOKEN_DELAY)
        self._excused = self.client.metrics.dropped.get(NO_ROOM, 0)
        self._tell(f"snapshot {self.published}: {missed.reason}")
        if missed.channel == SIDE:
            if self.is_side_wanted:
                self.side = self.published
            return self._environment.position(SIDE)
        self.last = self.published
        position = self._environment.position()
        if position is None:
            self._known = self.published  # without positions, what is on its way comes again
        return position

    async def _begin_anew(self) -> None:
        task = asyncio.current_task()
        if task is None or self.is_closed or self._disconnecting:
            return
        ending = asyncio.create_task(self.disconnect(), name="application: a handler that disconnects")
        self._restarting |= {task, ending}
        disconnects = self._disconnects
        try:
            await ending
        except asyncio.CancelledError:
            self.violations.append("a handler was cancelled by the disconnect() that it waited for")
            raise
        finally:
            self._restarting -= {task, ending}
        if self._disconnects == disconnects + 1:  # nobody else wanted the end meanwhile
            await self.connect()

    def _fetched(self, failed: bool) -> None:
        if TRAITS[self.client.status].sends:
            self.seen.add(of_refresh(failed=failed))
            self._fetched_at.append(asyncio.get_running_loop().time())
            many = len(self._fetched_at) > _STORM
            if many and self._fetched_at[-1] - self._fetched_at[0] < _TOKEN_LIFE:
                self.violations.append(f"more than {_STORM} tokens were fetched within {_TOKEN_LIFE:g} s")

    def _changed(self, change: StatusChange) -> None:
        self.changes.append(change)
        self.changed_at = asyncio.get_running_loop().time()
        traits = TRAITS[change.current]
        if traits.carries_data or not traits.online:
            self.dark_since = None
        elif self.dark_since is None:
            self.dark_since = self.changed_at
        self._tell(f"{change.previous} -> {change.current} by {change.trigger}: {change.reason}")
        prompt_since = self._environment.prompt_since
        if isinstance(change.error, HeartbeatTimeoutError) and prompt_since is not None:
            prompt_for = self.changed_at - prompt_since
            if prompt_for > self.config.heartbeat_interval + self.config.heartbeat_timeout + 0.1:
                self.violations.append(f"a link was called dead that has been live for {prompt_for:.1f} s")

    # Inside.

    def _next(self, event: str, delivery: Delivery) -> Emitted:
        message = Emitted(len(self.emitted) + 1, event, delivery, self._starts)
        self.emitted.append(message)
        return message

    def _do(self, message: Emitted, send: Callable[[], Awaitable[None]]) -> None:
        async def guarded() -> None:
            try:
                await send()
            except RealtimeError as error:
                message.is_refused = message.receipt is None
                if isinstance(error, ClosedError) and self.client.health().ready:
                    self.violations.append(f"message {message.number} is refused by a client that is ready")
                # Not its words: the ids in them differ from run to run.
                what = error.outcome if isinstance(error, DeliveryError) else type(error).__name__
                self._tell(f"{message.event} {message.number}: {what}")
                self._look_at(message)

        self._start_task(guarded())

    def _look_at(self, message: Emitted) -> None:
        """Look whether a message that is unacknowledged was had by the server."""
        if message.receipt is None or message.receipt.outcome is not Outcome.UNACKNOWLEDGED:
            return
        if (message.event, message.number) not in self._environment.applied:
            self.violations.append(f"message {message.number} is unacknowledged, and never arrived")

    async def _connect(self) -> None:
        try:
            await self.client.connect()
        except RealtimeError as error:
            self._tell(f"connect: {type(error).__name__}")

    def _start_task(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine, name="application")
        self._tasks[task] = None
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        if not task.cancelled() and (error := task.exception()) is not None:
            self.violations.append(f"the application was surprised by {error!r}")

    def _undo(self, disk: SimulatedDisk) -> None:
        """Note what is not on another disk, and has not come to its end."""
        kept = {message.args[0] for message in disk.waiting.values()}
        for message in self.emitted:
            is_open = message.receipt is None or message.receipt.outcome in {Outcome.PENDING, Outcome.STORED}
            if message.number in kept:
                # That it was sent was known to the disk alone: no server could tell that it comes again.
                message.is_undone = message.is_undone or message.delivery is Delivery.AT_MOST_ONCE
            elif is_open and not message.is_refused:
                message.is_undone = message.is_forgotten = True

    def _is_forgotten(self, message: Emitted) -> bool:
        """Tell whether a crash ends a message: what was not kept on the disk, and what nobody accepted."""
        if message.receipt is None:
            return not message.is_refused
        kept = self.outbox is not None and message.delivery is Delivery.EXACTLY_ONCE
        return not kept and message.receipt.outcome is Outcome.PENDING
