"""The canary: a secret that must be found nowhere, and who watches for it.

Whatever a test uses as a secret holds ``CANARY``, or was handed to ``secret``. What is logged, printed, shown
or written is searched for all of them: as they are, in the parts that a JSON Web Token has, and in base64.
"""

import asyncio
import base64
import logging
import traceback
from pathlib import Path
from typing import Any, Final

from realtime_fsm.server import issue_token

CANARY: Final = "canary7f3a9c51e0bd4682"
SIGNING: Final = f"{CANARY}-that-signs-the-tokens"
"""A secret for backends: long enough to sign with."""

_MIN_PART: Final = 16
"""Shorter parts of a secret tell nothing, and are found everywhere."""

_standard: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
_needles: set[str] = set()


def _in_base64(text: str) -> set[str]:
    """Return what every base64 text contains that holds ``text``, wherever it begins."""
    found = set()
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + text.encode()).decode().rstrip("=")
        found.add(encoded[(0, 2, 3)[shift] : -1])
    return found


def secret(value: str) -> str:
    """Watch for a secret from now on; return it."""
    parts = value.split(".")[1:] if value.count(".") == 2 else []  # a JWT's head is no secret
    _needles.update({value, *_in_base64(value)}, (part for part in parts if len(part) >= _MIN_PART))
    return value


def token(name: str = "token") -> str:
    """Return a token that is no JSON Web Token."""
    return f"{CANARY}-{name}"


def jwt(subject: str = "me", lifetime: float = 60.0, **options: Any) -> str:
    """Return a token that a backend with the secret ``SIGNING`` accepts, and watch for it."""
    return secret(issue_token(options.pop("signing", SIGNING), subject, lifetime, **options))


secret(CANARY)


def forget(kept: frozenset[str]) -> None:
    """Watch for no more than what was watched for when ``watched_for`` gave this."""
    _needles.intersection_update(kept)


def watched_for() -> frozenset[str]:
    """Return what is watched for now."""
    return frozenset(_needles)


def found_in(*texts: str) -> list[str]:
    """Return where a secret is, with what stands around it; empty where there is none."""
    return [
        f"...{text[max(0, at - 80) : at + len(needle) + 20]}..."
        for text in texts
        for needle in _needles
        if (at := text.find(needle)) != -1
    ]


def found_in_error(error: BaseException) -> list[str]:
    """Search an error in every form in which it is shown, with the errors that it came from."""
    return found_in(repr(error), str(error), "".join(traceback.format_exception(error)), repr(vars(error)))


def found_in_files(folder: Path) -> list[str]:
    """Search every file under a folder, and its name."""
    return found_in(
        *(str(path) for path in folder.rglob("*")),
        *(path.read_bytes().decode(errors="replace") for path in folder.rglob("*") if path.is_file()),
    )


async def output_of(process: asyncio.subprocess.Process) -> tuple[bytes, bytes]:
    """Wait for a child process, and return what it said, having searched it."""
    out, error = await process.communicate()
    leaks = found_in(*((text or b"").decode(errors="replace") for text in (out, error)))
    assert not leaks, f"a child process printed a secret: {leaks}"
    return out, error


class LogWatch:
    """Searches every record that any logger could emit, whatever its level, its handlers and its filters.

    A record that the level of its logger holds back is made all the same, searched and dropped: what is not
    logged today only because of a level is logged when somebody looks for the cause of a problem.

    Attributes:
        leaks: What was found.
        searched: How many records were looked at.
    """

    def __init__(self) -> None:
        self.leaks: list[str] = []
        self.searched = 0
        self._is_enabled = logging.Logger.isEnabledFor
        self._handle = logging.Logger.handle

    def start(self) -> None:
        """Begin to watch."""
        watch, is_enabled, handle = self, self._is_enabled, self._handle

        def always(logger: logging.Logger, level: int) -> bool:
            return _is_in_tree(logger) or is_enabled(logger, level)

        def search_and_handle(logger: logging.Logger, record: logging.LogRecord) -> None:
            watch.search(record)
            if is_enabled(logger, record.levelno):
                handle(logger, record)

        logging.Logger.isEnabledFor = always  # type: ignore[method-assign]
        logging.Logger.handle = search_and_handle  # type: ignore[method-assign]

    def stop(self) -> None:
        """End it."""
        logging.Logger.isEnabledFor = self._is_enabled  # type: ignore[method-assign]
        logging.Logger.handle = self._handle  # type: ignore[method-assign]

    def search(self, record: logging.LogRecord) -> None:
        """Search the message, the arguments, the exception and all that was added to a record."""
        self.searched += 1
        try:
            texts = [record.getMessage()]
        except (TypeError, ValueError):
            self.leaks.append(f"{record.name} cannot format {record.msg!r} with {record.args!r}")
            return
        texts += [repr(record.args), record.stack_info or ""]
        texts += [repr(value) for name, value in vars(record).items() if name not in _standard]
        if record.exc_info and record.exc_info[1] is not None:
            texts.append("".join(traceback.format_exception(record.exc_info[1])))
        self.leaks += [f"{record.name} at {record.levelname}: {found}" for found in found_in(*texts)]

    def take(self) -> list[str]:
        """Return what was found since the last time."""
        leaks, self.leaks = self.leaks, []
        return leaks


def _is_in_tree(logger: logging.Logger) -> bool:
    """Tell whether somebody could switch a logger on: one outside the tree is nobody's but its maker's."""
    return logger is logging.root or logging.Logger.manager.loggerDict.get(logger.name) is logger
