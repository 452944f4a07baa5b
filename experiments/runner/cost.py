"""Cost of an experiment: attention cores, parameters, tokens and FLOPs."""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import jax
from ml_collections import ConfigDict

from experiments.runner.build import Experiment, build
from transformer_jax.attention.cores import cores
from transformer_jax.attention.cores.auto import serving
from transformer_jax.data.windows import in_shape
from transformer_jax.models import Architecture
from transformer_jax.models.recurrent.model import Recurrence
from transformer_jax.training.step import Trainer


def cores_used(arch: Architecture, lengths: Iterable[int]) -> tuple[str, dict]:
  """Returns the cores used for texts of these lengths, and the refusals of faster ones.

  The names cover all layers and uses; after `auto:` come the cores that it chose.
  """
  sides = attending(arch)
  layers = (arch.layer(use, n) for use, count in sides.items() for n in range(count))
  pairs = {(encoding, variant) for encoding, variant in layers if not variant.mixer}
  dropout = arch.attention_dropout > 0
  used: set[str] = set()
  refused: dict[str, str] = {}
  for encoding, variant in pairs:
    for L in lengths:
      core, reasons = serving(arch.core, encoding, variant, dropout, L)
      used.add(cores.name_of(core))
      refused |= reasons
  names, configured = ", ".join(sorted(used)) or "none", cores.name_of(arch.core)
  return names if configured in used else f"{configured}: {names}", refused


@functools.singledispatch  # by the kind of architecture
def attending(arch: Architecture) -> dict[str, int]:
  """Returns {use: number of layers with attention}."""
  sides = {"encoder": arch.encoders, arch.decoding: arch.decoders}
  return sides | {"cross": min(sides.values())}


@attending.register
def _(arch: Recurrence) -> dict[str, int]:
  return {"cross": int(arch.link.attends and arch.encoders > 0 < arch.decoders)}


@functools.singledispatch
def written_out(arch: Architecture, recomputed: bool = False) -> Architecture:
  """Returns the architecture without loops, whose operations XLA counts.

  recomputed   with what its backward pass computes again
  """
  plain = {"core": cores.build("dense"), "dtype": "float32"}
  remat = arch.remat if recomputed else "none"
  return dataclasses.replace(arch, **plain, scan=False, remat=remat, written_out=True)


@written_out.register
def _(arch: Recurrence, recomputed: bool = False) -> Recurrence:
  del recomputed  # it keeps all that its backward pass reads
  plain = {"core": cores.build("dense"), "dtype": "float32"}
  return dataclasses.replace(arch, **plain, written_out=True)


def tokens_per_step(trainer: Trainer, arrays: Any) -> int:
  """Returns the tokens of one seed's batch, sources included."""
  arrays = in_shape(arrays, trainer.task.streamed)
  return jax.eval_shape(trainer.batch, arrays, trainer.shapes).tokens


def sizes(params: Any) -> tuple[int, int]:
  """Returns the number of parameters, and that of the positional encoding."""
  total = positional = 0
  for path, x in jax.tree_util.tree_leaves_with_path(params):
    total += x.size
    if any(getattr(part, "key", "") == "position" for part in path):
      positional += x.size
  return total, positional


def flops_per_token(
  experiment: Experiment, arrays: Any, recomputed: bool = False
) -> float:
  """Returns XLA's count of FLOPs for one training step of one seed, per token.

  recomputed   count what `model.remat` computes again, too

  The count is of the program before optimization, with dense attention and every layer
  written out, since XLA counts the body of a loop once, and in float32, since CPUs
  transpose bfloat16 by products. Not counted is what is no operation of XLA on a CPU:
  the triangular systems of delta rules, about 1% of such a layer of width 512.
  """
  trained = experiment.trainer
  arch = trained.model.arch
  plain = trained.model.clone(arch=written_out(arch, recomputed))
  # All logits at once: pieces of the loss would be a loop too, as micro-batches are.
  trainer = dataclasses.replace(trained, model=plain, max_logits=2**62, accumulate=1)
  tokens = 0
  arrays = in_shape(arrays, trainer.task.streamed)

  def step(arrays, state):
    nonlocal tokens
    batch = trainer.batch(arrays, state)
    tokens = batch.tokens  # known when the step is traced
    return trainer.step(state, batch)

  state = (trainer if arch.scan else trained).shapes  # a scan stacks its layers
  counted = jax.jit(step).lower(arrays, state).cost_analysis()
  assert counted is not None, "XLA counts FLOPs on every platform"
  return counted["flops"] / tokens


def parameters(config: ConfigDict) -> float:
  """Returns the number of parameters of one seed's model."""
  return sizes(build(config).trainer.shapes.eval_params)[0]


def tokens(config: ConfigDict) -> float:
  """Returns the tokens of one seed's training, sources included."""
  experiment = build(config)
  arrays = experiment.task.abstract()
  return tokens_per_step(experiment.trainer, arrays) * config.train.steps


def flops(config: ConfigDict) -> float:
  """Returns the FLOPs of one seed's training."""
  experiment = build(config)
  return flops_per_token(experiment, experiment.task.abstract()) * tokens(config)


COSTS = {"parameters": parameters, "flops": flops, "tokens": tokens}
