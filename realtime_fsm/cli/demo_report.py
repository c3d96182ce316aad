"""What the demo says while it runs, and what it has counted in the end."""

import time

from attrs import define, field, frozen

from realtime_fsm.cli.paint import Painter
from realtime_fsm.machine.record import StatusChange


@frozen(kw_only=True)
class DemoResult:
    """What the demo counted; ``--json`` prints it.

    Attributes:
        ok: All six states were visited, nothing was lost, and nothing was applied or heard twice.
        states_visited: In the order of the first visit.
        transitions: Transitions taken.
        emitted: Messages that ``emit`` accepted.
        delivered: Different messages that the server applied: they are in its database.
        lost: Messages that were accepted and that the server never applied.
        duplicated: Messages that the server applied more than once.
        repeats_dropped: Messages that came to the server again, and that it told from new ones.
        events_published: Events that the server published while the client was there.
        events_received: Of them, the ones that the client knows of: heard, or loaded by its resync hook.
        events_missed: Of them, the ones that it does not know of.
        events_repeated: Events that its handler heard twice, or out of order.
        resyncs: Times that the server could not replay, and the hook loaded a snapshot.
        recovery_seconds: For each fault, from its beginning (for the blocked socket: from its end) until the
            client was connected.
    """

    ok: bool
    states_visited: list[str]
    transitions: int
    emitted: int
    delivered: int
    lost: int
    duplicated: int
    repeats_dropped: int
    events_published: int
    events_received: int
    events_missed: int
    events_repeated: int
    resyncs: int
    recovery_seconds: dict[str, float]


@define
class Narrator:
    """Tells what happens as it happens, unless it is to be quiet.

    Attributes:
        quiet: Say nothing.
        painter: Where it goes.
        began: Clock of the first word.
    """

    quiet: bool
    painter: Painter = field(factory=Painter)
    began: float = field(factory=time.monotonic)

    def chapter(self, title: str, explanation: str) -> None:
        """Announce a fault."""
        if not self.quiet:
            self.painter.line()
            self.painter.line(
                f"{self.painter.paint(title, 'bold')}  {self.painter.paint(explanation, 'dim')}"
            )

    def change(self, change: StatusChange) -> None:
        """Show a status change."""
        if self.quiet:
            return
        then = "" if change.retry_in is None else f"; attempt {change.attempt} in {change.retry_in:.1f} s"
        clock = self.painter.paint(f"{time.monotonic() - self.began:6.2f}s", "dim")
        self.painter.line(f"  {clock}  {self.painter.status(change.current)} {change.reason}{then}")

    def _bad(self, count: int) -> str:
        """Return a number that should be 0, in the colour that it deserves."""
        return self.painter.paint(str(count), "red" if count else "green")

    def summary(self, result: DemoResult) -> None:
        """Show what was counted."""
        if self.quiet:
            return
        painter = self.painter
        painter.line()
        painter.line(painter.paint("Summary", "bold"))
        painter.line(
            f"  states visited   {len(result.states_visited)} of 6: {', '.join(result.states_visited)}"
        )
        painter.line(f"  transitions      {result.transitions}")
        painter.line(
            f"  messages         {result.emitted} emitted, {result.delivered} delivered, "
            f"{self._bad(result.lost)} lost, {self._bad(result.duplicated)} applied twice "
            f"({result.repeats_dropped} repeats dropped)"
        )
        painter.line(
            f"  events           {result.events_published} published, "
            f"{self._bad(result.events_missed)} missed, {self._bad(result.events_repeated)} heard twice "
            f"({result.resyncs} snapshots loaded)"
        )
        for fault, seconds in result.recovery_seconds.items():
            painter.line(f"  {fault:<16} connected again after {seconds:.2f} s")
