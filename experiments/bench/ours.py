"""This project's side of the benchmark, in a process of its own.

python -m experiments.bench.ours         # started by experiments.bench
python -m experiments.bench.ours train   # as the runner trains: see runner/process.py
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.ours_mixers import delta_rule, layer
from experiments.bench.programs import compiled, planned_bytes
from experiments.bench.serve import CaseMaker, serve
from experiments.configs import base
from experiments.runner import process, provenance
from experiments.runner.build import build
from transformer_jax.analysis.sequential_operations import sequential_operations
from transformer_jax.attention.cores import cores
from transformer_jax.axes import Dims
from transformer_jax.data.base import Batch, Task
from transformer_jax.evaluation.decode import greedy
from transformer_jax.mesh_shape import MeshShape
from transformer_jax.positions import bind, coords, positions
from transformer_jax.training import sharding

SIDE = 16  # patches in a row of the image that random tokens are taken for
LIMIT = 9 * 2**30  # bytes of temporary arrays: a case that needs more is not run
CACHE = Path(__file__).parents[2] / "runs" / "bench" / "compiled"


@dataclasses.dataclass(frozen=True)
class Noise(Task):
  """Random tokens: their values do not change the time of a step."""

  vocabulary: int = 8192
  measures: ClassVar[tuple[str, ...]] = ("accuracy",)

  def tokens(self, length):
    return length

  def batch(self, arrays, key, batch_size, length, progress=1.0):
    """Returns random tokens and their successors as targets.

    They also are patches of an image, digits of numbers and steps of an episode, for
    encodings that read such ids.

    arrays       unused: there is no data
    key          of jax.random
    batch_size   sequences (B)
    length       tokens of each
    progress     unused: the task is the same all through training
    """
    token_BL = jax.random.randint(key, (batch_size, length + 1), 0, self.vocabulary)
    weight_BL = jnp.ones((batch_size, length), jnp.float32)
    at, place_BL = coords.consecutive(1, length), jnp.arange(length)[None]
    ids = {
      "row_BL": place_BL // SIDE,
      "column_BL": place_BL % SIDE,
      "abacus_BL": place_BL % 8,  # numbers of seven digits, and a sign
      "coupled_BL": place_BL % 8,
      "step_BL": place_BL // 3,  # of three tokens: a return, a state, an action
    }
    return Batch(token_BL[:, :-1], token_BL[:, 1:], weight_BL, at.replace(data=ids))

  def score(self, arrays, key, batch_size, length, bucket):
    """Returns a batch of the bucket's length: nobody reads its score.

    arrays       data
    key          of jax.random
    batch_size   sequences (B)
    length       task length of the batch, padded on the left to the bucket
    bucket       task length that sets the shapes
    """
    return self.batch(arrays, key, batch_size, bucket)


def attention(encoding, core, L, H=8, K=64, backward=True, devices=1):
  """One causal sequence in float32: output, and all gradients.

  encoding, core   specs
  L, H, K          length, heads and their width
  backward         also compute gradients
  devices          that share the heads, as with `--config.mesh.tensor`
  """
  encoding = positions.build(encoding)
  dims = Dims(V=2, D=H * K, H=H, F=1, L=L, K=K)
  keys = jax.random.split(jax.random.key(0), 6)
  params = encoding.init(keys[0], dims)
  params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(keys[1], x.shape), params)
  mesh = sharding.make_mesh(tensor=devices)
  params = jax.device_put(params, sharding.split(mesh, params))
  heads = jax.NamedSharding(mesh, jax.P(None, None, "tensor"))

  def draw(key):
    return jax.device_put(jax.random.normal(key, (1, L, H, K)), heads)

  q, k, v, g = map(draw, keys[2:])
  at = coords.consecutive(1, L)
  attend = _jax_attention if core == "jax" else functools.partial(attend_rotated, core)

  def forward(q, k, v, params):
    return attend(bind(encoding, params, dims), q, k, v, at)

  def both(q, k, v, params):
    out, pull = jax.vjp(forward, q, k, v, params)
    return out, pull(g)

  with jax.set_mesh(mesh):
    run, facts = compiled(both if backward else forward, q, k, v, params)
  if facts["temporary_bytes"] > LIMIT:
    needs = facts["temporary_bytes"] / 2**30
    raise ValueError(f"left out, since its program needs {needs:.0f} GiB")
  return run, facts


def attend_rotated(core, position, q, k, v, at):
  x_BLD = q.reshape(*q.shape[:2], -1)  # tokens, for encodings that read them
  at = position.accumulate(position.read(x_BLD, q, at))
  q, k = position.transform_qk(q, k, at, at)
  return cores.build(core)(q, k, v, at, at, position)


def _jax_attention(position, q, k, v, at):
  """JAX's own function, with the bias as the array of [H, L, L] that it wants."""
  q, k = position.transform_qk(q, k, at, at)
  bias = position.bias(at.pos_BL, at.pos_BL)
  bias = bias if isinstance(bias, jax.Array) else None
  return jax.nn.dot_product_attention(q, k, v, bias=bias, is_causal=True)


