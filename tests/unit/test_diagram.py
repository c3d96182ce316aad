import itertools
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from realtime_fsm.diagram import FORMATS, render
from realtime_fsm.diagram.graph import Arrow, Edge, Graph, IgnoredPair, Node, build_graph
from realtime_fsm.diagram.palette import PALETTE
from realtime_fsm.diagram.shipped import PLANS, data_name
from realtime_fsm.diagram.text import render_dot, render_mermaid, render_table
from realtime_fsm.machine.errors import InvalidArgumentError
from realtime_fsm.machine.table import (
    ACTIVITIES,
    IGNORED,
    TRAITS,
    TRANSITIONS,
    ConnectionStatus,
    Severity,
    Trigger,
    rows_of,
)

ROOT = Path(__file__).parents[2]
FILES = {"mermaid": "realtime_fsm.mmd", "dot": "realtime_fsm.dot", "table": "transitions.md"}


def node(name: str, *activities: str, severity: str = "info") -> Node:
    """Return a state of a made-up machine."""
    return Node(name=name, activities=activities, severity=severity, meaning=f"It is {name}.")


LAMP = Graph(
    initial="off",
    nodes=(node("off"), node("on", "shine", "hum [loud]", severity="error")),
    triggers=("press", "push", "pull", "kick"),
    edges=(
        Edge(source="off", trigger="press", dest="on", guard="may_shine"),
        Edge(source="off", trigger="press", dest="off", guard="else"),
        Edge(source="off", trigger="push", dest="on"),
        Edge(source="on", trigger="pull", dest="off"),
    ),
    ignored=(IgnoredPair(state="on", trigger="push", reason="It is on | already."),),
)


@pytest.mark.parametrize("name", FILES)
def test_diagram_file_is_fresh(name: str) -> None:
    """The committed file is what the machine renders today."""
    stale = f"renew it: realtime-fsm diagram --format {name} --output diagrams/{FILES[name]}"
    assert (ROOT / "diagrams" / FILES[name]).read_text(encoding="utf-8") == render(format=name), stale


