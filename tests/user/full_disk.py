"""A config whose process has a full disk from the start, where DISK is `full`."""

import os
import resource

from experiments.configs import base
from experiments.setup.plan import Grid, Plan

if os.environ.get("DISK") == "full":
  resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


def get_config():
  config = base.get_config()
  config.task = "copy"
  return config


def sweep():
  return Plan(
    "Which reads further?", Grid({"model.position": ("none", "rope")}), "none"
  )
