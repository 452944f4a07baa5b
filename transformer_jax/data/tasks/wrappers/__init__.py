"""Wrappers that re-pose an algorithmic task: pairs, prefixes, blanks."""
