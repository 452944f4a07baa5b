"""Research questions as plans: sweeps, runs and their reports."""
