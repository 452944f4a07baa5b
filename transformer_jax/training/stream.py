"""Windows of a text on the host, read ahead of the training step in the background.

The windows of a step are a function of the seed and the step alone, whatever the
number of processes, devices and threads: a batch is traced on the starts of its reads,
and each process reads the rows of its own devices. A checkpoint's step is therefore
the position in the data.
"""

import collections
import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from transformer_jax.data.windows import HostText, Starts, host_text
from transformer_jax.training import sharding
from transformer_jax.training.step import State, Trainer

AHEAD = 2  # dispatches that are read before they are needed
THREADS = 2  # that read
PLANNED = 16  # dispatches whose starts one call computes

# Windows of one dispatch, by part of the seeds and by read: [S, steps, B, size].
Windows = Sequence[tuple[jax.Array, ...]]


class TextStream:
  """Windows of all seeds, dispatch after dispatch.

  trainer    whose batches read the text
  arrays     of the task; one of them is a HostText
  seeds      of the runs
  mesh       devices, over which rows are split
  count      steps per dispatch
  together   seeds of one part

  >>> from transformer_jax.data.base import tasks
  >>> from transformer_jax.data.stores import InMemory
  >>> from transformer_jax.models import Architecture, Transformer
  >>> from transformer_jax.axes import Dims
  >>> arch = Architecture(Dims(V=256, D=8, H=2, F=8, L=3), position="rope", decoders=1)
  >>> import optax
  >>> rate = optax.constant_schedule(1e-3)
  >>> trainer = Trainer(
  ...   Transformer(arch), tasks.build("text"), optax.sgd(rate), rate,
  ...   batch_size=2, length=3,
  ... )
  >>> arrays = {"train_N": HostText(InMemory(np.arange(50, dtype=np.uint8)))}
  >>> mesh = sharding.make_mesh()
  >>> stream = TextStream(trainer, arrays, (0,), mesh, count=5, together=1)
  >>> with stream.from_step(10, contextlib.nullcontext) as windows:
  ...   ((window_SNBL,),) = next(windows)
  >>> window_SNBL.shape
  (1, 5, 2, 4)
  """

  def __init__(
    self,
    trainer: Trainer,
    arrays: Any,
    seeds: Sequence[int],
    mesh: Mesh,
    count: int,
    together: int,
  ):
    text = host_text(arrays, trainer.task.streamed)
    assert text is not None, "a stream is of a text on the host"
    self._text, self._count = text, count
    self._seeds = np.array(seeds, np.uint32)
    self._together, self._sharding = together, sharding.of_windows(mesh, together)
    self._starts = functools.partial(_starts_of, trainer, _only(arrays, text))
    shapes = abstract_windows(trainer, arrays, mesh, together, count)
    self._shapes = [windows.shape for windows in shapes]
    self._lock = threading.Lock()
    self._planned: collections.OrderedDict[int, Any] = collections.OrderedDict()

  @contextlib.contextmanager
  def from_step(
    self, step: int, waiting: Callable[[], AbstractContextManager]
  ) -> Iterator[Iterator[Windows]]:
    """Yields an iterator over dispatches from a step on, read in the background.

    waiting   returns a context in which the iterator waits
    """
    import grain

    dispatches = grain.MapDataset.range(step // self._count, 2**31 - 1)
    options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=AHEAD)
    ahead = iter(dispatches.map(self._read).to_iter_dataset(options))
    try:
      yield self._placed(ahead, waiting)
    finally:
      if hasattr(ahead, "close"):
        ahead.close()

  def _placed(
    self, ahead: Iterator[Any], waiting: Callable[[], AbstractContextManager]
  ) -> Iterator[Windows]:
    """Yields the windows of each dispatch as arrays on the devices."""
    while True:
      with waiting():
        pieces = next(ahead)
      yield [
        tuple(
          jax.make_array_from_callback(shape, self._sharding, _at(of_read))
          for shape, of_read in zip(self._shapes, of_part, strict=True)
        )
        for of_part in pieces
      ]

  def _read(self, dispatch: int) -> list[list[dict[Any, np.ndarray]]]:
    """Returns the windows that this process's devices need of a dispatch."""
    starts = self._plan(dispatch)
    parts = range(0, len(self._seeds), self._together)
    return [
      [
        self._of_read(place_SNB[first : first + self._together], shape)
        for place_SNB, shape in zip(starts, self._shapes, strict=True)
      ]
      for first in parts
    ]

  def _of_read(
    self, place_SNB: np.ndarray, shape: tuple[int, ...]
  ) -> dict[Any, np.ndarray]:
    """Returns {slices: windows} of one read, of the devices of this process."""
    slices = self._sharding.addressable_devices_indices_map(shape).values()
    return {
      _key(index): self._windows(place_SNB[index[:3]], shape[-1])
      for index in slices
      if index is not None  # for type checkers: a local device has rows
    }

  def _windows(self, place_SNB: np.ndarray, size: int) -> np.ndarray:
    windows = self._text.store.read(place_SNB.reshape(-1), size)
    return windows.reshape(*place_SNB.shape, size)

  def _plan(self, dispatch: int) -> list[np.ndarray]:
    """Returns the places of each read of a dispatch, int64 [S, steps, B]."""
    first = dispatch // PLANNED * PLANNED
    with self._lock:
      if first not in self._planned:
        self._planned[first] = self._places(first * self._count)
        while len(self._planned) > 2:
          self._planned.popitem(last=False)
      planned = self._planned[first]
    start = (dispatch - first) * self._count
    return [place_SNB[:, start : start + self._count] for place_SNB in planned]

  def _places(self, step: int) -> list[np.ndarray]:
    """Returns the places of PLANNED dispatches from a step on."""
    with jax.default_device(_host()):
      step_N = jnp.arange(step, step + PLANNED * self._count, dtype=jnp.int32)
      found = self._compiled(jnp.asarray(self._seeds), step_N)
    return [starts.on_host() for starts in jax.device_get(found)]

  @functools.cached_property
  def _compiled(self) -> Callable[[jax.Array, jax.Array], list[Starts]]:
    """The starts of each read by seed and step."""

    def places(seed, step):
      return [starts for starts, _ in self._starts(seed, step)]

    by_step = jax.vmap(places, (None, 0))
    return jax.jit(jax.vmap(by_step, (0, None)))


