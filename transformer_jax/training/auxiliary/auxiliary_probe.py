"""Checks of auxiliary losses before anything compiles, with a model's shapes.

Those of users are also called on small random numbers, with NumPy, where a batch will
be computed in parts.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax import numpy_interpreter
from transformer_jax.attention.cores import cores
from transformer_jax.attention.cores.auto import Auto
from transformer_jax.attention.cores.dense import Dense
from transformer_jax.data.base import Batch, Task
from transformer_jax.members import check_members, failed, kind_of, outside
from transformer_jax.models import Transformer, capture
from transformer_jax.models.recurrent.model import Recurrence
from transformer_jax.models.watch import OF_CORE, OF_DENSE, PLACES
from transformer_jax.positions import coords
from transformer_jax.spec import SpecError, nearest
from transformer_jax.training.auxiliary.base import AuxiliaryLoss, auxiliary_losses
from transformer_jax.training.auxiliary.terms import OF_LOGITS, PARAMS, Terms, name_of
from transformer_jax.training.auxiliary.training_pass import TrainingPass, weights_of
from transformer_jax.training.objectives import objective_of

B = 4  # examples


@functools.lru_cache(maxsize=64)
def check(
  losses: tuple[AuxiliaryLoss, ...],
  model: Transformer,
  task: Task,
  length: int,
  in_parts: bool = False,
) -> None:
  """Raises SpecError unless losses can be added up for this model.

  losses     auxiliary losses, one at least
  model      whose arrays they read
  task       that it is trained on
  length     of the task
  in_parts   a batch will be computed in parts, whose losses are added up
  """
  for loss in losses:
    _check_class(loss)
  names = [*map(name_of, losses)]
  if twice := [name for name in names if names.count(name) > 1]:
    raise SpecError(f"{twice[0]} is there twice; drop one, or add up their weights")
  for name, loss in zip(names, losses, strict=True):
    _check_core(name, loss, model)
    if in_parts and loss.whole_batch:
      raise SpecError(
        f"{name} reads the whole batch, and train.accumulate or mesh.pmap computes"
        " parts of it; write train.accumulate=1 and mesh.pmap=False"
      )
    if loss.causal and not model.arch.decoders:
      raise SpecError(
        f"{name} predicts later tokens, which an encoder has read; leave it out, or"
        " write kind=decoder"
      )
    if {*loss.places} & {*OF_LOGITS} and objective_of(task).targets != "labels":
      raise SpecError(f"{name} reads logits of labels, and the task has numbers")
  captured, batch = _shapes(Terms(losses), model, task, length)
  for name, loss in zip(names, losses, strict=True):
    _check_shape(name, loss, captured, batch)
    if in_parts and outside(type(loss)):
      _check_parts(name, loss, captured, batch)


def reads_weights(terms: Terms) -> list[str]:
  """Returns names of the losses for which training attends with the core `dense`."""
  return [name_of(loss) for loss in terms.losses if {*loss.places} & {*OF_DENSE}]


def _check_class(loss: AuxiliaryLoss) -> None:
  """Raises SpecError where a class misuses the members of its base."""
  name = type(loss).__name__
  if outside(type(loss)):
    check_members(loss, AuxiliaryLoss)
    if type(loss).loss is AuxiliaryLoss.loss:
      raise SpecError(f"{name} has no loss(); write what AuxiliaryLoss.loss says")
  if not isinstance(loss.weight, int | float) or not math.isfinite(loss.weight):
    raise SpecError(f"{name}.weight is {loss.weight!r}; write a number")
  known = (*PLACES, *OF_LOGITS)
  for place in loss.places:
    if place not in known:
      raise SpecError(
        f"{name}.places has '{place}'.{nearest(place, known)} Write some of"
        f" {', '.join(known)}."
      )


def _check_core(name: str, loss: AuxiliaryLoss, model: Transformer) -> None:
  """Raises SpecError where the model's attention never holds what a loss reads."""
  core = model.arch.core
  of_core = [place for place in loss.places if place in OF_CORE]
  if of_core and isinstance(model.arch, Recurrence):
    raise SpecError(
      f"{name} reads {of_core[0]} of attention, and a recurrent model has none, or one"
      " query at a time; use a loss on state or log_z, as z_loss, or a Transformer"
    )
  held = [place for place in loss.places if place in OF_DENSE]
  if held and not isinstance(core, Auto | Dense):
    raise SpecError(
      f"{name} reads {held[0]} of attention, which core={cores.name_of(core)} never"
      " holds; write core=auto or dense, which hold L x M numbers for each head and"
      " text, or a loss on outputs, as head_diversity(output)"
    )


