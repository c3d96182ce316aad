"""What is wrong between here and a Socket.IO server: one check after the other, each with its remedy.

::

    report = await examine(Patient(config=RealtimeConfig(server_url="https://example.org")))
    for finding in report.findings:
        print(finding.check, finding.verdict, finding.said, finding.remedy)

The checks use the parts that the client itself uses; none of them waits longer than it is told to.
"""

from realtime_fsm.doctor.examination import CHECKS, examine
from realtime_fsm.doctor.finding import Fault, Finding, Report, Verdict
from realtime_fsm.doctor.patient import Patient

__all__ = ["CHECKS", "Fault", "Finding", "Patient", "Report", "Verdict", "examine"]
