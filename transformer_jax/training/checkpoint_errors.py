"""Errors of checkpoints: which are damage, and the cause in a few words."""

import re

import jax

from transformer_jax import hosts
from transformer_jax.training.unusable import CheckpointError

# Trouble that is not the checkpoint's fault: setting it aside would be wrong.
NOT_DAMAGE = (MemoryError, PermissionError, jax.errors.JaxRuntimeError)
NOT_DAMAGE_TEXT = ("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "Too many open files")


def is_damage(error: Exception) -> bool:
  """Returns whether an error of reading means that a checkpoint is damaged."""
  if isinstance(error, (CheckpointError, *NOT_DAMAGE)):
    return False
  return not any(text in str(error) for text in NOT_DAMAGE_TEXT)


def brief(error: BaseException) -> str:
  """Returns the root cause in a few words: "No space left on device"."""
  while error.__cause__ is not None:
    error = error.__cause__
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  text = (str(error).strip() or type(error).__name__).splitlines()[0]
  system = re.search(r"([^:\[]+) \[os_error_code", text)
  text = system[1].strip() if system else text
  if system and isinstance(error, hosts.HostError):
    text += f" on {str(error).partition(':')[0]}"
  return text if len(text) <= 160 else text[:80] + " ... " + text[-75:]
