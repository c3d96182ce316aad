"""All checks in their order, and which of them make no sense once another one has failed."""

import time
from collections.abc import Awaitable, Callable
from typing import Final

from attrs import frozen

from realtime_fsm.doctor import network, session, transport
from realtime_fsm.doctor.examination import Examination, Target
from realtime_fsm.doctor.finding import Fault, Finding, Report, Verdict, failed, skipped
from realtime_fsm.machine.config import shown_address


@frozen(kw_only=True)
class Check:
    """One check of the examination.

    Attributes:
        name: How findings and reports call it.
        run: Makes it. Bounded by the target's ``timeout``, a few times over at most.
        is_needed: Whether none of the later ones can be made where it fails.
    """

    name: str
    run: Callable[[Examination], Awaitable[Finding]]
    is_needed: bool = True


CHECKS: Final = (
    Check(name=network.CONFIGURATION, run=network.check_configuration),
    Check(name=network.NAME, run=network.check_name),
    Check(name=network.TCP, run=network.check_tcp),
    Check(name=network.TLS, run=network.check_tls),
    Check(name=transport.HTTP, run=transport.check_http),
    Check(name=transport.HANDSHAKE, run=transport.check_handshake),
    Check(name=transport.WEBSOCKET, run=transport.check_websocket, is_needed=False),
    Check(name=session.NAMESPACE, run=session.check_namespace),
    Check(name=session.AUTHENTICATION, run=session.check_authentication),
    Check(name=session.HEARTBEAT, run=session.check_heartbeat, is_needed=False),
    Check(name=session.RECOVERY, run=session.check_recovery, is_needed=False),
    Check(name=session.IDLE, run=session.check_idle, is_needed=False),
)
"""All checks, in the order in which they are made."""


def _ignore(_: Finding) -> None:
    """Take no notice: nobody wants to be told."""


async def examine(target: Target, tell: Callable[[Finding], None] = _ignore) -> Report:
    """Make the checks, one after the other. Never raises for what it finds, and leaves nothing open.

    Args:
        target: The server to be examined.
        tell: Told each finding as soon as it is there.

    Returns:
        All findings: one for each check, those included that could not be made.
    """
    examination = Examination(target)
    findings: list[Finding] = []
    broken: str | None = None
    try:
        for check in CHECKS:
            began = time.monotonic()
            if broken is None:
                finding = await _made(check, examination)
            else:
                finding = skipped(check.name, f"Not tried, because `{broken}` failed.")
            finding = finding.shown(target.secrets, time.monotonic() - began)
            if broken is None and check.is_needed and finding.verdict is Verdict.FAILED:
                broken = check.name
            findings.append(finding)
            tell(finding)
    finally:
        if examination.connection is not None:
            await examination.connection.end()
    return Report(address=shown_address(target.config.server_url), findings=tuple(findings))


def misconfigured(address: str, said: str, remedy: str) -> Report:
    """Return the report where there is not even a configuration to begin with.

    Args:
        address: What was given as the address.
        said: What is wrong.
        remedy: What to do.
    """
    first, *rest = CHECKS
    findings = [failed(first.name, Fault.USAGE, said, remedy)]
    findings += [skipped(check.name, f"Not tried, because `{first.name}` failed.") for check in rest]
    return Report(
        address=shown_address(address), findings=tuple(finding.shown((), 0.0) for finding in findings)
    )


async def _made(check: Check, examination: Examination) -> Finding:
    try:
        return await check.run(examination)
    except Exception as error:  # noqa: BLE001 - an examination goes to its end, whatever a server does
        return failed(
            check.name,
            Fault.UNSOUND,
            f"The check itself broke: {type(error).__name__}.",
            "This is a bug in realtime_fsm; please report it.",
        )
