"""The neutral graph between the machine and its renderers: plain strings, nothing to look up."""

from attrs import frozen

from realtime_fsm.machine.connection_machine import ConnectionMachine
from realtime_fsm.machine.table import ACTIVITIES, IGNORED, TRAITS, ConnectionStatus, Row, Trigger, rows_of

TIMES = "\N{MULTIPLICATION SIGN}"
DOT = "\N{MIDDLE DOT}"
OTHERWISE = "else"
"""UML's word for the branch that is taken when no guard before it holds."""


@frozen(kw_only=True)
class Node:
    """One state.

    Attributes:
        name: Its value.
        activities: What runs while it lasts, each with its guard: ``probing [may_probe]``.
        severity: How much it should worry a person; empty where nobody has said.
        meaning: What it is, in words for people.
        current: Whether it is marked as the current one.
        note: How often a history entered it, and for how long.
    """

    name: str
    activities: tuple[str, ...]
    severity: str
    meaning: str
    current: bool = False
    note: str = ""

    @property
    def heading(self) -> str:
        """How it is called: ours in capitals, those of other machines as they call them."""
        return self.name.upper() if self.severity else self.name

    @property
    def title(self) -> str:
        """What stands at its head, in words alone."""
        return f"{self.heading} (now)" if self.current else self.heading

    @property
    def lines(self) -> tuple[str, ...]:
        """What stands below its title."""
        return (*self.activities, self.note) if self.note else self.activities


@frozen(kw_only=True)
class Edge:
    """One legal move.

    Attributes:
        source: The state that is left.
        trigger: What fires it.
        dest: The state that is entered.
        guard: What must hold; ``else`` for the branch after guarded ones, ``None`` where nothing must.
        count: How often a history has taken it.
    """

    source: str
    trigger: str
    dest: str
    guard: str | None = None
    count: int = 0

    @property
    def label(self) -> str:
        """What an arrow says: ``trigger [guard]``, and how often it was taken."""
        return _counted(_guarded(self.trigger, self.guard), self.count)


@frozen(kw_only=True)
class Arrow:
    """All moves from one state to another, drawn as one arrow with one label a line."""

    source: str
    dest: str
    labels: tuple[str, ...]


@frozen(kw_only=True)
class IgnoredPair:
    """A trigger that does nothing in a state, and why."""

    state: str
    trigger: str
    reason: str


@frozen(kw_only=True)
class Graph:
    """The machine, ready to be drawn.

    Attributes:
        initial: The state in which it begins; empty where there is none.
        nodes: Its states.
        triggers: What can be fired.
        edges: Its moves; those of one pair stand in the order in which they are tried.
        ignored: What does nothing.
    """

    initial: str
    nodes: tuple[Node, ...]
    triggers: tuple[str, ...]
    edges: tuple[Edge, ...]
    ignored: tuple[IgnoredPair, ...]

    @property
    def endings(self) -> tuple[str, ...]:
        """The triggers that lead from every other state back to the initial one, whatever holds.

        Drawn as one arrow out of a frame around all those states: five arrows that say the same hide the
        rest.
        """
        others = {node.name for node in self.nodes} - {self.initial}

        def ends(trigger: str) -> bool:
            edges = [edge for edge in self.edges if edge.trigger == trigger]
            plain = all(edge.dest == self.initial and edge.guard is None for edge in edges)
            return plain and {edge.source for edge in edges} == others != set()

        return tuple(trigger for trigger in self.triggers if ends(trigger))

    @property
    def ending_labels(self) -> tuple[str, ...]:
        """What the arrow out of the frame says: every ending, and how often it was taken."""
        counts = {
            trigger: sum(edge.count for edge in self.edges if edge.trigger == trigger)
            for trigger in self.endings
        }
        return tuple(_counted(trigger, count) for trigger, count in counts.items())

    @property
    def arrows(self) -> tuple[Arrow, ...]:
        """The edges but the endings, those between the same two states merged; in the order of the edges."""
        labels: dict[tuple[str, str], list[str]] = {}
        endings = self.endings
        for edge in self.edges:
            if edge.trigger not in endings:
                labels.setdefault((edge.source, edge.dest), []).append(edge.label)
        return tuple(
            Arrow(source=source, dest=dest, labels=tuple(texts)) for (source, dest), texts in labels.items()
        )


def build_graph() -> Graph:
    """Return the graph of a freshly built machine: what is drawn is what runs."""
    machine = ConnectionMachine()
    return Graph(
        initial=machine.status.value,
        nodes=tuple(_node(status) for status in ConnectionStatus),
        triggers=tuple(trigger.value for trigger in Trigger),
        edges=tuple(_edge(row) for row in machine.rows()),
        ignored=tuple(
            IgnoredPair(state=state.value, trigger=trigger.value, reason=reason)
            for (state, trigger), reason in IGNORED.items()
        ),
    )


def _node(status: ConnectionStatus) -> Node:
    traits = TRAITS[status]
    return Node(
        name=status.value,
        activities=tuple(_guarded(row.activity, row.guard) for row in ACTIVITIES if row.state is status),
        severity=traits.severity.value,
        meaning=traits.meaning,
    )


def _edge(row: Row) -> Edge:
    follows_guarded = row.guard is None and len(rows_of(row.source, row.trigger)) > 1
    guard = OTHERWISE if follows_guarded else row.guard
    return Edge(
        source=row.source.value,
        trigger=row.trigger.value,
        dest=row.dest.value,
        guard=None if guard is None else str(guard),
    )


def _guarded(name: str, guard: str | None) -> str:
    return str(name) if guard is None else f"{name} [{guard}]"


def _counted(text: str, count: int) -> str:
    return f"{text} {TIMES}{count}" if count else text
