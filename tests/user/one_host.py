"""A config whose process has trouble that other hosts do not have.

DISK=full: the disk takes no more bytes. TROUBLE=POSITION: the data of runs with this
encoding cannot be read.
"""

import os
import resource

from experiments.configs import base
from experiments.runner import train
from experiments.setup.plan import Grid, Plan

if os.environ.get("DISK") == "full":
  resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))

if position := os.environ.pop("TROUBLE", ""):  # popped: this is read more than once
  prepare = train._prepare

  def prepared(config):
    if config.model.position == position:
      raise OSError("no such device")
    return prepare(config)

  train._prepare = prepared


def get_config():
  config = base.get_config()
  config.task = "copy"
  return config


def sweep():
  encodings = Grid({"model.position": ("none", "rope")})
  return Plan("Which reads further?", encodings, "none")
