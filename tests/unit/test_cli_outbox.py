"""``realtime-fsm outbox``: what a person sees of an outbox, and can do about its dead letters."""

import asyncio
import io
import json
import os
import sys
import time
from pathlib import Path

import pytest

from realtime_fsm.adapters.outbox_writer import SqliteOutbox
from realtime_fsm.cli import main
from realtime_fsm.cli.arguments import EXIT_FAILED, EXIT_OK, EXIT_USAGE
from realtime_fsm.engine.message import DeadLetter
from realtime_fsm.engine.outbox import OutboxContents
from realtime_fsm.engine.payload import Payload
from realtime_fsm.testing.contracts.outbox_contract import append_all, fields_of, letter, message, sequences

Capture = pytest.CaptureFixture[str]

BODY = "body-that-is-nobodys-business"


async def fill(path: Path) -> str:
    """Make an outbox in which five messages wait and three were given up; return the client's id."""
    outbox = SqliteOutbox(path, report=print)
    contents = await outbox.open()
    payload = Payload(f'["note","{BODY}"]', (b"\1" * 2048,))
    accepted_at = time.time() - 7300
    await append_all(outbox, [message(n, payload=payload, accepted_at=accepted_at) for n in (1, 2, 3, 4, 5)])
    for number in (6, 7, 8):
        outbox.bury(letter(number, "no\x1b[2Jroom", payload=payload, attempts=4, expires_at=1.0))
    await outbox.close()
    return contents.client_id


