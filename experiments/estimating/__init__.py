"""Estimates of a training step on TPUs that are not here: memory, time, cost."""
