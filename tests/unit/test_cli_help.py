"""What every command has in common: examples that work, exit codes, JSON, and manners in a pipe."""

import argparse
import asyncio
import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from attrs import frozen

from realtime_fsm.adapters.outbox_writer import SqliteOutbox
from realtime_fsm.cli import command_line_parser
from realtime_fsm.cli.arguments import EXIT_FAILED, EXIT_OK, EXIT_UNREACHABLE, EXIT_USAGE
from realtime_fsm.monitoring.database import MetricsDatabase

BOUND: Final = 60.0
ESCAPE: Final = "\x1b"
COLOUR: Final = re.compile(r"\x1b\[[\d;]*m")
"""Other than what moves the cursor, or hides it."""


@frozen(kw_only=True)
class Use:
    """A use of a command that ends by itself, and soon.

    Attributes:
        arguments: ``{url}`` is an address at which nobody listens, ``{outbox}`` an outbox,
            ``{metrics}`` a metrics database.
        code: How it ends.
        no_json: Why it has no ``--json``; empty where it has one.
        is_coloured: Whether a person at a terminal gets colours from it.
        takes_long: Which test plays it instead, where no use of it ends soon.
    """

    arguments: tuple[str, ...] = ()
    code: int = EXIT_OK
    no_json: str = ""
    is_coloured: bool = True
    takes_long: str = ""


USES: Final = {
    ("demo",): Use(takes_long="integration/test_cli_network.py"),
    ("listen",): Use(arguments=("{url}",), code=EXIT_UNREACHABLE),
    ("watch",): Use(arguments=("{url}",), code=EXIT_UNREACHABLE),
    ("doctor",): Use(arguments=("{url}",), code=EXIT_UNREACHABLE),
    ("report",): Use(arguments=("{metrics}",)),
    ("diagram",): Use(no_json="what it prints is the picture", is_coloured=False),
    ("serve",): Use(code=EXIT_USAGE, no_json="it prints an address, and serves", is_coloured=False),
    ("outbox", "list"): Use(arguments=("{outbox}",)),
    ("outbox", "retry"): Use(arguments=("{outbox}", "nobody-1"), code=EXIT_FAILED, is_coloured=False),
    ("outbox", "drop"): Use(arguments=("{outbox}", "--all"), is_coloured=False),
    ("fuzz",): Use(arguments=("--seeds", "3")),
}
"""Every command. Who adds one says here how it is used."""

LINES: Final = {("listen",): ["status"] * 3, ("watch",): ["status"] * 2 + ["view"]}
"""The kinds of what is printed by a command whose JSON is one object per line."""

PLAYED: Final = [path for path, use in USES.items() if not use.takes_long]


