"""Finished runs, scored again on something else."""
