"""Measurements of an encoding's hooks on eight tokens, with NumPy."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from transformer_jax import numpy_interpreter
from transformer_jax.axes import Dims
from transformer_jax.positions import coords
from transformer_jax.positions.base import PositionalEncoding
from transformer_jax.positions.coords import Coords
from transformer_jax.positions.probe.one_layer import act, gradients

L, CUT, REST = 8, 5, 3  # tokens of a text, of its first part, and of the second
NEAR, FAR = 1000, 2**17
LAYERS = 2  # the first layers, whose encodings are tested for idle parameters
HostArrays = dict[str, np.ndarray]


@functools.cache
def texts() -> tuple[Coords, Coords, Coords]:
  """Returns NumPy coordinates: one text, its first part, two packed texts."""
  place_BL = np.arange(L)[None]
  whole = numpy_interpreter.evaluate(coords.padded, place_BL >= 0)
  first_part = numpy_interpreter.evaluate(coords.padded, place_BL < CUT)
  segment_BL = 1 + (place_BL >= REST).astype(np.int32)
  return whole, first_part, numpy_interpreter.evaluate(coords.packed, segment_BL)


def with_ids(at: Coords, ids: tuple[str, ...]) -> Coords:
  """Returns the coordinates with an array of small numbers for each id."""
  return at.replace(data={name: at.pos_BL % 3 for name in ids})


class EncodingFindings:
  """Measured properties of an encoding, from its hooks' outputs on eight tokens.

  encoding   the encoding
  dims       small sizes

  Hooks run with two sets of parameters: near the initial values, since rates may not
  be negative, and far from them, since tables are initialized at zero.
  """

  def __init__(self, encoding: PositionalEncoding, dims: Dims):
    self.encoding, self.dims, self.num_positions = (
      encoding,
      dims,
      encoding.num_positions(dims),
    )
    random = np.random.default_rng(0)

    def normal(*shape):
      return np.asarray(random.normal(size=shape), np.float32)

    self.x_BLD = normal(1, L, dims.D)
    self.q_BLHK, self.k_BLHK = normal(2, 1, L, dims.H, dims.K)
    self.other = normal(1, L, dims.D), *normal(2, 1, L, dims.H, dims.K)
    start = numpy_interpreter.evaluate(lambda: encoding.init(jax.random.key(0), dims))

    def near(x):
      return np.where(x == 0, 0.2, x * 0.2) * normal(*x.shape)

    self.params = [
      {name: (x + near(x)).astype(np.float32) for name, x in start.items()},
      {name: x + 0.5 * normal(*x.shape) for name, x in start.items()},
    ]
    self.base, self.first, self.packed = (with_ids(at, encoding.ids) for at in texts())
    self._runs: dict[np.dtype, Any] = {}
    self._short_runs: dict[np.dtype, Any] = {}

  def at(self, change: Any) -> Coords:
    """Returns the coordinates of the text with positions changed by a function."""
    return self.base.replace(pos_BL=change(self.base.pos_BL))

  def run(self, kind: np.dtype) -> Any:
    """Returns the traced hooks, for positions of one dtype."""
    if kind not in self._runs:
      at = self.base.replace(pos_BL=self.base.pos_BL.astype(kind))
      hooks = functools.partial(act, self.encoding, self.dims)
      self._runs[kind] = numpy_interpreter.trace(
        hooks, self.params[0], self.x_BLD, self.q_BLHK, self.k_BLHK, at
      )
    return self._runs[kind]

  @functools.cached_property
  def usual(self) -> list[HostArrays]:
    """Outputs of the hooks on the whole text, for both sets of parameters."""
    run = self.run(self.base.pos_BL.dtype)
    return [
      run(params, self.x_BLD, self.q_BLHK, self.k_BLHK, self.base)
      for params in self.params
    ]

  def short_run(self, kind: np.dtype) -> Any:
    """Returns the traced hooks without their comparisons, half of the operations."""
    if kind not in self._short_runs:
      self._short_runs[kind] = numpy_interpreter.without(self.run(kind), "apart")
    return self._short_runs[kind]

  @functools.cached_property
  def cut_off(self) -> list[HostArrays]:
    """Outputs of the hooks on the first tokens alone."""
    return [self.outputs(self.first, n) for n in range(2)]

  def outputs(self, at: Coords, n: int = 0, given: tuple | None = None) -> HostArrays:
    """Returns the outputs of the hooks with the n-th set of parameters."""
    given = given or (self.x_BLD, self.q_BLHK, self.k_BLHK)
    return self.short_run(at.pos_BL.dtype)(self.params[n], *given, at)

  def change(
    self,
    at: Coords,
    *names: str,
    given: tuple | None = None,
    tokens: int | None = None,
  ) -> float:
    """Returns the largest relative change of outputs against `usual`.

    at       coordinates
    names    outputs to compare; none: scores and values
    given    token embeddings, queries and keys; None: those of `usual`
    tokens   compare the first tokens only; None: all
    """
    worst = 0.0
    for n, want in enumerate(self.usual):
      got = self.cut_off[n] if at is self.first else self.outputs(at, n, given)
      for name in names or ("scores", "values"):
        before, after = (first(name, out[name], tokens) for out in (want, got))
        worst = max(worst, difference(before, after))
    return worst

  # Declarations

  @property
  def lowest(self) -> float:
    """The lowest score of a key that coordinates do not mask."""
    return min(float(out["scores"].min()) for out in self.usual)

  @functools.cached_property
  def shift(self) -> tuple[float, int]:
    """Relative change of outputs under a shift of all positions, and the shift."""
    shifts = [(NEAR, 0.005), (FAR, 0.1)]  # rounding: phases grow with the position
    if self.num_positions is not None:
      shifts = [(max(0, min(self.num_positions - L, NEAR)), 0.005)]
    for by, allowed in shifts:
      moved = self.at(lambda pos_BL, by=by: pos_BL + np.int32(by))
      found = self.change(moved, "scores", "values", "bias")
      if found > allowed:
        return found, by
    return 0.0, 0

  @functools.cached_property
  def looks_up(self) -> bool:
    """Whether positions index a table, without values between whole positions."""
    if "gather" not in str(self.run(self.base.pos_BL.dtype).jaxpr):
      return False

    def between(by):
      return self.at(lambda pos_BL: (pos_BL * by).astype(np.float32))

    try:
      self.run(np.dtype("float32"))
    except (TypeError, IndexError):  # an index must be whole
      return True
    names = ("bias",) if self.encoding.bias else ("scores", "values")

    # Distances change by less than a quarter; an index is cut off to either side.
    def still(name, by):
      return self.change(between(by), name) < 1e-6

    return any(
      self.change(between(2), name) > 1e-3
      and (still(name, 1 + 1 / 32) or still(name, 1 - 1 / 32))
      for name in names
    )

  @functools.cached_property
  def later_tokens(self) -> float:
    """Relative change of earlier tokens' scores and values by later tokens."""
    return self.change(self.first, tokens=CUT)

  @functools.cached_property
  def later_turns(self) -> float:
    """Relative change of earlier tokens' queries and keys by later tokens."""
    return self.change(self.first, "query", "key", tokens=CUT)

  @functools.cached_property
  def future(self) -> float:
    """Relative change of earlier tokens' outputs by the content of later tokens."""
    pairs = zip((self.x_BLD, self.q_BLHK, self.k_BLHK), self.other, strict=True)
    given = tuple(np.concatenate([a[:, :CUT], b[:, CUT:]], axis=1) for a, b in pairs)
    return self.change(self.base, given=given, tokens=CUT)

  @functools.cached_property
  def border(self) -> float:
    """Relative change of a text's outputs by the text packed before it."""
    given = self.x_BLD, self.q_BLHK, self.k_BLHK
    alone = tuple(np.roll(x, -REST, axis=1) for x in given)
    worst = 0.0
    for n in range(2):
      row, text = self.outputs(self.packed, n), self.outputs(self.first, n, alone)
      for name, x in row.items():
        if name in ("scores", "values"):
          second = x[:, REST:, REST:] if name == "scores" else x[:, REST:]
          worst = max(worst, difference(second, first(name, text[name], CUT)))
    return worst

  @functools.cached_property
  def apart(self) -> dict[str, float]:
    """Relative error of each hook on part of the tokens, prepared, or if linear."""
    both = [out["apart"] for out in self.usual]
    return {name: max(float(np.nan_to_num(x[name])) for x in both) for name in both[0]}

  @functools.cached_property
  def clamped(self) -> bool:
    """Whether all large positions act alike, as past the end of a clamped table."""
    n_BL, effect = np.arange(L, dtype=np.int32)[None], []
    for by in (0, FAR):
      pair = (
        self.outputs(self.at(lambda _, m=m, by=by: m * n_BL + by)) for m in (0, 1)
      )
      effect.append(difference(*(out["scores"] for out in pair)))
    return effect[1] == 0 < 1e-4 < effect[0]

  @functools.cached_property
  def idle(self) -> list[str]:
    """Names of parameters whose gradient is zero: no output depends on them."""
    idle, given = set(self.params[0]), (self.x_BLD, self.q_BLHK, self.k_BLHK)
    for encoding, at in self._forms():
      if idle:
        learned = gradients(encoding, self.dims, self.params, *given, at)
        idle -= {n for grads in learned for n, x in grads.items() if np.any(x != 0)}
    return sorted(idle)

  def _forms(self) -> Iterator[tuple[PositionalEncoding, Coords]]:
    """Yields forms of the encoding with coordinates, to find all used parameters."""
    for n in range(LAYERS):
      yield self.encoding.layer(n), self.base
    for by in (40, 1000) if self.num_positions is None else ():
      yield self.encoding, self.at(lambda pos_BL, by=by: pos_BL * np.int32(by))
    try:
      both = self.encoding.bidirectional()
    except ValueError:
      return
    yield both, self.base.replace(horizon_BL=np.full_like(self.base.order_BL, L))


def difference(want: Any, got: Any) -> float:
  """Returns the largest difference of finite numbers, relative to `want`."""
  both = np.isfinite(want) & np.isfinite(got)
  if not np.any(both):
    return 0.0
  size = 1 + np.abs(want[both]).max()
  return float(np.abs(want[both] - got[both]).max() / size)


def first(name: str, x: np.ndarray, n: int | None) -> np.ndarray:
  """Returns an output's slice of the first n tokens."""
  return x[:, :n, :n] if name in ("scores", "bias") else x[:, :n]
