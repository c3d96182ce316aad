"""What the demo says while it runs, and what it has counted in the end."""

import time

from attrs import define, field, frozen

from realtime_fsm.cli.paint import Painter
from realtime_fsm.machine.record import StatusChange


@frozen(kw_only=True)
class DemoResult:
    """What the demo counted; ``--json`` prints it.

    Attributes:
        ok: All six states were visited, and nothing was lost.
        states_visited: In the order of the first visit.
        transitions: Transitions taken.
        emitted: Messages that ``emit`` accepted.
        delivered: Different messages that the server wrote into its journal.
        lost: Messages that were accepted and that the server never saw.
        duplicated: Messages that the server saw more than once.
        events_published: Events that the server published while the client was there.
        events_received: Different events that reached the client's handler.
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
    events_published: int
    events_received: int
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

    def summary(self, result: DemoResult) -> None:
        """Show what was counted."""
        if self.quiet:
            return
        painter = self.painter
        verdict = painter.paint("nothing lost", "green") if result.lost == 0 else painter.paint("LOST", "red")
        painter.line()
        painter.line(painter.paint("Summary", "bold"))
        painter.line(
            f"  states visited   {len(result.states_visited)} of 6: {', '.join(result.states_visited)}"
        )
        painter.line(f"  transitions      {result.transitions}")
        painter.line(
            f"  messages         {result.emitted} emitted, {result.delivered} delivered, "
            f"{result.lost} lost ({verdict}), {result.duplicated} more than once"
        )
        painter.line(
            f"  events           {result.events_published} published, {result.events_received} received"
        )
        for fault, seconds in result.recovery_seconds.items():
            painter.line(f"  {fault:<16} connected again after {seconds:.2f} s")