def _shapes(
  terms: Terms, model: Transformer, task: Task, length: int
) -> tuple[Any, Batch]:
  """Returns shapes of all arrays that losses read, and a batch of numbers.

  terms    the losses
  model    whose arrays they read
  task     that it is trained on
  length   of the task
  """
  # Neither a mesh nor an axis of devices is needed to know shapes.
  arch = dataclasses.replace(model.arch, core=cores.build("dense"), part=None)
  model = model.clone(arch=arch)
  token_BL = jnp.zeros((B, task.tokens(length)), jnp.int32)
  at = coords.consecutive(*token_BL.shape)
  at = at.replace(data={name: token_BL for name in arch.position.ids})
  read = jax.tree.map(lambda x: jnp.repeat(x[:1], B, axis=0), task.example(length))
  reads = read, at, token_BL, at

  def hidden(key: jax.Array) -> Any:
    params = model.init(key, *reads)["params"]
    (x_BLD, output_VD), captured = capture.run(
      model, params, *reads, want=terms.places, method="hidden"
    )
    own = terms.init(key, arch.dims.D) or {PARAMS: {}}
    return x_BLD, captured | terms.of_logits(x_BLD, output_VD, n=1) | own

  x_BLD, captured = jax.eval_shape(hidden, jax.random.key(0))
  weight_BL = jnp.ones(x_BLD.shape[:2], jnp.float32)
  target_BL = weight_BL.astype(jnp.int32)
  both = arch.encoders and arch.decoders
  source = (token_BL, at) if both else (None, None)
  return captured, Batch(read, target_BL, weight_BL, at, *source)


def _loss(loss: AuxiliaryLoss, captured: Any, batch: Batch, counts: Any) -> jax.Array:
  own = {place: captured[place] for place in loss.places}
  params = captured[PARAMS].get(auxiliary_losses.name_of(loss), {})
  return loss.loss(TrainingPass(own, batch, counts, params))


def _counts(batch: Batch) -> dict[str, jax.Array]:
  return {name: jnp.sum(x_BL) for name, x_BL in weights_of(batch).items()}


def _check_shape(name: str, loss: AuxiliaryLoss, captured: Any, batch: Batch) -> None:
  """Raises SpecError unless a loss is a real number, and defined for the model."""
  try:
    made = jax.eval_shape(
      functools.partial(_loss, loss), captured, batch, _counts(batch)
    )
  except Exception as error:  # a user's code may raise anything
    if outside(type(loss)) and not isinstance(error, SpecError):
      raise failed(f"{name}.loss", error) from error
    raise SpecError(f"{name}: {error}") from error
  is_number = hasattr(made, "dtype") and jnp.issubdtype(made.dtype, jnp.floating)
  if not is_number or made.shape:
    given = f"shape {made.shape}" if hasattr(made, "shape") else kind_of(made)
    raise SpecError(
      f"{name}.loss returns {given}; return one number, as arrays.mean(x_BL, 'targets')"
    )


def _check_parts(name: str, loss: AuxiliaryLoss, captured: Any, batch: Batch) -> None:
  """Raises SpecError unless the losses of a batch's parts add up to its own."""
  rng = np.random.default_rng(0)

  def numbers(x: Any) -> np.ndarray:
    if jnp.issubdtype(x.dtype, jnp.floating):
      return rng.uniform(0.1, 1.0, x.shape).astype(x.dtype)
    return np.broadcast_to(np.arange(x.shape[-1]), x.shape).astype(x.dtype)

  def examples(rows: slice, x: Any) -> np.ndarray:
    return np.asarray(x)[rows] if len(x) == B else np.asarray(x)

  def evaluate(rows: slice) -> float:
    arrays, part = jax.tree.map(functools.partial(examples, rows), (made, batch))
    arrays |= {PARAMS: made[PARAMS]}
    function = functools.partial(_loss, loss)
    return float(numpy_interpreter.evaluate(function, arrays, part, counts))

  made, counts = jax.tree.map(numbers, captured), _counts(batch)
  whole, first, last = map(evaluate, (slice(0, B), slice(0, 1), slice(1, B)))
  if not np.allclose(first + last, whole, rtol=1e-3):
    raise SpecError(
      f"{name}.loss of a batch is {whole:.4g}, and those of its parts add up to"
      f" {first + last:.4g}, as accumulate and pmap do; write arrays.mean(x_BL, ...)"
      " for the mean over tokens, or accumulate=1"
    )
