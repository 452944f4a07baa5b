"""Scores by length, and decoding on the cache."""