def _starts_of(
  trainer: Trainer, arrays: Any, seed: jax.Array, step: jax.Array
) -> list[tuple[Starts, int]]:
  state = State(step, params=None, moments=None, key=jax.random.key(seed))
  return trainer.reads(arrays, state)


def _only(arrays: Any, text: HostText) -> Any:
  """Returns a task's arrays as zeros of one place: starts depend on none of them."""

  def one(x: Any) -> Any:
    return x if x is text else np.zeros((1,) * np.ndim(x), x.dtype)

  return jax.tree.map(one, arrays, is_leaf=lambda x: x is text)


def _host() -> jax.Device:
  """Returns a CPU device of this process, or another one where JAX has no CPU."""
  try:
    return jax.local_devices(backend="cpu")[0]
  except RuntimeError:
    return jax.local_devices()[0]


def _key(index: tuple[slice, ...]) -> tuple[tuple[int | None, int | None], ...]:
  return tuple((part.start, part.stop) for part in index)


def _at(of_read: dict[Any, np.ndarray]) -> Callable[[Any], np.ndarray]:
  return lambda index: of_read[_key(index)]


def stream_of(
  trainer: Trainer,
  arrays: Any,
  seeds: Sequence[int],
  mesh: Mesh,
  count: int,
  together: int,
) -> TextStream | None:
  """Returns the stream of a text on the host, None where a task's arrays have none.

  Arguments are those of `TextStream`.
  """
  if host_text(arrays, trainer.task.streamed) is None:
    return None
  return TextStream(trainer, arrays, seeds, mesh, count, together)


def abstract_windows(
  trainer: Trainer, arrays: Any, mesh: Mesh, together: int, count: int
) -> tuple[jax.ShapeDtypeStruct, ...]:
  """Returns the windows of each read of one part's dispatch, as shapes with shardings.

  Arguments are those of `TextStream`. Without a text on the host there are none.
  """
  text = host_text(arrays, trainer.task.streamed)
  if text is None:
    return ()
  sizes: list[tuple[int, int]] = []

  def reads(seed, step):
    found = _starts_of(trainer, _only(arrays, text), seed, step)
    sizes.extend((starts.part_B.shape[0], size) for starts, size in found)

  # Shapes: no array is made, which the devices of another machine could not hold.
  one = [jax.ShapeDtypeStruct((), kind) for kind in (jnp.uint32, jnp.int32)]
  jax.eval_shape(reads, *one)
  where = sharding.of_windows(mesh, together)
  return tuple(
    jax.ShapeDtypeStruct((together, count, *size), text.store.dtype, sharding=where)
    for size in sizes
  )
