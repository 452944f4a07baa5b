"""Research questions as plans: run them, sweep them, report what they answer."""
