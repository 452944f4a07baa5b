"""Training: pure steps, dispatches of several steps, checkpoints, metric logs."""