def _experiment(
  position,
  B,
  L,
  core="",
  dtype="float32",
  V=8192,
  D=256,
  H=8,
  N=6,
  family="",
  attention="multihead",
):
  """Returns the experiment that a config file of these sizes describes.

  position      spec of the encoding
  B, L          sequences in the batch and their tokens
  core, dtype   specs; core "": the config's default
  V, D, H, N    vocabulary, width, heads and layers
  family        spec of a recurrent family; "": a Transformer
  attention     spec of the variant
  """
  config = base.get_config()
  with config.unlocked():
    config.task = f"{__spec__.name if __spec__ else __name__}:Noise(vocabulary={V})"
  config.model.update(position=position, width=D, heads=H, layers=N, dtype=dtype)
  config.model.attention = attention
  if family:
    config.model.family = family
  else:
    config.model.feedforward = 4 * D
  if core:
    config.model.core = core
  config.train.update(batch_size=B, length=L, clip=0.0, schedule="constant")
  config.train.optimizer = "adamw(lr=1e-3)"
  return build(config)


def step(position, B, L, devices=1, **options):
  """One step of the project's own Trainer on random tokens: loss, gradients, AdamW.

  position   spec of the encoding
  B, L       sequences in the batch and their tokens
  devices    that share the batch
  options    other sizes of the model, as `_experiment` takes them
  """
  return stepping(_experiment(position, B, L, **options).trainer, devices)


def recurrence(family, B, L, devices=1):
  """One training step of two layers of width 128, and its sequential operations.

  family     spec of a recurrent family; "": a Transformer with RoPE
  B, L       sequences in the batch and their tokens
  devices    that share the batch
  """
  sizes = {"V": 1024, "D": 128, "H": 4, "N": 2, "family": family}
  trainer = _experiment("none" if family else "rope", B, L, **sizes).trainer
  run, facts = stepping(trainer, devices)
  # By the core that defines attention: blockwise ones visit tiles one after another.
  arch = dataclasses.replace(trainer.model.arch, core=cores.build("dense"))
  dense = dataclasses.replace(trainer, model=trainer.model.clone(arch=arch))
  state = dense.shapes
  batch = jax.eval_shape(functools.partial(dense.batch, ()), state)
  chain = sequential_operations(dense.step, state, batch)
  return run, facts | {"sequential_operations": chain}


def stepping(trainer, devices):
  """Returns a call that takes one step, and its facts.

  trainer   of the model, on random tokens
  devices   that share the batch
  """
  mesh = sharding.make_mesh(data=devices)
  split = functools.partial(sharding.split_batch, mesh)
  trainer = dataclasses.replace(trainer, constrain=split)
  state = sharding.whole(mesh, jax.jit(trainer.init)(0))
  with jax.set_mesh(mesh):
    batch = jax.jit(trainer.batch)((), state)
    update = jax.jit(trainer.step, donate_argnums=0).lower(state, batch).compile()
  current = [state]

  def run():
    current[0], metrics = update(current[0], batch)
    return jax.block_until_ready(metrics["loss"])

  size = sum(x.size for x in jax.tree.leaves(state.params))
  memory = planned_bytes(update, "temp")
  return run, {"parameters": size, "loss": float(run()), "temporary_bytes": memory}


def decode(position, B, prompt, new, devices=1, **options):
  """Greedy decoding with the cache, one program.

  position   spec of the encoding
  B          sequences
  prompt     tokens of each prompt
  new        tokens that are generated after it
  devices    that share the batch
  options    other sizes of the model, as `_experiment` takes them
  """
  trainer = _experiment(position, 1, prompt + new, **options).trainer
  mesh = sharding.make_mesh(data=devices)
  params = sharding.whole(mesh, jax.jit(trainer.init)(0).params)
  prompt_BL = jax.random.randint(jax.random.key(1), (B, prompt), 0, 8192)
  prompt_BL = sharding.place_rows(mesh, prompt_BL)
  generate = jax.jit(lambda p, x: greedy(trainer.model, p, x, new))
  program = generate.lower(params, prompt_BL).compile()
  size = sum(x.size for x in jax.tree.leaves(params))

  def run():
    return jax.block_until_ready(program(params, prompt_BL))

  return run, {"parameters": size}


def matmul(size=2048, times=8):
  """Float32 products of square matrices, one after another: the machine's peak."""
  x = jnp.asarray(np.random.default_rng(0).normal(size=(size, size)), jnp.float32)
  product, _ = compiled(jnp.matmul, x, x)

  def run():
    for _ in range(times):
      product()

  return run, {"flops": 2 * size**3 * times}


def registered() -> tuple[Callable[[], None], dict[str, Any]]:
  """Returns the registered cores and encodings; nothing is timed."""
  names = {"cores": sorted(cores), "encodings": sorted(positions)}
  return lambda: None, names


CASES: dict[str, CaseMaker] = {
  "attention": attention,
  "step": step,
  "decode": decode,
  "recurrence": recurrence,
  "delta_rule": delta_rule,
  "layer": layer,
  "matmul": matmul,
  "registered": registered,
}


def main() -> None:
  """Answers requests; compiled programs are cached on disk."""
  jax.config.update("jax_compilation_cache_dir", str(CACHE))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
  process.make_devices([MeshShape(data=process.cores())])
  serve(CASES, lambda: provenance.versions() | {"device": provenance.device()})


if __name__ == "__main__":
  main()