def commands(
    parser: argparse.ArgumentParser, *path: str
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """Give every parser below one, with what is typed for it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield (*path, name), child
                yield from commands(child, *path, name)


PARSERS: Final = dict(commands(command_line_parser()))
LEAVES: Final = {path for path in PARSERS if not any(other[:-1] == path for other in PARSERS)}


def examples_of(text: str) -> list[list[str]]:
    """Return the words of each example of a help text, without what a shell does."""
    block = text.partition("examples:\n")[2].partition("\n\n")[0]
    lines = []
    for line in block.splitlines():
        command = re.sub(r"\$\(.*?\)", "given", line).split(" | ")[0].split(" > ")[0]
        words = shlex.split(command, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
        lines.append(words)
    return lines


@frozen
class Ended:
    """How a command ended."""

    code: int
    out: str
    error: str


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    """Give what the arguments of the uses stand for."""
    path, metrics = tmp_path / "app.outbox", tmp_path / "metrics.db"

    async def make() -> None:
        outbox = SqliteOutbox(path, report=print)
        await outbox.open()
        await outbox.close()
        async with MetricsDatabase(metrics) as database:
            database.record_attempt(0.1)

    asyncio.run(make())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return {"url": f"http://127.0.0.1:{port}", "outbox": str(path), "metrics": str(metrics)}


def typed(path: tuple[str, ...], places: dict[str, str], *more: str) -> list[str]:
    """Return the command line of a use."""
    given = [argument.format_map(places) for argument in USES[path].arguments]
    return [sys.executable, "-m", "realtime_fsm.cli", *path, *given, *more]


def environment(**more: str) -> dict[str, str]:
    """Return an environment in which a client tries once, and colours are wanted by nobody in advance."""
    base = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "TERM"}}
    base.pop("REALTIME_SERVER_SECRET", None)
    return {**base, "TERM": "xterm", "REALTIME_MAX_RECONNECT_ATTEMPTS": "0", **more}


def run_in_pipe(words: list[str], **more: str) -> Ended:
    """Run a command whose output is read by a program."""
    ended = subprocess.run(
        words, capture_output=True, encoding="utf-8", timeout=BOUND, check=False, env=environment(**more)
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def run_on_terminal(words: list[str], **more: str) -> Ended:
    """Run a command for a person at a terminal."""
    import pty  # noqa: PLC0415 - not on Windows

    ours, theirs = pty.openpty()
    process = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=environment(**more))
    os.close(theirs)
    seen = bytearray()
    try:
        while chunk := read_terminal(ours):
            seen += chunk
        code = process.wait(BOUND)
    finally:
        process.kill()
        process.wait(BOUND)
        os.close(ours)
    return Ended(code, seen.decode(), "")


def read_terminal(ours: int) -> bytes:
    """Return what is shown next; nothing where nobody shows anything any more."""
    try:
        return os.read(ours, 65536)
    except OSError:  # how Linux says that the other side is closed
        return b""


def test_table_of_uses_holds_every_command() -> None:
    """A command cannot be added without saying how it is used, and so without being held by these tests."""
    assert set(USES) == LEAVES


@pytest.mark.parametrize("path", [(), *PARSERS], ids=" ".join)
def test_help_has_examples_that_parse(path: tuple[str, ...]) -> None:
    """Every help ends in examples; each of them is right usage, and one of them is of the command itself."""
    root = command_line_parser()
    parser = dict(commands(root))[path] if path else root
    examples = examples_of(parser.format_help())
    assert any(words[1 : 1 + len(path)] == list(path) for words in examples)
    for words in examples:
        assert words[0] == "realtime-fsm", words
        root.parse_args(words[1:])  # exits where it is wrong


@pytest.mark.parametrize("path", [(), *PARSERS], ids=" ".join)
def test_help_explains_everything(path: tuple[str, ...]) -> None:
    """Every help says what the command does, what each argument means, and what the exit codes are."""
    parser = PARSERS[path] if path else command_line_parser()
    assert parser.description
    assert [a.dest for a in parser._actions if not (a.help or a.choices)] == []
    codes = parser.format_help().partition("exit codes:\n")[2]
    assert re.findall(r"(?:^|  )([0-4]) [a-z]", codes, re.MULTILINE) == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("path", sorted(LEAVES), ids=" ".join)
def test_commands_have_json_where_they_read(path: tuple[str, ...]) -> None:
    """Whatever finds something out has ``--json``; the others have a reason, and no such option."""
    has = any("--json" in action.option_strings for action in PARSERS[path]._actions)
    assert has is (not USES[path].no_json)


@pytest.mark.parametrize("path", [p for p in PLAYED if not USES[p].no_json], ids=" ".join)
def test_json_is_all_that_is_printed(path: tuple[str, ...], places: dict[str, str]) -> None:
    """With ``--json`` stdout holds JSON and nothing else, also where the command fails."""
    ended = run_in_pipe(typed(path, places, "--json"))
    assert ended.code == USES[path].code
    if path in LINES:  # one object per line, as things happen
        assert [json.loads(line)["kind"] for line in ended.out.splitlines()] == LINES[path]
    else:
        assert isinstance(json.loads(ended.out), dict)


@pytest.mark.parametrize("path", PLAYED, ids=" ".join)
def test_commands_have_manners_in_a_pipe(path: tuple[str, ...], places: dict[str, str]) -> None:
    """In a pipe nothing is coloured, every output can be encoded, and the exit code says what happened."""
    ended = run_in_pipe(typed(path, places), PYTHONIOENCODING="ascii")
    assert ended.code == USES[path].code, ended.error
    assert ESCAPE not in ended.out + ended.error
    assert "Traceback" not in ended.error
    if ended.code in {EXIT_USAGE, EXIT_FAILED}:
        assert ended.error.startswith("realtime-fsm: ")
        assert ended.error.count("\n") == 1


@pytest.mark.parametrize("path", PLAYED, ids=" ".join)
def test_commands_end_quietly_when_nobody_reads(path: tuple[str, ...], places: dict[str, str]) -> None:
    """Behind a pipe that is closed, as by ``head``, a command ends without a word about it."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            typed(path, places),
            stdout=writing,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            timeout=BOUND,
            check=False,
            env=environment(),
        )
    finally:
        os.close(writing)
    assert ended.returncode in {EXIT_OK, USES[path].code}
    assert "Broken" not in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.parametrize("path", [p for p in PLAYED if USES[p].is_coloured], ids=" ".join)
def test_commands_colour_for_a_person_who_likes_it(path: tuple[str, ...], places: dict[str, str]) -> None:
    """At a terminal there are colours, and none where ``NO_COLOR`` is set; the words are the same."""
    coloured = run_on_terminal(typed(path, places))
    plain = run_on_terminal(typed(path, places), NO_COLOR="1")
    assert (coloured.code, plain.code) == (USES[path].code, USES[path].code)
    assert COLOUR.search(coloured.out)
    assert not COLOUR.search(plain.out)
    assert len(plain.out.splitlines()) == len(coloured.out.splitlines())


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.parametrize("path", [p for p in PLAYED if not USES[p].is_coloured], ids=" ".join)
def test_commands_without_colours_have_none_anywhere(path: tuple[str, ...], places: dict[str, str]) -> None:
    """What is a picture, an address or one sentence is not coloured at a terminal either."""
    ended = run_on_terminal(typed(path, places))
    assert ended.code == USES[path].code
    assert ESCAPE not in ended.out


@pytest.mark.parametrize(
    "words",
    [["fly"], [], ["listen"], ["outbox", "list"], ["doctor", "http://a", "--timeout", "0"]],
    ids=" ".join,
)
def test_wrong_usage_is_told_with_the_usage(words: list[str]) -> None:
    """Wrong usage is 2, says what is wrong in the last line, and how the command is used before it."""
    ended = run_in_pipe([sys.executable, "-m", "realtime_fsm.cli", *words])
    assert (ended.code, ended.out) == (EXIT_USAGE, "")
    first, *_, last = ended.error.splitlines()
    assert first.startswith("usage: realtime-fsm")
    assert last.startswith("realtime-fsm")
    assert ": error: " in last
