"""Config and objects of a run, from its folder."""

from pathlib import Path

from ml_collections import ConfigDict

from experiments.configs import base
from experiments.runner import user_code
from experiments.runner.build import Experiment, build
from experiments.setup.identity import completed
from experiments.setup.validate import resolve, validate
from transformer_jax.spec import registered_only
from transformer_jax.training.json_files import read_object


def of_run(folder: Path) -> tuple[ConfigDict, Experiment]:
  """Returns the config in a run's folder, and its objects.

  The folder may be somebody else's, so the config may name only registered classes and
  those that the user allowed; see `spec.trust`.
  """
  path = folder / "config.json"
  config = resolve(base.get_config(), completed(read_object(path)))
  with registered_only(str(path)):
    validate(config, trained=True)
    experiment = build(config)
  user_code.compare(folder, config)
  return config, experiment
