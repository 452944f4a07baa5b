"""Programs of attention, forward and backward, to compile ahead of time for one chip.

All get bfloat16 queries, keys, values and the output's gradient of 8 heads of 128, in
the order of axes that their kernels read: ours [B, H, K, L], splash attention, JAX's
own kernel for TPUs, [B, H, L, K].
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.splash import causal_splash
from transformer_jax.attention.cores import cores
from transformer_jax.axes import Dims
from transformer_jax.positions import PositionalEncoding, bind, coords, positions

CORES = {"dense": "dense", "pallas_tpu": "pallas_tpu(interpret=False)"}
SPLASH = "splash"
TOPOLOGIES = {"v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "v6e": "v6e:2x2"}
H, K = 8, 128  # heads and their width


@dataclasses.dataclass(frozen=True)
class Case:
  """One program to compile.

  chip       kind of TPU
  B, L       texts and their tokens
  encoding   positional encoding
  core       attention core, or splash
  """

  chip: str
  B: int
  L: int
  encoding: str
  core: str

  @property
  def ideal_bytes(self) -> int:
    """Returns bytes of queries, keys, values, g and three gradients, each once."""
    return 7 * self.B * self.L * H * K * jnp.dtype(jnp.bfloat16).itemsize


def refusal(case: Case) -> str | None:
  """Returns why a core cannot compute a case, or None."""
  if case.core == SPLASH:
    return None
  core = cores.build(CORES[case.core])
  return core.refusal(positions.build(case.encoding))


def traced(case: Case) -> Any:
  """Returns the traced gradient of attention, to be lowered for a TPU."""
  mesh = _one_chip(case.chip)
  place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  shape = functools.partial(jax.ShapeDtypeStruct, sharding=place)
  if case.core == SPLASH:
    return _splash(case, shape)
  with jax.set_mesh(mesh):  # what is traced asks it for the kind of device
    return _ours(case, shape)


def _one_chip(chip: str) -> jax.sharding.Mesh:
  """Returns a mesh of one chip of a kind, which need not be there."""
  from jax.experimental import topologies

  chips = topologies.get_topology_desc(TOPOLOGIES[chip], "tpu").devices
  auto = (jax.sharding.AxisType.Auto,)
  return jax.sharding.Mesh(np.array(chips[:1]), ("data",), axis_types=auto)


def _ours(case: Case, shape: Any) -> Any:
  encoding, core = positions.build(case.encoding), cores.build(CORES[case.core])
  dims = Dims(V=8, D=H * K, H=H, F=8, L=case.L)
  params = jax.eval_shape(lambda: encoding.init(jax.random.key(0), dims))
  params = {name: shape(x.shape, x.dtype) for name, x in params.items()}
  x_BLD = shape((case.B, case.L, H * K), jnp.bfloat16)
  loss = functools.partial(attention_loss, encoding, core, dims)
  reads = encoding.overrides("token_data")
  gradient = jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3, 4)[: 5 if reads else 4]))
  x_BHKL = shape((case.B, H, K, case.L), jnp.bfloat16)
  return gradient.trace(params, x_BHKL, x_BHKL, x_BHKL, x_BLD, x_BHKL)


def attention_loss(
  encoding: PositionalEncoding,
  core: Any,
  dims: Dims,
  params: Any,
  q_BHKL: jax.Array,
  k_BHKL: jax.Array,
  v_BHKL: jax.Array,
  x_BLD: jax.Array,
  g_BHKL: jax.Array,
) -> jax.Array:
  """Returns the sum of attention's outputs, each times its entry of g.

  encoding   positional encoding
  core       attention core
  dims       sizes of the model
  params     the encoding's
  q_BHKL, k_BHKL, v_BHKL   queries, keys and values
  x_BLD      tokens, for encodings that read them
  g_BHKL     gradient of the output
  """
  q, k, v, g = (
    jnp.transpose(x, (0, 3, 1, 2)) for x in (q_BHKL, k_BHKL, v_BHKL, g_BHKL)
  )
  at = coords.consecutive(1, q.shape[1])
  at = at.replace(data={name: at.pos_BL for name in encoding.ids})
  position = bind(encoding, params, dims)
  at = position.accumulate(position.read(x_BLD, q, at))
  q, k = position.transform_qk(q, k, at, at)
  out_BLHK = core(q, k, v, at, at, position)
  return jnp.sum((out_BLHK * g).astype(jnp.float32))


def _splash(case: Case, shape: Any) -> Any:
  attend = causal_splash(case.L, H)

  def loss(q, k, v, g):
    return jnp.sum((attend(q, k, v) * g).astype(jnp.float32))

  vectors = shape((case.B, H, case.L, K), jnp.bfloat16)
  gradient = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))
  return gradient.trace(vectors, vectors, vectors, vectors)
