"""Kind of device that a program is made for, which may be none of this machine's."""

import jax


def platform() -> str:
  """Returns cpu, gpu or tpu: that of the mesh in use, without one JAX's default.

  Programs are compiled ahead of time for a mesh of devices that are not here.

  >>> import numpy as np
  >>> with jax.set_mesh(jax.sharding.Mesh(np.array(jax.devices("cpu")[:1]), ("data",))):
  ...   print(platform())
  cpu
  """
  device = jax.sharding.get_abstract_mesh().abstract_device
  return device.platform if device else jax.default_backend()
