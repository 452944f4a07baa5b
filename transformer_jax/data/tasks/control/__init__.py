"""Control problems: the next action, from returns, observations and actions so far."""
