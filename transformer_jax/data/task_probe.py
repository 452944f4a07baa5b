"""Quick checks of a user's task: shapes, types and ranges of the batches it draws.

Small batches are drawn with NumPy (`numpy_interpreter.py`): nothing compiles, no device
is used. For a task that loads files only its declarations are checked, since loading
takes time.
"""

import functools
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from transformer_jax import numpy_interpreter
from transformer_jax.data.base import Batch, Task, target_places
from transformer_jax.data.files import DataError
from transformer_jax.members import call, check_members, failed, kind_of, outside, parts
from transformer_jax.spec import SpecError, nearest

KINDS = "decoder", "prefix_decoder", "encoder", "encoder_decoder"
HOOKS = "batch", "score"  # of training and of evaluation
ROWS, LENGTH, SHORT = 4, 6, 4
LONG = 128  # tokens, for tasks that need more than LENGTH


def check(task: Any, hooks: Iterable[str] = HOOKS) -> None:
  """Raises SpecError if a user's task, or one that it wraps, is unusable.

  hooks   the hooks that will be called: a trainer only draws training batches
  """
  for one in parts(task, Task):
    if outside(type(one)):
      check_members(one, Task, by_name=("batch_size", "length", "progress"))
      probe(one, hooks)


def probe(task: Task, hooks: Iterable[str] = HOOKS) -> None:
  """Raises SpecError if a task's batches contradict its declarations."""
  for hook in hooks:
    _probe(task, hook)


@functools.lru_cache(maxsize=128)
def _probe(task: Task, hook: str) -> None:
  name = type(task).__name__
  check_declared(task, name, hook)
  if type(task).load is not Task.load:
    return
  try:
    long, short = task.tokens(LENGTH), task.tokens(SHORT)
    if _has(task, "batch"):
      _shape(task, LENGTH)
  except (SpecError, DataError):  # such short texts are refused by the task itself
    return
  except Exception as error:  # any error of a user's code, reported with its place
    if not _takes(task, LONG):
      raise failed(f"{name}.batch", error) from error
    return
  check_tokens(name, long, short)
  CHECKS[hook](task, name)


def _has(task: Task, hook: str) -> bool:
  return getattr(type(task), hook) is not getattr(Task, hook)


def _shape(task: Task, length: int) -> Batch:
  """Returns the shapes of a training batch."""
  return jax.eval_shape(lambda: task.batch((), jax.random.key(0), ROWS, length, 1.0))


def _takes(task: Task, length: int) -> bool:
  """Returns whether batches of this length can be drawn: shorter ones may not be."""
  try:
    return bool(_shape(task, length))
  except Exception:  # any error of a user's code; the caller has the first one
    return False


def check_declared(task: Task, name: str, hook: str) -> None:
  """Raises SpecError if a declared attribute has the wrong type."""
  missing = [needed for needed in ("tokens", hook) if not _has(task, needed)]
  if missing:
    raise SpecError(f"{name} has no {missing[0]}(); write what Task.{missing[0]} says")
  vocabulary = getattr(task, "vocabulary", None)
  if not isinstance(vocabulary, (int, np.integer)) or vocabulary < 1:
    raise SpecError(
      f"{name}.vocabulary is {vocabulary!r}; write the number of tokens, as"
      " vocabulary = 8, or a property that returns it"
    )
  if task.kind not in KINDS:
    raise SpecError(
      f"{name}.kind is {task.kind!r}.{nearest(str(task.kind), KINDS)} Write one of"
      f" {', '.join(KINDS)}."
    )


def check_tokens(name: str, tokens: Any, short: Any) -> None:
  """Raises SpecError if numbers of tokens are not integers."""
  for length, found in ((LENGTH, tokens), (SHORT, short)):
    if not isinstance(found, (int, np.integer)) or found < 1:
      raise SpecError(
        f"{name}.tokens({length}) is {kind_of(found)}, {found!r}; return a whole number"
      )


def check_drawn(task: Task, name: str) -> None:
  """Raises SpecError if a training batch is not as declared."""

  def draw():
    return task.batch((), jax.random.key(0), ROWS, LENGTH, 1.0)

  drawn = run(f"{name}.batch", draw)
  check_batch(task, f"{name}.batch(batch_size={ROWS}, length={LENGTH})", drawn)
  again = run(f"{name}.batch", draw)
  same = jax.tree.map(lambda a, b: np.array_equal(a, b, equal_nan=True), drawn, again)
  if not all(jax.tree.leaves(same)):
    raise SpecError(
      f"{name}.batch draws other numbers for the same key, and in training the same"
      " ones in all steps; draw from the key with jax.random, never with numpy"
    )


