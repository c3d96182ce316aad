"""A Hypothesis state machine over the whole engine, to be subclassed."""

from collections.abc import Coroutine
from typing import Any, ClassVar, TypeVar

from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.errors import MissingExtraError
from realtime_fsm.service import RealtimeService
from realtime_fsm.testing.environment import SimulatedEnvironment
from realtime_fsm.testing.schedule import PAUSES, Action, Schedule, Setting, Step
from realtime_fsm.testing.simulation import EnvironmentFactory, Simulation
from realtime_fsm.testing.virtual_loop import VirtualSession

try:
    from hypothesis import strategies as st
    from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
except ImportError as missing:
    raise MissingExtraError(extra="testing", what="realtime_fsm.testing.ConnectionRules") from missing

T = TypeVar("T")


class ConnectionRules(RuleBasedStateMachine):
    """The engine, a server and an application in virtual time; anything may happen, and every promise holds.

    ::

        class BookingRules(ConnectionRules):
            def begin(self):
                self.seen = []
                self.client.on("tick", self.seen.append)

            @rule()
            def ask(self):
                self.run(self.client.emit("ask", 1))

            @invariant()
            def remembers_little(self):
                assert len(self.seen) < 1000


        TestBooking = BookingRules.TestCase

    Rules and invariants of a subclass come to those that are here. After each step everything that must
    always hold is checked, and in the end all is mended, and everything must be delivered.

    Attributes:
        setting: What kind of server it is.
        environment: Makes the server and its network.
        actions: What may happen.
        simulation: The application, its client, and its server.
    """

    setting: ClassVar[Setting] = Setting.REFERENCE
    environment: ClassVar[EnvironmentFactory] = SimulatedEnvironment
    actions: ClassVar[tuple[Action, ...]] = tuple(Action)

    def __init__(self) -> None:
        super().__init__()
        self._session = VirtualSession()
        self.simulation: Simulation = self.run(self._made())
        self.begin()

    @property
    def client(self) -> RealtimeService:
        """The client of the present process: a crash makes another one."""
        return self.simulation.application.client

    def config(self) -> RealtimeConfig | None:
        """Return the configuration of the clients; ``None`` for one with short times. To be overridden."""
        return None

    def begin(self) -> None:
        """Do what is to be done first, with the client not yet connected. To be overridden."""

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in virtual time."""
        return self._session.run(main)

    @rule(data=st.data(), pause=st.sampled_from(PAUSES))
    def happens(self, data: st.DataObject, pause: float) -> None:
        """Let something happen."""
        action = data.draw(st.sampled_from(self.actions), label="action")
        self.run(self.simulation.do(Step(action, pause)))

    @invariant()
    def every_promise_holds(self) -> None:
        """Check what must always hold."""
        self.run(self._checked())

    def teardown(self) -> None:
        """Mend everything, and see it delivered; then close, and see nothing left."""
        with self._session:
            self.run(self._ended())

    async def _made(self) -> Simulation:
        simulation = Simulation(Schedule((), 0, self.setting), type(self).environment, config=self.config())
        await simulation.environment.open()
        return simulation

    async def _checked(self) -> None:
        self.simulation.check()

    async def _ended(self) -> None:
        await self.simulation.heal()
        await self.simulation.close()
