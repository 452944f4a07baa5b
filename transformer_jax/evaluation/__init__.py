"""Evaluation: scores by length, decoding on the cache, translation, classification."""
