"""Random schedules of faults, played in simulated worlds, judged by an oracle, and shrunk."""
