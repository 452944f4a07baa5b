"""Recurrent cells, and the loop of a layer over a text.

Parameters are named by axes: N are a cell's gates, W its units, D its output.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.attention.projections import Arrays, Weights
from transformer_jax.matmul import project, project_by, whole_by_name
from transformer_jax.positions import Coords
from transformer_jax.spec import Registry
from transformer_jax.weight_gradients import with_whole_weights

CellState = tuple[jax.Array, ...]  # [B, D] each; the first is the output
Attend = Callable[[jax.Array, Coords], jax.Array]  # h_B1D, coordinates -> context


@dataclasses.dataclass(frozen=True)
class Elman:
  """h' = tanh(W x + U h + b). Elman, 1990. https://doi.org/10.1207/s15516709cog1402_1

  Base class of cells: gates, shapes of the state, shapes of the weights, one step.

  >>> w = {"state_DNW": jnp.array([[[0.5]]])}
  >>> state = (jnp.array([[1.0]]),)
  >>> (h_BD,) = cells.build("elman").step(w, jnp.array([[[0.0]]]), state)
  >>> round(h_BD.item(), 4)  # tanh(0.5)
  0.4621
  """

  gates: ClassVar[int] = 1

  def widths(self, D: int) -> tuple[int, ...]:
    """Returns the widths of the parts of the state."""
    return (D,)

  def part(self, n: int) -> "Elman":
    """Returns the cell of one of n directions, among which its units are divided."""
    return self

  def weights(self, inputs: int, D: int) -> Weights:
    """Returns the shapes of the weights of a cell that reads `inputs` features."""
    N, W = self.gates, self.widths(D)[-1]
    return {
      "input_DNW": ((inputs, N, W), 1),
      "state_DNW": ((D, N, W), 1),
      "shift_NW": ((N, W), 0),
    }

  def step(self, w: Arrays, x_BNW: jax.Array, state: CellState) -> CellState:
    """Returns the next state; x_BNW are the products of the input, with the shift."""
    sum_BNW = x_BNW + project(state[0], w["state_DNW"], 1)
    return (jnp.tanh(sum_BNW[:, 0]),)


cells = Registry("recurrent cell", Elman)
cells.register("elman")(Elman)


@cells.register("lstm")
@dataclasses.dataclass(frozen=True)
class LSTM(Elman):
  """Remembers by a gated sum. Hochreiter and Schmidhuber, 1997.

  https://doi.org/10.1162/neco.1997.9.8.1735, with the forget gate of Gers et al., 2000.
  Gates are in the order input, forget, new, output.

  units    0: as many as the width; else their output is projected to the width, as in
           Sak et al., 2014, https://arxiv.org/abs/1402.1128
  forget   bias of the forget gate, which starts open: Jozefowicz et al., 2015,
           https://proceedings.mlr.press/v37/jozefowicz15.html

  >>> cell = cells.build("lstm(units=8)")
  >>> cell.widths(4), cell.weights(inputs=4, D=4)["input_DNW"]
  ((4, 8), ((4, 4, 8), 1))
  >>> cell.part(2)
  LSTM(units=4, forget=1.0)
  """

  units: int = 0
  forget: float = 1.0
  gates: ClassVar[int] = 4

  def widths(self, D):
    return D, self.units or D

  def part(self, n):
    return dataclasses.replace(self, units=self.units // n)

  def weights(self, inputs, D):
    project_WD = {"project_WD": ((self.units, D), 1)} if self.units else {}
    return super().weights(inputs, D) | project_WD

  def step(self, w, x_BNW, state):
    h_BD, c_BW = state
    sum_BNW = x_BNW + project(h_BD, w["state_DNW"], 1)
    put_BW, keep_BW, new_BW, out_BW = jnp.moveaxis(sum_BNW, 1, 0)
    c_BW = c_BW * jax.nn.sigmoid(keep_BW + self.forget)
    c_BW = c_BW + jax.nn.sigmoid(put_BW) * jnp.tanh(new_BW)
    h_BD = (jax.nn.sigmoid(out_BW) * jnp.tanh(c_BW)).astype(x_BNW.dtype)
    return project(h_BD, w["project_WD"], 1) if self.units else h_BD, c_BW


@cells.register("gru")
@dataclasses.dataclass(frozen=True)
class GRU(Elman):
  """Mixes the state with a new one. Cho et al., 2014. https://arxiv.org/abs/1406.1078

  h' = z h + (1 - z) tanh(W x + r (U h + b)), the form of cuDNN: the paper multiplies h
  by r before the product. Gates are in the order r, z, new.

  >>> from transformer_jax.numpy_interpreter import evaluate
  >>> w = {"state_DNW": jnp.zeros((1, 3, 1)), "new_shift_W": jnp.zeros(1)}
  >>> x_BNW = jnp.array([[[0.0], [0.0], [9.0]]])  # for r, z and the new state
  >>> (h_BD,) = evaluate(cells.build("gru").step, w, x_BNW, (jnp.array([[0.0]]),))
  >>> round(h_BD.item(), 2)  # half of the old one, 0, and half of the new one, 1
  0.5
  """

  gates: ClassVar[int] = 3

  def weights(self, inputs, D):
    return super().weights(inputs, D) | {"new_shift_W": ((D,), 0)}

  def step(self, w, x_BNW, state):
    (h_BD,) = state
    sum_BNW = project(h_BD, w["state_DNW"], 1)
    reset_BD = jax.nn.sigmoid(x_BNW[:, 0] + sum_BNW[:, 0])
    keep_BD = jax.nn.sigmoid(x_BNW[:, 1] + sum_BNW[:, 1])
    old_BD = sum_BNW[:, 2] + w["new_shift_W"].astype(h_BD.dtype)
    new_BD = jnp.tanh(x_BNW[:, 2] + reset_BD * old_BD)
    return (keep_BD * h_BD + (1 - keep_BD) * new_BD,)


def empty(cell: Elman, B: int, D: int, dtype: str = "float32") -> CellState:
  """Returns the zero state; the LSTM's sum is float32, whatever the dtype.

  cell    the recurrent cell
  B       batch size
  D       width of the output
  dtype   of the output
  """
  h_BD, *rest = (jnp.zeros((B, W), jnp.float32) for W in cell.widths(D))
  return h_BD.astype(dtype), *rest


def ends(at: Coords) -> jax.Array:
  """Returns True at the last token of each text, bool [B, L]."""
  L = at.order_BL.shape[1]
  place_BL = jnp.where(at.real_BL, jnp.arange(L), L)
  # The next token is at the next place, or after a hole in the text.
  next_BL = jax.lax.cummin(place_BL, axis=1, reverse=True)
  next_BL = jnp.pad(next_BL, ((0, 0), (0, 1)), constant_values=L)[:, 1:]
  segment_BL = jnp.pad(at.segment_BL, ((0, 0), (0, 1)))
  goes_on_BL = jnp.take_along_axis(segment_BL, next_BL, axis=1) == at.segment_BL
  return at.real_BL & ~goes_on_BL


def unroll(
  cell: Elman,
  w: Arrays,
  x_BLD: jax.Array,
  at: Coords,
  start: CellState | None,
  state: CellState,
  reverse: bool = False,
  attend: Attend | None = None,
  written_out: bool = False,
) -> tuple[CellState, CellState, jax.Array | None]:
  """Returns the states after every token, the last one, and the contexts.

  Input products of all tokens are computed at once, before the steps. Padding leaves
  the state as it is.

  cell          the recurrent cell
  w             its weights, by name
  x_BLD         inputs
  at            their coordinates
  start         initial states of texts, [B, L, ...], read at first tokens. None: zero
  state         state after the tokens before
  reverse       from right to left
  attend        cross-attention from the previous state, added to each step's input
  written_out   unrolls the loop, so that operations can be counted
  """
  x_BLNW = project_by(x_BLD, w, "input_DNW")
  x_BLNW = x_BLNW + w["shift_NW"].astype(x_BLNW.dtype)
  at = jax.tree.map(lambda x: jnp.broadcast_to(x, x_BLD.shape[:2]), at.replace(data={}))
  begins_BL = ends(at) if reverse else at.order_BL == 0

  def one(w, state, here):
    x_BNW, at_B, begins_B, start = here
    fresh = jax.tree.map(jnp.zeros_like, state) if start is None else start
    state, context_BD = _choose(begins_B, fresh, state), None
    if attend:
      place = jax.tree.map(lambda x_B: x_B[:, None], at_B)
      context_BD = attend(state[0][:, None], place)[:, 0]
      x_BNW = x_BNW + project(context_BD, w["context_DNW"], 1)
    state = _choose(at_B.order_BL >= 0, cell.step(w, x_BNW, state), state)
    return state, (state, context_BD)

  def steps(w, tokens):
    # Gathered before the loop, where no device works on its own examples.
    one_step = functools.partial(one, whole_by_name(w))
    text, state = tokens
    text = _swapped(text)
    unrolled = len(text[0]) if written_out else 1
    last, out = jax.lax.scan(one_step, state, text, reverse=reverse, unroll=unrolled)
    states, context_BLD = _swapped(out)
    return states, last, context_BLD

  tokens = (x_BLNW, at, begins_BL, start), state
  read = {name: x for name, x in w.items() if name not in ("input_DNW", "shift_NW")}
  return steps(read, tokens) if attend else with_whole_weights(steps, read, tokens)


def _swapped(tree: Any) -> Any:
  """Returns a tree with the first two axes of each array swapped."""
  return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), tree)


def _choose(which_B: jax.Array, yes: CellState, no: CellState) -> CellState:
  """Returns the rows of one state where `which_B` is true, else of the other."""
  return jax.tree.map(lambda a, b: jnp.where(which_B[:, None], a, b), yes, no)
