"""Contracts of encodings, attention variants and tasks: what each must keep."""
