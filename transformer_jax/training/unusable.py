"""Error of checkpoints. Without JAX: commands name it before they import the rest."""


class CheckpointError(RuntimeError):
  """Raised if a checkpoint cannot be saved or used; the message names the remedy.

  >>> issubclass(CheckpointError, RuntimeError)
  True
  """
