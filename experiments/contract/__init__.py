"""Contracts of encodings, attention variants and tasks: the properties of each."""
