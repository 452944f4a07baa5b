"""Contracts of encodings, attention variants, mixers and tasks."""
