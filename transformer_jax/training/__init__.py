"""Training: one pure step, many steps per dispatch, nothing lost when it stops."""
