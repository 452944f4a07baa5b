"""Exact attention tile by tile, in memory linear in the length of the text."""
