"""Fixtures of runs and sweeps."""

from fake_runs import train, while_waiting  # noqa: F401
