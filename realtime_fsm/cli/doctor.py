"""``realtime-fsm doctor``: looks for what is wrong between here and a server, and what to do about it."""

import argparse
import asyncio
import json
from typing import Any, Final

from realtime_fsm.cli.arguments import EXIT_FAILED, EXIT_OK, EXIT_REFUSED, EXIT_UNREACHABLE, EXIT_USAGE
from realtime_fsm.cli.client import token_in
from realtime_fsm.cli.paint import Painter
from realtime_fsm.doctor import Fault, Finding, Report, Target, Verdict, examine
from realtime_fsm.doctor.checks import CHECKS, misconfigured
from realtime_fsm.machine.config import RealtimeConfig
from realtime_fsm.machine.errors import ConfigurationError

_SIGNS: Final = {
    Verdict.OK: ("✓", "green"),
    Verdict.WARNING: ("!", "yellow"),
    Verdict.FAILED: ("✗", "red"),
    Verdict.SKIPPED: ("-", "dim"),
}
_EXIT_CODES: Final = {
    None: EXIT_OK,
    Fault.USAGE: EXIT_USAGE,
    Fault.UNREACHABLE: EXIT_UNREACHABLE,
    Fault.REFUSED: EXIT_REFUSED,
    Fault.UNSOUND: EXIT_FAILED,
}
_MEANINGS: Final = {
    Fault.USAGE: "wrong usage",
    Fault.UNREACHABLE: "unreachable",
    Fault.REFUSED: "refused",
    Fault.UNSOUND: "it answers, but does not work",
}
_WIDTH: Final = max(len(check.name) for check in CHECKS)


def run_doctor(parsed: argparse.Namespace) -> int:
    """Examine a server; return the exit code."""
    printer = _Printer(as_json=parsed.json)
    token = token_in(parsed.token_env)
    given = {"namespace": parsed.namespace, "socketio_path": parsed.path, "dialect": parsed.dialect}
    fields = {name: value for name, value in given.items() if value is not None}
    try:
        config = RealtimeConfig.from_env(server_url=parsed.url, **fields)
    except ConfigurationError as error:
        report = misconfigured(
            parsed.url, "; ".join(error.problems) + ".", "Correct the address, or the setting, named here."
        )
        for finding in report.findings:
            printer.tell(finding)
        return printer.end(report)
    target = Target(
        config=config,
        token=token,
        timeout=parsed.timeout,
        idle=parsed.idle,
        token_name=f"the token in {parsed.token_env}",
    )
    return printer.end(asyncio.run(examine(target, printer.tell)))


class _Printer:
    """One line for each finding as it comes, or one JSON object at the end.

    Checks that were skipped for the same reason share a line, so that what failed is not lost among them.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._painter = Painter()
        self._skipped: list[Finding] = []

    def tell(self, finding: Finding) -> None:
        """Print a finding, unless all are printed at the end."""
        if self._as_json:
            return
        if self._skipped and self._skipped[0].said != finding.said:
            self._tell_skipped()
        if finding.verdict is Verdict.SKIPPED:
            self._skipped.append(finding)
        else:
            self._line(finding.verdict, finding.check, finding.said, finding.remedy)

    def _tell_skipped(self) -> None:
        if self._skipped:
            names = ", ".join(finding.check for finding in self._skipped)
            self._line(Verdict.SKIPPED, names, self._skipped[0].said)
            self._skipped = []

    def _line(self, verdict: Verdict, checks: str, said: str, remedy: str = "") -> None:
        glyph, style = _SIGNS[verdict]
        painter = self._painter
        sign = painter.paint(f"{glyph} {verdict:<7}", style)
        text = said if not remedy else f"{said} {painter.paint('→', 'dim')} {remedy}"
        painter.line(f"{sign} {checks:<{_WIDTH}}  {text}")

    def end(self, report: Report) -> int:
        """Print what all of it means; return the exit code."""
        code = _EXIT_CODES[report.fault]
        if self._as_json:
            self._painter.line(json.dumps(_as_json(report, code), ensure_ascii=False))
            return code
        self._tell_skipped()
        counts = dict.fromkeys(Verdict, 0)
        for finding in report.findings:
            counts[finding.verdict] += 1
        told = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
        painter = self._painter
        end = "" if report.fault is None else f"; {_MEANINGS[report.fault]} (exit code {code})"
        painter.line(f"{painter.paint(report.address or 'no address', 'bold')}: {told}{end}")
        return code


def _as_json(report: Report, code: int) -> dict[str, Any]:
    return {
        "address": report.address,
        "ok": report.is_ok,
        "exit_code": code,
        "checks": [finding.to_json() for finding in report.findings],
    }
