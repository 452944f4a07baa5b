"""Windows of a training text: where they start, and what a task reads there.

A task chooses the starts of its windows by `random_starts` or `ordered_starts` and
reads them by `read`. The text is an array on the device, or a `HostText`, whose tokens
stay on the host. Of a HostText a task's batch is traced twice: once by `recorded`,
which returns the starts of all reads, and once by `replayed`, in which each read
returns a window that the host has read ahead.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.data.files import DataError
from transformer_jax.data.index_shuffle import shuffled

MOST = np.iinfo(np.int32).max  # tokens of a text that one array counts
SMALL = 1 << 20  # tokens in place of any number, where only shapes count
MOST_WINDOWS = 1 << 30  # of an epoch
SLOTS = 1000  # weights of a mixture in epochs are multiples of 1 / SLOTS


class TokenStore(Protocol):
  """Tokens on the host: on disk, or in memory.

  dtype   of the tokens: uint8, uint16 or int32
  sizes   tokens of each part of a mixture, one after another; one part: no mixture

  >>> class Zeros:
  ...   dtype, sizes = np.dtype(np.uint8), (2**40,)
  ...   def read(self, start_B, size):
  ...     return np.zeros((len(start_B), size), np.uint8)
  >>> text = HostText(Zeros())  # a text in a store of one's own
  >>> text.store.read(np.array([2**39]), size=3).tolist()
  [[0, 0, 0]]
  """

  @property
  def dtype(self) -> np.dtype: ...
  @property
  def sizes(self) -> tuple[int, ...]: ...

  def read(self, start_B: np.ndarray, size: int) -> np.ndarray:
    """Returns the windows from some places on, [B, size], of this dtype.

    Raises DataError for damaged data.
    """
    ...


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True, eq=False)
class HostText:
  """Training text on the host, in place of an array of tokens: it has no leaves.

  weights   share of each part in a batch; empty: there is one part

  >>> from transformer_jax.data.stores import InMemory
  >>> text = HostText(InMemory(np.arange(7, dtype=np.uint8)))
  >>> jax.tree.leaves(text), text.sizes
  ([], (7,))
  """

  store: TokenStore
  weights: tuple[float, ...] = ()

  @property
  def sizes(self) -> tuple[int, ...]:
    """Tokens of each part."""
    return self.store.sizes


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mixture:
  """Training text in parts, on the device.

  token_N   all parts, one after another
  sizes     tokens of each part
  weights   share of each part in a batch

  >>> text = Mixture(jnp.arange(7), sizes=(4, 3), weights=(0.5, 0.5))
  >>> starts = ordered_starts(text, jax.random.key(0), jnp.arange(2), length=2)
  >>> read(text, starts, size=3).tolist()  # a window of each part
  [[0, 1, 2], [4, 5, 6]]
  """

  token_N: jax.Array
  sizes: tuple[int, ...] = dataclasses.field(metadata={"static": True})
  weights: tuple[float, ...] = dataclasses.field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Starts:
  """Places in a text of any size, in numbers of 32 bits.

  value_B   int32; of a text of more than 2^31 tokens uint32 [B, 2], 64 random bits
  part_B    int32, the part of a mixture
  offsets   first place of each part
  spans     number of places of each part, from which random bits choose one
  stride    tokens between the places that consecutive values mean

  >>> part_B, value_B = np.array([0, 1]), np.array([3, 3])
  >>> Starts(value_B, part_B, offsets=(0, 2**33), spans=(), stride=10).on_host()
  array([        30, 8589934622])
  """

  value_B: jax.Array
  part_B: jax.Array
  offsets: tuple[int, ...] = dataclasses.field(metadata={"static": True})
  spans: tuple[int, ...] = dataclasses.field(metadata={"static": True})
  stride: int = dataclasses.field(default=1, metadata={"static": True})

  def on_device(self) -> jax.Array:
    """Returns the places, int32 [B], of a text of less than 2^31 tokens."""
    offset_P = jnp.array(self.offsets, jnp.int32)
    return offset_P[self.part_B] + self.stride * self.value_B

  def on_host(self) -> np.ndarray:
    """Returns the places, int64, of starts whose leaves are concrete.

    Random bits are scaled to the span of their part: floor(bits * span / 2^64).
    """
    part_B, value_B = np.asarray(self.part_B), np.asarray(self.value_B)
    offset_B = np.array(self.offsets, np.int64)[part_B]
    if value_B.dtype != np.uint32:
      return offset_B + self.stride * value_B.astype(np.int64)
    span_B = np.array(self.spans, np.uint64)[part_B]
    high_B, low_B = (value_B[..., n].astype(np.uint64) for n in range(2))
    # Two products of 32 by 40 bits: that of 64 by 40 bits would not fit.
    carry_B = (low_B * (span_B & 0xFFFFFFFF) >> 32) + low_B * (span_B >> 32)
    upper_B = high_B * (span_B & 0xFFFFFFFF) + (carry_B & 0xFFFFFFFF)
    place_B = (upper_B >> 32) + high_B * (span_B >> 32) + (carry_B >> 32)
    return offset_B + place_B.astype(np.int64)


def sizes(text: Any) -> tuple[int, ...]:
  """Returns the number of tokens of each part of a text."""
  return text.sizes if hasattr(text, "sizes") else text.shape


def weights_of(text: Any) -> tuple[float, ...]:
  """Returns the share of each part of a mixture, () for any other text."""
  return getattr(text, "weights", ())


def random_starts(text: Any, key: jax.Array, batch_size: int, size: int) -> Starts:
  """Returns starts of windows, each place of a part as likely as any other.

  text         an array, a Mixture or a HostText
  batch_size   number of windows
  size         tokens of a window; windows do not cross parts
  """
  weights = weights_of(text)
  spans = tuple(tokens - size + 1 for tokens in sizes(text))
  part_B = jnp.zeros(batch_size, jnp.int32)
  if weights:
    part_key, key = jax.random.split(key)
    chance_P = jnp.array(weights) / sum(weights)
    part_B = jax.random.choice(part_key, len(spans), (batch_size,), p=chance_P)
  if max(spans) > MOST:
    value_B = jax.random.bits(key, (batch_size, 2), jnp.uint32)
  else:
    # Of one column, as published runs drew it.
    span_B1 = jnp.array(spans, jnp.int32)[part_B][:, None] if weights else spans[0]
    value_B = jax.random.randint(key, (batch_size, 1), 0, span_B1)[:, 0]
  return Starts(value_B, part_B, _offsets(text), spans)


def ordered_starts(text: Any, key: jax.Array, row_B: jax.Array, length: int) -> Starts:
  """Returns starts of windows in epochs: each window of a part once in each.

  A part is cut into windows of `length` tokens, and one more, the target of the last.
  Each epoch has another order, shuffled by index. A mixture has SLOTS rows in turn, of
  which each part has its share.

  key      of the seed; the orders are functions of it
  row_B    number of each row, counted from the first step
  length   of the rows
  """
  slot_R = _slots(weights_of(text) or (1.0,))
  rank_R = np.array([(slot_R[:n] == part).sum() for n, part in enumerate(slot_R)])
  count_P = np.bincount(slot_R, minlength=max(slot_R) + 1)
  part_B = jnp.array(slot_R)[row_B % len(slot_R)]
  # The number of this row among those of its part.
  place_B = jnp.array(count_P)[part_B] * (row_B // len(slot_R))
  place_B += jnp.array(rank_R)[row_B % len(slot_R)]
  windows_B = jnp.array(num_windows(text, length), jnp.int32)[part_B]

  def one(part, place, windows):
    order_key = jax.random.fold_in(jax.random.fold_in(key, part), place // windows)
    return shuffled(order_key, place % windows, windows)

  value_B = jax.vmap(one)(part_B, place_B, windows_B)
  return Starts(value_B, part_B, _offsets(text), (), stride=length)


def check_epochs(text: Any, length: int) -> None:
  """Raises DataError where epochs of a text cannot be counted in 32 bits, or a part
  of a mixture would have none of SLOTS rows."""
  if max(num_windows(text, length)) > MOST_WINDOWS:
    raise DataError(
      f"order='epochs': a text has more than {MOST_WINDOWS:,} windows of {length};"
      " write order='random', or longer ones"
    )
  weights = weights_of(text)
  missing = {*range(len(weights))} - {*_slots(weights).tolist()} if weights else {}
  for part in sorted(missing):
    raise DataError(
      f"order='epochs': the weight {weights[part]:g} gives part {part + 1} of the"
      f" mixture none of {SLOTS} rows; raise it, or write order='random'"
    )


def num_windows(text: Any, length: int) -> list[int]:
  """Returns the number of windows of an epoch of each part."""
  return [(tokens - 1) // length for tokens in sizes(text)]


def _slots(weights: Sequence[float]) -> np.ndarray:
  """Returns the part of each of SLOTS rows in turn, spread evenly; one part: 1 row."""
  if len(weights) == 1:
    return np.zeros(1, np.int32)
  share_P = np.array(weights) / sum(weights)
  count_P = np.floor(share_P * SLOTS).astype(int)
  missing = SLOTS - count_P.sum()
  count_P[np.argsort(count_P - share_P * SLOTS, kind="stable")[:missing]] += 1
  # A part of n rows has them at (k + 1/2) / n of the turn.
  when = [((k + 0.5) / n, part) for part, n in enumerate(count_P) for k in range(n)]
  return np.array([part for _, part in sorted(when)], np.int32)


def _offsets(text: Any) -> tuple[int, ...]:
  return tuple(np.cumsum((0, *sizes(text)[:-1])).tolist())


def read(text: Any, starts: Starts, size: int) -> jax.Array:
  """Returns windows of a text, int32 [B, size]."""
  if hasattr(text, "read"):  # Recorder, Replayer
    return text.read(starts, size)
  token_N = text.token_N if isinstance(text, Mixture) else text
  place_BL = starts.on_device()[:, None] + jnp.arange(size)
  return jnp.asarray(token_N)[place_BL].astype(jnp.int32)


class Recorder:
  """Text that notes the starts and sizes of reads, and returns zeros.

  >>> text = Recorder(jnp.arange(7))
  >>> read(text, random_starts(text, jax.random.key(0), 2, size=3), size=3).shape
  (2, 3)
  >>> [size for _, size in text.reads]
  [3]
  """

  def __init__(self, text: Any):
    self.sizes, self.weights = sizes(text), weights_of(text)
    self.reads: list[tuple[Starts, int]] = []

  def read(self, starts: Starts, size: int) -> jax.Array:
    self.reads.append((starts, size))
    return jnp.zeros((starts.part_B.shape[0], size), jnp.int32)


class Replayer:
  """Text whose reads return windows that were read ahead, in their order.

  >>> text = Replayer(jnp.arange(7), [jnp.array([[4, 5, 6]], jnp.uint8)])
  >>> starts = random_starts(text, jax.random.key(0), 1, size=3)
  >>> read(text, starts, size=3).tolist()
  [[4, 5, 6]]
  """

  def __init__(self, text: Any, windows: Sequence[jax.Array]):
    self.sizes, self.weights = sizes(text), weights_of(text)
    self._windows = iter(windows)

  def read(self, starts: Starts, size: int) -> jax.Array:
    window_BL = next(self._windows)
    assert window_BL.shape == (starts.part_B.shape[0], size), "reads come in order"
    return window_BL.astype(jnp.int32)


def host_text(arrays: Any, name: str | None) -> HostText | None:
  """Returns the text of this name that is on the host, None where there is none."""
  text = arrays[name] if name is not None else None
  return text if isinstance(text, HostText) else None


def in_shape(arrays: Any, name: str | None) -> Any:
  """Returns a task's arrays with the shape of an array in place of a text on the host.

  Costs do not depend on the size of a text.
  """
  text = host_text(arrays, name)
  if text is None:
    return arrays
  return arrays | {name: jax.ShapeDtypeStruct((SMALL,), text.store.dtype)}
