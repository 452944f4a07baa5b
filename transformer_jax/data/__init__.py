"""Tasks and text. Importing this package fills the registry `base.tasks`.

A task is one file: save it in `tasks/`, or name your own as `module:Class(argument=1)`.
"""

import importlib
import pkgutil

from transformer_jax.data import blanks as blanks
from transformer_jax.data import images as images
from transformer_jax.data import pairs as pairs
from transformer_jax.data import prefixed as prefixed
from transformer_jax.data import spans as spans
from transformer_jax.data import tasks as _folder
from transformer_jax.data import text as text
from transformer_jax.data import tokenized as tokenized
from transformer_jax.data import translation as translation

for _module in pkgutil.iter_modules(_folder.__path__, _folder.__name__ + "."):
  importlib.import_module(_module.name)
