"""A quick test of an encoding: do its hooks fit, and is what it declares true?

An encoding of one's own has no test here, and what it declares is believed: a bias that
reads absolute positions and leaves `relative` at True would be one thing in `dense` and
another in `blockwise`. `probe` runs its hooks on eight tokens and three heads with
NumPy (`numpy_interpreter.py`): nothing compiles, no device is used. It takes 0.2 s for
a rotation of five lines, 0.1 to 1.1 s for the encodings here, and is remembered for
each value.
`python -m experiments.check` runs the whole contract.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from transformer_jax import numpy_interpreter
from transformer_jax.axes import Dims
from transformer_jax.members import check_members, outside, parts
from transformer_jax.positions import coords, probe_shapes
from transformer_jax.positions.base import PositionalEncoding
from transformer_jax.positions.coords import Coords
from transformer_jax.positions.probe_layer import act, gradients
from transformer_jax.spec import SpecError

SIZES = Dims(V=11, D=24, H=3, F=8, L=16)
L, CUT, REST = 8, 5, 3  # tokens of a text, of its first part, and of the second
NEAR, FAR = 1000, 2**17
LAYERS = 2  # whose forms are tried
Arrays = dict[str, np.ndarray]


def check(position: PositionalEncoding, dims: Dims | None = None) -> None:
  """Raises SpecError where an encoding of a user, or one inside, is not as declared.

  dims   sizes of the model, for encodings that do not take the small ones here
  """
  for encoding in parts(position, PositionalEncoding):
    if outside(type(encoding)):
      check_members(encoding, PositionalEncoding, bias=_bias, mask=_bias)
      probe(encoding, dims or SIZES)


def _bias(self, params, pos_L, pos_M):
  """The arguments of a hook that encodings have or have not."""


@functools.lru_cache(maxsize=256)
def probe(encoding: PositionalEncoding, dims: Dims = SIZES) -> "Findings":
  """Returns what an encoding does; raises SpecError where it is not as declared."""
  small = _sizes(encoding, dims)
  try:
    return _probe(encoding, small)
  except SpecError as error:
    if small is dims or dims is SIZES:
      raise
    try:
      return _probe(encoding, dims)  # it may be made for other sizes
    except SpecError:
      raise error from None


def _sizes(encoding: PositionalEncoding, dims: Dims) -> Dims:
  """Returns small sizes, or those of the model if it does not start with these."""
  try:
    jax.eval_shape(lambda: encoding.init(jax.random.key(0), SIZES))
  except Exception:  # whatever a user's code may raise: assert dims.K % 16 == 0
    return dims
  # Long for its training, so that what depends on the length shows; a table must reach.
  return (
    dataclasses.replace(SIZES, L=3) if encoding.num_positions(SIZES) is None else SIZES
  )


def _probe(encoding: PositionalEncoding, dims: Dims) -> "Findings":
  probe_shapes.check(encoding, dims)
  findings = Findings(encoding, dims)
  for problem in findings.problems():
    raise SpecError(f"{type(encoding).__name__}{problem}")
  return findings


@functools.cache
def texts() -> tuple[Coords, Coords, Coords]:
  """Returns NumPy coordinates of a row: one text, its first part, two packed texts."""
  place_BL = np.arange(L)[None]
  whole = host.evaluate(coords.padded, place_BL >= 0)
  first_part = host.evaluate(coords.padded, place_BL < CUT)
  segment_BL = 1 + (place_BL >= REST).astype(np.int32)
  return whole, first_part, host.evaluate(coords.packed, segment_BL)


def with_ids(at: Coords, ids: tuple[str, ...]) -> Coords:
  """Returns the coordinates with an array of small numbers for each id."""
  return at.replace(data={name: at.pos_BL % 3 for name in ids})


class Findings:
  """What an encoding's hooks make of eight tokens in several places.

  Two sets of parameters: the start, a little off, and far off it, since tables start at
  zero and rates may not be negative.
  """

  def __init__(self, encoding: PositionalEncoding, dims: Dims):
    self.encoding, self.dims, self.num_positions = (
      encoding,
      dims,
      encoding.num_positions(dims),
    )
    random = np.random.default_rng(0)
    normal = lambda *shape: np.asarray(random.normal(size=shape), np.float32)
    self.x_BLD = normal(1, L, dims.D)
    self.q_BLHK, self.k_BLHK = normal(2, 1, L, dims.H, dims.K)
    self.other = normal(1, L, dims.D), *normal(2, 1, L, dims.H, dims.K)
    start = numpy_interpreter.evaluate(lambda: encoding.init(jax.random.key(0), dims))
    near = lambda x: np.where(x == 0, 0.2, x * 0.2) * normal(*x.shape)
    self.params = [
      {name: (x + near(x)).astype(np.float32) for name, x in start.items()},
      {name: x + 0.5 * normal(*x.shape) for name, x in start.items()},
    ]
    self.base, self.first, self.packed = (with_ids(at, encoding.ids) for at in texts())
    self._runs: dict[np.dtype, Any] = {}
    self._short_runs: dict[np.dtype, Any] = {}

  def at(self, change: Any) -> Coords:
    """Returns the coordinates of one text at other positions."""
    return self.base.replace(pos_BL=change(self.base.pos_BL))

  def run(self, kind: np.dtype) -> Any:
    """Returns the traced hooks, for positions of one type."""
    if kind not in self._runs:
      at = self.base.replace(pos_BL=self.base.pos_BL.astype(kind))
      hooks = functools.partial(act, self.encoding, self.dims)
      self._runs[kind] = host.trace(
        hooks, self.params[0], self.x_BLD, self.q_BLHK, self.k_BLHK, at
      )
    return self._runs[kind]

  @functools.cached_property
  def usual(self) -> list[Arrays]:
    """What the hooks make of the base."""
    given = self.x_BLD, self.q_BLHK, self.k_BLHK
    run = self.run(self.base.pos_BL.dtype)
    return [run(self.params[n], *given, self.base) for n in range(2)]

  def short_run(self, kind: np.dtype) -> Any:
    """Returns the traced hooks without the comparisons, which are half of the work."""
    if kind not in self._short_runs:
      self._short_runs[kind] = host.without(self.run(kind), "apart")
    return self._short_runs[kind]

  @functools.cached_property
  def cut_off(self) -> list[Arrays]:
    """What the hooks make of the first tokens alone."""
    return [self.outputs(self.first, n) for n in range(2)]

  def outputs(self, at: Coords, n: int = 0, given: tuple | None = None) -> Arrays:
    """Returns what the hooks make of tokens with the n-th parameters."""
    given = given or (self.x_BLD, self.q_BLHK, self.k_BLHK)
    return self.short_run(at.pos_BL.dtype)(self.params[n], *given, at)

  def change(
    self,
    at: Coords,
    *names: str,
    given: tuple | None = None,
    tokens: int | None = None,
  ) -> float:
    """Returns by how much outputs differ from those of the base, as a share of them.

    tokens: how many of them count
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
    """The lowest score that is given to a key which coordinates do not mask."""
    return min(float(out["scores"].min()) for out in self.usual)

  @functools.cached_property
  def shift(self) -> tuple[float, int]:
    """By how much a shift of all positions changes something, and how far it was."""
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
    """Whether nothing lies between whole positions: a table is indexed by them."""
    if "gather" not in str(self.run(self.base.pos_BL.dtype).jaxpr):
      return False
    between = lambda by: self.at(lambda pos_BL: (pos_BL * by).astype(np.float32))
    try:
      self.run(np.dtype("float32"))
    except (TypeError, IndexError):  # an index must be whole
      return True
    names = ("bias",) if self.encoding.bias else ("scores", "values")
    # Distances change by less than a quarter; an index is cut off to either side.
    still = lambda name, by: self.change(between(by), name) < 1e-6
    return any(
      self.change(between(2), name) > 1e-3
      and (still(name, 1 + 1 / 32) or still(name, 1 - 1 / 32))
      for name in names
    )

  @functools.cached_property
  def later_tokens(self) -> float:
    """By how much tokens that come later change what is said of earlier ones."""
    return self.change(self.first, tokens=CUT)

  @functools.cached_property
  def later_turns(self) -> float:
    """By how much tokens that come later change how earlier ones are turned."""
    return self.change(self.first, "query", "key", tokens=CUT)

  @functools.cached_property
  def future(self) -> float:
    """By how much what later tokens are changes earlier ones."""
    pairs = zip((self.x_BLD, self.q_BLHK, self.k_BLHK), self.other, strict=True)
    given = tuple(np.concatenate([a[:, :CUT], b[:, CUT:]], axis=1) for a, b in pairs)
    return self.change(self.base, given=given, tokens=CUT)

  @functools.cached_property
  def border(self) -> float:
    """By how much the text before it in the row changes a text."""
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
    """By how much each hook differs on a part of the tokens, or prepared, or linear."""
    both = [out["apart"] for out in self.usual]
    return {name: max(float(np.nan_to_num(x[name])) for x in both) for name in both[0]}

  @functools.cached_property
  def clamped(self) -> bool:
    """Whether all positions are one from some point on, as past the end of a table."""
    n_BL, effect = np.arange(L, dtype=np.int32)[None], []
    for by in (0, FAR):
      pair = (
        self.outputs(self.at(lambda _, m=m, by=by: m * n_BL + by)) for m in (0, 1)
      )
      effect.append(difference(*(out["scores"] for out in pair)))
    return effect[1] == 0 < 1e-4 < effect[0]

  @functools.cached_property
  def idle(self) -> list[str]:
    """Parameters without any gradient: nothing that is computed reads them."""
    idle, given = set(self.params[0]), (self.x_BLD, self.q_BLHK, self.k_BLHK)
    for encoding, at in self._forms():
      if idle:
        learned = gradients(encoding, self.dims, self.params, *given, at)
        idle -= {n for grads in learned for n, x in grads.items() if np.any(x != 0)}
    return sorted(idle)

  def _forms(self) -> Iterator[tuple[PositionalEncoding, Coords]]:
    """Yields the forms of an encoding in which a parameter may be used."""
    for n in range(LAYERS):
      yield self.encoding.layer(n), self.base
    for by in (40, 1000) if self.num_positions is None else ():
      yield self.encoding, self.at(lambda pos_BL, by=by: pos_BL * np.int32(by))
    try:
      both = self.encoding.bidirectional()
    except ValueError:
      return
    yield both, self.base.replace(horizon_BL=np.full_like(self.base.order_BL, L))

  def problems(self) -> Iterator[str]:
    """Yields what is not as declared, each in a sentence after the class's name."""
    encoding = self.encoding
    for name, found in self.apart.items():
      if found > 1e-3:
        yield LOCAL[name]
    if self.lowest < -1e6:
      yield (
        f" gives a score of {self.lowest:g} to a key; a soft cap or a mixture of heads"
        " would calculate with that number: return True where a head attends from"
        " mask(self, params, pos_L, pos_M) instead"
      )
    if encoding.relative and self.shift[0]:
      found, by = self.shift
      yield (
        f" declares relative = True, the default, but moving all positions by {by}"
        f" changes what it computes by {found:.0%}; write relative = False in the class"
      )
    if self.future > 1e-3:
      yield (
        ": what later tokens hold changes earlier ones, which have not read them; sum"
        " from the past only, as jnp.cumsum does, or mask with tile.mask_LM"
      )
    if not encoding.needs_full_text and self.later_tokens > 1e-3:
      yield (
        ": how many tokens come later changes earlier ones, so that decoding on a cache"
        " would differ; write needs_full_text = True in the class"
      )
    turned = not (encoding.needs_full_text or encoding.centred)
    if turned and self.later_turns > 1e-3:
      yield (
        ".transform_qk depends on tokens that come later, which only the product of"
        " query and key forgets; write centred = True in the class"
      )
    if self.border > 1e-3:
      yield (
        " reads over the border of two texts in one row; compare at.segment_BL, or use"
        " differences of sums, in which the other text cancels"
      )
    if not encoding.integer_positions and self.looks_up:
      yield (
        " looks up a table by position, which has nothing between whole numbers;"
        " write integer_positions = True in the class"
      )
    if (
      self.num_positions is None
      and encoding.extrapolation == "defined"
      and self.looks_up
      and self.clamped
    ):
      yield (
        " looks up a table by position, and all positions past its end get its last"
        " row in silence; return the number of rows from reach(dims), and NaN past"
        " them: table.at[pos].get(mode='fill', fill_value=jnp.nan)"
      )
    for name in self.idle:
      yield (
        f": parameter '{name}' has no gradient, because no hook computes with it; read"
        f" params['{name}'] in a hook, or leave it out of init"
      )


