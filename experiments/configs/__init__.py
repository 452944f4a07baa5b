"""One question per file; `base.py` has every knob."""
