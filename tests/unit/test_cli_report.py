"""``realtime-fsm report``: what a person sees of a metrics database, in every form and for every mistake."""

import argparse
import asyncio
import io
import json
import re
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from recorded import MAY, many_runs, record, two_runs

from realtime_fsm.cli import main
from realtime_fsm.cli.arguments import EXIT_FAILED, EXIT_OK, EXIT_USAGE, moment
from realtime_fsm.monitoring.database import MetricsDatabase
from realtime_fsm.report import statistics as confidence
from realtime_fsm.report.plots import dark_rules

Capture = pytest.CaptureFixture[str]

needs_plots = pytest.mark.skipif(
    find_spec("matplotlib") is None, reason="the extra [report] is not installed"
)


@pytest.fixture(scope="module", autouse=True)
def fonts(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let matplotlib open its fonts once: it keeps them for the life of the process."""
    if find_spec("matplotlib") is not None:
        path = tmp_path_factory.mktemp("fonts") / "metrics.db"
        many_runs(path, "new", runs=1, failures=5)
        main(["report", str(path), "--svg", str(path.with_name("fonts.svg"))])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resample less often than for people."""
    monkeypatch.setattr(confidence, "RESAMPLES", 200)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the file is to be."""
    return tmp_path / "metrics.db"


def lines_of(text: str) -> list[str]:
    """Return lines with their columns one space apart."""
    return [" ".join(line.split()) for line in text.splitlines()]


def test_report_shows_figures_causes_and_the_timeline(path: Path, capsys: Capture) -> None:
    """A person sees the figures of each implementation, what failed by what, and when it was worst."""
    two_runs(path)
    assert main(["report", str(path)]) == EXIT_OK
    lines = lines_of(capsys.readouterr().out)
    assert lines[0] == f"{path} 2026-05-01 00:00 to 2026-05-01 02:01 UTC"
    for line in (
        "runs 2",
        "instances 2",
        "version 2 versions",
        "wanted time 4.0 h",
        "live 98.1 %",
        "degraded (polling) 0.28 %",
        "down 1.6 %",
        "outages a day 12",
        "outages not over 1",
        "longest outage 3.3 min",
        "time to recover, median 60.0 s",
        "failure rate 40.0 %",
        "latency, p95 190 ms",
        "legacy 1.1 1 97.2 % 1 - 0 % -",
        "ConnectTimeoutError 1",
        "TransportClosedError 1",
        "2026-05-01 01:00 legacy 96.4 % 0.56 % 3.1 % 2 2 of 3",
        "legacy ▆▄·",
    ):
        assert line in lines, line


def test_report_compares_in_sentences(path: Path, capsys: Capture) -> None:
    """Each figure ends in one sentence, with a sign that says as much as its colour."""
    many_runs(path, "legacy", failures=68, recover=60.0)
    many_runs(path, "new", failures=24, recover=10.0)
    assert main(["report", str(path), "--compare", "legacy", "new"]) == EXIT_OK
    lines = lines_of(capsys.readouterr().out)
    verdicts = lines[
        lines.index("new compared with legacy (differences with their 95 % confidence intervals)") + 1 :
    ]
    assert [line[0] for line in verdicts] == ["✓", "=", "✓", "✓", "="]
    assert verdicts[3] == "✓ new fails less: 1.2 % against 3.4 %, difference -2.2 points [-3.2, -1.3]."


def test_report_hints_at_a_comparison(path: Path, capsys: Capture) -> None:
    """Where there are two implementations and no comparison was asked for, the report says how to."""
    two_runs(path)
    two_runs(path, "new")
    assert main(["report", str(path)]) == EXIT_OK
    assert capsys.readouterr().out.endswith("--compare legacy new\n")


class Terminal(io.StringIO):
    """A stream that a person looks at."""

    def isatty(self) -> bool:
        """Say so."""
        return True


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_report_colours_a_terminal_and_honours_no_color(
    path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], *, coloured: bool
) -> None:
    """A terminal gets colours unless ``NO_COLOR`` is set; the words are the same."""
    two_runs(path)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["report", str(path)]) == EXIT_OK
    assert ("\x1b[" in stream.getvalue()) is coloured
    assert "failure rate" in stream.getvalue()


def test_report_to_a_pipe_has_no_colour(path: Path, capsys: Capture) -> None:
    """A pipe gets plain text."""
    two_runs(path)
    main(["report", str(path)])
    assert "\x1b" not in capsys.readouterr().out


def test_report_survives_a_stream_without_its_characters(path: Path) -> None:
    """Where the output's encoding has no bars the report leaves them out, and tells all else."""
    two_runs(path)
    run = subprocess.run(
        [sys.executable, "-m", "realtime_fsm.cli", "report", str(path)],
        capture_output=True,
        check=False,
        timeout=60,
        env={"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert (run.returncode, run.stderr) == (EXIT_OK, b"")
    assert b"failure rate" in run.stdout
    assert b"?" not in run.stdout


def test_names_cannot_command_the_terminal(path: Path, capsys: Capture) -> None:
    """Control characters in labels and causes are shown, not sent."""

    def fill(database: MetricsDatabase) -> None:
        database.record_change("live", current="x", at=MAY)
        database.record_attempt(0.1, cause="\x1b[2Jgone", at=MAY)

    record(path, "new\x1b]0;x\x07", fill, seconds=60, version="\x9b1m")
    assert main(["report", str(path)]) == EXIT_OK
    shown = capsys.readouterr().out
    assert not set("\x1b\x07\x9b") & set(shown)
    assert r"\x1b[2Jgone" in shown


def test_json_is_one_object_on_one_line(path: Path, capsys: Capture) -> None:
    """``--json`` prints one object with the same figures, and nothing else."""
    two_runs(path)
    assert main(["report", str(path), "--json", "--since", "2026-05-01T01:00:30"]) == EXIT_OK
    shown = capsys.readouterr().out
    assert shown.count("\n") == 1
    found = json.loads(shown)
    assert found["since"] == "2026-05-01T01:00:30Z"
    assert found["implementations"][0]["availability"]["degraded_seconds"] == 30.0
    assert found["comparison"] is None


@pytest.mark.real_loop
async def test_report_reads_a_file_that_is_in_use(path: Path, capsys: Capture) -> None:
    """While a client writes its file the report tells what was written so far, and disturbs nobody."""
    async with MetricsDatabase(path, wall=lambda: MAY) as database:
        database.record_latency(0.25, at=MAY)
        async with asyncio.timeout(20):
            while database.counters.written < 1:  # noqa: ASYNC110 - another thread's
                await asyncio.sleep(0.01)
        assert main(["report", str(path), "--json"]) == EXIT_OK
        database.record_latency(0.5, at=MAY + 1)
    assert (database.counters.written, database.counters.failures) == (2, 0)
    assert json.loads(capsys.readouterr().out)["implementations"][0]["latency"]["count"] == 1


# What goes wrong.


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Give a sound database of another program."""
    path = tmp_path / "foreign.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE aunt (letter TEXT)")
    return path


def test_file_that_cannot_be_reported_on_is_one_clear_line(
    path: Path, foreign: Path, capsys: Capture
) -> None:
    """A missing file, one that is no database, one of another program: a line on stderr, exit code 1."""
    letter = path.with_name("letter.txt")
    letter.write_text("Dear aunt, " * 200)
    for wrong, why in (
        (path, f"There is no metrics database {path}."),
        (letter, "cannot be read as a metrics database: it is not a database."),
        (foreign, "cannot be read as a metrics database: it is not a metrics database."),
    ):
        assert main(["report", str(wrong)]) == EXIT_FAILED
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.startswith("realtime-fsm: ")
        assert told.err.count("\n") == 1
        assert why in told.err
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["--since", "2026-06-01"], EXIT_FAILED, "no records in .* since 2026-06-01T00:00:00Z"),
        (["--compare", "legacy", "new"], EXIT_FAILED, "no records of new .* records of legacy"),
        (["--compare", "legacy", "legacy"], EXIT_USAGE, "with itself"),
        (["--svg", "/nowhere/x.svg"], EXIT_FAILED, "/nowhere/x.svg cannot be written: No such file"),
    ],
)
def test_report_that_cannot_be_made_says_why(
    path: Path, capsys: Capture, arguments: list[str], code: int, why: str
) -> None:
    """What is asked for and is not there is a line on stderr, with the exit code of its kind."""
    if "--svg" in arguments:
        pytest.importorskip("matplotlib")
    two_runs(path)
    assert main(["report", str(path), *arguments]) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert re.search(why, told.err)


@pytest.mark.parametrize(
    "arguments", [[], ["x", "--since", "yesterday"], ["x", "--json", "--svg", "y"], ["x", "--compare", "new"]]
)
def test_wrong_usage_exits_with_two(arguments: list[str]) -> None:
    """What cannot be meant is refused before any file is opened."""
    with pytest.raises(SystemExit) as ended:
        main(["report", *arguments])
    assert ended.value.code == EXIT_USAGE


@pytest.mark.parametrize(
    ("text", "ago"),
    [("90s", 90.0), ("90 min", 5400.0), ("1.5h", 5400.0), ("7d", 604_800.0), ("2w", 1_209_600.0)],
)
def test_since_may_be_how_long_ago(text: str, ago: float) -> None:
    """A span counts back from now."""
    assert moment(text) == pytest.approx(time.time() - ago, abs=5)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-05-01", MAY),
        ("2026-05-01T00:00", MAY),
        ("2026-05-01T00:00:00Z", MAY),
        ("2026-05-01T02:00+02:00", MAY),
        ("1960-01-01", -315_619_200.0),
    ],
)
def test_since_may_be_a_time(text: str, at: float) -> None:
    """A time without an offset is UTC, as all times of the report are."""
    assert moment(text) == at


@pytest.mark.parametrize("text", ["", "24", "h", "-3h", "1e9d", "tomorrow", "2026-13-01", "99999999999999h"])
def test_since_that_is_no_time_is_refused(text: str) -> None:
    """Anything else is refused, and the refusal shows how to write it."""
    with pytest.raises(argparse.ArgumentTypeError, match="24h or 7d"):
        moment(text)


def test_report_without_the_extra_says_how_to_get_it(path: Path) -> None:
    """Without matplotlib, plots are one line on stderr and exit code 2; text and JSON need nothing."""
    two_runs(path)
    code = (
        "import sys; sys.modules['matplotlib'] = None; from realtime_fsm.cli import main; "
        "sys.exit(main(['report', *sys.argv[1:]]))"
    )
    output = path.with_name("output")
    for arguments, expected in (
        ([], EXIT_OK),
        (["--json"], EXIT_OK),
        (["--svg", str(output)], EXIT_USAGE),
        (["--html", str(output)], EXIT_USAGE),
    ):
        run = subprocess.run(
            [sys.executable, "-c", code, str(path), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert run.returncode == expected
        if expected == EXIT_USAGE:
            assert run.stdout == ""
            assert "pip install 'realtime-fsm[report]'" in run.stderr
            assert run.stderr.count("\n") == 1
    assert not output.exists()


def test_text_report_loads_neither_plots_nor_network(path: Path) -> None:
    """Who wants text does not wait for matplotlib, nor for the network libraries."""
    two_runs(path)
    code = (
        "import sys; from realtime_fsm.cli import main; main(['report', sys.argv[1], '--json']); "
        "sys.stderr.write(' '.join({name.partition('.')[0] for name in sys.modules}))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert not {"matplotlib", "numpy", "socketio", "aiohttp"} & set(run.stderr.split())


# Pictures and the page.


def made(path: Path, form: str, *arguments: str) -> str:
    """Make a report in a form that is written to a file, and return what was written."""
    output = path.with_name("output")
    assert main(["report", str(path), *arguments, f"--{form}", str(output)]) == EXIT_OK
    return output.read_text(encoding="utf-8")


def ids_and_references(text: str) -> tuple[list[str], set[str]]:
    """Return the ids of a drawing or page, and what it refers to."""
    return re.findall(r'\bid="([^"]+)"', text), set(re.findall(r'(?:href="|url\()#([^")]+)', text))


@needs_plots
def test_svg_parses_and_needs_nothing_else(path: Path) -> None:
    """The picture is well-formed, titled and sized; its references resolve, and none leads outside."""
    many_runs(path, "legacy", failures=68)
    many_runs(path, "new", failures=24)
    text = made(path, "svg", "--compare", "legacy", "new")
    root = ET.fromstring(text)  # noqa: S314 - it has just been written
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert float(root.attrib["width"]) > 500
    assert root[0].text == f"Report on {path}"
    ids, references = ids_and_references(text)
    assert len(ids) == len(set(ids))
    assert references <= set(ids)
    assert re.findall(r"\w+://[^\s\"<]+", text) == ["http://www.w3.org/2000/svg"]


@needs_plots
def test_svg_is_the_same_each_time(path: Path) -> None:
    """Two pictures of one file are equal to the byte: they can be kept and compared."""
    two_runs(path)
    assert made(path, "svg") == made(path, "svg")


@needs_plots
def test_svg_has_a_dark_form_of_every_colour(path: Path) -> None:
    """Each colour that is drawn with has another one for the dark."""
    many_runs(path, "legacy", failures=68)
    many_runs(path, "new", failures=24)
    text = made(path, "svg", "--compare", "legacy", "new")
    drawing = text.partition("</style>")[2]
    colours = set(re.findall(r"(?:fill|stroke)(?:: |=\")(#[0-9a-f]{6})", drawing))
    assert {"#0969da", "#bc4c00", "#1f2328"} <= colours
    for colour in colours:
        assert f'"fill: {colour}"' in dark_rules(), colour


@needs_plots
@pytest.mark.parametrize("kind", ["change", "attempt", "outage", "latency"])
def test_pictures_of_one_kind_of_record_alone_are_made(path: Path, kind: str) -> None:
    """Whatever is missing from a file, the page is made of what there is; so is a comparison of too few."""

    def fill(database: MetricsDatabase) -> None:
        {
            "change": lambda: database.record_change("down", current="x", at=MAY),
            "attempt": lambda: database.record_attempt(0.1, cause="x", at=MAY),
            "outage": lambda: database.record_outage(MAY, cause="x", ended_at=MAY),
            "latency": lambda: database.record_latency(0.0, at=MAY),
        }[kind]()

    for name in ("legacy", "new"):
        record(path, name, fill, seconds=60)
    page = made(path, "html", "--compare", "legacy", "new")
    assert page.count("<figure>") == 2
    assert page.count("Too few") == 5
    ET.fromstring(made(path, "svg"))  # noqa: S314 - it has just been written


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note it."""
        self.tags.append(tag)
        self.attributes.extend(attrs)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note it; it is closed."""
        self.tags.append(tag)
        self.attributes.extend(attrs)

    def handle_endtag(self, tag: str) -> None:
        """Check that it ends what was begun last."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note it."""
        self.words.append(data)


@needs_plots
def test_page_is_self_contained(path: Path) -> None:
    """No script, no event handler, no address: nothing is loaded, and its policy would allow nothing."""
    many_runs(path, "legacy", failures=68)
    many_runs(path, "new", failures=24)
    text = made(path, "html", "--compare", "legacy", "new")
    page = Page(text)
    assert page.open == []
    assert not {"script", "link", "iframe", "img", "object", "base"} & set(page.tags)
    assert "://" not in text
    assert "@import" not in text
    for name, value in page.attributes:
        assert not name.startswith("on")
        assert name not in {"src", "srcset", "action"}
        assert name not in {"href", "xlink:href"} or (value or "").startswith("#")
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes
    ids, references = ids_and_references(text)
    assert len(ids) == len(set(ids))
    assert references <= set(ids)


@needs_plots
def test_page_tells_what_the_text_tells(path: Path, capsys: Capture) -> None:
    """The page has every verdict and every figure of the text, and each plot has a title."""
    many_runs(path, "legacy", failures=68, recover=60.0)
    many_runs(path, "new", failures=24, recover=10.0)
    said = " ".join(Page(made(path, "html", "--compare", "legacy", "new")).words)
    main(["report", str(path), "--compare", "legacy", "new", "--json"])
    for one in json.loads(capsys.readouterr().out)["comparison"]["figures"]:
        assert one["sentence"] in said
    for text in ("TimeoutError", "failure rate", "3.4 %", "Time to recover", "Latency", "95 %"):
        assert text in said
    assert "prefers-color-scheme" in said


@needs_plots
def test_page_shows_names_as_text(path: Path) -> None:
    """Names from the file are never taken for markup or mathematics: not in the page, not in the plots."""
    for name in ("<script>alert(1)</script>", "$\\frac{$", "_hidden", "x\x1b" * 30, "東京"):

        def fill(database: MetricsDatabase) -> None:
            database.record_change("live", current="x", at=MAY)
            database.record_attempt(0.1, cause="<b>$x^2$\x00", at=MAY)

        record(path, name, fill, seconds=60)
    page = Page(made(path, "html"))
    assert not {"script", "b"} & set(page.tags)
    assert "<script>alert(1)</script>" in page.words
