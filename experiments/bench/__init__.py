"""Measures speed and memory, beside other libraries, and writes a page about it."""
