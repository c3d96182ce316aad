"""Who has the last word on what runs: an override, a rollback, the file, the environment, the config."""

import os
from collections.abc import Mapping
from pathlib import Path

from realtime_fsm.migration.rollout_decision import DecisionKind, Decisions
from realtime_fsm.migration.rollout_file import SettingFile
from realtime_fsm.migration.rollout_setting import (
    Chosen,
    Implementation,
    RolloutConfig,
    Setting,
    Source,
    choose,
)


class RolloutControl:
    """What each source says, and what follows from it.

    Args:
        config: What is said last.
        client_id: Whose rollout it is.
        environ: The environment; read once.
        decisions: Where what changes is told.

    Raises:
        ConfigurationError: If the environment is wrong.
    """

    def __init__(
        self,
        config: RolloutConfig,
        *,
        client_id: str,
        environ: Mapping[str, str] | None,
        decisions: Decisions,
    ) -> None:
        environ = os.environ if environ is None else environ
        path = config.path or environ.get("REALTIME_ROLLOUT_FILE", "").strip() or None
        self.file = None if path is None else SettingFile(Path(path))
        self.held: str | None = None
        self.running = ""
        self._client_id = client_id
        self._decisions = decisions
        self._said: dict[Source, Setting | None] = {
            Source.CONFIG: config.setting,
            Source.ENVIRONMENT: Setting.of_environment(environ),
        }

    @property
    def said(self) -> Mapping[Source, Setting | None]:
        """What each source says."""
        held = None if self.held is None else Setting(Implementation.LEGACY)
        in_file = None if self.file is None else self.file.setting
        return {**self._said, Source.ROLLBACK: held, Source.FILE: in_file}

    @property
    def chosen(self) -> Chosen:
        """What is to run."""
        return choose(self.said, self._client_id)

    @property
    def is_overridden(self) -> bool:
        """Whether a person has the last word."""
        return self._said.get(Source.OVERRIDE) is not None

    def override(self, implementation: str | None) -> None:
        """Have a person say what runs; ``None`` takes it back.

        Raises:
            ConfigurationError: If it is no implementation.
        """
        setting = None if implementation is None else Setting.read({"implementation": implementation})
        self._said[Source.OVERRIDE] = setting
        said = "a person takes the override back" if setting is None else f"a person wants {setting}"
        self.tell(DecisionKind.OVERRIDE, said)

    def hold(self, kind: DecisionKind, reason: str) -> None:
        """Keep the old one running until ``release``."""
        self.held = reason
        self.tell(kind, reason)

    def release(self) -> bool:
        """Let the new one run again; return whether it was held."""
        if self.held is None:
            return False
        self.held = None
        self.tell(DecisionKind.RELEASE, "a person lets the new one run again")
        return True

    def take_file(self, text: str | None, problem: str | None) -> None:
        """Take over what the file was found to hold."""
        if self.file is None:
            return
        before = self.file.setting
        if (told := self.file.take(text, problem)) is not None:
            self.tell(DecisionKind.BAD_FILE, told)
        elif self.file.setting != before:
            said = "nothing" if self.file.setting is None else str(self.file.setting)
            self.tell(DecisionKind.SETTING, f"{self.file.path.name} says {said}")

    def tell(self, kind: DecisionKind, reason: str) -> None:
        """Note a decision."""
        self._decisions.add(kind, running=self.running, source=self.chosen.source.value, reason=reason)