LOCAL = {
  "embed": ".embed of some tokens differs from that of all, as in decoding: change each"
  " token by itself, by at.pos_BL",
  "token_data": ".token_data of some tokens differs from that of all, as in decoding:"
  " read each token by itself, and add up in accumulate",
  "transform_qk": ".transform_qk or .rotate of some queries differs from that of all,"
  " as in decoding:"
  " turn each by its own position",
  "score": ".score of a tile differs from that part of the whole, so that cores would"
  " differ; use full_scores(), which gets whole rows of scores",
  "bias": ".bias of some positions differs from that part of the whole, so that cores"
  " would differ; read each pair of positions by itself",
  "values": ".values is not linear in the weights, so that cores would differ; multiply"
  " w_LM with something that does not read it",
  "prepare": ".prepare changes what score computes; let it only save work",
}


def difference(want: Any, got: Any) -> float:
  """Returns the largest difference of finite numbers, as a share of what is wanted."""
  both = np.isfinite(want) & np.isfinite(got)
  if not np.any(both):
    return 0.0
  size = 1 + np.abs(want[both]).max()
  return float(np.abs(want[both] - got[both]).max() / size)


def first(name: str, x: np.ndarray, n: int | None) -> np.ndarray:
  """Returns the part of an output of the first n tokens."""
  return x[:, :n, :n] if name in ("scores", "bias") else x[:, :n]
