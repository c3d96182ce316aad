"""What a connection has been through, in the pictures."""

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from realtime_fsm.cli.listen import _JsonPrinter
from realtime_fsm.diagram import History, HistoryStep, read_history, render
from realtime_fsm.diagram.history import Visits, history_of
from realtime_fsm.machine.errors import ConnectionLostError, InvalidArgumentError
from realtime_fsm.machine.figures import Form, duration
from realtime_fsm.machine.record import StatusChange
from realtime_fsm.machine.table import ConnectionStatus, Trigger

SVG = "{http://www.w3.org/2000/svg}"
TIMES = "\N{MULTIPLICATION SIGN}"
DOT = "\N{MIDDLE DOT}"
S = ConnectionStatus
T = Trigger


def change(previous: S, trigger: T, current: S, at: float, reason: str = "because") -> StatusChange:
    """Return a change as observers are told it."""
    return StatusChange(previous=previous, trigger=trigger, current=current, at=at, reason=reason)


OUTAGE = [
    change(S.DISCONNECTED, T.CONNECT, S.CONNECTING, 0.0),
    change(S.CONNECTING, T.ESTABLISHED, S.CONNECTED, 0.5),
    change(S.CONNECTED, T.CONNECTION_LOST, S.RECONNECTING, 100.5, "the peer <fell> silent"),
    change(S.RECONNECTING, T.RETRY, S.CONNECTING, 102.0),
    change(S.CONNECTING, T.ATTEMPT_FAILED, S.RECONNECTING, 104.0),
    change(S.RECONNECTING, T.RETRY, S.CONNECTING, 107.0),
    change(S.CONNECTING, T.ESTABLISHED, S.CONNECTED, 107.25),
]
COUNTS = {
    ("disconnected", "connect", "connecting"): 1,
    ("connecting", "established", "connected"): 2,
    ("connected", "connection_lost", "reconnecting"): 1,
    ("reconnecting", "retry", "connecting"): 2,
    ("connecting", "attempt_failed", "reconnecting"): 1,
}
SPENT = {
    "connecting": f"{TIMES}3 {DOT} 2.8s",
    "connected": f"{TIMES}2 {DOT} 1m 40s",
    "reconnecting": f"{TIMES}2 {DOT} 4.5s",
    "disconnected": "0.0s",
}


def classes(root: ET.Element, name: str) -> set[str]:
    """Return the classes of the element with an id."""
    element = next(e for e in root.iter() if e.attrib.get("id") == name)
    return set(element.attrib["class"].split())


def badges(root: ET.Element) -> list[str]:
    """Return what the badges of the picture itself say, without those of the legend."""
    found = [e for e in root if e.attrib.get("class") == "badge"]
    return sorted(str(text.text) for badge in found for text in badge.iter(f"{SVG}text"))


@pytest.fixture
def recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """Return a file of what `listen --json` prints for the outage, with events between the changes."""
    printer = _JsonPrinter()
    for item in OUTAGE:
        printer.change(item)
        printer.event("price", {"of": item.current})
    path = tmp_path / "changes.jsonl"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    return path


def test_history_of_a_file_is_that_of_the_changes(recorded: Path) -> None:
    """What `listen --json` prints, read back, is what its observers were told."""
    history = read_history(recorded)
    assert history == history_of(OUTAGE) == history_of(str(recorded)) == history_of(recorded)
    assert history_of(history) is history
    assert len(history.steps) == len(OUTAGE)
    assert history.steps[2].reason == "the peer <fell> silent"
    assert history.current == "connected"


def test_history_counts_entries_and_adds_up_time() -> None:
    """A state was entered as often, and lasted as long, as the changes say; the present visit is open."""
    history = history_of(OUTAGE)
    assert history.visits("connecting") == Visits(entries=3, seconds=0.5 + 2.0 + 0.25)
    assert history.visits("connected") == Visits(entries=2, seconds=100.0)
    assert history.visits("disconnected") == Visits(entries=0, seconds=0.0)
    assert history.visits("failed") is None
    taken = history.taken("reconnecting", "retry", "connecting")
    assert [step.at for step in taken] == [102.0, 107.0]


def test_history_with_a_clock_that_was_put_back_has_no_negative_time() -> None:
    """Wall clocks are put back: no state lasts less than nothing."""
    history = history_of([OUTAGE[0], change(S.CONNECTING, T.ESTABLISHED, S.CONNECTED, -3600.0)])
    assert history.visits("connecting") == Visits(entries=1, seconds=0.0)