def check_scored(task: Task, name: str) -> None:
  """Raises SpecError if an evaluation batch is not as declared."""

  def score(n):
    return task.score((), jax.random.key(0), ROWS, n, LENGTH)

  scored = run(f"{name}.score", score, np.int32(SHORT))
  where = f"{name}.score(batch_size={ROWS}, length={SHORT}, bucket={LENGTH})"
  check_batch(task, where, scored)
  if not np.any(scored.weight_BL):
    raise SpecError(
      f"{where} counts no prediction; set weight_BL to 1 where one counts"
    )
  last = target_places(task, LENGTH)
  if last is not None and np.any(scored.weight_BL[:, :-last]):
    raise SpecError(
      f"{name}.target_places({LENGTH}) is {last}, and {where} counts predictions before"
      f" the last {last} places; return how many of the last places may count"
    )


CHECKS = {"batch": check_drawn, "score": check_scored}


def run(where: str, function: Any, *args: Any) -> Batch:
  """Returns a batch as NumPy arrays; raises SpecError if it is not a Batch."""
  shape = call(where, jax.eval_shape, function, *args)
  if not isinstance(shape, Batch):
    raise SpecError(f"{where} returns {kind_of(shape)}; return a Batch")
  # JAX would cache the trace of the same function, with its constants.
  return numpy_interpreter.evaluate(lambda *args: function(*args), *args)


def check_batch(task: Task, where: str, batch: Batch) -> None:
  """Raises SpecError if a batch has wrong shapes, types or values."""
  L = task.tokens(LENGTH)
  images = np.ndim(batch.input_BL) != 2
  sides = {"input_BL": batch.input_BL} if batch.source_BL is None and not images else {}
  for name, x in (
    {"target_BL": batch.target_BL, "weight_BL": batch.weight_BL} | sides
  ).items():
    places = L if sides else np.shape(batch.weight_BL)[-1]
    wanted: tuple[int, ...] = (ROWS, places)
    if name == "target_BL" and task.target_numbers:
      wanted = (*wanted, task.target_numbers)
    if np.shape(x) != wanted:
      raise SpecError(
        f"{where} returns {name} of shape {np.shape(x)}, and it must be {wanted}: its"
        f" rows, and {type(task).__name__}.tokens({LENGTH})"
      )
  if sides and np.shape(batch.at.order_BL) not in ((1, L), (ROWS, L)):
    raise SpecError(
      f"{where} returns coordinates of shape {np.shape(batch.at.order_BL)}, and they"
      f" must be {(1, L)} or {(ROWS, L)}"
    )
  if (batch.source_BL is None) == (task.kind == "encoder_decoder"):
    raise SpecError(
      f"{where} has {'no' if batch.source_BL is None else 'a'} source, and"
      f" {type(task).__name__}.kind is '{task.kind}'; write"
      f" kind = '{'decoder' if batch.source_BL is None else 'encoder_decoder'}'"
    )
  counted = np.asarray(batch.weight_BL) > 0
  outputs = task.classes or task.vocabulary
  numbers = {}
  if not task.target_numbers:
    numbers["target_BL"] = np.asarray(batch.target_BL)[counted], outputs
  elif not np.isfinite(np.asarray(batch.target_BL)[counted]).all():
    raise SpecError(f"{where} counts numbers that are not finite; give them weight 0")
  if not images:
    numbers["input_BL"] = np.asarray(batch.input_BL), task.vocabulary
  for name, (token_N, limit) in numbers.items():
    if not np.issubdtype(token_N.dtype, np.integer):
      raise SpecError(f"{where} returns {name} of {token_N.dtype}; return int32")
    if token_N.size and not 0 <= token_N.min() <= token_N.max() < limit:
      wrong = int(token_N.min() if token_N.min() < 0 else token_N.max())
      raise SpecError(
        f"{where} returns {wrong} in {name}, and {type(task).__name__} has the numbers"
        f" 0 to {limit - 1}; raise vocabulary, or draw smaller ones"
      )
