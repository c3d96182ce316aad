"""Reading the configuration from the environment, the old front end's names included."""

import difflib
import os
import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from attrs import define, field, fields

from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.errors import ConfigurationError

PREFIX: Final = "REALTIME_"

OTHER_NAMES: Final = frozenset(
    {
        "REALTIME_TOKEN",
        "REALTIME_SERVER_SECRET",
        "REALTIME_SERVER_LEDGER_PATH",
        "REALTIME_IMPLEMENTATION",
        "REALTIME_ROLLOUT_FILE",
        "REALTIME_ROLLOUT_PERCENT",
    }
)
"""Names with our prefix that are read elsewhere, by the command line and by a rollout: never into the
configuration."""

OLD_NAMES: Final[Mapping[str, tuple[str, bool]]] = MappingProxyType(
    {
        "VITE_WS_URL": ("server_url", False),
        "VITE_WS_RECONNECT_ATTEMPTS": ("max_reconnect_attempts", False),
        "VITE_WS_RECONNECT_INTERVAL": ("reconnect_interval", True),
        "VITE_WS_CONNECTION_TIMEOUT": ("connection_timeout", True),
        "VITE_ENABLE_FALLBACK": ("enable_fallback", False),
        "VITE_FALLBACK_POLLING_INTERVAL": ("fallback_polling_interval", True),
        "VITE_WS_DEBUG_MODE": ("debug_mode", False),
        "VITE_WS_LOG_LEVEL": ("log_level", False),
    }
)
"""The old front end's names (SPEC E): the field each stands for, and whether it is in milliseconds."""

_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})


def _boolean(text: str) -> bool:
    word = text.strip().lower()
    if word in _TRUE | _FALSE:
        return word in _TRUE
    raise ValueError("must be true or false")


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError("must be a whole number") from None


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("must be a number of seconds, such as 2.5") from None


_READERS: Final[Mapping[Any, Callable[[str], object]]] = MappingProxyType(
    {bool: _boolean, int: _integer, float: _seconds, float | None: _seconds}
)


def read_environment(
    config_class: type[RealtimeConfig], environ: Mapping[str, str] | None = None
) -> dict[str, object]:
    """Return the fields that the environment gives, as values ready for ``config_class``.

    An empty value counts as not given. A new name wins over the old one for the same field.

    Args:
        config_class: Whose fields are looked for, as ``REALTIME_<FIELD>``.
        environ: By default the process's.

    Raises:
        ConfigurationError: For every value that cannot be read, and every unknown ``REALTIME_`` name.
    """
    environ = os.environ if environ is None else environ
    reading = _Reading({attribute.name: attribute.type for attribute in fields(config_class)})
    names = {PREFIX + name.upper(): name for name in reading.types}
    for variable, text in sorted(environ.items()):
        if variable in names:
            reading.take(variable, text, names[variable])
        elif variable.startswith(PREFIX) and variable not in OTHER_NAMES:
            reading.problems.append(_unknown(variable, names))

    for variable, (name, milliseconds) in OLD_NAMES.items():
        text = environ.get(variable, "")
        if not text.strip():
            continue
        instead = PREFIX + name.upper() + (" in seconds" if milliseconds else "")
        warnings.warn(f"{variable} is deprecated: set {instead}", DeprecationWarning, stacklevel=3)
        if name not in reading.values:
            reading.take(variable, text, name, 0.001 if milliseconds else 1.0)

    if reading.problems:
        raise ConfigurationError(*reading.problems)
    return reading.values


@define
class _Reading:
    """What has been read so far, and what could not be.

    Attributes:
        types: The fields, and what each holds.
        values: The fields that were given.
        problems: What is wrong, in words for people.
    """

    types: Mapping[str, Any]
    values: dict[str, object] = field(factory=dict)
    problems: list[str] = field(factory=list)

    def take(self, variable: str, text: str, name: str, scale: float = 1.0) -> None:
        """Read the text of a variable into a field; nothing where it is empty."""
        if not text.strip():
            return
        try:
            value = _READERS.get(self.types[name], str.strip)(text)
        except ValueError as error:
            self.problems.append(f"{variable}={text!r} {error}")
        else:
            self.values[name] = value * scale if isinstance(value, float) else value


def _unknown(variable: str, names: Mapping[str, str]) -> str:
    # Compared without the prefix that all share: it would make any two names seem close.
    given = variable.removeprefix(PREFIX).lower()
    close = difflib.get_close_matches(given, names.values(), n=1)
    hint = f"did you mean {PREFIX}{close[0].upper()}?" if close else f"known are {', '.join(names)}"
    return f"{variable} is not a known name: {hint}"