@pytest.mark.parametrize("direction", ["LR", "TB"])
def test_history_is_a_highlighted_path_with_counts_and_times(direction: str) -> None:
    """What was taken is marked as such and counted, what was not is marked as not, the end is current."""
    root = ET.fromstring(render(format="svg", history=OUTAGE, direction=direction))  # noqa: S314
    for element in root.iter():
        if "data-trigger" in element.attrib:
            data = element.attrib
            move = (data["data-source"], data["data-trigger"], data["data-dest"])
            assert ("taken" in data["class"].split()) is (move in COUNTS), move
            assert ("untaken" in data["class"].split()) is (move not in COUNTS), move
    for status in S:
        marks = classes(root, f"state-{status.value}")
        assert ("visited" in marks) is (status.value in SPENT)
        assert ("unvisited" in marks) is (status.value not in SPENT)
        assert ("current" in marks) is (status is S.CONNECTED)
    assert badges(root) == sorted([*SPENT.values(), *(f"{TIMES}{count}" for count in COUNTS.values())])


def test_history_tells_times_and_reasons_at_the_arrows() -> None:
    """An arrow that was taken tells when and why, each time on a line."""
    root = ET.fromstring(render(format="svg", history=OUTAGE))  # noqa: S314 - our own document
    element = next(
        e for e in root.iter() if e.attrib.get("id") == "edge-connected-connection_lost-reconnecting"
    )
    assert str(element.findtext(f"{SVG}title")).splitlines()[1:] == ["00:01:40 the peer <fell> silent"]


def test_history_counts_moves_that_share_an_arrow_together() -> None:
    """`disconnect` is one arrow out of the frame: it carries one count, of all the states that it left."""
    steps = [
        change(S.DISCONNECTED, T.CONNECT, S.CONNECTING, 0.0),
        change(S.CONNECTING, T.DISCONNECT, S.DISCONNECTED, 1.0),
        change(S.DISCONNECTED, T.CONNECT, S.CONNECTING, 2.0),
        change(S.CONNECTING, T.ESTABLISHED, S.CONNECTED, 3.0),
        change(S.CONNECTED, T.DISCONNECT, S.DISCONNECTED, 4.0),
        change(S.DISCONNECTED, T.CONNECT, S.CONNECTING, 5.0),
        change(S.CONNECTING, T.DISCONNECT, S.DISCONNECTED, 6.0),
    ]
    svg = render(format="svg", history=steps)
    assert badges(ET.fromstring(svg)).count(f"{TIMES}3") == 2  # noqa: S314 - connect, and disconnect
    assert "active --> disconnected : disconnect " + TIMES + "3\n" in render(history=steps)
    assert f" disconnect {TIMES}3 " in render(format="dot", history=steps)


def test_history_keeps_a_label_that_speaks_for_a_move_that_was_taken() -> None:
    """A label shared by several moves does not fade as long as one of them was taken."""
    steps = [
        change(S.CONNECTED, T.FORCE_FALLBACK, S.FALLBACK, 0.0),
        change(S.FALLBACK, T.DISCONNECT, S.DISCONNECTED, 1.0),
    ]
    root = ET.fromstring(render(format="svg", history=steps))  # noqa: S314 - our own document
    kept = [
        (group.attrib["id"], str(text.text))
        for group in root.iter(f"{SVG}g")
        if "data-trigger" in group.attrib
        for text in group.findall(f"{SVG}text")
        if "kept" in text.attrib["class"].split()
    ]
    assert kept == [
        ("edge-connecting-force_fallback-fallback", "force_fallback"),
        ("edge-connecting-disconnect-disconnected", "disconnect"),
    ]


def test_history_in_words_says_what_the_picture_shows() -> None:
    """Mermaid, DOT and the tables say counts and times in words, and where it is now."""
    mermaid = render(history=OUTAGE)
    assert f"connecting --> connected : established {TIMES}2\n" in mermaid
    assert f"connecting --> reconnecting : attempt_failed [may_retry] {TIMES}1\n" in mermaid
    assert "connecting --> failed : attempt_failed [else]\n" in mermaid
    assert "connected : CONNECTED (now)\n" in mermaid
    assert f"connected : {SPENT['connected']}\n" in mermaid
    assert "class connected current\n" in mermaid
    dot = render(format="dot", history=OUTAGE)
    assert f'label=" established {TIMES}2 "' in dot
    assert "<b>CONNECTED (now)</b>" in dot
    table = render(format="table", history=OUTAGE)
    assert f"CONNECTED {TIMES}2" in table
    assert (
        "| 00:01:40 | CONNECTED | `connection_lost` | RECONNECTING | 1.5s | the peer <fell> silent |" in table
    )
    assert table.count("it is the present one") == 1


