"""A report of what the metrics database has kept: figures, comparisons, plots."""