async def contents_of(path: Path) -> tuple[OutboxContents, list[DeadLetter]]:
    """Return what an outbox holds."""
    outbox = SqliteOutbox(path, report=print)
    contents = await outbox.open()
    dead = await outbox.dead_letters()
    await outbox.close()
    return contents, dead


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return an outbox with messages and dead letters."""
    path = tmp_path / "app.outbox"
    asyncio.run(fill(path))
    return path


def test_list_shows_a_table_and_no_body(path: Path, capsys: Capture) -> None:
    """A person sees how much waits and since when, and each dead letter with its reason; never a body."""
    assert main(["outbox", "list", str(path), "--limit", "2"]) == EXIT_OK
    shown = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "5 waiting, 10.2 KiB, the oldest for 2 h" in lines
    assert "ID EVENT DELIVERY AGE SIZE ATTEMPTS" in lines
    assert [line for line in lines if line.startswith("c-") and line.endswith(" 2.0 KiB 0")] == [
        f"c-{number} note at_least_once 2 h 2.0 KiB 0" for number in (1, 2)
    ]
    assert "and 3 more" in lines
    assert "3 dead letters" in lines
    assert len([line for line in lines if line.endswith(r"2.0 KiB 4 no\x1b[2Jroom")]) == 3
    assert BODY not in shown
    assert "\x1b" not in shown


def test_list_prints_one_json_object(path: Path, capsys: Capture) -> None:
    """``--json`` prints one object with the same facts, and no body either."""
    assert main(["outbox", "list", str(path), "--json", "--limit", "1"]) == EXIT_OK
    shown = capsys.readouterr().out
    found = json.loads(shown)
    assert found["path"] == str(path)
    assert found["last_sequence"] == 8
    assert (found["waiting"]["count"], len(found["waiting"]["first"])) == (5, 1)
    assert found["waiting"]["oldest_age"] == pytest.approx(7300, abs=60)
    assert found["waiting"]["first"][0]["message_id"] == "c-1"
    assert [dead["message_id"] for dead in found["dead_letters"]] == ["c-6", "c-7", "c-8"]
    assert {dead["reason"] for dead in found["dead_letters"]} == {"no\x1b[2Jroom"}
    assert BODY not in shown


def test_list_of_an_empty_outbox_says_so(tmp_path: Path, capsys: Capture) -> None:
    """Where nothing waits and nothing died, both are said."""
    empty = tmp_path / "empty"
    asyncio.run(contents_of(empty))
    assert main(["outbox", "list", str(empty)]) == EXIT_OK
    shown = capsys.readouterr().out
    assert "nothing waits" in shown
    assert "no dead letters" in shown
    assert main(["outbox", "list", str(empty), "--json"]) == EXIT_OK
    assert json.loads(capsys.readouterr().out)["waiting"]["oldest_age"] is None


class Terminal(io.StringIO):
    """A stream that a person looks at."""

    def isatty(self) -> bool:
        """It is."""
        return True


@pytest.mark.parametrize("declined", [True, False])
def test_list_is_coloured_for_a_person_who_likes_it(
    path: Path, monkeypatch: pytest.MonkeyPatch, declined: bool
) -> None:
    """A terminal gets colours, unless NO_COLOR is set."""
    monkeypatch.setenv("NO_COLOR", "1" if declined else "")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    assert main(["outbox", "list", str(path)]) == EXIT_OK
    assert ("\x1b[" in terminal.getvalue()) is not declined


@pytest.mark.real_loop
async def test_list_works_while_the_outbox_is_used(path: Path, capsys: Capture) -> None:
    """Looking needs no ownership, sees the newest state, and does not disturb the client."""
    outbox = SqliteOutbox(path, report=print)
    await outbox.open()
    await append_all(outbox, [message(9)])
    assert main(["outbox", "list", str(path), "--json"]) == EXIT_OK
    assert json.loads(capsys.readouterr().out)["waiting"]["count"] == 6
    for action in ("retry", "drop"):
        assert main(["outbox", action, str(path), "--all"]) == EXIT_FAILED
        assert f"in use by process {os.getpid()}. Stop it first" in capsys.readouterr().err
    await append_all(outbox, [message(10)])
    await outbox.close()


def test_retry_lets_a_dead_letter_wait_again(path: Path, capsys: Capture) -> None:
    """A retried message keeps its identity, number and content, and has no attempts and no expiry."""
    assert main(["outbox", "retry", str(path), "c-8", "c-6"]) == EXIT_OK
    assert "2 dead letters retried" in capsys.readouterr().out
    contents, dead = asyncio.run(contents_of(path))
    assert sequences(contents.waiting) == [1, 2, 3, 4, 5, 6, 8]
    assert contents.last_sequence == 8
    first, revived = contents.waiting[0], contents.waiting[5]
    changed = {"receipt": ("note", "c-6"), "sequence": 6, "accepted_at": letter(6).message.accepted_at}
    assert fields_of(revived) == fields_of(first) | changed
    assert sequences(dead) == [7]


def test_retry_all_and_drop_all_leave_none(path: Path, capsys: Capture) -> None:
    """``--all`` means every dead letter; afterwards there is none left, and that is no failure."""
    assert main(["outbox", "retry", str(path), "--all", "--json"]) == EXIT_OK
    assert json.loads(capsys.readouterr().out) == {"retried": ["c-6", "c-7", "c-8"], "unknown": []}
    assert main(["outbox", "drop", str(path), "--all"]) == EXIT_OK
    assert capsys.readouterr().out == "0 dead letters dropped.\n"
    contents, dead = asyncio.run(contents_of(path))
    assert (len(contents.waiting), dead) == (8, [])


def test_drop_deletes_dead_letters_for_good(path: Path, capsys: Capture) -> None:
    """Dropped dead letters are gone, the others stay, and so does what waits."""
    assert main(["outbox", "drop", str(path), "c-7"]) == EXIT_OK
    assert "1 dead letter dropped" in capsys.readouterr().out
    contents, dead = asyncio.run(contents_of(path))
    assert sequences(contents.waiting) == [1, 2, 3, 4, 5]
    assert sequences(dead) == [6, 8]


@pytest.mark.parametrize("action", ["retry", "drop"])
def test_unknown_id_changes_nothing(path: Path, capsys: Capture, action: str) -> None:
    """An id that belongs to no dead letter is named, exits with 1, and nothing is done to the others."""
    assert main(["outbox", action, str(path), "c-6", "c-1", "c-99"]) == EXIT_FAILED
    assert "no dead letter c-1, c-99; nothing was" in capsys.readouterr().err
    assert sequences(asyncio.run(contents_of(path))[1]) == [6, 7, 8]


@pytest.mark.parametrize("command", [["list"], ["retry", "--all"], ["drop", "--all"]])
def test_missing_file_is_not_created(tmp_path: Path, capsys: Capture, command: list[str]) -> None:
    """Where there is no outbox the error says so, and none is made."""
    assert main(["outbox", *command, str(tmp_path / "none")]) == EXIT_FAILED
    assert f"There is no outbox {tmp_path / 'none'}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [["list"], ["retry", "--all"], ["drop", "--all"]])
@pytest.mark.parametrize("content", [b"", b"this is a letter to my aunt" * 40])
def test_file_that_is_no_outbox_is_left_alone(
    tmp_path: Path, capsys: Capture, command: list[str], content: bytes
) -> None:
    """A file that is no outbox is refused, and neither changed nor renamed."""
    file = tmp_path / "aunt.txt"
    file.write_bytes(content)
    assert main(["outbox", *command, str(file)]) == EXIT_FAILED
    assert "cannot be used as an outbox" in capsys.readouterr().err
    assert file.read_bytes() == content
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("options", [[], ["c-6", "--all"]])
def test_ids_or_all_must_be_given(path: Path, capsys: Capture, options: list[str]) -> None:
    """Neither ids nor ``--all``, or both, is wrong usage."""
    assert main(["outbox", "drop", str(path), *options]) == EXIT_USAGE
    assert "--all" in capsys.readouterr().err


def test_negative_limit_is_wrong_usage(path: Path, capsys: Capture) -> None:
    """A negative limit is wrong usage."""
    assert main(["outbox", "list", str(path), "--limit", "-1"]) == EXIT_USAGE
    assert "--limit" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["outbox"], ["outbox", "list"], ["outbox", "fly", "x"]])
def test_incomplete_command_is_wrong_usage(arguments: list[str]) -> None:
    """A command without its action or path exits with 2."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == EXIT_USAGE


def test_help_has_examples(capsys: Capture) -> None:
    """The help ends in examples that name the command."""
    with pytest.raises(SystemExit) as ended:
        main(["outbox", "--help"])
    assert ended.value.code == EXIT_OK
    assert "realtime-fsm outbox list" in capsys.readouterr().out.partition("examples:")[2]