def test_history_leaves_the_choice_of_the_current_state_to_the_caller() -> None:
    """A highlight wins over the state in which the history ends."""
    root = ET.fromstring(render(format="svg", history=OUTAGE, highlight="failed"))  # noqa: S314
    current = [e.attrib["id"] for e in root.iter() if "current" in e.attrib.get("class", "").split()]
    assert current == ["state-failed"]


def test_history_without_changes_marks_nothing_as_taken() -> None:
    """Nothing has happened: nothing is taken, and no state is the current one."""
    svg = render(format="svg", history=[])
    assert badges(ET.fromstring(svg)) == []  # noqa: S314 - our own document
    assert not re.search(r'class="[^"]*\b(taken|current|visited)\b', svg)


def test_history_of_another_machine_is_refused() -> None:
    """A history whose moves the machine does not have is refused, and the move is named."""
    steps = [HistoryStep(source="on", trigger="dim", dest="low", at=0.0)]
    with pytest.raises(InvalidArgumentError, match="on -> low by dim"):
        render(history=steps)
    assert f"on --> low : dim {TIMES}1" in render([("on", "dim", "low")], history=steps)


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        "[1]",
        "7",
        '{"kind": "status"}',
        '{"previous": "a", "current": "b", "trigger": "t", "at": "now"}',
        '{"previous": "a", "current": "b", "trigger": "t", "at": 1e99}',
        '{"previous": "a", "current": "b", "trigger": "t", "at": NaN}',
    ],
)
def test_history_with_a_strange_line_is_refused_by_its_number(recorded: Path, line: str) -> None:
    """A line that is no change is not passed over: its number is told."""
    recorded.write_text(f"\n{line}\n" + recorded.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(InvalidArgumentError, match=f"Line 2 of {recorded}"):
        read_history(recorded)


def test_history_whose_writer_was_killed_is_read_up_to_there(recorded: Path) -> None:
    """The last line may be cut off at any place, and be whole without its newline."""
    whole = recorded.read_text(encoding="utf-8").splitlines()[:3]
    last = json.dumps({"kind": "status", "at": 9, "previous": "a", "current": "b", "trigger": "t"})
    for cut in range(len(last) + 1):
        recorded.write_text("\n".join([*whole, last[:cut]]), encoding="utf-8")
        assert len(read_history(recorded).steps) == (3 if cut == len(last) else 2), cut
    recorded.write_text("\n".join([*whole, '{"kind": "status"}']), encoding="utf-8")
    with pytest.raises(InvalidArgumentError, match="Line 4"):
        read_history(recorded)


def test_history_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A missing file, a folder and a file that is no text are refused by name."""
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"\x89PNG\xff")
    for path in (tmp_path / "none.jsonl", tmp_path, picture):
        with pytest.raises(InvalidArgumentError, match=str(path)):
            read_history(path)


def test_history_holds_no_more_of_an_error_than_its_reason() -> None:
    """A step keeps the reason in words, and nothing of the error or its frames."""
    told = StatusChange(
        previous=S.CONNECTED,
        trigger=T.CONNECTION_LOST,
        current=S.RECONNECTING,
        reason="gone",
        error=ConnectionLostError("token=abc"),
    )
    assert "abc" not in repr(history_of([told]))
    assert History(()).current is None


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0.0s"),
        (0.25, "0.2s"),
        (9.94, "9.9s"),
        (9.96, "10s"),
        (59.4, "59s"),
        (59.6, "1m"),
        (61, "1m 1s"),
        (3599.7, "1h"),
        (3660, "1h 1m"),
        (90000, "25h"),
    ],
)
def test_duration_is_short(seconds: float, said: str) -> None:
    """A length of time takes few characters, and never says 60 of anything."""
    assert duration(seconds, Form.SHORT) == said


def test_step_has_its_former_name_with_a_warning() -> None:
    """`Step` is still importable: it is `HistoryStep`, and a warning says so."""
    with pytest.warns(DeprecationWarning, match="HistoryStep"):
        from realtime_fsm.diagram import Step  # noqa: PLC0415
    assert Step is HistoryStep
