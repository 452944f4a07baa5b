"""Fixtures of trained runs."""

from trained_sweep import workdir  # noqa: F401
