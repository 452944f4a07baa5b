"""The mesh that a run computes on: on a CPU its cores are devices, where they can be.

One device for each core is faster than threads inside of each product: by a fifth with
texts of 256 tokens and layers of width 256 (docs/results/profile.md).
"""

from ml_collections import ConfigDict

from experiments.runner import process
from experiments.setup.validate import flatten, mesh_problems
from transformer_jax import hosts
from transformer_jax.mesh_shape import MeshShape


def for_cores(config: ConfigDict, cores: int) -> MeshShape:
  """Returns the mesh of a run on so many CPU cores.

  A mesh that the config asks for stays. Cores share the batches of a run, never its
  seeds: a seed's last digits would depend on how many there are. Where they do not
  divide a batch there is one device, which uses them all.

  >>> from experiments.configs import base
  >>> config = base.get_config()
  >>> config.seeds, config.train.batch_size, config.evaluate.batch_size = (0,), 8, 8
  >>> print(for_cores(config, 4), "or", for_cores(config, 3))
  mesh.data=4 or a mesh
  """
  own = MeshShape(**config.mesh)
  if own != MeshShape() or cores == 1 or hosts.count() > 1:
    return own
  problems = [*mesh_problems(flatten(config) | {"mesh.data": cores}, cores)]
  return own if problems else MeshShape(data=cores)


def here(config: ConfigDict) -> MeshShape:
  """Returns the mesh of a run on the devices that JAX has made."""
  import jax

  cores = process.cores()
  made = jax.default_backend() == "cpu" and jax.device_count() == cores
  return for_cores(config, cores if made else 1)
