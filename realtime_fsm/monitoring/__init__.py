"""Metrics, health and alerts for an operator, derived from the counts of the engine."""
