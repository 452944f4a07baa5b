"""Probes: what can be read from the hidden states of a trained model, by layer.

Axes of the arrays here: I samples (a token of a text, or two), P layers whose states
are read, D features of a sample, C classes, A tokens of a set, E texts, S seeds,
T the label and its control.
"""

from transformer_jax.analysis.probes import probe_models, token_properties  # noqa: F401
from transformer_jax.analysis.probes.base import (
  Probe,
  ProbeError,
  ProbeLabel,
  probe_labels,
  probes,
)

__all__ = ["Probe", "ProbeError", "ProbeLabel", "probe_labels", "probes"]
