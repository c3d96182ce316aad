"""The parts of a client, and one stay in a state: all that an activity works with."""

import asyncio
from collections.abc import Callable

from attrs import define, field

from realtime_fsm.engine.dispatcher import Dispatcher
from realtime_fsm.engine.first_words import FirstWords
from realtime_fsm.engine.flight_recorder import FlightRecorder
from realtime_fsm.engine.link import Link
from realtime_fsm.engine.payload import Payload
from realtime_fsm.engine.port import HttpClient, RandomSource, TransportFactory, WallClock
from realtime_fsm.engine.recovery import ErrorRecoveryStrategy
from realtime_fsm.engine.sender import Sender
from realtime_fsm.engine.session_recovery import SessionRecovery
from realtime_fsm.engine.statistics import Statistics
from realtime_fsm.engine.status import ConnectionStatusManager
from realtime_fsm.engine.subscriptions import Subscriptions
from realtime_fsm.engine.token import TokenProvider
from realtime_fsm.machine.backoff import Pace, Pacer, RetryAfter
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.errors import RealtimeError, ServerUnavailableError
from realtime_fsm.machine.record import StatusChange
from realtime_fsm.machine.table import Trigger


@define(kw_only=True, eq=False, repr=False)
class Components:
    """The parts of one client, wired by ``assembly.py``.

    Attributes:
        config: The configuration.
        transport_factory: Makes a transport for every attempt.
        http: The HTTP side of FALLBACK.
        random: Source of all jitter.
        wall: The wall clock.
        statistics: What everything counts into.
        recorder: What was done last.
        tokens: The client's identity.
        sender: Messages on their way out.
        subscriptions: What is wanted, and how far it has come.
        session: Leads back to a session that the server keeps.
        dispatcher: Events on their way to the handlers.
        status: Who is told about the status.
        pace: When the next attempt is made, and which one it is.
        recovery: Told of every error.
        first_words: What the program says first on every connection.
        heartbeat: The encoded heartbeat event, or ``None`` where the dialect has none.
        publishing: When messages may be published next.
    """

    config: RealtimeConfig
    transport_factory: TransportFactory
    http: HttpClient
    random: RandomSource
    wall: WallClock
    statistics: Statistics
    recorder: FlightRecorder
    tokens: TokenProvider
    sender: Sender
    subscriptions: Subscriptions
    session: SessionRecovery
    dispatcher: Dispatcher
    status: ConnectionStatusManager
    pace: Pace
    recovery: ErrorRecoveryStrategy
    first_words: FirstWords
    heartbeat: Payload | None = None
    publishing: Pacer = field(init=False)

    @publishing.default
    def _pacer_of_publishing(self) -> Pacer:
        maximum = self.config.backoff_maximum
        return self.pacer(self.config.backoff_base, maximum, maximum)

    def pacer(self, base: float, maximum: float, longest: float) -> Pacer:
        """Return what paces the requests to one address over HTTP; see ``Pacer``."""
        floor = RetryAfter(random=self.random, most=self.config.max_retry_after)
        return Pacer(floor=floor, base=base, maximum=maximum, longest=longest)

    def report_long_retry_after(self, error: RealtimeError) -> None:
        """Tell people that a server asked for a longer pause than it is granted."""
        most = self.config.max_retry_after
        self.recovery.handle(
            ServerUnavailableError(
                f"The server asks to be left alone for {error.retry_after:.0f} s, and is for {most:g} s.",
                remedy="Mend the Retry-After of the server or of its proxy, or raise `max_retry_after`.",
            )
        )


@define(kw_only=True, eq=False)
class Stay:
    """One stay in a state, from its entry to its exit: what its activities may know and do.

    Attributes:
        epoch: Number of the entry; what is reported after the exit is dropped by it.
        entered_at: When it began, on the loop's clock.
        change: The change that began the stay.
        link: The connection that the stay uses: the live one in CONNECTED.
        make_link: Makes a fresh, unopened link, for activities that dial.
        fire: Reports a trigger of this stay: ``(stay, trigger, error, link)``.
        would_move: Tells whether a trigger of this stay would move the machine now: ``(stay, trigger)``.
        dispose: Releases a link that nobody wants, in the background.
        wake: Set by ``retry_now()`` and ``check_now()``: whoever waits goes on as if its time had come.
        due_at: When the wait under way ends by itself, on the loop's clock; ``None`` while none is.
        has_ended: Whether its state was left: what was begun in it, and has not heard of that yet, begins
            nothing more.
    """

    epoch: int
    entered_at: float
    change: StatusChange
    link: Link | None
    make_link: Callable[[], Link]
    fire: Callable[["Stay", Trigger, RealtimeError | None, Link | None], bool]
    would_move: Callable[["Stay", Trigger], bool]
    dispose: Callable[[Link], None]
    wake: asyncio.Event = field(factory=asyncio.Event)
    due_at: float | None = None
    has_ended: bool = False

    @property
    def live_link(self) -> Link:
        """The link of a stay in CONNECTED, which is entered with one only."""
        if self.link is None:  # pragma: no cover - the table gives ESTABLISHED to those who have dialled
            raise AssertionError("a stay without a link")
        return self.link

    def report(
        self, trigger: Trigger, *, error: RealtimeError | None = None, link: Link | None = None
    ) -> bool:
        """Report what an activity found out; ``False`` where it came too late or changed nothing."""
        return self.fire(self, trigger, error, link)

    def may(self, trigger: Trigger) -> bool:
        """Tell whether a trigger would move the machine now."""
        return self.would_move(self, trigger)

    async def pause(self, seconds: float) -> bool:
        """Wait for a time, or until somebody wakes the stay; return whether it was woken."""
        self.due_at = asyncio.get_running_loop().time() + seconds
        try:
            return await self.woken_within(seconds)
        finally:
            self.due_at = None

    async def woken_within(self, seconds: float) -> bool:
        """Wait as ``pause`` does, for something that is no attempt."""
        try:
            async with asyncio.timeout(seconds):
                await self.wake.wait()
        except TimeoutError:
            return False
        self.wake.clear()
        return True
