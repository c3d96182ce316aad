"""The findings of the checks, and what all of them together mean."""

from enum import StrEnum
from typing import Any, Final

from attrs import evolve, field, frozen

from realtime_fsm.machine.errors import (
    AuthenticationError,
    ConfigurationError,
    NamespaceRefusedError,
    RealtimeError,
    RedirectRefusedError,
    TransportError,
)
from realtime_fsm.machine.redaction import redacted

_MAX_LENGTH: Final = 600


class Verdict(StrEnum):
    """The way a check ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


class Fault(StrEnum):
    """The kind of thing that is wrong; the gravest of them decides the exit code of the command line."""

    USAGE = "usage"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    UNSOUND = "unsound"


_BY_GRAVITY: Final = (Fault.USAGE, Fault.UNREACHABLE, Fault.REFUSED, Fault.UNSOUND)


@frozen(kw_only=True)
class Finding:
    """The finding of one check.

    Attributes:
        check: Name of the check.
        verdict: How it ended.
        said: What is so, and why, in words.
        remedy: What to do about it; empty where nothing need be done.
        fault: What kind of thing is wrong, where it failed.
        details: Figures for programs.
        seconds: How long the check took.
    """

    check: str
    verdict: Verdict
    said: str
    remedy: str = ""
    fault: Fault | None = None
    details: dict[str, Any] = field(factory=dict)
    seconds: float = 0.0

    def shown(self, secrets: tuple[str, ...], seconds: float) -> "Finding":
        """Return the finding as it may be shown: without the secrets, in one line that no terminal obeys.

        Args:
            secrets: What must not be seen, whatever the server repeats.
            seconds: How long the check took.
        """
        return evolve(
            self,
            said=_line(self.said, secrets),
            remedy=_line(self.remedy, secrets),
            details={
                key: _line(value, secrets) if isinstance(value, str) else value
                for key, value in self.details.items()
            },
            seconds=round(seconds, 3),
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as what ``json.dumps`` takes."""
        return {
            "check": self.check,
            "verdict": self.verdict.value,
            "message": self.said,
            "remedy": self.remedy,
            "fault": None if self.fault is None else self.fault.value,
            "seconds": self.seconds,
            "details": self.details,
        }


def _line(text: str, secrets: tuple[str, ...]) -> str:
    line = redacted(" ".join(text.split()), secrets)
    line = "".join(letter if letter.isprintable() else "?" for letter in line)
    return line if len(line) <= _MAX_LENGTH else line[: _MAX_LENGTH - 1] + "…"


@frozen(kw_only=True)
class Report:
    """All findings, in the order of the checks.

    Attributes:
        address: What was examined, without anything secret.
        findings: One for each check.
    """

    address: str
    findings: tuple[Finding, ...]

    @property
    def is_ok(self) -> bool:
        """True if no check failed."""
        return all(finding.verdict is not Verdict.FAILED for finding in self.findings)

    @property
    def fault(self) -> Fault | None:
        """The gravest fault, or ``None`` where no check failed."""
        found = {finding.fault for finding in self.findings if finding.verdict is Verdict.FAILED}
        return next((fault for fault in _BY_GRAVITY if fault in found), None)

    def finding(self, check: str) -> Finding:
        """Return what one check has found.

        Raises:
            KeyError: If there is no such check.
        """
        for finding in self.findings:
            if finding.check == check:
                return finding
        raise KeyError(check)


def ok(check: str, said: str, remedy: str = "", **details: Any) -> Finding:
    """Return that all is well."""
    return Finding(check=check, verdict=Verdict.OK, said=said, remedy=remedy, details=details)


def warning(check: str, said: str, remedy: str, **details: Any) -> Finding:
    """Return that something works, but not as it should."""
    return Finding(check=check, verdict=Verdict.WARNING, said=said, remedy=remedy, details=details)


def skipped(check: str, said: str, **details: Any) -> Finding:
    """Return that a check was not made, with the reason."""
    return Finding(check=check, verdict=Verdict.SKIPPED, said=said, details=details)


def failed(check: str, fault: Fault, said: str, remedy: str, **details: Any) -> Finding:
    """Return that something does not work."""
    return Finding(
        check=check, verdict=Verdict.FAILED, fault=fault, said=said, remedy=remedy, details=details
    )


def from_error(check: str, error: RealtimeError, remedy: str = "", **details: Any) -> Finding:
    """Return what an error of the library means.

    Args:
        check: During which it was raised.
        error: The error that was raised.
        remedy: A better one than the error's own, where the check knows one.
        details: Figures for programs.
    """
    return failed(check, fault_of(error), error.message, remedy or error.remedy, **details)


def fault_of(error: RealtimeError) -> Fault:
    """Return what kind of thing is wrong when an error of the library was raised."""
    match error:
        case ConfigurationError():
            return Fault.USAGE
        case AuthenticationError() | NamespaceRefusedError() | RedirectRefusedError():
            return Fault.REFUSED
        case TransportError():
            return Fault.UNREACHABLE
    return Fault.UNSOUND
