"""Tasks and text. Importing this package fills the registry `base.tasks`."""

import importlib
import pkgutil

from transformer_jax.data import tasks as _tasks

for _module in pkgutil.walk_packages(_tasks.__path__, f"{_tasks.__name__}."):
  importlib.import_module(_module.name)
