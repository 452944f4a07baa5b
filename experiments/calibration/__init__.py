"""Simulations that choose the method of the report's verdicts: docs/statistics.md."""
