"""The file of a rollout: read again and again; a bad one is told, and the last good setting stays."""

from pathlib import Path
from typing import Final

from realtime_fsm.machine.errors import ConfigurationError
from realtime_fsm.migration.rollout_setting import Setting

_MOST_BYTES: Final = 65_536


class SettingFile:
    """A file that says what is to run.

    It need not exist, and says nothing then. But a file that has been there and is gone is a bad one: what
    it said last stays. To have it say nothing, write an empty object into it.

    Args:
        path: Where it is.

    Attributes:
        setting: What it said when it last was good; ``None`` for nothing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.setting: Setting | None = None
        self._text: str | None = None
        self._problem: str | None = None

    def load(self) -> tuple[str | None, str | None]:
        """Return what it holds, and why it cannot be read; blocking, and changes nothing."""
        try:
            with self.path.open("rb") as file:
                content = file.read(_MOST_BYTES + 1)
            if len(content) > _MOST_BYTES:
                return None, f"it is larger than {_MOST_BYTES} bytes"
            return content.decode("utf-8-sig"), None
        except FileNotFoundError:
            return None, None
        except (OSError, UnicodeDecodeError) as error:
            return None, str(error)

    def take(self, text: str | None, problem: str | None) -> str | None:
        """Take over what was loaded.

        Returns:
            What is wrong with it, once for each thing that is; ``None`` if nothing is, or nothing new.
        """
        if problem is None and text is None and self._text is not None:
            problem = "it is gone, and was there: to have it say nothing, write {} into it"
        if problem is None and text is not None:
            try:
                self.setting = Setting.of_text(text)
                self._text = text
            except ConfigurationError as error:
                problem = "; ".join(error.problems)
        is_new, self._problem = problem != self._problem, problem
        if problem is None or not is_new:
            return None
        kept = "nothing" if self.setting is None else str(self.setting)
        return f"{self.path.name} cannot be used: {problem}. What it said before stays: {kept}"