def test_readme_shows_the_finished_picture() -> None:
    """The README begins with the picture that is kept fresh, and shows no other than those that are."""
    shown = re.findall(r"\]\((diagrams/\S+\.svg)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert shown[0] == f"diagrams/{data_name('LR')}"
    assert set(shown) == {f"diagrams/{data_name(direction)}" for direction in PLANS}


def test_diagram_every_format_has_its_file() -> None:
    """No format is forgotten among the committed files."""
    assert set(FORMATS) == {*FILES, "svg", "png"}
    drawn = {path.name for path in (ROOT / "diagrams").iterdir() if path.suffix != ".svg"}
    assert drawn == set(FILES.values())


@pytest.mark.parametrize("name", [*FILES, "svg"])
def test_render_is_deterministic_and_ends_with_one_newline(name: str) -> None:
    """The same machine gives the same text, with one newline at its end and no blank before one."""
    text = render(format=name)
    assert text == render(format=name)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert not re.search(r"[ \t]$", text, re.MULTILINE)


def test_render_refuses_an_unknown_format() -> None:
    """An unknown format is refused, and the known ones are named."""
    with pytest.raises(InvalidArgumentError, match=r"format='gif' is unknown\. Use svg, png, mermaid, dot"):
        render(format="gif")


def test_diagram_imports_no_network_library() -> None:
    """To draw the machine nothing of the network is loaded."""
    code = (
        "import sys; from realtime_fsm.diagram import render; render(format='mermaid'); "
        "print(sorted({'socketio', 'engineio', 'aiohttp'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert run.stdout == "[]\n"


def test_graph_holds_every_row_of_the_table_and_no_other() -> None:
    """The edges are the table's rows; the branch after a guarded one is marked `else`."""
    expected = {
        (row.source.value, row.trigger.value, row.dest.value, row.guard)
        if row.guard or len(rows_of(row.source, row.trigger)) == 1
        else (row.source.value, row.trigger.value, row.dest.value, "else")
        for row in TRANSITIONS
    }
    edges = build_graph().edges
    assert {(edge.source, edge.trigger, edge.dest, edge.guard) for edge in edges} == expected
    assert len(edges) == len(TRANSITIONS)


def test_graph_holds_states_activities_and_what_is_ignored() -> None:
    """States, their activities and meanings, and the ignored pairs are those of the tables."""
    graph = build_graph()
    assert graph.initial == "disconnected"
    assert [n.name for n in graph.nodes] == [status.value for status in ConnectionStatus]
    assert [n.meaning for n in graph.nodes] == [TRAITS[status].meaning for status in ConnectionStatus]
    shown = [(n.name, activity) for n in graph.nodes for activity in n.activities]
    assert shown == [
        (row.state.value, row.activity.value + (f" [{row.guard.value}]" if row.guard else ""))
        for row in ACTIVITIES
    ]
    assert {(p.state, p.trigger): p.reason for p in graph.ignored} == dict(IGNORED)


def test_graph_every_label_of_an_edge_is_drawn_once() -> None:
    """Arrows and the ending out of the frame together say what all edges say, once."""
    graph = build_graph()
    assert graph.endings == ("disconnect",)
    drawn = [(a.source, a.dest, label) for a in graph.arrows for label in a.labels]
    ended = [(e.source, e.dest, e.label) for e in graph.edges if e.trigger in graph.endings]
    assert sorted(drawn + ended) == sorted((e.source, e.dest, e.label) for e in graph.edges)
    assert len({(arrow.source, arrow.dest) for arrow in graph.arrows}) == len(graph.arrows)


def test_graph_merges_parallel_edges() -> None:
    """Two edges between the same states become one arrow with two labels."""
    assert LAMP.endings == ("pull",)
    assert LAMP.arrows == (
        Arrow(source="off", dest="on", labels=("press [may_shine]", "push")),
        Arrow(source="off", dest="off", labels=("press [else]",)),
    )


def test_mermaid_of_a_small_machine_is_exact() -> None:
    """Every part of a Mermaid diagram stands where it should."""
    text, _, styles = render_mermaid(LAMP).partition("    classDef")
    assert text == (
        "stateDiagram-v2\n"
        "    [*] --> off\n"
        "    off : OFF\n"
        "    state active {\n"
        "        on : ON\n"
        "        on : shine\n"
        "        on : hum [loud]\n"
        "    }\n"
        "    off --> on : press [may_shine]<br/>push\n"
        "    off --> off : press [else]\n"
        "    active --> off : pull\n"
    )
    assert styles.endswith("    class off info\n    class on error\n")


def test_dot_of_a_small_machine_holds_its_parts() -> None:
    """States with activities, merged arrows, and the ending out of the frame are drawn."""
    text = render_dot(LAMP)
    assert "off [label=<<b>OFF</b>>" in text
    assert '<b>ON</b><br/><font point-size="11">shine</font>' in text
    assert 'off -> on [label=" press [may_shine] \\n push "]' in text
    assert 'on -> off [label=" pull ", ltail=cluster_active]' in text


@pytest.mark.parametrize("renderer", [render_mermaid, render_dot])
def test_pictures_without_an_ending_draw_no_arrow_out_of_the_frame(renderer: Callable[[Graph], str]) -> None:
    """Where no trigger ends every state, no arrow leaves the frame."""
    endless = Graph(initial="off", nodes=LAMP.nodes, triggers=("push",), edges=LAMP.edges[2:3], ignored=())
    text = renderer(endless)
    assert "active -->" not in text
    assert "ltail" not in text


def test_table_of_a_small_machine_is_exact() -> None:
    """The matrix shows branches in order, what is ignored, and leaves the illegal empty; bars are escaped."""
    lines = render_table(LAMP).splitlines()
    start = lines.index("| trigger | OFF | ON |")
    assert lines[start + 2 : start + 6] == [
        "| `press` | ON `[may_shine]`<br>OFF `[else]` |  |",
        "| `push` | ON | *ignored* |",
        "| `pull` |  | OFF |",
        "| `kick` |  |  |",
    ]
    assert "| ON | `push` | It is on \\| already. |" in lines
    assert "| OFF | nothing | info | It is off. |" in lines
    assert "| ON | `shine`<br>`hum [loud]` | error | It is on. |" in lines


def test_table_shows_every_pair_of_the_machine() -> None:
    """Each of the pairs has its cell: destinations, `ignored`, or empty where it is illegal."""
    lines = render(format="table").splitlines()
    rows = {
        cells[0].strip("`"): cells[1:]
        for cells in ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)
        if len(cells) == 1 + len(ConnectionStatus)
    }
    for state, trigger in itertools.product(ConnectionStatus, Trigger):
        cell = rows[trigger.value][list(ConnectionStatus).index(state)]
        named = re.findall(r"[A-Z]+", cell)
        assert named == [row.dest.name for row in rows_of(state, trigger)]
        assert ("*ignored*" in cell) is ((state, trigger) in IGNORED)


def test_mermaid_keeps_to_what_every_version_draws() -> None:
    """Every line is a plain statement, and no label holds a sign that ends one."""
    statement = re.compile(
        r"\s*(stateDiagram-v2|\[\*\] --> \w+|\w+ --> \w+ : [^:;]+|\w+ : [^:;]+|state \w+ \{|\}"
        r"|classDef \w+ \S+|class \w+ \w+)"
    )
    for line in render(format="mermaid").splitlines():
        assert statement.fullmatch(line), line


def test_palette_has_a_colour_for_every_severity() -> None:
    """No severity is without its colours."""
    assert set(PALETTE) == {severity.value for severity in Severity}
