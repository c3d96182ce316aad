"""The doctor: finds what is wrong between here and a Socket.IO server, by one check after the other.

::

    report = await examine(Target(config=RealtimeConfig(server_url="https://example.org")))
    for finding in report.findings:
        print(finding.check, finding.verdict, finding.said, finding.remedy)

The checks use the parts that the client itself uses; none of them waits longer than it is told to.
"""

import warnings
from typing import Any

from realtime_fsm.doctor.checks import CHECKS, examine
from realtime_fsm.doctor.examination import Target
from realtime_fsm.doctor.finding import Fault, Finding, Report, Verdict

__all__ = ["CHECKS", "Fault", "Finding", "Report", "Target", "Verdict", "examine"]


def __getattr__(name: str) -> Any:
    """Give ``Target`` by the name that it had before."""
    if name != "Patient":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn("Patient is called Target now.", DeprecationWarning, stacklevel=2)
    return Target
