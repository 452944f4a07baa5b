"""Experiment configs, one question per file; `base.py` has all keys."""
